"""A few meters with a past, sent through the real intake: what the pages of the tests show.

Two LoRaWAN meters and one wM-Bus meter over eight days. The first has a hole in its data, half a
day that arrived late and a leak; the second is plain; the third is heard by two gateways. Two
frames are refused: one damaged, one with a key that is not the meter's. One gateway says how it
is, had a source down and gave up rows; the other was set up anew, so what it lost is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

import cbor2

from cloud.kernel.clock import to_us
from cloud.kernel.config import Administration, GatewayConfig
from cloud.kernel.platform import Platform
from cloud.metering.registry import NewMeter
from cloud.metering.service import Metering
from decoders.encode import (
    encode_lorawan_hourly,
    encode_wmbus,
    kamstrup_flowiq_records,
    local_us,
    session_number,
)
from decoders.ids import MeterId
from decoders.uplink import Batch, Lost, Row, RowFlag, RowKind, encode_batch, pack_rows

NOW = datetime(2026, 11, 20, 18, 20, tzinfo=UTC)  # 12:20 in Querétaro
HOUR = timedelta(hours=1)
HISTORY_H = 186
EVERY_H = 2  # a row says the hours since the one before it, so that nothing else is late
LEAK_H = 30
LEAK_LPH = 45
MINUTE_US = 60_000_000

LEAKING_EUI = 0x0013EA0001020301
PLAIN_EUI = 0x0013EA0001020302
LEAKING, PLAIN = f"{LEAKING_EUI:016X}", f"{PLAIN_EUI:016X}"
RADIO = MeterId(manufacturer="KAW", serial="53885758", version=0x3A, medium=0x16)
RADIO_KEY = bytes(range(16))
OTHER_KEY = bytes(16)

ADMINISTRATIONS = (
    Administration(code="queretaro", name="Querétaro"),
    Administration(code="corregidora", name="Corregidora"),
)
GATEWAYS = (
    GatewayConfig(id="gw-cimatario", administration="queretaro", name="Cerro del Cimatario"),
    GatewayConfig(id="gw-centro", administration="queretaro", name="Centro Histórico"),
)
CLOCK_OFFSET_S = -21_600
LOST_ROWS = 12
HEALTH = {
    "disk_free_kib": 250_000,  # less than a tenth
    "disk_total_kib": 5_900_000,
    "memory_available_kib": 310_000,
    "memory_total_kib": 506_000,
    "temperature_c": 41,
    "supply_mv": 12_050,
    "last_ack_age_s": 95,
    "profile_lean": 1,
    "outbox_pending": 0,
    "outbox_rows": 2_400,
    "outbox_lost_hourly": LOST_ROWS,
    "source_wmbus_up": 0,
    "source_wmbus_heard": 4_120,
    "source_wmbus_per_hour": 96,
}


def seed(platform: Platform) -> None:
    """Send the city's past through `Metering`, as the intake process would."""
    end = to_us(NOW.replace(minute=0))
    with Metering.on(platform) as metering:
        metering.register_gateways(GATEWAYS)
        metering.import_meters(
            [
                NewMeter(name=str(RADIO), administration="queretaro", key=RADIO_KEY),
                NewMeter(name=LEAKING, administration="queretaro", dev_eui=LEAKING),
            ]
        )
        for gateway, message, received_at in messages(end):
            metering.ingest(message, gateway, received_at)


def messages(end: int) -> Iterator[tuple[str, bytes, int]]:
    """Yield (gateway, message, received_at) of the whole past, oldest first."""
    hour_us = 3600 * 1_000_000
    sender = {gateway.id: Sender(gateway.id, end) for gateway in GATEWAYS}
    for hours_ago in range(HISTORY_H, -1, -EVERY_H):
        at = end - hours_ago * hour_us
        rows = list(hour_of(at, hours_ago, end))
        late = 26 * hour_us if 96 <= hours_ago < 108 else 0
        yield sender["gw-cimatario"].message(rows, received_at=at + 4 * MINUTE_US + late)
        if hours_ago % 12 == 0:
            radio = [row for row in rows if row.kind == RowKind.WMBUS]
            yield sender["gw-centro"].message(radio, received_at=at + 5 * MINUTE_US)
    cimatario = sender["gw-cimatario"]
    cimatario.give_up(LOST_ROWS, heard_at=end)
    last = [*refused(end), leak(end), *reports(end)]
    yield cimatario.message(last, received_at=end + 6 * MINUTE_US, health=HEALTH)
    anew = Sender("gw-centro", end, stream=b"after a new disk")
    yield anew.message([], received_at=end + 7 * MINUTE_US)


