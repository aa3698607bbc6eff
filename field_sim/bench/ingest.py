"""Intake against the bare database: the same rows, the same run, two processes each.

"Bare" is a binary COPY of a buffer that was built before the clock started, into a temporary
table, and one sorted INSERT … ON CONFLICT DO NOTHING into a table like `readings`. Ours begins at
the bytes of the MQTT message: CBOR, decoding, identities, plausibility, the raw blob, receptions,
readings, meter states, events, commit. Rounds alternate, the medians are compared.

Encrypted telegrams come as `bench decode` makes them, one full frame to seven compact ones, in full
messages of 4,096. They are compared with `decode_batch` and nothing else, of the same frames, by a
decoder that knows keys and layouts as intake does in service. Both sides are two Python processes;
ours also has a PostgreSQL backend for each, which on two cores takes from the same two cores.
What that alone costs is a row without an asked bound: the bare merge of the telegrams' readings,
built beforehand and with nothing decoded, beside the same decoder. It stores readings only, ours
also every reception, the meters' states, the events and the raw message.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

from cloud.kernel import db, postgres
from cloud.kernel.clock import from_us
from cloud.kernel.config import GatewayConfig
from cloud.kernel.db import Database
from cloud.metering.registry import NewMeter
from field_sim.bench.decode import key_of, meter_id
from field_sim.bench.ingest_crew import (
    BATCHES,
    HOUR_US,
    HOURS,
    METERS,
    PROCESSES,
    ROUNDS,
    START_US,
    TELEGRAM_BATCHES,
    TELEGRAMS,
    Place,
    gateway_id,
    work,
)

ASKED_PROFILES = 0.50  # of the bare sorted merge
ASKED_TELEGRAMS = 0.60  # of decoding alone
Progress = Callable[[str], None]
Figure = dict[str, Any]


def run(progress: Progress) -> list[Figure]:
    """Measure; return the figures. Takes about two minutes on two cores."""
    with tempfile.TemporaryDirectory(prefix="aquacis-bench-") as folder:
        Path(folder).chmod(0o711)
        state = Path(folder)
        with postgres.ensure(state / "server") as server:
            database = Database(server.dsn(), server.passwords_path)
            database.migrate([db.context("metering")])
            place = Place(
                admin_dsn=server.dsn(), passwords=server.passwords_path, state=state / "cloud"
            )
            (state / "cloud").mkdir()
            _prepare(place)
            with _crew(place) as crew:
                return [*_profiles(place, crew, progress), *_telegrams(crew, progress)]


def _profiles(place: Place, crew: list[Pipe], progress: Progress) -> list[Figure]:
    _round(crew, "profiles", 0, 1)
    _round(crew, "bare", 0, 1)
    ours: list[float] = []
    bare: list[float] = []
    before = _sizes(place)
    wal = 0
    for number in range(ROUNDS):
        for what in ("profiles", "bare") if number % 2 else ("bare", "profiles"):
            at = _wal(place)
            seconds = _round(crew, what, 1 + number * BATCHES, BATCHES)
            rate = PROCESSES * BATCHES * METERS * HOURS / seconds
            (ours if what == "profiles" else bare).append(rate)
            wal += _wal(place) - at if what == "profiles" else 0
            progress(f"ingest round {number + 1}/{ROUNDS}: {what} {rate:,.0f} readings/s")
    readings = ROUNDS * PROCESSES * BATCHES * METERS * HOURS
    after = _sizes(place)
    rate, limit = statistics.median(ours), statistics.median(bare)
    figures = [_figure("hourly_profiles", rate, limit, ASKED_PROFILES, "readings/s")]
    sizes = {name: (after[name] - before[name]) / readings for name in after} | {
        "wal": wal / readings
    }
    return figures + [
        _figure(f"bytes_per_reading_{name}", size, None, None, "B") for name, size in sizes.items()
    ]


def _telegrams(crew: list[Pipe], progress: Progress) -> list[Figure]:
    tasks = ("telegrams", "decode", "bare_telegrams")
    for what in tasks:
        _round(crew, what, 0, 1)
    rates: dict[str, list[float]] = {what: [] for what in tasks}
    for number in range(ROUNDS):
        for what in tasks if number % 2 else reversed(tasks):
            seconds = _round(crew, what, 1 + number * TELEGRAM_BATCHES, TELEGRAM_BATCHES)
            rate = PROCESSES * TELEGRAM_BATCHES * TELEGRAMS / seconds
            rates[what].append(rate)
            progress(f"ingest round {number + 1}/{ROUNDS}: {what} {rate:,.0f} telegrams/s")
    ours, decoding, merging = (statistics.median(rates[what]) for what in tasks)
    return [
        _figure("encrypted_wmbus", ours, decoding, ASKED_TELEGRAMS, "telegrams/s"),
        _figure("bare_merge_of_their_readings", merging, decoding, None, "readings/s"),
        _figure("encrypted_wmbus_to_bare_merge", ours, merging, None, "telegrams/s"),
    ]


def _figure(
    name: str, measured: float, limit: float | None, asked: float | None, unit: str
) -> Figure:
    ratio = None if limit is None else measured / limit
    return {
        "bench": "ingest",
        "figure": name,
        "value": round(measured, 1),
        "unit": unit,
        "limit": None if limit is None else round(limit, 1),
        "ratio": None if ratio is None else round(ratio, 3),
        "asked": asked,
        "holds": None if ratio is None or asked is None else ratio >= asked,
    }


def _prepare(place: Place) -> None:
    """Register gateways, the wM-Bus meters' keys, and a table like `readings` for the bare way."""
    with place.metering() as service:
        service.register_gateways(
            [GatewayConfig(id=gateway_id(n), administration="queretaro") for n in range(PROCESSES)]
        )
        service.import_meters(
            [
                NewMeter(name=str(meter_id(n)), administration="queretaro", key=key_of(n))
                for n in range(PROCESSES * TELEGRAMS)
            ]
        )
    days = (BATCHES * ROUNDS + 2) * HOURS // 24 + 2
    with place.database.connect("metering") as connection:
        connection.execute(
            """CREATE TABLE bare_readings (LIKE readings INCLUDING ALL)
               PARTITION BY RANGE (register_at)"""
        )
        for day in range(days):
            connection.execute(
                """SELECT ensure_partition('bare_readings', 'bare_readings_' || %s, %s, %s)""",
                [
                    day,
                    from_us(START_US + 24 * day * HOUR_US),
                    from_us(START_US + 24 * (day + 1) * HOUR_US),
                ],
            )


