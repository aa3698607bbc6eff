"""Which rows of a message's stretch of the stream will never come, and of what kind they were.

An outbox that must make room gives up rows by kind, so what is gone lies between what is left.
`lost` holds 64 ranges; this holds the thousands of small ones of a message, as packed columns.
A cloud that does not know the key goes by `lost` alone and asks again more often.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

from decoders.uplink_fields import SEQ_MAX, Malformed, octets
from decoders.value import value

MAX_GAPS = 4096  # of 33 bytes each: an eighth of a message

GAP_COLUMNS: Mapping[str, str] = {
    "first": "Q",  # seq
    "count": "Q",  # rows from there on
    "kind": "B",  # LossKind; one that a cloud does not know counts as MIXED
    "from_at": "q",  # bounds of when such rows were heard, µs; wider than exact, never narrower
    "to_at": "q",
}


class LossKind(IntEnum):
    """Why a row is gone. 1, 2, 3, then 7: given up for newer ones, in this order."""

    MIXED = 0
    UNDECODABLE = 1
    SUB_HOURLY = 2
    HOURLY = 3
    ACKED = 4  # the cloud had acknowledged it before; only one put back from a backup asks again
    REFUSED = 5  # the cloud could not read it; the gateway keeps it
    CORRUPT = 6  # the gateway's file was damaged there
    OWN = 7  # what the gateway itself had to say: alerts and reports


@value
class Gap:
    """`count` rows from `first` on that the outbox does not hold. Times in µs, the gateway's."""

    first: int
    count: int
    kind: LossKind
    from_at: int
    to_at: int

    @property
    def last(self) -> int:
        return self.first + self.count - 1


def pack_gaps(gaps: Sequence[Gap]) -> dict[str, bytes]:
    """Return the columns of at most MAX_GAPS gaps in rising order."""
    packed = {}
    for name, code in GAP_COLUMNS.items():
        column = array(code, [int(getattr(gap, name)) for gap in gaps])
        if sys.byteorder == "big":
            column.byteswap()
        packed[name] = column.tobytes()
    return packed


def read_gaps(fields: Mapping[str, Any]) -> tuple[Gap, ...]:
    """Read the key `gaps` of a message, () where it has none. Raises Malformed."""
    given = fields.get("gaps")
    if given is None:
        return ()
    if not isinstance(given, dict):
        raise Malformed("gaps: a map of packed columns is expected")
    count = len(octets(given, "kind"))
    if count > MAX_GAPS:
        raise Malformed(f"gaps: {count} of them, at most {MAX_GAPS} are read")
    columns = []
    for name, code in GAP_COLUMNS.items():
        column = array(code)
        column.frombytes(octets(given, name, exactly=count * column.itemsize))
        if sys.byteorder == "big":
            column.byteswap()
        columns.append(column)
    gaps = []
    before = 0
    for first, rows, kind, from_at, to_at in zip(*columns, strict=True):
        if not before < first <= SEQ_MAX or not 1 <= rows <= SEQ_MAX - first + 1:
            raise Malformed(f"gaps: {rows} rows from {first} on, after row {before}")
        known = LossKind(kind) if kind <= max(LossKind) else LossKind.MIXED
        gaps.append(Gap(first=first, count=rows, kind=known, from_at=from_at, to_at=to_at))
        before = first + rows - 1
    return tuple(gaps)
