"""What a record's data bytes say: numbers, dates, texts; None where the meter says "invalid".

Types as in EN 13757-3:2018, annex A: A BCD, B signed, C unsigned, D bits, F G I J dates, H float.
"""

from __future__ import annotations

import math
import struct
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

from decoders.wmbus.records import Record

US_PER_SECOND = 1_000_000
LITRES_END = 1 << 63
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_INTEGER_FIELDS = frozenset({1, 2, 3, 4, 6, 7})
_BCD_FIELDS = frozenset({9, 10, 11, 12, 14})
_REAL, _LVAR = 5, 13
_BCD_DIGITS = 10


def signed(data: bytes) -> int | None:
    """Type B: two's complement, little-endian; the most negative value means invalid."""
    number = int.from_bytes(data, "little", signed=True)
    return None if not data or number == -1 << 8 * len(data) - 1 else number


def unsigned(data: bytes) -> int | None:
    """Type C: little-endian; all ones mean invalid."""
    number = int.from_bytes(data, "little")
    return None if not data or number == (1 << 8 * len(data)) - 1 else number


def bcd(data: bytes) -> int | None:
    """Type A: digits, least significant byte first; a leading F is a minus."""
    digits = data[::-1].hex()
    sign = 1
    if digits[:1] == "f":
        sign, digits = -1, digits[1:]
    return sign * int(digits) if digits.isdecimal() else None


def digits_of(record: Record) -> int | None:
    """The integer a numeric record carries, before its power of ten. None: invalid or no number."""
    field, meaning = record.shape.data_field, record.shape.meaning
    if field in _INTEGER_FIELDS:
        if meaning is not None and meaning.unit == "number" and record.data:
            return int.from_bytes(record.data, "little")  # types C and D: counters, flags, versions
        return signed(record.data)
    if field in _BCD_FIELDS:
        return bcd(record.data)
    if field == _LVAR:
        return _variable_number(record.data)
    return None


def scaled(digits: int, exponent: int) -> Decimal:
    """digits × 10**exponent, exact."""
    return Decimal(digits).scaleb(exponent)


def decimal_of(record: Record) -> Decimal | None:
    """A numeric record's value in its unit, exact. None: invalid, or no number."""
    meaning = record.shape.meaning
    exponent = 0 if meaning is None else meaning.exponent
    if record.shape.data_field == _REAL:
        (number,) = struct.unpack("<f", record.data)
        return Decimal(repr(number)).scaleb(exponent) if math.isfinite(number) else None
    digits = digits_of(record)
    return None if digits is None else scaled(digits, exponent)


def text_of(record: Record) -> str | None:
    """The text of a variable-length record, in reading order. None: it is no text."""
    if record.shape.data_field != _LVAR or not record.data or record.data[0] >= 0xC0:
        return None
    return record.data[:0:-1].decode("latin-1")


def instant_of(record: Record) -> int | None:
    """Date and time (types F: 4 bytes, I: 6 bytes) on the meter's own clock, as µs since 1970.

    The clock is read as if it were UTC; its offset is a matter of the meter's configuration.
    """
    data = record.data
    if len(data) == 4:
        if data[0] & 0x80:
            return None
        return _local_us(data[2], data[3], data[1] >> 5 & 3, (data[1], data[0], 0))
    if len(data) == 6:
        if data[1] & 0x80:
            return None
        return _local_us(data[3], data[4], 1, (data[2], data[1], data[0]))
    return None


def date_of(record: Record) -> date | None:
    """A date (type G, 2 bytes)."""
    data = record.data
    if len(data) != 2:
        return None
    instant = _local_us(data[0], data[1], 1, (0, 0, 0))
    return None if instant is None else datetime_of(instant).date()


def time_of(record: Record) -> str | None:
    """A time of day (type J, 3 bytes) as HH:MM:SS."""
    data = record.data
    if len(data) != 3:
        return None
    second, minute, hour = data[0] & 0x3F, data[1] & 0x3F, data[2] & 0x1F
    fits = second < 60 and minute < 60 and hour < 24
    return f"{hour:02}:{minute:02}:{second:02}" if fits else None


def datetime_of(local_us: int) -> datetime:
    """An instant of the meter's clock as a datetime; its time zone is only nominally UTC.

    By addition: `fromtimestamp` asks the C library, whose instants end in 2038 on 32-bit gateways.
    """
    return _EPOCH + timedelta(seconds=local_us // US_PER_SECOND)


def litres_of(record: Record) -> int | None:
    """A volume in whole litres, rounded down; None when invalid, not a volume in m3, or absurd."""
    meaning = record.shape.meaning
    if meaning is None or meaning.unit != "m3" or meaning.profile:
        return None
    if record.shape.data_field == _REAL:
        cubic_metres = decimal_of(record)
        return None if cubic_metres is None else possible(math.floor(cubic_metres.scaleb(3)))
    digits = digits_of(record)
    return None if digits is None else possible(to_litres(digits, meaning.exponent))


def possible(litres: int) -> int | None:
    """A register that 64 bits hold; more water than that has gone through no meter."""
    return litres if -LITRES_END <= litres < LITRES_END else None


def to_litres(digits: int, exponent: int) -> int:
    """digits × 10**exponent m3 in whole litres, rounded down."""
    shift = exponent + 3
    return digits * int(10**shift) if shift >= 0 else digits // int(10**-shift)


def _local_us(low: int, high: int, century: int, clock: tuple[int, int, int]) -> int | None:
    """Put a day (two bytes: YYYDDDDD YYYYMMMM) and (hour, minute, second) together."""
    year = low >> 5 | high >> 4 << 3
    if century == 0:  # an old meter without century bits: EN 13757-3 reads 0 … 80 as 20xx
        century = 1 if year <= 80 else 0
    hour, minute, second = clock
    try:
        moment = datetime(
            1900 + 100 * century + year,
            high & 0x0F,
            low & 0x1F,
            hour & 0x1F,
            minute & 0x3F,
            second & 0x3F,
            tzinfo=timezone.utc,
        )
    except ValueError:  # 00 and FF mean "no date"; so does a 31st of February
        return None
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * US_PER_SECOND


def _variable_number(data: bytes) -> int | None:
    if not data:
        return None
    length, rest = data[0], data[1:]
    if 0xC0 <= length < 0xCA:
        return bcd(rest)
    if 0xD0 <= length < 0xDA:
        positive = bcd(rest)
        return None if positive is None else -positive
    return signed(rest) if length >= 0xE0 else None
