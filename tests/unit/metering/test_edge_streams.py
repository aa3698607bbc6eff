"""The cloud's half of the edge protocol on a real database: streams, losses, restored clouds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.kernel.db import Database
from cloud.metering.service import Metering
from decoders import uplink
from decoders.uplink import Ack, Lost
from tests.heard import (
    HOUR,
    MINUTE,
    NOON,
    SECOND,
    Gateway,
    lorawan,
    metering_on,
    published,
    readings,
    rows_of,
)


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Metering]:
    with metering_on(database, tmp_path) as made:
        yield made


def hourly(count: int, *, first: int = 0) -> list[uplink.Row]:
    return [
        lorawan(1, [100 + n], at=NOON + n * HOUR, counter=n) for n in range(first, first + count)
    ]


def ask(service: Metering, gateway: Gateway, message: bytes, *, at: int = NOON) -> Ack:
    answer = service.ingest(message, gateway.id, at)
    assert answer is not None
    return uplink.decode_ack(answer)


def test_the_same_message_twice_is_acknowledged_twice_and_stored_once(
    service: Metering, database: Database
) -> None:
    gateway = Gateway()
    gateway.hear(*hourly(3))
    message = gateway.message(at=NOON + 3 * HOUR)

    acks = [ask(service, gateway, message, at=NOON + 3 * HOUR) for _ in range(2)]

    assert [ack.upto for ack in acks] == [3, 3]
    assert len(readings(database)) == 3
    for table in ("batches", "receptions"):
        [(rows,)] = rows_of(database, f"SELECT count(*) FROM {table}")
        assert rows == {"batches": 1, "receptions": 3}[table]


def test_a_gap_is_asked_for_and_nothing_beyond_it_is_stored(
    service: Metering, database: Database
) -> None:
    gateway = Gateway()
    gateway.hear(*hourly(4))
    late = NOON + 4 * HOUR
    assert ask(service, gateway, gateway.message(at=late, last=1), at=late).upto == 1
    ack = ask(service, gateway, gateway.message(at=late, first=3), at=late)

    assert (ack.upto, ack.resend_from) == (1, 2)
    assert len(readings(database)) == 1
    assert ask(service, gateway, gateway.message(at=late, first=2), at=late).upto == 4


def test_the_same_bytes_go_on_where_a_gap_inside_them_stopped(
    service: Metering, database: Database
) -> None:
    gateway = Gateway()
    gateway.hear(*hourly(4))
    late = NOON + 4 * HOUR
    holed = uplink.encode_batch(gateway.batch([gateway.sent[0], gateway.sent[2]], at=late))
    assert ask(service, gateway, holed, at=late).resend_from == 2
    ask(service, gateway, gateway.message(at=late, first=2, last=2), at=late)

    assert ask(service, gateway, holed, at=late).upto == 3
    assert len(readings(database)) == 3


def test_declared_losses_are_recorded_and_published_with_their_bounds(
    service: Metering, database: Database
) -> None:
    gateway = Gateway()
    gateway.hear(*hourly(4))
    late = NOON + 4 * HOUR
    lost = Lost(first=1, last=2, from_at=NOON, to_at=NOON + HOUR)
    ack = ask(service, gateway, gateway.message(at=late, first=3, lost=[lost]), at=late)

    assert ack.upto == 4
    [event] = published(database, "edge.loss.reported")
    body = event.body()
    assert (body["gateway"], body["first_seq"], body["last_seq"]) == ("cerro", 1, 2)
    assert (body["reason"], body["certain"]) == ("declared", True)
    assert (body["from_at"], body["to_at"]) == (NOON, NOON + HOUR)
    ask(service, gateway, gateway.message(at=late, first=3, lost=[lost]), at=late)
    assert rows_of(database, "SELECT count(*) FROM edge_losses") == [(1,)]


def test_a_reflashed_gateway_begins_a_new_stream_and_its_loss_is_known(
    service: Metering, database: Database
) -> None:
    old = Gateway()
    old.hear(*hourly(5))
    at = NOON + 5 * HOUR
    ask(service, old, old.message(at=at, last=3), at=at)
    new = Gateway(stream=b"n" * 16, started_at=at + MINUTE)
    new.hear(*hourly(1, first=6))
    ack = ask(service, new, new.message(at=at + 2 * MINUTE), at=at + HOUR)

    assert (ack.stream, ack.upto) == (b"n" * 16, 1)
    assert rows_of(database, "SELECT first_seq, last_seq, reason, certain FROM edge_losses") == [
        (4, 5, "new_stream", True)
    ]
    [event] = published(database, "edge.loss.reported")
    assert event.body()["from_at"] == NOON + 2 * HOUR  # the last row that came
    assert event.body()["to_at"] == at + MINUTE  # the new outbox began
    assert len(readings(database)) == 4


def test_a_new_stream_after_everything_came_is_a_possible_loss(
    service: Metering, database: Database
) -> None:
    old = Gateway()
    old.send(service, *hourly(2), at=NOON + 2 * HOUR)
    Gateway(stream=b"n" * 16, started_at=NOON + 3 * HOUR).hello(service, at=NOON + 3 * HOUR)

    assert rows_of(database, "SELECT first_seq, last_seq, certain FROM edge_losses") == [
        (3, None, False)
    ]


def test_a_restored_cloud_is_told_by_the_gateways_hello(
    service: Metering, database: Database
) -> None:
    gateway = Gateway()
    gateway.send(service, *hourly(2), at=NOON + 2 * HOUR)
    gateway.acked = 9

    assert gateway.hello(service, at=NOON + 3 * HOUR).resend_from == 3


def test_after_a_restore_every_stream_is_asked_once(service: Metering) -> None:
    gateway = Gateway()
    gateway.send(service, *hourly(2), at=NOON + 2 * HOUR)

    assert service.mark_all_for_resend() == 1
    [(name, request)] = service.resend_requests()
    ack = uplink.decode_ack(request)
    assert (name, ack.stream, ack.upto, ack.resend_from) == ("cerro", gateway.stream, 2, 3)
    assert gateway.hello(service, at=NOON + 3 * HOUR).resend_from == 3
    assert gateway.hello(service, at=NOON + 3 * HOUR).resend_from is None
    assert service.resend_requests() == []


def test_a_hello_stores_no_batch_and_says_where_the_stream_is(
    service: Metering, database: Database
) -> None:
    ack = Gateway().hello(service)

    assert (ack.upto, ack.resend_from) == (0, None)
    assert ack.credit > uplink.MAX_ROWS
    assert rows_of(database, "SELECT count(*) FROM batches") == [(0,)]
    assert rows_of(
        database, "SELECT agent_version, capabilities FROM gateways WHERE id = 'cerro'"
    ) == [("test 1", ["ack"])]


def test_two_gateways_forty_minutes_apart_give_one_reading_an_instant_and_no_conflict(
    service: Metering, database: Database
) -> None:
    right, wrong = Gateway("cerro"), Gateway("centro", ahead=40 * MINUTE)
    registers = [1000 + 10 * n for n in range(64)]
    for hour in range(31, 64):
        at = NOON + hour * HOUR
        row = lorawan(
            1, registers[hour - 31 : hour + 1][::-1], at=at, heard_at=at + SECOND, counter=hour
        )
        for gateway in (right, wrong):
            gateway.send(service, row, at=at + 2 * SECOND)

    stored = [(at, litres) for _, at, litres in readings(database)]
    assert stored == [(NOON + n * HOUR, registers[n]) for n in range(64)]
    assert rows_of(database, "SELECT count(*) FROM reading_conflicts") == [(0,)]
