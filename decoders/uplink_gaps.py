"""Which rows of a message's stretch of the stream will never come, and of what kind they were.

An outbox that must make room gives up rows by kind, so what is gone lies between what is left.
`lost` holds 64 ranges; this holds the thousands of small ones of a message, as packed columns.
A cloud that does not know the key goes by `lost` alone and asks again more often.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

from decoders.uplink_columns import pack_records, read_records
from decoders.uplink_fields import SEQ_MAX, Malformed
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
    return pack_records(gaps, GAP_COLUMNS)


def read_gaps(fields: Mapping[str, Any]) -> tuple[Gap, ...]:
    """Read the key `gaps` of a message, () where it has none. Raises Malformed."""
    gaps = []
    before = 0
    for first, rows, kind, from_at, to_at in read_records(
        fields, "gaps", GAP_COLUMNS, at_most=MAX_GAPS
    ):
        if not before < first <= SEQ_MAX or not 1 <= rows <= SEQ_MAX - first + 1:
            raise Malformed(f"gaps: {rows} rows from {first} on, after row {before}")
        known = LossKind(kind) if kind <= max(LossKind) else LossKind.MIXED
        gaps.append(Gap(first=first, count=rows, kind=known, from_at=from_at, to_at=to_at))
        before = first + rows - 1
    return tuple(gaps)
