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


@value
class Wish:
    """A leak the city shall have: it began `age_h` before the end of history, for `lasts_h`."""

    kind: Kind
    rate_lph: int
    age_h: int
    lasts_h: int | None = None
    wmbus: bool = False  # in a house whose meter speaks wM-Bus


WISHES: Sequence[Wish] = (
    # turns 24 h old within the first simulated hour after history
    Wish(kind="continuous", rate_lph=18, age_h=23),
    # begins in the very hour in which history ends
    Wish(kind="burst", rate_lph=900, age_h=0, lasts_h=6),
    Wish(kind="continuous", rate_lph=12, age_h=30),
    Wish(kind="continuous", rate_lph=45, age_h=5 * DAY_H),
    Wish(kind="continuous", rate_lph=14, age_h=4 * DAY_H, wmbus=True),
    Wish(kind="continuous", rate_lph=6, age_h=12 * DAY_H),
    Wish(kind="continuous", rate_lph=110, age_h=30 * DAY_H),
    # found and mended: closed alerts
    Wish(kind="continuous", rate_lph=25, age_h=18 * DAY_H, lasts_h=3 * DAY_H),
    Wish(kind="burst", rate_lph=750, age_h=9 * DAY_H, lasts_h=4),
    Wish(kind="intermittent", rate_lph=30, age_h=25 * DAY_H),
)


def plant(
    *, lorawan: Sequence[int], wmbus: Sequence[int], end_h: int, natural: Ints, first_h: int
) -> tuple[Plant, ...]:
    """Choose a household for each of WISHES, in the order given.

    natural   (households, hours) use from hour `first_h` on, without leaks

    A leak goes to a house that used nothing in the hour before it, so that its age is its own.
    In a city with fewer houses than leaks the last leaks are left out, and in a shorter history
    the older ones.
    """
    free = {False: list(lorawan), True: list(wmbus)}
    planted = []
    for wish in WISHES:
        houses = free[wish.wmbus]
        from_h = end_h - wish.age_h
        if not houses or from_h <= first_h:
            continue
        quiet = [house for house in houses if natural[house, from_h - 1 - first_h] == 0]
        meter = (quiet or houses)[0]
        houses.remove(meter)
        to_h = NEVER if wish.lasts_h is None else from_h + wish.lasts_h
        planted.append(
            Plant(meter=meter, kind=wish.kind, rate_lph=wish.rate_lph, from_h=from_h, to_h=to_h)
        )
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
