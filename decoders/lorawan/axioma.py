"""Axioma Qalcosonic W1 over LoRaWAN: a day of hours, packed ("enhanced 24 h", FPort 100).

    01 | time(4) | status(1) | litres when the log began(4) | 23 × 14 bits | 6 bits, a multiplier
    the 14 bits are the litres of each hour, oldest first, least significant bit first

No M-Bus records: the layout is fixed, 51 bytes. The register now is where the log began and all of
its hours. Integers are little-endian; the time is the meter's own clock, in seconds since 1970.
Source: TheThingsNetwork/lorawan-devices vendor/axioma qalcosonic-w1-codec, one payload of a meter
in service; alarms: layout notes of the same vendor's older payload.
Inferred from that one payload: the last hour ended with the clock's last full hour, so the log of
a payload sent at 23:09 began at midnight. A multiplier other than 0 has not been seen: refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from decoders.errors import Unsupported
from decoders.reading import FieldValue
from decoders.value import value
from decoders.wmbus.data import US_PER_SECOND, datetime_of

LAYER: Final = "payload"
DRIVER: Final = "axioma_w1"
BYTES: Final = 51
VERSION: Final = 1
HOURS: Final = 23
HOUR_S: Final = 3600
_BITS: Final = 14
MOST_L: Final = (1 << _BITS) - 1  # of one hour
_PACKED_AT: Final = 10
_LITRES_END: Final = 1 << 32
_STATUS_BITS: Final = ((0x04, "POWER_LOW"), (0x08, "PERMANENT_ERROR"))
_STATUS_CODES: Final = {
    0x00: "",
    0x10: "DRY",
    0x30: "LEAK",
    0x70: "REVERSED",
    0x90: "LOW_TEMPERATURE",
    0xB0: "BURST",
    0xD0: "TAMPER",
}


@value
class PackedDay:
    """What a payload says. series: (µs of the meter's clock, litres), newest first."""

    time_us: int
    status: int
    log_l: int
    hours_l: tuple[int, ...]

    @property
    def register_l(self) -> int:
        return self.log_l + sum(self.hours_l)

    @property
    def series(self) -> tuple[tuple[int, int], ...]:
        hour_us = HOUR_S * US_PER_SECOND
        at, litres = self.time_us - self.time_us % hour_us, self.register_l
        points = [(at, litres)]
        for hour in reversed(self.hours_l):
            at, litres = at - hour_us, litres - hour
            points.append((at, litres))
        return tuple(points)

    @property
    def alarms(self) -> tuple[str, ...]:
        """Alarms that are on; a code that nobody has described is OTHER_<hex>."""
        code = self.status & 0xF0
        named = [name for bit, name in _STATUS_BITS if self.status & bit]
        named.append(_STATUS_CODES.get(code, f"OTHER_{code:X}"))
        return tuple(name for name in named if name)

    @property
    def fields(self) -> dict[str, FieldValue]:
        return {
            "total_m3": Decimal(self.register_l).scaleb(-3),
            "log_volume_m3": Decimal(self.log_l).scaleb(-3),
            "datetime": datetime_of(self.time_us).strftime("%Y-%m-%dT%H:%M:%S"),
            "status": " ".join(self.alarms) or "OK",
        }


def is_packed_day(payload: bytes) -> bool:
    """Whether a payload is of this layout: no M-Bus payload starts with its version byte."""
    return len(payload) == BYTES and payload[0] == VERSION


def read_packed_day(payload: bytes) -> PackedDay:
    """Read a payload that `is_packed_day` took for one. Raises Unsupported."""
    assert is_packed_day(payload)
    packed = int.from_bytes(payload[_PACKED_AT:], "little")
    multiplier = packed >> HOURS * _BITS
    if multiplier:
        detail = f"multiplier {multiplier}: only 0 is known, litres"
        raise Unsupported(LAYER, BYTES - 1, detail)
    return PackedDay(
        time_us=int.from_bytes(payload[1:5], "little") * US_PER_SECOND,
        status=payload[5],
        log_l=int.from_bytes(payload[6:10], "little"),
        hours_l=tuple(packed >> _BITS * hour & MOST_L for hour in range(HOURS)),
    )


def encode_packed_day(
    *, time_us: int, log_l: int, hours_l: Sequence[int], status: int = 0
) -> bytes:
    """Write such a payload. hours_l: litres of 23 hours, oldest first."""
    assert len(hours_l) == HOURS
    assert all(0 <= hour <= MOST_L for hour in hours_l)
    assert 0 <= log_l < _LITRES_END
    packed = sum(hour << _BITS * place for place, hour in enumerate(hours_l))
    return (
        bytes((VERSION,))
        + (time_us // US_PER_SECOND).to_bytes(4, "little")
        + bytes((status,))
        + log_l.to_bytes(4, "little")
        + packed.to_bytes(BYTES - _PACKED_AT, "little")
    )
