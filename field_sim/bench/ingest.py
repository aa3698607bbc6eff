"""Intake against the bare database: the same rows, the same run, two processes each.

"Bare" is a binary COPY of a buffer that was built before the clock started, into a temporary
table, and one sorted INSERT … ON CONFLICT DO NOTHING into a table like `readings`. Ours begins at
the bytes of the MQTT message: CBOR, decoding, identities, plausibility, the raw blob, receptions,
readings, meter states, events, commit. Rounds alternate, the medians are compared.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import numpy as np

from cloud.kernel import db, postgres
from cloud.kernel.blobs import FolderBlobs
from cloud.kernel.clock import from_us
from cloud.kernel.config import QUERETARO, GatewayConfig
from cloud.kernel.db import Database
from cloud.kernel.keyvault import FileKeyVault
from cloud.metering import reading_store
from cloud.metering.copying import Column, instants, rows_for, whole
from cloud.metering.registry import NewMeter
from cloud.metering.service import Metering
from decoders import uplink
from decoders.batch import decode_rows
from decoders.encode import (
    encode_lorawan_hourly,
    encode_wmbus,
    kamstrup_multical_records,
    local_us,
    session_number,
)
from decoders.formats import Formats
from decoders.ids import MeterId
from decoders.uplink import Batch, Row, RowKind
from decoders.value import value

PROCESSES = 2
METERS = 1560  # of each process: 24 h of a gateway's share, as frames of one batch
HOURS = 32  # readings in a frame
BATCHES = 6  # of each process and round
ROUNDS = 5
TELEGRAMS = 2000  # encrypted ones, in a batch
TELEGRAM_BATCHES = 3
ASKED_PROFILES = 0.50  # of the bare sorted merge
START_US = 1_767_225_600_000_000  # 2026-01-01
HOUR_US = 3_600_000_000
SEED = 7
_EUI = 0x0013_EA00_0000_0000

Progress = Callable[[str], None]
Figure = dict[str, Any]


@value
class Place:
    """Where the workers find the parts."""

    admin_dsn: str
    passwords: Path
    state: Path

    @property
    def database(self) -> Database:
        return Database(self.admin_dsn, self.passwords)

    def metering(self) -> Metering:
        return Metering(
            self.database,
            blobs=FolderBlobs(self.state / "blobs"),
            vault=FileKeyVault(self.state / "keys" / "kek.json"),
            administrations=(QUERETARO,),
            clock=lambda: START_US,
        )


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
    _round(crew, "telegrams", 0, 1)
    ours: list[float] = []
    bare: list[float] = []
    for number in range(ROUNDS):
        for what in ("telegrams", "decode") if number % 2 else ("decode", "telegrams"):
            seconds = _round(crew, what, 1 + number * TELEGRAM_BATCHES, TELEGRAM_BATCHES)
            rate = PROCESSES * TELEGRAM_BATCHES * TELEGRAMS / seconds
            (ours if what == "telegrams" else bare).append(rate)
            progress(f"ingest round {number + 1}/{ROUNDS}: {what} {rate:,.0f} telegrams/s")
    rate, limit = statistics.median(ours), statistics.median(bare)
    return [_figure("encrypted_wmbus", rate, limit, None, "telegrams/s")]


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
            [GatewayConfig(id=_gateway(n), administration="queretaro") for n in range(PROCESSES)]
        )
        service.import_meters(
            [
                NewMeter(name=str(_meter(n)), administration="queretaro", key=_key(n))
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
        worker = context.Process(target=_work, args=(theirs, place, number), daemon=True)
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


def _work(pipe: Pipe, place: Place, number: int) -> None:
    worker = _Worker(place, number)
    while (order := pipe.recv()) is not None:
        what, first, batches = order
        job = getattr(worker, what)(first, batches)
        pipe.send("ready")
        assert pipe.recv() == "go"
        job()
        pipe.send("done")
    worker.close()


class _Worker:
    """One process: its gateway, its meters, its connections."""

    def __init__(self, place: Place, number: int) -> None:
        self._number = number
        self._service = place.metering()
        self._bare = place.database.connect("metering")
        reading_store.prepare(self._bare)
        self._bare.commit()
        self._seq = 0
        self._hourly = _registers(number)
        self._keys = {str(_meter(n)): _key(n) for n in range(PROCESSES * TELEGRAMS)}

    def close(self) -> None:
        self._service.close()
        self._bare.close()

    def profiles(self, first: int, batches: int) -> Callable[[], None]:
        messages = [self._profile_message(n) for n in range(first, first + batches)]
        return lambda: self._ingest(messages)

    def telegrams(self, first: int, batches: int) -> Callable[[], None]:
        messages = [self._telegram_message(n) for n in range(first, first + batches)]
        return lambda: self._ingest(messages)

    def bare(self, first: int, batches: int) -> Callable[[], None]:
        buffers = [rows_for(self._columns(n)) for n in range(first, first + batches)]
        return lambda: self._merge(buffers)

    def decode(self, first: int, batches: int) -> Callable[[], None]:
        seq = self._seq
        rows = [
            uplink.decode_batch(message).rows
            for message, _ in (self._telegram_message(n) for n in range(first, first + batches))
        ]
        self._seq = seq
        formats = Formats()

        def job() -> None:
            for each in rows:
                assert decode_rows(each, keys=self._keys.get, formats=formats).has_register.all()

        return job

    def _ingest(self, messages: list[tuple[bytes, int]]) -> None:
        for message, at in messages:
            answer = self._service.ingest(message, _gateway(self._number), at)
            assert answer is not None
            assert not uplink.decode_ack(answer).rejected

    def _merge(self, buffers: list[bytes | bytearray]) -> None:
        for buffer in buffers:
            with self._bare.cursor() as cursor:
                with cursor.copy(_COPY) as copy:
                    copy.write(buffer)
                cursor.execute(_INSERT)
            self._bare.commit()

    def _profile_message(self, batch: int) -> tuple[bytes, int]:
        newest = START_US + ((batch + 1) * HOURS - 1) * HOUR_US
        local = local_us(utc_us=newest, offset_s=QUERETARO.meter_clock_offset_s)
        hours = slice(batch * HOURS, (batch + 1) * HOURS)
        rows = [
            Row(
                seq=0,
                heard_at=newest,
                kind=RowKind.LORAWAN,
                radio=_EUI + self._number * METERS + meter,
                counter=batch,
                port=1,
                rssi=-90,
                snr=20,
                payload=encode_lorawan_hourly(registers[hours][::-1].tolist(), local_us=local),
            )
            for meter, registers in enumerate(self._hourly)
        ]
        return self._message(rows, newest)

    def _telegram_message(self, batch: int) -> tuple[bytes, int]:
        at = START_US + batch * HOUR_US
        meters = range(self._number * TELEGRAMS, (self._number + 1) * TELEGRAMS)
        rows = [
            Row(seq=0, heard_at=at, kind=RowKind.WMBUS, payload=_telegram(n, 1000 + batch, batch))
            for n in meters
        ]
        return self._message(rows, at)

    def _message(self, rows: list[Row], at: int) -> tuple[bytes, int]:
        numbered = [replace(row, seq=self._seq + 1 + n) for n, row in enumerate(rows)]
        self._seq += len(rows)
        batch = Batch(
            gateway=_gateway(self._number),
            stream=bytes([self._number + 1]) * uplink.STREAM_BYTES,
            sent_at=at,
            started_at=START_US,
            echo_cloud_at=at - 2_000_000,
            echo_age_us=1_000_000,
            head=self._seq,
            rows=uplink.pack_rows(numbered),
        )
        return uplink.encode_batch(batch), at

    def _columns(self, batch: int) -> Mapping[str, Column]:
        """The same readings in the same order as ours merges them, as COPY wants them."""
        n = METERS * HOURS
        hours = np.tile(np.arange(batch * HOURS, (batch + 1) * HOURS, dtype=np.int64), METERS)
        meter = np.repeat(np.arange(METERS, dtype=np.int64), HOURS)
        register = self._hourly[:, batch * HOURS : (batch + 1) * HOURS].reshape(-1)
        newest = START_US + ((batch + 1) * HOURS - 1) * HOUR_US
        return {
            "meter_key": whole("int8", 1 + self._number * METERS + meter),
            "register_at": instants(START_US + hours * HOUR_US),
            "register_l": whole("int8", register),
            "heard_at": instants(np.full(n, newest)),
            "batch_row": whole("int4", meter),
            "clock": whole("int2", np.zeros(n, np.int16)),
            "quality": whole("int2", np.zeros(n, np.int16)),
        }


_COPY = """COPY incoming (meter_key, register_at, register_l, heard_at, batch_row, clock, quality)
    FROM STDIN (FORMAT binary)"""
_INSERT = """INSERT INTO bare_readings (meter_key, register_at, register_l, heard_at, batch_key,
        batch_row, kind, clock, quality)
    SELECT meter_key, register_at, register_l, heard_at, 1, batch_row, 1, clock, quality
    FROM incoming ORDER BY meter_key, register_at ON CONFLICT DO NOTHING"""


def _registers(number: int) -> np.typing.NDArray[np.int64]:
    """Hourly registers (meters, hours): about half of the hours without water."""
    hours = (BATCHES * ROUNDS + 1) * HOURS
    random = np.random.default_rng([SEED, number])
    litres = random.poisson(9, (METERS, hours)) * random.integers(0, 2, (METERS, hours))
    registers: np.typing.NDArray[np.int64] = litres.cumsum(axis=1) + 100_000
    return registers


def _gateway(number: int) -> str:
    return f"bench-{number}"


def _meter(number: int) -> MeterId:
    return MeterId(manufacturer="KAM", serial=f"{number:08d}", version=0x1B, medium=0x16)


def _key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def _telegram(meter: int, register_l: int, batch: int) -> bytes:
    return encode_wmbus(
        kamstrup_multical_records(total_l=register_l),
        meter=_meter(meter),
        session_number=session_number(session=1, minutes=batch * 60, encrypted=True),
        access_number=batch & 0xFF,
        key=_key(meter),
    )
