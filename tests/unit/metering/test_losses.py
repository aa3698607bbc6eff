"""Which losses of gateways are recorded when clocks are wrong and reports follow each other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloud.kernel.db import Database
from cloud.metering.service import Metering
from decoders import uplink
from decoders.uplink import Gap, LossKind, Lost
from tests.heard import (
    HOUR,
    MINUTE,
    NOON,
    SECOND,
    Gateway,
    lorawan,
    metering_on,
    published,
    rows_of,
)

LATE = NOON + 5 * HOUR
LOSSES = """SELECT stream, first_seq, last_seq, reason, certain FROM edge_losses
            ORDER BY loss_key"""


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Metering]:
    with metering_on(database, tmp_path) as made:
        yield made


def hourly(count: int, *, first: int = 0) -> list[uplink.Row]:
    return [
        lorawan(1, [100 + n], at=NOON + n * HOUR, counter=n + 9)
        for n in range(first, first + count)
    ]


def losses(database: Database) -> list[tuple[object, ...]]:
    return [(bytes(stream)[:1], *rest) for stream, *rest in rows_of(database, LOSSES)]


@pytest.mark.parametrize("apart", [0, MINUTE], ids=["at the same instant", "later"])
def test_a_loss_is_found_although_the_outbox_says_it_was_made_in_1970(
    service: Metering, database: Database, apart: int
) -> None:
    Gateway(stream=b"a" * 16).send(service, *hourly(2), at=LATE)
    no_clock = Gateway(stream=b"b" * 16, started_at=0)
    no_clock.hear(*hourly(5, first=2))
    assert service.ingest(no_clock.message(at=LATE, last=2), "cerro", LATE + apart)
    Gateway(stream=b"c" * 16, started_at=LATE).hello(service, at=LATE + HOUR)

    assert losses(database) == [
        (b"a", 3, None, "new_stream", False),
        (b"b", 3, 5, "new_stream", True),
    ]


def test_a_declared_loss_is_recorded_beside_an_earlier_possible_one(
    service: Metering, database: Database
) -> None:
    old = Gateway(stream=b"a" * 16)
    old.send(service, *hourly(2), at=LATE)
    Gateway(stream=b"n" * 16, started_at=LATE).hello(service, at=LATE)
    old.hear(*hourly(3, first=2))
    lost = Lost(first=3, last=4, from_at=NOON, to_at=NOON)
    service.ingest(old.message(at=LATE, first=5, lost=[lost]), "cerro", LATE)

    assert losses(database) == [
        (b"a", 3, None, "new_stream", False),
        (b"a", 3, 4, "declared", True),
    ]
    assert len(published(database, "edge.loss.reported")) == 2


def test_a_possible_loss_becomes_certain_and_longer_and_never_the_other_way(
    service: Metering, database: Database
) -> None:
    old = Gateway(stream=b"a" * 16)
    old.send(service, *hourly(2), at=LATE)
    streams = (Gateway(stream=bytes([n]) * 16, started_at=LATE + n) for n in range(1, 9))
    for known, hour in [(0, 1), (1, 2), (3, 3), (0, 4)]:
        next(streams).hello(service, at=LATE + hour * HOUR)
        old.hear(*hourly(known, first=len(old.sent)))
        old.hello(service, at=LATE + hour * HOUR + MINUTE)

    of_old = [loss for loss in losses(database) if loss[0] == b"a"]
    assert of_old == [(b"a", 3, 6, "new_stream", True)]
    bodies = [event.body() for event in published(database, "edge.loss.reported")]
    told = [body["last_seq"] for body in bodies if body["stream"].startswith("6161")]
    assert told == [None, 3, 6]


def test_bounds_of_a_declared_loss_are_corrected_by_the_gateways_clock(
    service: Metering, database: Database
) -> None:
    gateway = Gateway(ahead=40 * MINUTE)
    gateway.hello(service)
    gateway.hello(service)
    gateway.hear(*hourly(3, first=-3))
    first, last = gateway.sent[0].heard_at, gateway.sent[1].heard_at
    lost = Lost(first=1, last=2, from_at=first, to_at=last)
    service.ingest(gateway.message(first=3, lost=[lost]), "cerro", NOON + SECOND)

    [event] = published(database, "edge.loss.reported")
    body = event.body()
    assert (body["from_at"], body["to_at"]) == (NOON - 3 * HOUR, NOON - 2 * HOUR)


def test_what_a_full_gateway_gave_up_between_its_rows_is_recorded_row_by_row(
    service: Metering, database: Database
) -> None:
    cerro = Gateway(stream=b"a" * 16)
    cerro.hear(*hourly(6))
    message = uplink.decode_batch(cerro.message(at=LATE))
    kept = [row for row in message.rows if row.seq in (1, 4, 6)]
    gaps = (
        Gap(first=2, count=2, kind=LossKind.SUB_HOURLY, from_at=NOON, to_at=LATE),
        Gap(first=5, count=1, kind=LossKind.SUB_HOURLY, from_at=NOON, to_at=LATE),
    )
    thinned = replace(message, rows=uplink.pack_rows(kept), gaps=gaps)

    answer = service.ingest(uplink.encode_batch(thinned), "cerro", LATE)

    assert answer is not None
    assert uplink.decode_ack(answer).upto == 6
    [(kind, rows, there)] = rows_of(
        database, "SELECT kind, rows, seqs @> 5::bigint AND NOT seqs @> 4::bigint FROM edge_losses"
    )
    assert (kind, rows, there) == ("sub_hourly", 3, True)
    [said] = published(database, "edge.loss.reported")
    event = json.loads(said.data)
    assert (event["kind"], event["rows"]) == ("sub_hourly", 3)
