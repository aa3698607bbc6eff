"""A whole message that was set aside goes through later: each of its rows, each once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.kernel.db import Database
from cloud.metering.service import Metering
from decoders import uplink
from decoders.uplink import Lost, Row, RowKind
from tests.heard import HOUR, NOON, Gateway, anomaly, eui, lorawan, metering_on, report, rows_of
from tests.heard import readings as stored

LATE = NOON + 5 * HOUR


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Metering]:
    with metering_on(database, tmp_path) as made:
        yield made


def hourly(count: int, *, first: int = 0) -> list[Row]:
    return [
        lorawan(1, [100 + n], at=NOON + n * HOUR, counter=n) for n in range(first, first + count)
    ]


def set_aside(service: Metering, gateway: Gateway, *, first: int = 1, last: int) -> None:
    message = gateway.message(at=LATE, first=first, last=last)
    assert service.set_aside(message, gateway.id, LATE, detail="ValueError: a bug")


def give_up(service: Metering, gateway: Gateway, *seqs: int) -> None:
    """The agent declares these rows lost and goes on behind them."""
    lost = [Lost(first=seq, last=seq, from_at=NOON, to_at=NOON) for seq in seqs]
    message = gateway.message(at=LATE, first=max(seqs) + 1, lost=lost)
    assert service.ingest(message, gateway.id, LATE)


def states(database: Database) -> list[tuple[str, int | None]]:
    return rows_of(
        database, "SELECT state, seq FROM row_dead_letters ORDER BY seq NULLS FIRST, state"
    )


def test_a_row_that_its_gateway_gave_up_is_stored_by_a_replay(
    service: Metering, database: Database
) -> None:
    gateway = Gateway()
    gateway.hear(*hourly(2))
    set_aside(service, gateway, last=1)
    give_up(service, gateway, 1)
    assert len(stored(database)) == 1

    replayed = service.replay(1)

    assert (replayed.code, replayed.readings_new) == (None, 1)
    assert stored(database) == [(eui(1), NOON, 100), (eui(1), NOON + HOUR, 101)]
    assert states(database) == [("replayed", None), ("replayed", 1)]
    # the reading points to the message it came in
    assert rows_of(
        database, "SELECT batch_row, first_seq FROM readings JOIN batches USING (batch_key)"
    ) == [(0, 2), (0, 1)]


def test_halves_of_one_message_store_each_row_once(service: Metering, database: Database) -> None:
    gateway = Gateway()
    gateway.hear(
        *hourly(2), report("source_down", at=NOON, source="radio"), anomaly(eui(1), at=NOON)
    )
    for last in (4, 3, 2, 1):
        set_aside(service, gateway, last=last)
    set_aside(service, gateway, first=3, last=4)
    give_up(service, gateway, 1, 2, 3, 4)
    assert stored(database) == []

    for letter in (4, 1, 2, 3, 5):
        assert service.replay(letter).code is None

    assert len(stored(database)) == 2
    assert rows_of(database, "SELECT count(*) FROM receptions") == [(2,)]
    assert rows_of(database, "SELECT count(*) FROM gateway_reports") == [(1,)]
    assert rows_of(database, "SELECT count(*) FROM alerts") == [(1,)]
    assert rows_of(database, "SELECT frames_total FROM gateways WHERE id = 'cerro'") == [(2,)]


def test_rows_that_came_again_by_themselves_are_not_stored_twice(
    service: Metering, database: Database
) -> None:
    gateway = Gateway()
    gateway.hear(*hourly(2), report("source_down", at=NOON, source="radio"))
    set_aside(service, gateway, last=3)
    assert service.ingest(gateway.message(at=LATE), "cerro", LATE)

    assert service.replay(1).code is None

    for table, rows in (("readings", 2), ("receptions", 2), ("gateway_reports", 1)):
        assert rows_of(database, f"SELECT count(*) FROM {table}") == [(rows,)]


def test_a_row_refused_by_a_replay_has_a_letter_of_its_own(
    service: Metering, database: Database
) -> None:
    gateway = Gateway()
    gateway.hear(Row(seq=0, heard_at=NOON, kind=RowKind.LORAWAN, payload=b"\xff"), *hourly(2))
    set_aside(service, gateway, last=2)
    give_up(service, gateway, 1, 2)

    replayed = service.replay(1)

    assert (replayed.code, replayed.readings_new) == (None, 1)
    assert states(database) == [("replayed", None), ("open", 1), ("replayed", 2)]
    letter = "SELECT code, bytes FROM row_dead_letters WHERE state = 'open'"
    [(code, data)] = rows_of(database, letter)
    assert (code, bytes(data)) == ("unknown_format", b"\xff")


def test_a_message_stays_open_while_rows_before_it_are_missing(
    service: Metering, database: Database
) -> None:
    gateway = Gateway()
    gateway.hear(*hourly(3))
    set_aside(service, gateway, first=2, last=3)

    waiting = service.replay(1)

    assert waiting.code == "intake_failed"
    assert "row 1" in waiting.detail
    assert states(database) == [("open", None)]
    assert service.ingest(gateway.message(at=LATE, last=1), "cerro", LATE)
    assert service.replay(1).code is None
    assert len(stored(database)) == 3
    assert states(database) == [("replayed", None)]
    assert uplink.decode_ack(gateway_answer(service, gateway)).upto == 3


def gateway_answer(service: Metering, gateway: Gateway) -> bytes:
    answer = service.ingest(gateway.message(at=LATE), gateway.id, LATE)
    assert answer is not None
    return answer


def test_a_hello_of_a_gateway_that_was_registered_later_goes_through(
    service: Metering, database: Database, tmp_path: Path
) -> None:
    assert service.ingest(Gateway("nobody").message(), "nobody", NOON) is None
    assert service.replay(1).code == "unknown_gateway"
    with metering_on(database, tmp_path, gateways=["nobody"]):
        assert service.replay(1).code is None

    assert states(database) == [("replayed", None)]
