"""What each process of `bench ingest` does: messages for intake, buffers for the bare way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

import numpy as np

from cloud.kernel.blobs import FolderBlobs
from cloud.kernel.config import QUERETARO
from cloud.kernel.db import Database
from cloud.kernel.keyvault import FileKeyVault
from cloud.metering import reading_store
from cloud.metering.copying import Column, instants, rows_for, whole
from cloud.metering.model import Int64s
from cloud.metering.service import Metering
from decoders import uplink
from decoders.batch import decode_rows
from decoders.drivers.registry import known_formats
from decoders.encode import (
    encode_lorawan_hourly,
    encode_wmbus,
    kamstrup_multical_records,
    local_us,
    session_number,
)
from decoders.uplink import Batch, Row, RowFlag, RowKind
from decoders.value import value
from field_sim.bench.decode import FULL_EVERY, key_of, meter_id

PROCESSES = 2
METERS = 1560  # of each process: 24 h of a gateway's share, as frames of one batch
HOURS = 32  # readings in a frame
BATCHES = 6  # of each process and round
ROUNDS = 5
TELEGRAMS = uplink.MAX_ROWS  # encrypted ones, of one meter each: a full message of a backlog
TELEGRAM_BATCHES = 3
START_US = 1_767_225_600_000_000  # 2026-01-01
HOUR_US = 3_600_000_000
SEED = 7
_EUI = 0x0013_EA00_0000_0000
_TELEGRAM_KEYS = 1_000_000  # in the bare table: beyond those of the profiles


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


def work(pipe: Pipe, place: Place, number: int) -> None:
    worker = Worker(place, number)
    while (order := pipe.recv()) is not None:
        what, first, batches = order
        job = getattr(worker, what)(first, batches)
        pipe.send("ready")
        assert pipe.recv() == "go"
        job()
        pipe.send("done")
    worker.close()


class Worker:
    """One process: its gateway, its meters, its connections."""

    def __init__(self, place: Place, number: int) -> None:
        self._number = number
        self._service = place.metering()
        self._bare = place.database.connect("metering")
        reading_store.prepare(self._bare)
        self._bare.commit()
        self._seq = 0
        self._hourly = _registers(number)
        mine = range(number * TELEGRAMS, (number + 1) * TELEGRAMS)
        self._keys = {str(meter_id(n)): key_of(n) for n in mine}
        self._formats = known_formats()

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

    def bare_telegrams(self, first: int, batches: int) -> Callable[[], None]:
        buffers = [rows_for(self._telegram_columns(n)) for n in range(first, first + batches)]
        return lambda: self._merge(buffers)

    def decode(self, first: int, batches: int) -> Callable[[], None]:
        """Decode the messages that `telegrams` would take, by a decoder that knows the layouts."""
        seq = self._seq
        rows = [
            uplink.decode_batch(message).rows
            for message, _ in (self._telegram_message(n) for n in range(first, first + batches))
        ]
        self._seq = seq

        def job() -> None:
            for each in rows:
                told = decode_rows(each, keys=self._keys.get, formats=self._formats)
                assert told.has_register.all()

        return job

    def _ingest(self, messages: list[tuple[bytes, int]]) -> None:
        for message, at in messages:
            answer = self._service.ingest(message, gateway_id(self._number), at)
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
                flags=RowFlag.NETWORK_CHECKED,
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
        heard = np.random.default_rng([SEED, batch]).permutation(TELEGRAMS)  # in no order
        rows = [
            Row(seq=0, heard_at=at, kind=RowKind.WMBUS, payload=_telegram(n, batch))
            for n in (self._number * TELEGRAMS + heard).tolist()
        ]
        return self._message(rows, at)

    def _message(self, rows: list[Row], at: int) -> tuple[bytes, int]:
        numbered = [replace(row, seq=self._seq + 1 + n) for n, row in enumerate(rows)]
        self._seq += len(rows)
        batch = Batch(
            gateway=gateway_id(self._number),
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
        """The readings of a batch of profiles, in the order ours merges them."""
        hours = np.tile(np.arange(batch * HOURS, (batch + 1) * HOURS, dtype=np.int64), METERS)
        meter = np.repeat(np.arange(METERS, dtype=np.int64), HOURS)
        register = self._hourly[:, batch * HOURS : (batch + 1) * HOURS].reshape(-1)
        newest = START_US + ((batch + 1) * HOURS - 1) * HOUR_US
        at = START_US + hours * HOUR_US
        return _as_copied(1 + self._number * METERS + meter, at, register, newest, meter)

    def _telegram_columns(self, batch: int) -> Mapping[str, Column]:
        """The readings of a batch of telegrams: one of each meter. Keys are nobody's."""
        meter = np.arange(TELEGRAMS, dtype=np.int64)
        keys = _TELEGRAM_KEYS + self._number * TELEGRAMS + meter
        at = START_US + batch * HOUR_US
        registers = np.full(TELEGRAMS, _register_l(batch))
        return _as_copied(keys, np.full(TELEGRAMS, at), registers, at, meter)


_COPY = """COPY incoming (meter_key, register_at, register_l, heard_at, batch_row, clock, quality)
    FROM STDIN (FORMAT binary)"""
_INSERT = """INSERT INTO bare_readings (meter_key, register_at, register_l, heard_at, batch_key,
        batch_row, kind, clock, quality)
    SELECT meter_key, register_at, register_l, heard_at, 1, batch_row, 1, clock, quality
    FROM incoming ORDER BY meter_key, register_at ON CONFLICT DO NOTHING"""


def _registers(number: int) -> Int64s:
    """Hourly registers (meters, hours): about half of the hours without water."""
    hours = (BATCHES * ROUNDS + 1) * HOURS
    random = np.random.default_rng([SEED, number])
    litres = random.poisson(9, (METERS, hours)) * random.integers(0, 2, (METERS, hours))
    registers: Int64s = litres.cumsum(axis=1) + 100_000
    return registers


def gateway_id(number: int) -> str:
    return f"bench-{number}"


def _telegram(meter: int, batch: int) -> bytes:
    """Return what a meter sends in an hour: as `bench decode` has it, one in eight a full frame."""
    return encode_wmbus(
        kamstrup_multical_records(total_l=_register_l(batch), water_c=14, ambient_c=21),
        meter=meter_id(meter),
        session_number=session_number(session=1, minutes=batch * 60, encrypted=True),
        access_number=batch & 0xFF,
        key=key_of(meter),
        compact=(meter + batch) % FULL_EVERY != 0,
    )


def _register_l(batch: int) -> int:
    return 1000 + batch


def _as_copied(
    meter_key: Int64s, register_at: Int64s, register_l: Int64s, heard_at: int, row: Int64s
) -> Mapping[str, Column]:
    """Readings as COPY wants them; `heard_at` µs, of all of them."""
    nothing = np.zeros(len(meter_key), np.int16)
    return {
        "meter_key": whole("int8", meter_key),
        "register_at": instants(register_at),
        "register_l": whole("int8", register_l),
        "heard_at": instants(np.full(len(meter_key), heard_at)),
        "batch_row": whole("int4", row),
        "clock": whole("int2", nothing),
        "quality": whole("int2", nothing),
    }
