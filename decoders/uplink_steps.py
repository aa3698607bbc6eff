"""By how much a gateway's clock was set while the rows of a message waited, as packed columns.

The cloud measures a gateway's clock at the moment a message is sent. A row that was heard before
somebody set that clock carries an instant of another clock: what it was set by since is to be
added first. A cloud that does not know the key believes such rows less, or wrongly, as before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from decoders.uplink_columns import pack_records, read_records
from decoders.uplink_fields import INSTANT_MAX, SEQ_MAX, Malformed
from decoders.value import value

MAX_STEPS: Final = 64
BY_MAX_US: Final = INSTANT_MAX // 2  # so that it can be added to any such instant
NOBODY_KNOWS_US: Final = INSTANT_MAX  # as the doubt of a step: it is at best a guess

STEP_COLUMNS: Mapping[str, str] = {
    "seq": "Q",  # the first row heard after it
    "by_us": "q",  # to add to the instants of the rows before it
    "doubt_us": "q",  # how far that may be wrong
}


@value
class ClockStep:
    """The gateway's clock was set by `by_us`, give or take `doubt_us`, before row `seq`."""

    seq: int
    by_us: int
    doubt_us: int = 0


def pack_steps(steps: Sequence[ClockStep]) -> dict[str, bytes]:
    """Return the columns of at most MAX_STEPS steps in rising order."""
    return pack_records(steps, STEP_COLUMNS)


def read_steps(fields: Mapping[str, Any]) -> tuple[ClockStep, ...]:
    """Read the key `steps` of a message, () where it has none. Raises Malformed."""
    steps = []
    before = 0
    for seq, by_us, doubt_us in read_records(fields, "steps", STEP_COLUMNS, at_most=MAX_STEPS):
        if not before < seq <= SEQ_MAX:
            raise Malformed(f"steps: row {seq} after row {before}")
        if abs(by_us) > BY_MAX_US or not 0 <= doubt_us <= NOBODY_KNOWS_US:
            raise Malformed(f"steps: by {by_us} µs, give or take {doubt_us}")
        steps.append(ClockStep(seq=seq, by_us=by_us, doubt_us=doubt_us))
        before = seq
    return tuple(steps)


def sums_after(steps: Sequence[ClockStep]) -> list[tuple[int, int]]:
    """Return (µs to add, doubt in µs) for rows before each of the steps, and for those after all.

    Bounded by BY_MAX_US and NOBODY_KNOWS_US.
    """
    by_us = doubt_us = 0
    sums = [(0, 0)]
    for step in reversed(steps):
        by_us, doubt_us = by_us + step.by_us, doubt_us + step.doubt_us
        bounded = max(-BY_MAX_US, min(BY_MAX_US, by_us))
        sums.append((bounded, min(doubt_us, NOBODY_KNOWS_US)))
    return sums[::-1]
