"""Half-open periods: from an instant or local date, included, until another, excluded.

    >>> from datetime import date
    >>> january = Period(starts=date(2026, 1, 1), ends=date(2026, 2, 1))
    >>> date(2026, 1, 31) in january, date(2026, 2, 1) in january
    (True, False)
    >>> january.overlaps(Period(starts=date(2026, 2, 1)))
    False

Periods that follow one another share a boundary and no instant, so nothing is counted twice
and nothing falls between. The database refuses overlaps with `forbid_overlap`
(schema/context_0002_periods.sql); this is the same rule for code that has not stored yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from itertools import pairwise
from typing import Generic, TypeVar

from decoders.value import value

Point = TypeVar("Point", datetime, date, int)
"""When something begins or ends: an aware instant, a local date, or microseconds since 1970 UTC."""


class PeriodBackwards(ValueError):
    """A period ends before, or when, it starts."""

    def __init__(self, starts: object, ends: object) -> None:
        super().__init__(f"a period cannot start at {starts} and end at {ends}")


@value
class Period(Generic[Point]):
    """The time from `starts` (in it) until `ends` (not in it); None: until further notice."""

    starts: Point
    ends: Point | None = None

    def __post_init__(self) -> None:
        if self.ends is not None and self.ends <= self.starts:
            raise PeriodBackwards(self.starts, self.ends)

    def __contains__(self, point: Point) -> bool:
        return self.starts <= point and (self.ends is None or point < self.ends)

    def overlaps(self, other: Period[Point]) -> bool:
        """Say whether some point is in both."""
        return (other.ends is None or self.starts < other.ends) and (
            self.ends is None or other.starts < self.ends
        )

    def intersection(self, other: Period[Point]) -> Period[Point] | None:
        """Return what is in both; None when nothing is."""
        if not self.overlaps(other):
            return None
        ends = [end for end in (self.ends, other.ends) if end is not None]
        return Period(starts=max(self.starts, other.starts), ends=min(ends, default=None))


def first_overlap(periods: Iterable[Period[Point]]) -> tuple[Period[Point], Period[Point]] | None:
    """Return two of `periods` that overlap, or None when none do.

    Sorted by start, only neighbours need comparing: a period that does not reach the next one
    reaches none after it.
    """
    ordered = sorted(periods, key=lambda period: period.starts)
    for earlier, later in pairwise(ordered):
        if earlier.overlaps(later):
            return earlier, later
    return None
