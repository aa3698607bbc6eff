"""Two workers at once, on one database: no deadlock, nothing twice, nothing lost."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from cloud.kernel.db import Database
from cloud.metering.service import Metering
from decoders.uplink import decode_ack
from tests.heard import HOUR, NOON, Gateway, lorawan, metering_on, readings, rows_of

METERS = 40
HOURS = 24


def send_all(service: Metering, gateway: Gateway, start: threading.Barrier, order: int) -> None:
    """Send every hour of every meter, `order` = -1 backwards, in batches of one hour."""
    start.wait(30)
    for hour in range(HOURS)[::order]:
        at = NOON + hour * HOUR
        rows = [
            lorawan(meter, [1000 + hour + 1, 1000 + hour], at=at, counter=hour)
            for meter in range(METERS)[::order]
        ]
        gateway.send(service, *rows, at=NOON + HOURS * HOUR)


def test_two_workers_with_the_same_meters_in_opposite_order_do_not_deadlock(
    database: Database, tmp_path: Path
) -> None:
    start = threading.Barrier(2)
    with (
        metering_on(database, tmp_path) as one,
        metering_on(database, tmp_path) as two,
        ThreadPoolExecutor(2) as pool,
    ):
        jobs = [
            pool.submit(send_all, one, Gateway("cerro"), start, 1),
            pool.submit(send_all, two, Gateway("centro"), start, -1),
        ]
        for job in jobs:
            job.result(120)

    assert len(readings(database)) == METERS * (HOURS + 1)
    assert rows_of(database, "SELECT count(*) FROM meters") == [(METERS,)]
    assert rows_of(database, "SELECT count(*) FROM receptions") == [(2 * METERS * HOURS,)]
    assert rows_of(database, "SELECT sum(readings_new) FROM batches") == [(METERS * (HOURS + 1),)]
    assert rows_of(database, "SELECT count(*) FROM reading_conflicts") == [(0,)]


def test_one_stream_taken_by_two_workers_is_taken_once(database: Database, tmp_path: Path) -> None:
    gateway = Gateway()
    gateway.hear(*(lorawan(n, [7], at=NOON) for n in range(50)))
    message = gateway.message()
    start = threading.Barrier(2)

    def ingest(service: Metering) -> bytes | None:
        start.wait(30)
        return service.ingest(message, "cerro", NOON)

    with (
        metering_on(database, tmp_path) as one,
        metering_on(database, tmp_path) as two,
        ThreadPoolExecutor(2) as pool,
    ):
        answers = list(pool.map(ingest, [one, two]))

    told = [decode_ack(answer) for answer in answers if answer is not None]
    assert sorted(ack.seen for ack in told) == [0, 50]  # what was known before the message came
    assert replace(told[0], seen=0) == replace(told[1], seen=0)
    assert len(readings(database)) == 50
    assert rows_of(database, "SELECT count(*) FROM receptions") == [(50,)]


def test_a_partition_is_made_while_another_transaction_writes(
    database: Database, tmp_path: Path
) -> None:
    """A writer that never ends must not stop the making of tomorrow's partition."""
    with metering_on(database, tmp_path) as service, database.connect("metering") as busy:
        Gateway().send(service, lorawan(1, [7], at=NOON))
        busy.execute("UPDATE readings SET quality = quality")  # holds its locks on the parent
        busy.execute("SELECT * FROM readings")
        Gateway("centro").send(service, lorawan(2, [7], at=NOON - 48 * HOUR))

    assert len(readings(database)) == 2
