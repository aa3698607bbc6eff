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
from decoders.formats import Formats
from decoders.ids import MeterId
from decoders.uplink import Batch, Row, RowFlag, RowKind
from decoders.value import value

PROCESSES = 2
METERS = 1560  # of each process: 24 h of a gateway's share, as frames of one batch
HOURS = 32  # readings in a frame
BATCHES = 6  # of each process and round
ROUNDS = 5
TELEGRAMS = 2000  # encrypted ones, in a batch
TELEGRAM_BATCHES = 3
START_US = 1_767_225_600_000_000  # 2026-01-01
HOUR_US = 3_600_000_000
SEED = 7
_EUI = 0x0013_EA00_0000_0000


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
        self._keys = {str(meter_id(n)): meter_key(n) for n in range(PROCESSES * TELEGRAMS)}

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
        return self._decoding(first, batches, Formats())

    def decode_knowing(self, first: int, batches: int) -> Callable[[], None]:
        return self._decoding(first, batches, known_formats())

    def _decoding(self, first: int, batches: int, formats: Formats) -> Callable[[], None]:
        seq = self._seq
        rows = [
            uplink.decode_batch(message).rows
            for message, _ in (self._telegram_message(n) for n in range(first, first + batches))
        ]
        self._seq = seq

        def job() -> None:
            for each in rows:
                assert decode_rows(each, keys=self._keys.get, formats=formats).has_register.all()

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


def gateway_id(number: int) -> str:
    return f"bench-{number}"


def meter_id(number: int) -> MeterId:
    return MeterId(manufacturer="KAM", serial=f"{number:08d}", version=0x1B, medium=0x16)


def meter_key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def _telegram(meter: int, register_l: int, batch: int) -> bytes:
    return encode_wmbus(
        kamstrup_multical_records(total_l=register_l),
        meter=meter_id(meter),
        session_number=session_number(session=1, minutes=batch * 60, encrypted=True),
        access_number=batch & 0xFF,
        key=meter_key(meter),
    )
