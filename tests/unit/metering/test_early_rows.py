"""Rows that come ahead of their turn, on a real database: stored once, whatever comes when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cloud.kernel.db import Database
from cloud.metering.service import Metering
from decoders import uplink
from decoders.uplink import Ack, Lost
from tests.heard import (
    HOUR,
    NOON,
    Gateway,
    anomaly,
    eui,
    lorawan,
    metering_on,
    published,
    readings,
    report,
    rows_of,
)

LATE = NOON + 9 * HOUR


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Metering]:
    with metering_on(database, tmp_path) as made:
        yield made


def ask(service: Metering, gateway: Gateway, message: bytes) -> Ack:
    answer = service.ingest(message, gateway.id, LATE)
    assert answer is not None
    return uplink.decode_ack(answer)


def ahead(gateway: Gateway, *seqs: int) -> bytes:
    rows = [gateway.sent[seq - 1] for seq in seqs]
    return uplink.encode_batch(replace(gateway.batch(rows, at=LATE), early=True))


def a_gateway(service: Metering) -> Gateway:
    """Return one that holds eight rows: five readings, an alert, a report, a reading."""
    gateway = Gateway()
    gateway.hear(*(lorawan(1, [100 + n], at=NOON + n * HOUR, counter=n) for n in range(5)))
    gateway.hear(anomaly(eui(1), at=NOON + 5 * HOUR), report("source_down", at=NOON + 6 * HOUR))
    gateway.hear(lorawan(1, [108], at=NOON + 8 * HOUR, counter=8))
    assert ask(service, gateway, gateway.message(at=LATE, last=1)).early > 0
    return gateway


def counted(database: Database) -> list[int]:
    tables = ("receptions", "gateway_reports", "alerts")
    return [rows_of(database, f"SELECT count(*) FROM {table}")[0][0] for table in tables]


def test_an_alert_ahead_of_its_turn_is_known_at_once_and_once(
    service: Metering, database: Database
) -> None:
    gateway = a_gateway(service)

    ack = ask(service, gateway, ahead(gateway, 6, 7, 8))

    assert (ack.upto, ack.took, ack.resend_from) == (1, 8, None)
    assert counted(database) == [2, 1, 1]
    assert len(published(database, "anomaly.detected")) == 1

    assert ask(service, gateway, ahead(gateway, 6, 7, 8)).took == 8
    assert ask(service, gateway, gateway.message(at=LATE, first=2)).upto == 8
    assert counted(database) == [6, 1, 1]
    assert len(readings(database)) == 6
    assert len(published(database, "anomaly.detected")) == 1
    assert rows_of(database, "SELECT early::text FROM edge_streams") == [("{}",)]


def test_upto_moves_over_what_came_early_even_when_the_gateway_has_lost_the_rest(
    service: Metering, database: Database
) -> None:
    gateway = a_gateway(service)
    ask(service, gateway, ahead(gateway, 4, 6))
    gone = (Lost(first=2, last=8, from_at=NOON, to_at=LATE),)

    ack = ask(service, gateway, uplink.encode_batch(gateway.batch([], at=LATE, lost=gone)))

    assert ack.upto == 8
    losses = rows_of(database, "SELECT first_seq, last_seq FROM edge_losses ORDER BY 1")
    assert losses == [(2, 3), (5, 5), (7, 8)]


def test_a_row_refused_ahead_of_its_turn_is_one_dead_letter(
    service: Metering, database: Database
) -> None:
    gateway = a_gateway(service)
    gateway.hear(replace(anomaly(eui(1), at=LATE), payload=b"\xff"))

    ack = ask(service, gateway, ahead(gateway, 9))
    assert [code for _, code in ack.rejected] == ["malformed_row"]
    assert ask(service, gateway, gateway.message(at=LATE, first=2)).upto == 9

    assert rows_of(database, "SELECT count(*) FROM row_dead_letters") == [(1,)]
