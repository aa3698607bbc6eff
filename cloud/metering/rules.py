"""What is believed of a batch: which instants, which values, which of two, and with what remark.

Precedence between receptions of one (meter, instant, kind), best first:

1. the meter's own clock (a LoRaWAN profile says when each register was logged);
2. a trusted gateway clock, floored to the hour slot (wM-Bus carries no instant);
3. an untrusted gateway clock: it fills a slot that nothing else fills and never wins.

Among equals of 1 the smaller register is kept: until somebody looks, nobody is charged for water
that only one of two frames claims. Among equals of 2 or 3 the earliest reception is kept: it is
the nearest to the slot's beginning. So the kept value depends on the set of receptions alone,
never on the order in which batches arrive.

A conflict is a contradiction, not a difference. Two telegrams of one hour differ because water
ran: no conflict. Two meter-clock values of one instant contradict each other; so do a meter-clock
value and a smaller trusted reception after it, since registers do not run backwards.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from cloud.metering.model import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    NEVER,
    SECOND_US,
    Bools,
    ClockSource,
    Int16s,
    Int64s,
    Quality,
    Readings,
    States,
)
from decoders.value import value

EARLIEST_US: Final = 1_262_304_000 * SECOND_US
"""2010-01-01: before the first meter of this family; an older date is a reset clock."""

FUTURE_TOLERANCE_US: Final = 5 * MINUTE_US
"""How far a corrected gateway clock may still be ahead of ours."""

UNTRUSTED_AHEAD_MAX_US: Final = DAY_US
"""A clock nobody could measure may be off by time zones, not by more."""

METER_AHEAD_MAX_US: Final = 30 * MINUTE_US
"""Meter clocks drift minutes a year; more than this is a wrong offset in the registry."""

LATE_AFTER_US: Final = 3 * HOUR_US
"""An hourly profile that comes in time is at most one hour and one repeat old."""

ACCEPTED: Final = 0
FUTURE: Final = 1
IMPLAUSIBLE: Final = 2


def corrected_heard_at(
    heard_at: Int64s,
    *,
    correction_us: int,
    trusted: bool | Bools,
    received_at: int,
) -> tuple[Int64s, Int16s]:
    """Return when each row was heard by our clock, and ACCEPTED, FUTURE or IMPLAUSIBLE for each.

    heard_at       (n,) µs, the gateway's clock as it was set last
    correction_us  how far that clock is ahead; 0 when nobody knows
    trusted        (n,) or for all: whether it is that clock, and known well enough

    Nothing is heard after it was received: what seems so within the tolerance is set to
    `received_at`.
    """
    verdict = np.zeros(len(heard_at), np.int16)
    absurd = (heard_at < EARLIEST_US) | (heard_at > received_at + 366 * DAY_US)
    believed = np.where(absurd, received_at, heard_at) - np.where(trusted, correction_us, 0)
    ahead = np.where(trusted, FUTURE_TOLERANCE_US, UNTRUSTED_AHEAD_MAX_US)
    verdict[(believed > received_at + ahead) | (absurd & (heard_at > received_at))] = FUTURE
    verdict[absurd & (heard_at <= received_at)] = IMPLAUSIBLE
    return np.minimum(believed, received_at), verdict


def hour_slot(instants: Int64s) -> Int64s:
    """Return the beginning of the clock hour of each instant (µs)."""
    slots: Int64s = instants - instants % HOUR_US
    return slots


def register_instants_verdict(register_at: Int64s, *, received_at: int, oldest_us: int) -> Int16s:
    """Return ACCEPTED, FUTURE or IMPLAUSIBLE for each instant (µs)."""
    verdict = np.zeros(len(register_at), np.int16)
    verdict[register_at > received_at + METER_AHEAD_MAX_US] = FUTURE
    verdict[register_at < max(EARLIEST_US, oldest_us)] = IMPLAUSIBLE
    return verdict


def remarks(
    readings: Readings, *, states: States, max_flow_lph: Int64s, received_at: int
) -> Int16s:
    """Return the `Quality` of each reading, given in (meter, instant) order without repeats.

    states        of all meters of the batch, in meter_key order
    max_flow_lph  (meters,), beside `states`: what the pipe can carry, litres an hour
    """
    n = len(readings)
    quality = np.zeros(n, np.int16)
    if not n:
        return quality
    at, register, place = readings.register_at, readings.register_l, _places(readings, states)
    before_at = np.concatenate(([NEVER], at[:-1]))
    before_l = np.concatenate(([0], register[:-1]))
    first = np.concatenate(([True], place[1:] != place[:-1]))
    before_at = np.where(first, states.last_at[place], before_at)
    before_l = np.where(first, states.last_register_l[place], before_l)
    known = (before_at != NEVER) & (before_at < at)
    risen = np.where(known, register - before_l, 0)
    hours = np.where(known, at - before_at, HOUR_US) / HOUR_US
    quality[risen < 0] |= Quality.WENT_BACK
    quality[risen > np.ceil(hours * max_flow_lph[place])] |= Quality.JUMP
    quality[received_at - at > LATE_AFTER_US] |= Quality.LATE
    return quality


def _places(readings: Readings, states: States) -> Int64s:
    places: Int64s = np.searchsorted(states.meter_key, readings.meter_key)
    return places


@value
class Deduplicated:
    """A batch's readings, one per (meter, instant), sorted; and the pairs that contradict.

    kept, other   indices into the readings given: `other[i]` lost against `kept[i]`
    """

    readings: Readings
    kept: Int64s
    other: Int64s


def one_each(readings: Readings) -> Deduplicated:
    """Sort readings by (meter, instant) and keep the best of those with the same key."""
    order = np.lexsort((readings.register_at, readings.meter_key))
    meter, at = readings.meter_key[order], readings.register_at[order]
    repeats = (meter[1:] == meter[:-1]) & (at[1:] == at[:-1])
    nothing = np.zeros(0, np.int64)
    if not repeats.any():
        return Deduplicated(readings=readings.take(order), kept=nothing, other=nothing)
    order = np.lexsort((*_rank(readings)[::-1], readings.register_at, readings.meter_key))
    meter, at = readings.meter_key[order], readings.register_at[order]
    repeats = (meter[1:] == meter[:-1]) & (at[1:] == at[:-1])
    first = np.concatenate(([True], ~repeats))
    best = order[np.flatnonzero(first)[np.cumsum(first) - 1]]  # the winner of each one's group
    lost = ~first
    kept, other = best[lost], order[lost]
    fight = contradicts(kept=readings.take(kept), other=readings.take(other))
    return Deduplicated(readings=readings.take(order[first]), kept=kept[fight], other=other[fight])


def replaces(*, stored: Readings, incoming: Readings) -> Bools:
    """Say which incoming readings take the place of the stored ones of the same key.

    Equal ranks do not. A meter-clock value equal to the stored one does not either, so that a
    repeat costs no write.
    """
    answer = np.zeros(len(stored), np.bool_)
    decided = np.zeros(len(stored), np.bool_)
    for mine, theirs in zip(_rank(incoming), _rank(stored), strict=True):
        answer |= ~decided & (mine < theirs)
        decided |= mine != theirs
    same = stored.register_l == incoming.register_l
    wins: Bools = answer & ~(same & (stored.clock == ClockSource.METER))
    return wins


def contradicts(*, kept: Readings, other: Readings) -> Bools:
    """Say which pairs cannot both be true; `kept` is the better of each by precedence."""
    meter = kept.clock == ClockSource.METER
    both_logged = meter & (other.clock == ClockSource.METER)
    heard_after = meter & (other.clock == ClockSource.GATEWAY_TRUSTED)
    differs = both_logged & (other.register_l != kept.register_l)
    runs_back = heard_after & (other.register_l < kept.register_l)
    answer: Bools = differs | runs_back
    return answer


def rule_named(kept_clock: int, other_clock: int) -> str:
    """Return the name of the precedence that decided between two clocks."""
    if kept_clock == other_clock:
        return "smaller_register" if kept_clock == ClockSource.METER else "earliest_reception"
    return "meter_clock" if kept_clock == ClockSource.METER else "trusted_clock"


def _rank(readings: Readings) -> tuple[Int64s, Int64s, Int64s]:
    """Return the columns by which readings of one key compare: smaller is better.

    The last column makes the order total; for the meter's clock it must not decide between
    equal values (see `replaces`), since repeats are not stored.
    """
    clock = readings.clock.astype(np.int64)
    logged = readings.clock == ClockSource.METER
    second = np.where(logged, readings.register_l, readings.heard_at)
    third = np.where(logged, 0, readings.register_l)
    return clock, second, third
