"""Packed columns of an uplink message: one number after the other, little-endian."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from decoders.uplink_fields import Malformed, octets

Codes = Mapping[str, str]
"""Name → type code of `array`, in the order of the columns."""


def packed(column: array[int]) -> bytes:
    """Return a column as it travels. It is used up: its bytes may have been swapped."""
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()


def unpacked(code: str, given: bytes) -> array[int]:
    """Read what `packed` wrote. Raises ValueError where it is no whole number of items."""
    column: array[int] = array(code)
    column.frombytes(given)
    if sys.byteorder == "big":
        column.byteswap()
    return column


def pack_records(records: Sequence[object], codes: Codes) -> dict[str, bytes]:
    """Return the attributes of `records` that `codes` names, a column each."""
    return {
        name: packed(array(code, [int(getattr(record, name)) for record in records]))
        for name, code in codes.items()
    }


def read_records(
    fields: Mapping[str, Any], name: str, codes: Codes, *, at_most: int
) -> list[tuple[int, ...]]:
    """Read the key `name`, a map of packed columns; [] where a message has none.

    Raises Malformed.
    """
    given = fields.get(name)
    if given is None:
        return []
    if not isinstance(given, dict):
        raise Malformed(f"{name}: a map of packed columns is expected")
    first, code = next(iter(codes.items()))
    count = len(octets(given, first)) // array(code).itemsize
    if count > at_most:
        raise Malformed(f"{name}: {count} of them, at most {at_most} are read")
    columns = [
        unpacked(code, octets(given, column, exactly=count * array(code).itemsize))
        for column, code in codes.items()
    ]
    return list(zip(*columns, strict=True))
