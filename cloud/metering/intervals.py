"""Consumption between registers, on a grid: hours in UTC, days where the utility is. Pure.

A register is never interpolated here: a boundary without a reading near it makes a gap, and a
gap is drawn as a gap. The litres of a gap are not lost, they are in the daily figure.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from decoders.value import value

UTILITY_ZONE = ZoneInfo("America/Mexico_City")
HOUR = timedelta(hours=1)
NEAR = timedelta(minutes=30)  # a reading this far from a full hour still stands for it


@value
class Point:
    """A register at an instant."""

    at: datetime  # UTC
    register_l: int
    late: bool = False  # it came long after it was read


@value
class Interval:
    """What went through in an hour. `litres` is None where a register is missing or fell: a gap."""

    from_at: datetime
    to_at: datetime
    litres: int | None
    late: bool


def hourly(points: Sequence[Point], *, from_at: datetime, to_at: datetime) -> list[Interval]:
    """Return every hour of [from_at, to_at), oldest first.

    points   registers in rising order of `at`; those just outside the range close its ends
    from_at, to_at   full hours, UTC
    """
    instants = [point.at for point in points]
    edges = []
    edge = from_at
    while edge <= to_at:
        edges.append(_nearest(points, instants, edge))
        edge += HOUR
    return [
        _between(before, after, from_at + index * HOUR)
        for index, (before, after) in enumerate(pairwise(edges))
    ]


def _nearest(points: Sequence[Point], instants: Sequence[datetime], edge: datetime) -> Point | None:
    at = bisect.bisect_left(instants, edge)
    near = [p for p in points[max(0, at - 1) : at + 1] if abs(p.at - edge) < NEAR]
    return min(near, key=lambda p: abs(p.at - edge), default=None)


def _between(before: Point | None, after: Point | None, from_at: datetime) -> Interval:
    to_at = from_at + HOUR
    if before is None or after is None or after.register_l < before.register_l:
        return Interval(from_at=from_at, to_at=to_at, litres=None, late=False)
    litres, late = after.register_l - before.register_l, before.late or after.late
    return Interval(from_at=from_at, to_at=to_at, litres=litres, late=late)


def local_day(at: datetime) -> date:
    """Return the utility's date of an instant."""
    return at.astimezone(UTILITY_ZONE).date()


def day_start(day_on: date) -> datetime:
    """Return the instant at which a day of the utility begins."""
    return datetime(day_on.year, day_on.month, day_on.day, tzinfo=UTILITY_ZONE)
