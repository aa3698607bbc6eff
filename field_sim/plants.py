"""Leaks planted in the city: what a household loses on top of what it uses.

A plant is defined by whole hours (UTC hours since 1970), so that a leak "23 hours old" has leaked
in exactly 23 complete hours of its meter's profile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from decoders.value import value

Ints = npt.NDArray[np.int64]
Kind = Literal["continuous", "burst", "intermittent"]

DAY_H = 24
INTERMITTENT_H = 8  # a day: a toilet that runs until somebody moves the lever; escapes 24 h rules


@value
class Plant:
    """Where, what and when it leaks.

    meter      index of the household
    rate_lph   litres an hour while it leaks
    from_h     first hour in which it leaks, to_h the first in which it no longer does
    """

    meter: int
    kind: Kind
    rate_lph: int
    from_h: int
    to_h: int


NEVER = 1 << 40  # hours: nobody has mended it yet

# (kind, litres an hour, hours before the end of history it began, hours it lasts or None)
PLANTED: Sequence[tuple[Kind, int, int, int | None]] = (
    ("continuous", 18, 23, None),  # turns 24 h old within the first simulated hour after history
    ("burst", 900, 0, 6),  # begins in the very hour in which history ends
    ("continuous", 12, 30, None),
    ("continuous", 45, 5 * DAY_H, None),
    ("continuous", 6, 12 * DAY_H, None),
    ("continuous", 110, 30 * DAY_H, None),
    ("continuous", 25, 18 * DAY_H, 3 * DAY_H),  # found and mended: a closed alert
    ("burst", 750, 9 * DAY_H, 4),
    ("intermittent", 30, 25 * DAY_H, None),
)


def plant(order: Sequence[int], *, end_h: int, litres: Ints, first_h: int) -> tuple[Plant, ...]:
    """Choose a household for each of PLANTED, in `order`.

    litres  (households, hours) natural use from hour `first_h` on

    A continuous leak goes to a house that used nothing in the hour before it, so that its age is
    its own. In a city with fewer houses than leaks the last leaks are left out.
    """
    free = list(order)
    planted = []
    for kind, rate_lph, age_h, lasts_h in PLANTED:
        from_h = end_h - age_h
        quiet = [m for m in free if litres[m, from_h - 1 - first_h] == 0]
        if not free:
            break
        meter = (quiet or free)[0]
        free.remove(meter)
        to_h = NEVER if lasts_h is None else from_h + lasts_h
        planted.append(Plant(meter=meter, kind=kind, rate_lph=rate_lph, from_h=from_h, to_h=to_h))
    return tuple(planted)


def leaked(plant: Plant, hours: Ints) -> Ints:
    """Return the litres this plant adds in each of `hours`."""
    leaks = (hours >= plant.from_h) & (hours < plant.to_h)
    if plant.kind == "intermittent":
        days = hours // DAY_H
        # another start each day, as real toilets have; the multiplier only scatters the days
        starts = (days * 2_654_435_761 >> 7) % (DAY_H - INTERMITTENT_H)
        hour_of_day = hours % DAY_H
        leaks &= (hour_of_day >= starts) & (hour_of_day < starts + INTERMITTENT_H)
    return np.where(leaks, plant.rate_lph, 0).astype(np.int64)
