"""What the city's meters put on the air: Kamstrup's payloads, laid out as real ones are.

LoRaWAN: "flowIQ 2200 OMS over LoRaWAN" (config 02K73A), hourly profile and daily log, as Kamstrup
published them (TheThingsNetwork/lorawan-devices). wM-Bus: flowIQ 2200, mode C1, format B, full and
compact, AES-128-CTR. The meter's own clock is local standard time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from decoders.encode import (
    PROFILE_HOURS,
    encode_lorawan_daily,
    encode_lorawan_hourly,
    encode_wmbus,
    kamstrup_multical_records,
    session_number,
)
from decoders.ids import MeterId
from field_sim.meters import DAY_H, HOUR_US, WmbusMeter

FPORT = 4  # as a meter in service was seen to use; the maker's examples use 1
PROFILE_H = PROFILE_HOURS
LOCAL_STANDARD_H = -6
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LEAK = 1 << 2  # of the alarm word: no hour without flow
VERSION, COLD_WATER = 0x3A, 0x16


def meter_clock_us(hour: int) -> int:
    """Return a full hour (UTC, since 1970) as the meters' clock shows it, in µs."""
    return (hour + LOCAL_STANDARD_H) * HOUR_US


def last_midnight_h(hour: int) -> int:
    """Return the newest hour that is midnight on the meters' clock."""
    return (hour + LOCAL_STANDARD_H) // DAY_H * DAY_H - LOCAL_STANDARD_H


def hourly(hour: int, registers: Sequence[int]) -> bytes:
    """Return the hourly payload: the register at `hour` and how it grew in the 32 before.

    registers   litres at the PROFILE_H hours before `hour` and at it, oldest first
    """
    return encode_lorawan_hourly(registers[::-1], local_us=meter_clock_us(hour))


def daily(midnight_h: int, day: Sequence[int]) -> bytes:
    """Return the daily payload: register at midnight, alarms, extremes of the day before.

    day   registers in litres at its 25 full hours, oldest first
    """
    steps = [after - before for before, after in pairwise(day)]
    water_c = temperature_c(midnight_h)
    return encode_lorawan_daily(
        day[-1],
        local_us=meter_clock_us(midnight_h),
        info_code=LEAK if min(steps) > 0 else 0,
        min_flow_lph=min(steps),
        max_flow_lph=max(steps),
        min_water_c=water_c - 2,
        max_water_c=water_c,
    )


def temperature_c(hour: int) -> int:
    """Return the water's temperature in whole °C: 17 to 23 over the year."""
    return round(20 + 3 * math.sin(hour / (365.25 * DAY_H) * 2 * math.pi))


def wmbus(meter: WmbusMeter, *, counter: int, register_l: int, target_l: int, full: bool) -> bytes:
    """Return an encrypted telegram as the receiver sees it, L first, checksums in place.

    counter   of the meter's 16-second intervals; its low 25 bits make every telegram another
    """
    water_c = temperature_c(counter * 16 // 3600)
    records = kamstrup_multical_records(
        total_l=register_l, target_l=target_l, water_c=water_c - 1, ambient_c=water_c + 3
    )
    return encode_wmbus(
        records,
        meter=MeterId(
            manufacturer="KAW", serial=f"{meter.serial:08d}", version=VERSION, medium=COLD_WATER
        ),
        session_number=session_number(session=0, minutes=counter, encrypted=True),
        access_number=counter,
        key=meter.key,
        compact=not full,
    )


def rtl_wmbus_line(frame: bytes, serial: int, at_us: int, rssi: int) -> bytes:
    """Return the line that rtl-wmbus prints for a frame it received. Its time has no zone."""
    at = EPOCH + timedelta(microseconds=at_us)
    stamp = at.replace(tzinfo=None).isoformat(sep=" ", timespec="milliseconds")
    return f"C1;1;1;{stamp};{rssi};{rssi - 4};{serial:08d};0x{frame.hex().upper()}\n".encode()


def recorded_line(frame: bytes, heard_us: int, rssi: int) -> bytes:
    """Return a frame heard earlier, with the instant of its gateway's clock, as a JSON line."""
    said = {"telegram_hex": frame.hex(), "heard_at": heard_us, "rssi": rssi}
    return json.dumps(said, separators=(",", ":")).encode() + b"\n"
