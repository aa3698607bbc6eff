"""Rows that come ahead of their turn: alerts and what a gateway hears while it drains a backlog.

They are copies: the same rows come again in order, and are passed over then. `upto` stays what it
is, contiguous; beside it each stream has the ranges above it that were taken early. A range goes
once `upto` has passed it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cloud.metering.model import Int64s, Stream

Ranges = tuple[tuple[int, int], ...]

EARLY_ROWS = 512  # in one message: a share of the credit that delays the rest by little
NEVER = 1 << 63  # above every row number
MOST_RANGES = 1024  # of one stream; alerts of a month are hundreds, and a row of ranges 16 KiB
FOR_LIVE = 64  # of them: alerts lie one by one, what is heard meanwhile makes a range that grows


def known_among(stream: Stream, seqs: Int64s) -> frozenset[int]:
    """Return the places of rows that were taken before, in order or early."""
    held = seqs <= stream.upto
    for first, last in stream.early:
        held |= (seqs >= first) & (seqs <= last)
    return frozenset(np.flatnonzero(held).tolist())


def seen(stream: Stream) -> int:
    """Return the newest row that a gateway told of or sent: it has used the numbers up to it."""
    return max(stream.head, stream.upto, stream.early[-1][1] if stream.early else 0)


def room_for(stream: Stream) -> int:
    """Return how many rows may come early in one message; 0 while too many ranges are open."""
    left = MOST_RANGES - len(stream.early)
    scattered = min(EARLY_ROWS, left - FOR_LIVE)
    return scattered if scattered > 0 else EARLY_ROWS if left > 0 else 0


def has_room(before: Ranges, after: Ranges) -> bool:
    """Say whether rows may be taken early that make these ranges of those."""
    grows = len(after) <= len(before) + 1
    return len(after) <= MOST_RANGES - (0 if grows else FOR_LIVE)


def added(stream: Stream, seqs: Int64s) -> Ranges:
    """Return the ranges with these rows in them."""
    runs = np.split(seqs, np.flatnonzero(np.diff(seqs) != 1) + 1) if len(seqs) else []
    new = [(int(run[0]), int(run[-1])) for run in runs]
    return beyond(_joined([*stream.early, *new]), stream.upto)


def beyond(ranges: Ranges, upto: int) -> Ranges:
    """Return what of the ranges is above `upto`."""
    return tuple((max(first, upto + 1), last) for first, last in ranges if last > upto)


def end_of_range_with(ranges: Ranges, seq: int) -> int | None:
    """Return the last row of the range that holds `seq`, None where none does."""
    return next((last for first, last in ranges if first <= seq <= last), None)


def next_start(ranges: Ranges, seq: int) -> int:
    """Return where the first range after `seq` begins; NEVER where there is none."""
    return next((first for first, _ in ranges if first > seq), NEVER)


def _joined(ranges: Iterable[tuple[int, int]]) -> Ranges:
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    return tuple(joined)