def _sizes(place: Place) -> dict[str, float]:
    with place.database.connect_admin() as admin:
        row = admin.execute(
            """SELECT sum(pg_relation_size(inhrelid)), sum(pg_indexes_size(inhrelid))
               FROM pg_inherits WHERE inhparent = 'metering.readings'::regclass"""
        ).fetchone()
    assert row is not None
    raw = sum(file.stat().st_size for file in (place.state / "blobs").rglob("*") if file.is_file())
    return {"heap": float(row[0] or 0), "index": float(row[1] or 0), "raw": float(raw)}


def _wal(place: Place) -> int:
    with place.database.connect_admin() as admin:
        row = admin.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def _crew(place: Place) -> Iterator[list[Pipe]]:
    """Start the worker processes; each obeys (what, first batch, batches) and reports seconds."""
    context = multiprocessing.get_context("spawn")
    pipes, workers = [], []
    for number in range(PROCESSES):
        ours, theirs = context.Pipe()
        worker = context.Process(target=work, args=(theirs, place, number), daemon=True)
        worker.start()
        pipes.append(ours)
        workers.append(worker)
    try:
        yield pipes
    finally:
        for pipe in pipes:
            pipe.send(None)
        for worker in workers:
            worker.join(10)


def _round(crew: list[Pipe], what: str, first: int, batches: int) -> float:
    """Let every worker prepare, then work at once; return seconds from start to the last's end."""
    for pipe in crew:
        pipe.send((what, first, batches))
    for pipe in crew:
        assert pipe.recv() == "ready"
    begun_s = time.perf_counter()
    for pipe in crew:
        pipe.send("go")
    for pipe in crew:
        assert pipe.recv() == "done"
    return time.perf_counter() - begun_s
