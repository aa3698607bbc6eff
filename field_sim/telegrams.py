"""What the city's meters put on the air: Kamstrup's payloads, laid out as real ones are.

LoRaWAN: "flowIQ 2200 OMS over LoRaWAN" (config 02K73A), hourly profile and daily log, as Kamstrup
published them (TheThingsNetwork/lorawan-devices). wM-Bus: flowIQ 2200, mode C1, format B, full and
compact, AES-128-CTR (EN 13757-3 and -4). The meter's own clock is local standard time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from decoders import aes
from decoders.ids import manufacturer_code
from decoders.wmbus.crc import crc16
from decoders.wmbus.ell import counter_block
from decoders.wmbus.link import wrap_b
from field_sim.meters import DAY_H, WmbusMeter

PROFILE_H = 32
FPORT = 4  # as a meter in service was seen to use; the makers' examples use 1
LOCAL_STANDARD = timedelta(hours=-6)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

LONGEST_STEP = 0xFE  # one byte; FF marks "no value"
INVALID_NOISE = 0x0FFF

# CI 78, then the record heads of the layout whose signature is A8ED
CI_FULL, CI_COMPACT = 0x78, 0x79
HEADS = (b"\x02\xff\x20", b"\x04\x13", b"\x44\x13", b"\x61\x5b", b"\x61\x67")
SIGNATURE = crc16(b"".join(HEADS))
COMMUNICATION = 0x20
ENCRYPTED = 1 << 29  # SN: AES-128-CTR
SESSION_TIME_BITS = 25


def type_f(hour: int) -> bytes:
    """Return a full hour (UTC, since 1970) as the meter shows it: local, EN 13757-3 type F."""
    at = EPOCH + timedelta(hours=hour) + LOCAL_STANDARD
    year = at.year - 2000
    return bytes(
        (at.minute, at.hour | 1 << 5, at.day | (year & 7) << 5, at.month | (year >> 3) << 4)
    )


def hourly(hour: int, registers: Sequence[int]) -> bytes:
    """Return the hourly payload: the register at `hour` and how it grew, newest first.

    registers   litres at the PROFILE_H hours before `hour` and at it, oldest first

    A step above 254 l does not fit one byte: then the meter sends sixteen of two bytes.
    """
    steps = [after - before for before, after in pairwise(registers)]
    newest_first = steps[::-1]
    if max(newest_first) <= LONGEST_STEP:
        profile = bytes((0x61, 1)) + bytes(newest_first)
    else:
        half = newest_first[: PROFILE_H // 2]
        profile = bytes((0x62, 1)) + b"".join(step.to_bytes(2, "little") for step in half)
    return (
        b"\x78\x44\x6d"
        + type_f(hour)
        + b"\x44\x13"
        + registers[-1].to_bytes(4, "little")
        + b"\x4d\x93\x13"
        + bytes((len(profile),))
        + profile
    )


def daily(hour: int, register_l: int, day: Sequence[int]) -> bytes:
    """Return the daily payload: register, alarms, and the extremes of the last day.

    day   registers in litres at 25 full hours, oldest first
    """
    steps = [after - before for before, after in pairwise(day)]
    leaks = 0x04 if min(steps) > 0 else 0  # bit 2: no hour without flow
    warm, cold = temperature_c(hour), temperature_c(hour) - 2
    return (
        b"\x78\x44\x6d"
        + type_f(hour)
        + b"\x44\x13"
        + register_l.to_bytes(4, "little")
        + b"\x52\xff\x25"
        + leaks.to_bytes(2, "little")
        + b"\x42\xff\x1c"
        + INVALID_NOISE.to_bytes(2, "little")
        + b"\x62\x3b"
        + min(steps).to_bytes(2, "little")
        + b"\x52\x3b"
        + max(steps).to_bytes(2, "little")
        + b"\x61\x5b"
        + bytes((cold,))
        + b"\x51\x5b"
        + bytes((warm,))
    )


def temperature_c(hour: int) -> int:
    """Return the water's temperature in whole °C: 17 to 23 over the year."""
    return round(20 + 3 * math.sin(hour / (365.25 * DAY_H) * 2 * math.pi))


def wmbus(meter: WmbusMeter, *, counter: int, register_l: int, target_l: int, full: bool) -> bytes:
    """Return a telegram as the receiver sees it, L first, checksums in place.

    counter   of the meter's 16-second intervals; the low 25 bits make the session's time
    """
    warm = temperature_c(counter * 16 // 3600)
    values = (
        (0).to_bytes(2, "little"),
        register_l.to_bytes(4, "little"),
        target_l.to_bytes(4, "little"),
        bytes((warm - 1,)),
        bytes((warm + 3,)),
    )
    records = b"".join(head + data for head, data in zip(HEADS, values, strict=True))
    if full:
        payload = bytes((CI_FULL,)) + records
    else:
        sums = SIGNATURE.to_bytes(2, "little") + crc16(records).to_bytes(2, "little")
        payload = bytes((CI_COMPACT,)) + sums + b"".join(values)
    address = (
        manufacturer_code("KAW").to_bytes(2, "little")
        + bytes.fromhex(f"{meter.serial:08d}")[::-1]
        + b"\x3a\x16"
    )
    time_bits = counter & (1 << SESSION_TIME_BITS) - 1
    session = (ENCRYPTED | time_bits << 4).to_bytes(4, "little")
    clear = crc16(payload).to_bytes(2, "little") + payload
    block = counter_block(address=address, communication_control=COMMUNICATION, session=session)
    head = bytes((0x44,)) + address + bytes((0x8D, COMMUNICATION, counter & 0xFF)) + session
    return wrap_b(head + aes.ctr(meter.key, block, clear))


def rtl_wmbus_line(frame: bytes, serial: int, at_us: int, rssi: int) -> bytes:
    """Return the line that rtl-wmbus prints for a frame it received. Its time has no zone."""
    at = EPOCH + timedelta(microseconds=at_us)
    stamp = at.replace(tzinfo=None).isoformat(sep=" ", timespec="milliseconds")
    return f"C1;1;1;{stamp};{rssi};{rssi - 4};{serial:08d};0x{frame.hex().upper()}\n".encode()


def recorded_line(frame: bytes, heard_us: int, rssi: int) -> bytes:
    """Return a frame heard earlier, with the instant of its gateway's clock, as a JSON line."""
    said = {"telegram_hex": frame.hex(), "heard_at": heard_us, "rssi": rssi}
    return json.dumps(said, separators=(",", ":")).encode() + b"\n"
