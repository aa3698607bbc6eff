"""What gateways say about themselves is kept as it came; what they could not read, as letters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud.kernel.db import Database
from cloud.metering.dead_letters import REJECTED
from cloud.metering.service import Metering
from tests.heard import NOON, Gateway, metering_on, report, rows_of

LINE = b'{"telegram_hex": "2e44\xff\x00"}'
LETTERS = """SELECT code, detail, state, seq, row_kind, bytes FROM row_dead_letters
             ORDER BY dead_letter_key"""


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Metering]:
    with metering_on(database, tmp_path) as made:
        yield made


def bad_input(**says: Any) -> Any:
    told = {"code": "malformed", "source": "radio", "detail": "JSON: no", "given": LINE, **says}
    return report("bad_input", at=NOON, **told)


def test_input_that_an_agent_could_not_read_is_a_dead_letter_with_its_bytes(
    service: Metering, database: Database
) -> None:
    before = REJECTED.labels("input_malformed")._value.get()
    ack = Gateway().send(service, bad_input())

    assert ack.rejected == ((1, "input_malformed"),)
    [(code, detail, state, seq, kind, data)] = rows_of(database, LETTERS)
    assert (code, detail, state, seq, kind) == (
        "input_malformed",
        "radio: JSON: no",
        "open",
        1,
        4,
    )
    assert bytes(data) == LINE
    assert REJECTED.labels("input_malformed")._value.get() == before + 1
    assert rows_of(database, "SELECT count(*) FROM gateway_reports") == [(0,)]


def test_a_replay_of_such_input_changes_nothing(service: Metering, database: Database) -> None:
    Gateway().send(service, bad_input())
    before = rows_of(database, LETTERS)

    replayed = service.replay(1)

    assert (replayed.code, replayed.readings_new) == ("input_malformed", 0)
    assert "nothing" in replayed.detail
    assert rows_of(database, LETTERS) == before


@pytest.mark.parametrize(
    ("says", "code"),
    [
        ({"code": "oversized"}, "input_oversized"),
        ({"code": "internal", "given": b""}, "input_internal"),
        ({"code": "made\0up"}, "input_malformed"),
        ({"code": 7}, "malformed_row"),
        ({"given": "text"}, "malformed_row"),
    ],
)
def test_such_input_has_one_of_our_codes_whatever_the_agent_says(
    service: Metering, database: Database, says: dict[str, Any], code: str
) -> None:
    Gateway().send(service, bad_input(**says))

    assert [letter[0] for letter in rows_of(database, LETTERS)] == [code]


def test_bytes_in_a_report_are_kept_as_hex(service: Metering, database: Database) -> None:
    Gateway().send(service, report("source_down", at=NOON, last=bytes(range(200)), source="a\0"))

    [(kind, payload)] = rows_of(database, "SELECT kind, payload FROM gateway_reports")
    assert kind == "source_down"
    assert payload == {
        "kind": "source_down",
        "last": bytes(range(200)).hex(),
        "source": "a",
    }