class Sender:
    """A gateway's outbox: rows in order, without a gap that it does not declare."""

    def __init__(self, gateway: str, end: int, *, stream: bytes = b"") -> None:
        self._gateway = gateway
        self._stream = stream or gateway.encode().ljust(16, b"\0")
        self._started_at = end - (HISTORY_H + 1) * 3600 * 1_000_000
        self._seq = 0
        self._lost: tuple[Lost, ...] = ()

    def give_up(self, rows: int, *, heard_at: int) -> None:
        """Lose rows before they are sent; the next message says so."""
        first, self._seq = self._seq + 1, self._seq + rows
        self._lost = (
            Lost(first=first, last=self._seq, from_at=heard_at, to_at=heard_at + MINUTE_US),
        )

    def message(
        self, rows: list[Row], *, received_at: int, health: Mapping[str, int] | None = None
    ) -> tuple[str, bytes, int]:
        numbered = []
        for row in rows:
            self._seq += 1
            numbered.append(
                Row(
                    seq=self._seq,
                    heard_at=row.heard_at,
                    kind=row.kind,
                    flags=row.flags,
                    payload=row.payload,
                    radio=row.radio,
                    session=row.session,
                    counter=row.counter,
                    port=row.port,
                    rssi=-91,
                    snr=28,
                )
            )
        batch = Batch(
            gateway=self._gateway,
            stream=self._stream,
            rows=pack_rows(numbered),
            agent="0.1.0",
            sent_at=received_at - 200_000,
            started_at=self._started_at,
            echo_cloud_at=received_at - 900_000,
            echo_age_us=500_000,
            head=self._seq,
            head_at=rows[-1].heard_at if rows else received_at,
            acked=self._seq - len(rows) - sum(gap.last - gap.first + 1 for gap in self._lost),
            lost=self._lost,
            health=health,
        )
        self._lost = ()
        return self._gateway, encode_batch(batch), received_at


def hour_of(at: int, hours_ago: int, end: int) -> Iterator[Row]:
    """Yield what one gateway hears in the minutes after a full hour."""
    yield profile(PLAIN_EUI, at, hours_ago)
    if not 120 <= hours_ago < 130:  # a car stood on it
        yield profile(LEAKING_EUI, at, hours_ago)
    yield telegram(at, hours_ago, key=RADIO_KEY)


def profile(eui: int, at: int, hours_ago: int) -> Row:
    """One hourly profile. It repeats nothing: a lost one leaves a gap, as the tests want it."""
    hours = range(hours_ago, hours_ago + EVERY_H)
    registers = [register_of(eui, one) for one in hours]
    return Row(
        seq=0,
        heard_at=at + 2 * MINUTE_US,
        kind=RowKind.LORAWAN,
        flags=RowFlag.NETWORK_CHECKED,
        payload=encode_lorawan_hourly(
            registers, local_us=local_us(utc_us=at, offset_s=CLOCK_OFFSET_S)
        ),
        radio=eui,
        session=0x26011234,
        counter=1_000 + HISTORY_H - hours_ago,
        port=2,
    )


def register_of(eui: int, hours_ago: int) -> int:
    """Return the whole litres of a meter: a household's day, and a leak on one of them."""
    total = 123_000
    for ago in range(HISTORY_H + EVERY_H, hours_ago, -1):
        local_hour = (12 - ago + 1) % 24
        awake = 38 if 6 <= local_hour < 9 else 24 if 18 <= local_hour < 22 else 9
        total += 0 if local_hour < 5 else awake + (ago * 7 + eui) % 13
        if eui == LEAKING_EUI and ago <= LEAK_H:
            total += LEAK_LPH
    return total


def telegram(at: int, hours_ago: int, *, key: bytes, damaged: bool = False) -> Row:
    frame = encode_wmbus(
        kamstrup_flowiq_records(total_l=88_000 + (HISTORY_H - hours_ago) * 14, water_c=(17, 21)),
        meter=RADIO,
        session_number=session_number(session=1, minutes=at // MINUTE_US, encrypted=True),
        access_number=hours_ago,
        key=key,
    )
    if damaged:
        frame = frame[:-1] + bytes((frame[-1] ^ 0x5A,))
    return Row(seq=0, heard_at=at + 3 * MINUTE_US, kind=RowKind.WMBUS, payload=frame)


def refused(end: int) -> Iterator[Row]:
    at = end + 2 * MINUTE_US
    yield telegram(at, 500, key=RADIO_KEY, damaged=True)
    yield telegram(at + MINUTE_US, 501, key=OTHER_KEY)


def leak(end: int) -> Row:
    """What the agent found: a meter that has not rested for a day."""
    started_at = end - LEAK_H * 3600 * 1_000_000
    found = {
        "kind": "continuous_flow",
        "meter": LEAKING,
        "episode": "00aa11bb22cc33dd",
        "level": 24,
        "started_at": started_at,
        "detected_at": started_at + 24 * 3600 * 1_000_000,
        "rate_lph": LEAK_LPH,
        "litres": LEAK_LPH * LEAK_H,
        "state": "open",
    }
    return Row(
        seq=0, heard_at=end + 5 * MINUTE_US, kind=RowKind.ANOMALY, payload=cbor2.dumps(found)
    )


def reports(end: int) -> Iterator[Row]:
    """What the gateway says happened to it."""
    step = {"kind": "clock_step", "from_at": end, "to_at": end + 90 * MINUTE_US}
    down = {"kind": "source_down", "source": "wmbus", "reason": "the device is gone"}
    for said in (step, down):
        yield Row(
            seq=0, heard_at=end + 5 * MINUTE_US, kind=RowKind.REPORT, payload=cbor2.dumps(said)
        )
