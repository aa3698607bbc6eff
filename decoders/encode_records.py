"""Encode records that are rare in water meters: reals, texts, long numbers, clocks, profiles.

Each is the inverse of what `wmbus/data.py` or `wmbus/profile.py` reads; property tests hold the two
together. Plain integers and BCD are in `encode.py`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise

from decoders.wmbus.data import datetime_of
from decoders.wmbus.profile import ABSOLUTE, DECREMENTS, SIGNED, UNIT_SECONDS
from decoders.wmbus.records import Record, shape_of

_REAL, _VARIABLE = 5, 13
_MOST_TEXT = 0xBF
_BINARY, _BCD_POSITIVE, _BCD_NEGATIVE = 0xE0, 0xC0, 0xD0
_MOST_BCD_BYTES = 9
_CENTURY = 100


def real(head: str, number: float | None) -> Record:
    """A record of type H. head: DIF … VIFE in hex, data field 5; None: not a number."""
    shape = shape_of(bytes.fromhex(head))
    assert shape.data_field == _REAL
    return Record(shape, struct.pack("<f", float("nan") if number is None else number), 0)


def text(head: str, words: str) -> Record:
    """A text of up to 191 characters of Latin-1, last one first on the wire. head: data field D."""
    letters = words.encode("latin-1")
    assert len(letters) <= _MOST_TEXT
    return _variable(head, bytes((len(letters),)) + letters[::-1])


def variable(head: str, digits: int, *, bcd: bool = False) -> Record:
    """A number in as few bytes as hold it, binary or BCD. Raises OverflowError beyond 15 and 9."""
    if not bcd:
        size = (abs(digits) + 1).bit_length() // 8 + 1  # the most negative one means invalid
        if size > 15:
            raise OverflowError(f"{digits} takes {size} bytes")
        return _variable(
            head, bytes((_BINARY + size,)) + digits.to_bytes(size, "little", signed=True)
        )
    figures = str(abs(digits))
    size = (len(figures) + 1) // 2
    if size > _MOST_BCD_BYTES:
        raise OverflowError(f"{digits} takes {size} bytes")
    sign = _BCD_NEGATIVE if digits < 0 else _BCD_POSITIVE
    return _variable(head, bytes((sign + size,)) + bytes.fromhex(figures.zfill(2 * size))[::-1])


def type_i(local_us: int) -> bytes:
    """Date and time with seconds, in six bytes (type I), of this century."""
    moment = datetime_of(local_us)
    assert 2000 <= moment.year < 2000 + _CENTURY
    year = moment.year % _CENTURY
    clock = bytes((moment.second, moment.minute, moment.hour))
    return clock + bytes((moment.day | (year & 7) << 5, moment.month | year >> 3 << 4, 0))


def type_j(*, hour: int, minute: int, second: int) -> bytes:
    """A time of day in three bytes (type J)."""
    return bytes((second, minute, hour))


def profile(
    head: str,
    registers: Sequence[int],
    *,
    mode: int,
    unit: int,
    spacing: int,
    element_bytes: int,
) -> Record:
    """An inverse compact profile of what a register was, as `read_profile` reads it.

    head       DIF … VIFEs in hex, data field D, with VIFE 13
    registers  digits, newest first; the first one is the base, which has a record of its own
    mode       ABSOLUTE, INCREMENTS, DECREMENTS or SIGNED
    unit       0 … 3: seconds, minutes, hours, days; `spacing` so many apart
    Raises OverflowError when a step does not fit, or would read as invalid.
    """
    assert 0 <= unit < len(UNIT_SECONDS)
    steps = [newer - older for newer, older in pairwise(registers)]
    if mode == ABSOLUTE:
        steps = list(registers[1:])
    elif mode == DECREMENTS:
        steps = [-step for step in steps]
    signed = mode in (ABSOLUTE, SIGNED)
    invalid = -(1 << 8 * element_bytes - 1) if signed else (1 << 8 * element_bytes) - 1
    if invalid in steps:
        raise OverflowError(f"{invalid} means that there is no value")
    elements = b"".join(step.to_bytes(element_bytes, "little", signed=signed) for step in steps)
    control = bytes((mode << 6 | unit << 4 | element_bytes, spacing))
    return _variable(head, bytes((len(control + elements),)) + control + elements)


def _variable(head: str, sent: bytes) -> Record:
    shape = shape_of(bytes.fromhex(head))
    assert shape.data_field == _VARIABLE
    assert sent[0] < _BCD_POSITIVE or len(sent) > 1
    return Record(shape, sent, 0)
