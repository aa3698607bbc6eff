"""Leaks that no tier sees: some hours of most days, or growing from day to day. Pure.

Both look at the last days hour by hour (`leaks_hours`), and both ask whether the flow stands
still: people draw water in other amounts each day, a worn flapper leaks the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from edge_agent.leaks_hours import (
    DAY_H,
    RATES,
    STANDS_L,
    UNKNOWN,
    code_of_rate,
    floor_of,
    marks_from,
    runs,
)
from edge_agent.leaks_limits import Limits

ONE_RATE_SHARE = 0.25  # of a rate: another day's leak is the same leak


@lru_cache(maxsize=64)
def _marks(lph: float) -> bytes:
    return marks_from(code_of_rate(lph))


def intermittent(hours: bytes, newest_hour: int, limits: Limits) -> int | None:
    """Return the rate in l/h of a leak that runs some hours of most days; None: there is none.

    hours         oldest first
    newest_hour   hours since 1970 of the last of them: tells one day from the next
    """
    window = hours[-limits.intermittent_days * DAY_H :]
    marked = window.translate(_marks(limits.intermittent_lph))
    if marked.count(b"1") < limits.loose_hours * limits.loose_days:
        return None
    folded = _folded(window, limits)
    return folded if folded is not None else _loose(window, marked, newest_hour, limits)


def _folded(window: bytes, limits: Limits) -> int | None:
    """Fold the days on each other: the least that each hour of the day ever drew.

    Whatever people do at an hour, on one day of six they do not: what is left is the leak.
    """
    missing = limits.intermittent_days - limits.folded_reads
    lows = []
    for hour in range(DAY_H):
        day = window[hour::DAY_H]
        lows.append(UNKNOWN if day.count(UNKNOWN) > missing else min(day))
    twice = bytes(lows) * 2
    found = None
    for start, end in runs(twice.translate(_marks(limits.intermittent_lph)), limits.folded_hours):
        for first in range(start, end - limits.folded_hours + 1):
            part = twice[first : first + limits.folded_hours]
            found = _least(found, floor_of(part, limits.standing_hours))
    return found


def _loose(window: bytes, marked: bytes, newest_hour: int, limits: Limits) -> int | None:
    """Look for hours in a row at one rate, whenever in the day they are."""
    first_hour = newest_hour - len(window) + 1
    seen = []
    for start, end in runs(marked, limits.loose_hours):
        rate = _standing(window[start:end], limits)
        if rate is not None:
            seen.append(((first_hour + end) // DAY_H, rate))
    for _, rate in seen:
        near = STANDS_L + ONE_RATE_SHARE * rate
        if len({day for day, other in seen if abs(other - rate) <= near}) >= limits.loose_days:
            return rate
    return None


def _standing(run: bytes, limits: Limits) -> int | None:
    """Return the least rate at which some `loose_hours` hours of a run stand still."""
    found = None
    length = limits.loose_hours
    for first in range(len(run) - length + 1):
        found = _least(found, floor_of(run[first : first + length], limits.standing_hours))
    return found


def _least(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)


def ramp(hours: bytes, limits: Limits) -> int | None:
    """Return the rate in l/h of a leak whose floor rose every day; None: it did not."""
    floors = _floors(hours, limits.ramp_days)
    if floors is None or floors[-1] < limits.ramp_lph:
        return None
    rising = all(before < after for before, after in pairwise(floors))
    return floors[-1] if rising else None


def _floors(hours: bytes, days: int) -> Sequence[int] | None:
    """Return each day's floor: its second lowest hour; None where a day is half unknown."""
    floors = []
    for day in range(days, 0, -1):
        end = len(hours) - (day - 1) * DAY_H
        known = sorted([c for c in hours[end - DAY_H : end] if c != UNKNOWN])
        if len(known) < DAY_H // 2:
            return None
        floors.append(RATES[known[1]])
    return floors
