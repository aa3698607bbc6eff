"""A gateway and its meters for tests of intake: real frames, real messages, no radio."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cbor2

from cloud.kernel.blobs import FolderBlobs
from cloud.kernel.config import Administration, GatewayConfig
from cloud.kernel.db import Database
from cloud.kernel.events import Event
from cloud.kernel.keyvault import FileKeyVault
from cloud.kernel.wire import unbundled
from cloud.metering.registry import NewMeter
from cloud.metering.service import Metering
from decoders import uplink
from decoders.encode import (
    encode_lorawan_hourly,
    encode_wmbus,
    kamstrup_multical_records,
    local_us,
    records_of,
    session_number,
)
from decoders.ids import MeterId
from decoders.uplink import Ack, Batch, ClockStep, Lost, Row, RowFlag, RowKind
from decoders.wmbus.link import Form
from decoders.wmbus.records import Record

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
NOON = 1_780_315_200 * SECOND  # 2026-06-01 12:00 UTC
QUERETARO = Administration(code="queretaro", name="Querétaro")
CST_S = QUERETARO.meter_clock_offset_s
EUI = 0x0013_EA00_0000_0000
NO_FLAGS = RowFlag(0)
KEY = bytes.fromhex("000102030405060708090A0B0C0D0E0F")


def metering_on(
    database: Database, state: Path, *, gateways: Iterable[str] = ("cerro", "centro"), **how: Any
) -> Metering:
    """A service on a fresh database, its gateways registered, its clock standing at NOON."""
    service = Metering(
        database,
        blobs=FolderBlobs(state / "blobs"),
        vault=FileKeyVault(state / "keys" / "kek.json"),
        administrations=how.pop("administrations", (QUERETARO,)),
        clock=how.pop("clock", lambda: NOON),
        **how,
    )
    service.register_gateways(
        [GatewayConfig(id=name, administration="queretaro") for name in gateways]
    )
    return service


def import_keys(service: Metering, name: str, *, key: bytes | None = KEY, **how: Any) -> None:
    """Register a meter and its radio key."""
    service.import_meters([NewMeter(name=name, administration="queretaro", key=key, **how)])


def profile(registers: Sequence[int], *, at: int) -> bytes:
    """An hourly profile, newest register first, the newest at the UTC instant `at` (µs)."""
    return encode_lorawan_hourly(registers, local_us=local_us(utc_us=at, offset_s=CST_S))


def lorawan(
    meter: int, registers: Sequence[int], *, at: int, heard_at: int | None = None, counter: int = 1
) -> Row:
    """An hourly profile as a row; `meter` is a small number."""
    return Row(
        seq=0,
        heard_at=at if heard_at is None else heard_at,
        kind=RowKind.LORAWAN,
        flags=RowFlag.NETWORK_CHECKED,
        radio=EUI + meter,
        session=0x2600_0000 + meter,
        counter=counter,
        port=1,
        rssi=-90,
        snr=20,
        payload=profile(registers, at=at),
    )


def eui(meter: int) -> str:
    return f"{EUI + meter:016X}"


def wmbus_meter(meter: int) -> MeterId:
    return MeterId(manufacturer="KAM", serial=f"{meter:08d}", version=0x1B, medium=0x16)


def wmbus(
    meter: int,
    register_l: int,
    *,
    heard_at: int,
    key: bytes | None = KEY,
    compact: bool = False,
    access: int = 0,
    flags: RowFlag = NO_FLAGS,
    info_code: int = 0,
    records: Sequence[Record] | None = None,
    form: Form = Form.FORMAT_B,
) -> Row:
    """A telegram of a MULTICAL 21 as a row; `records` instead of those it usually sends."""
    frame = encode_wmbus(
        records or kamstrup_multical_records(total_l=register_l, info_code=info_code),
        form=form,
        meter=wmbus_meter(meter),
        session_number=session_number(
            session=1, minutes=heard_at // MINUTE & 0xFFFFFF, encrypted=key is not None
        ),
        access_number=access,
        key=key,
        compact=compact,
    )
    return Row(seq=0, heard_at=heard_at, kind=RowKind.WMBUS, payload=frame, rssi=-80, flags=flags)


def unheard_of(register_l: int) -> tuple[Record, ...]:
    """Records in a layout that no driver ships: compact frames of it have to be taught."""
    return records_of(bytes.fromhex("0413441302FF20"), {"0413": register_l, "4413": 0})


def anomaly(meter: str, *, at: int, episode: str = "00" * 8, **says: Any) -> Row:
    """An anomaly row: 24 hours of continuous flow unless told otherwise."""
    payload = {
        "kind": "continuous_flow",
        "meter": meter,
        "episode": episode,
        "level": 24,
        "started_at": at - DAY,
        "detected_at": at,
        "rate_lph": 12,
        "litres": 288,
        "state": "open",
        **says,
    }
    return Row(seq=0, heard_at=at, kind=RowKind.ANOMALY, payload=cbor2.dumps(payload))


def report(kind: str, *, at: int, **says: Any) -> Row:
    return Row(seq=0, heard_at=at, kind=RowKind.REPORT, payload=cbor2.dumps({"kind": kind, **says}))


@dataclass
class Gateway:
    """An outbox without a disk: numbers rows, makes messages, hears answers.

    ahead   how far its clock is ahead of the cloud's, µs
    """

    id: str = "cerro"
    ahead: int = 0
    stream: bytes = b""
    started_at: int = NOON - 30 * DAY
    sent: list[Row] = field(default_factory=list)
    upto: int = 0
    acked: int = 0
    ack: Ack | None = None
    steps: tuple[ClockStep, ...] = ()
    ack_heard_at: int = 0

    def __post_init__(self) -> None:
        if not self.stream:
            self.stream = hashlib.md5(self.id.encode()).digest()

    def hear(self, *rows: Row) -> None:
        """Put rows into the outbox, by this gateway's clock."""
        for row in rows:
            at = row.heard_at + self.ahead
            self.sent.append(replace(row, seq=len(self.sent) + 1, heard_at=at))

    def message(
        self, *, at: int = NOON, first: int = 1, last: int | None = None, lost: Sequence[Lost] = ()
    ) -> bytes:
        """A message with the rows of this range, sent at the (true) instant `at`."""
        rows = [row for row in self.sent if first <= row.seq <= (last or len(self.sent))]
        return uplink.encode_batch(self.batch(rows, at=at, lost=lost))

    def batch(self, rows: Sequence[Row], *, at: int = NOON, lost: Sequence[Lost] = ()) -> Batch:
        echo = self.ack is not None
        return Batch(
            gateway=self.id,
            stream=self.stream,
            agent="test 1",
            capabilities=("ack",),
            sent_at=at + self.ahead,
            started_at=self.started_at + self.ahead,
            echo_cloud_at=self.ack.cloud_at if self.ack else 0,
            echo_age_us=at - self.ack_heard_at if echo else 0,
            head=len(self.sent),
            head_at=self.sent[-1].heard_at if self.sent else 0,
            acked=self.acked,
            lost=tuple(lost),
            steps=self.steps,
            rows=uplink.pack_rows(rows),
        )

    def send(self, service: Metering, *rows: Row, at: int = NOON) -> Ack:
        """Hear rows and send all that is not acknowledged; return the answer."""
        self.hear(*rows)
        answer = service.ingest(self.message(at=at, first=self.upto + 1), self.id, at)
        assert answer is not None
        return self.hears(answer, at=at)

    def hello(self, service: Metering, *, at: int = NOON) -> Ack:
        """Send a message without rows, so that the next one carries an echo."""
        answer = service.ingest(uplink.encode_batch(self.batch((), at=at)), self.id, at)
        assert answer is not None
        return self.hears(answer, at=at)

    def hears(self, answer: bytes, *, at: int) -> Ack:
        self.ack = uplink.decode_ack(answer)
        self.ack_heard_at = at
        self.upto = self.ack.upto
        self.acked = max(self.acked, self.ack.upto)
        return self.ack


def readings(database: Database) -> list[tuple[str, int, int]]:
    """Every stored reading: (first name of the meter, µs, litres), in that order."""
    with database.connect("metering") as connection:
        return connection.execute(
            """SELECT (SELECT min(name) FROM meter_names n WHERE n.meter_key = r.meter_key),
                      (extract(epoch FROM register_at) * 1000000)::bigint, register_l
               FROM readings r ORDER BY 1, 2"""
        ).fetchall()


def rows_of(database: Database, query: str, *values: Any) -> list[tuple[Any, ...]]:
    with database.connect("metering") as connection:
        return connection.execute(query, values).fetchall()


def published(database: Database, type: str) -> list[Event]:
    """The events of one type in the outbox, in the order of the log."""
    rows = rows_of(database, "SELECT wire FROM outbox WHERE type = %s ORDER BY xid, id", type)
    return [Event.received(each) for (wire,) in rows for each in unbundled(wire)]
