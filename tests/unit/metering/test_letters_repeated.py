"""A message that comes again and again is one dead letter, which says how often it came."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cbor2
import pytest

from cloud.kernel.db import Database
from cloud.metering.service import Metering
from decoders import uplink
from tests.heard import MINUTE, NOON, Gateway, lorawan, metering_on, rows_of

GOOD = lorawan(99, [1000], at=NOON)


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Metering]:
    with metering_on(database, tmp_path) as made:
        yield made


def letters(database: Database) -> list[tuple[str, int, int]]:
    """Code, attempts, and minutes between the first and the last of them."""
    return rows_of(
        database,
        """SELECT code, attempts, (extract(epoch FROM last_attempt_at - received_at) / 60)::int
           FROM row_dead_letters ORDER BY dead_letter_key""",
    )


def test_the_same_rows_sent_again_later_are_one_letter(
    service: Metering, database: Database
) -> None:
    gateway = Gateway("nobody")
    gateway.hear(GOOD)
    for minute in (0, 1, 2, 1):
        at = NOON + minute * MINUTE
        service.ingest(gateway.message(at=at), "nobody", at)
    gateway.hear(lorawan(98, [5], at=NOON))
    service.ingest(gateway.message(), "nobody", NOON)  # this one says more

    assert letters(database) == [("unknown_gateway", 4, 2), ("unknown_gateway", 1, 0)]


def test_a_long_message_is_one_blob_however_often_it_comes(
    service: Metering, database: Database, tmp_path: Path
) -> None:
    gateway = Gateway("nobody")
    gateway.hear(*(lorawan(n, [100], at=NOON) for n in range(1800)))
    for minute in range(3):
        service.ingest(gateway.message(at=NOON + minute * MINUTE), "nobody", NOON)

    assert letters(database) == [("unknown_gateway", 3, 0)]
    assert sum(path.is_file() for path in (tmp_path / "blobs").rglob("*")) == 1


def test_a_version_of_tomorrow_that_asks_again_is_one_letter(
    service: Metering, database: Database
) -> None:
    for minute in range(3):
        at = NOON + minute * MINUTE
        fields = cbor2.loads(Gateway().message(at=at))
        service.ingest(cbor2.dumps({**fields, "v": 99}), "cerro", at)

    assert letters(database) == [("uplink_version", 3, 2)]


@pytest.mark.parametrize(
    "message",
    [b"\xff not CBOR", bytes(uplink.MAX_MESSAGE_BYTES + 1), cbor2.dumps([1, 2]), b"\xd8\x1c\x81"],
    ids=["no CBOR", "oversized", "no map", "cut off"],
)
def test_unreadable_bytes_are_one_letter_for_each_gateway_they_come_from(
    service: Metering, database: Database, message: bytes
) -> None:
    for gateway in ("cerro", "centro", "cerro"):
        service.ingest(message, gateway, NOON)

    assert [attempts for _, attempts, _ in letters(database)] == [2, 1]


def test_a_letter_that_was_set_aside_does_not_swallow_the_next(
    service: Metering, database: Database
) -> None:
    for _ in range(2):
        service.ingest(b"\xff", "cerro", NOON)
        service.dismiss(
            rows_of(database, "SELECT max(dead_letter_key) FROM row_dead_letters")[0][0]
        )

    assert len(letters(database)) == 2


def test_a_replay_that_is_refused_as_another_letter_already_is_keeps_its_code(
    service: Metering, database: Database
) -> None:
    gateway = Gateway("nobody")
    gateway.hear(GOOD)
    service.ingest(gateway.message(), "nobody", NOON)
    service.set_aside(gateway.message(), "nobody", NOON, detail="ValueError: a bug")

    assert service.replay(2).code == "unknown_gateway"
    assert letters(database) == [("unknown_gateway", 1, 0), ("intake_failed", 2, 0)]
