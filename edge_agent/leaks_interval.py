"""What one complete interval of a meter's register adds to what is known of it. Pure."""

from __future__ import annotations

from typing import Final

from decoders.value import value
from edge_agent import leaks_hours, leaks_patterns
from edge_agent.leaks_episodes import (
    CONTINUOUS,
    INTERMITTENT,
    RAMP,
    Finding,
    Kind,
    Seen,
    over,
    seen,
)
from edge_agent.leaks_limits import DAY_US, HOUR_US, Limits, Tier
from edge_agent.leaks_memory import NEVER, Memory, Run

LEVELS_H: Final = (12, 24, 48, 72, 168)
PATTERNS_EVERY_H: Final = 3
PATTERN_OVER_US: Final = 48 * HOUR_US  # not seen for so long: over

Found = tuple[Finding, ...]


@value
class Interval:
    """Half an hour or more between two samples: begin and end in µs UTC."""

    begin: int
    end: int
    litres: int

    @property
    def lasted_us(self) -> int:
        return self.end - self.begin


def judged(mind: Memory, meter: str, interval: Interval, limits: Limits) -> Found:
    """Take an interval into `mind`; return what was found."""
    hour = _place(mind.newest_hour, interval)
    known = interval.lasted_us <= limits.gap_us or not interval.litres
    code = leaks_hours.UNKNOWN
    if known:
        code = leaks_hours.code_of(interval.litres, interval.lasted_us)
    by = 1 if mind.newest_hour == NEVER else hour - mind.newest_hour
    before = mind.hours[-1]
    mind.hours = leaks_hours.advanced(mind.hours, by, code, stood_still=not interval.litres)
    mind.newest_hour = hour
    for tier, run in zip(limits.continuous, mind.runs, strict=True):
        _follow(run, tier, interval, limits)
    found = _continuous(mind, meter, interval, limits)
    if known and (hour % PATTERNS_EVERY_H == 0 or code < before):
        found += _patterns(mind, meter, interval.end, limits)
    return found


def _place(newest_hour: int, interval: Interval) -> int:
    """Return the hour that an interval fills: the next one after an hour, whatever the minute.

    Reads that drift across the full hour would else fill some hours twice and leave others out.
    """
    if newest_hour == NEVER:
        return interval.end // HOUR_US
    expected = newest_hour + max(1, (interval.lasted_us + HOUR_US // 2) // HOUR_US)
    ahead_us = interval.end - expected * HOUR_US
    if -HOUR_US // 4 <= ahead_us < HOUR_US + HOUR_US // 4:
        return expected
    return max(newest_hour + 1, interval.end // HOUR_US)


def _follow(run: Run, tier: Tier, interval: Interval, limits: Limits) -> None:
    """Go on with a run, or begin it anew: what a register shows is up to a litre too little."""
    lasted_us = interval.lasted_us
    too_little = interval.litres < 1 or (interval.litres + 1) * HOUR_US < tier.lph * lasted_us
    if too_little or lasted_us > limits.longest_gap_us:
        run.since, run.evidence_us = NEVER, 0
        return
    credit = 1.0 if lasted_us <= limits.gap_us else limits.gap_credit
    run.since = interval.begin if run.since == NEVER else run.since
    run.evidence_us += round(lasted_us * credit)


def _continuous(mind: Memory, meter: str, interval: Interval, limits: Limits) -> Found:
    opened = mind.episodes.get(CONTINUOUS)
    if opened is not None and opened.is_open:
        return _going_on(mind, meter, interval, limits)
    for place, (tier, run) in enumerate(zip(limits.continuous, mind.runs, strict=True)):
        if run.evidence_us < tier.hours * HOUR_US - limits.slack_us:
            continue
        rate_lph = _standing(mind, place, interval.end, limits)
        if rate_lph is None:
            continue
        mind.quiet_us = 0
        what = Seen(
            kind=CONTINUOUS,
            at=interval.end,
            started_at=run.since,
            rate_lph=rate_lph,
            level=_level(run.evidence_us + limits.slack_us),
            tier=place,
        )
        return seen(mind.episodes, meter, what, limits)
    return ()


def _going_on(mind: Memory, meter: str, interval: Interval, limits: Limits) -> Found:
    """Follow the open episode: it ends with an hour below the rate of its tier."""
    opened = mind.episodes[CONTINUOUS]
    run = mind.runs[opened.tier]
    if run.since == NEVER:
        mind.quiet_us += interval.lasted_us
        if mind.quiet_us < limits.quiet_us - limits.slack_us:
            return ()
        mind.quiet_us = 0
        return over(mind.episodes, meter, CONTINUOUS, interval.end)
    mind.quiet_us = 0
    standing = _standing(mind, opened.tier, interval.end, limits)
    what = Seen(
        kind=CONTINUOUS,
        at=interval.end,
        started_at=opened.started_at,
        rate_lph=opened.rate_lph if standing is None else standing,
        level=_level(run.evidence_us + limits.slack_us),
        tier=opened.tier,
    )
    return seen(mind.episodes, meter, what, limits)


def _standing(mind: Memory, place: int, end: int, limits: Limits) -> int | None:
    """Return the rate at which the hours of a run stand still: the newest that its tier asks."""
    tier, run = limits.continuous[place], mind.runs[place]
    elapsed_h = max(1, (end - run.since) // HOUR_US)
    known = [code for code in mind.hours[-elapsed_h:] if code != leaks_hours.UNKNOWN]
    hours = known[-tier.hours :]
    share = round(limits.standing_share * len(hours))
    return leaks_hours.floor_of(hours, max(share, limits.standing_hours))


def _level(lasted_us: int) -> int:
    reached = 0
    for level_h in LEVELS_H:
        if lasted_us >= level_h * HOUR_US:
            reached = level_h
    return reached


def _patterns(mind: Memory, meter: str, at: int, limits: Limits) -> Found:
    found: Found = ()
    rates: tuple[tuple[Kind, int | None, int], ...] = (
        (RAMP, leaks_patterns.ramp(mind.hours, limits), limits.ramp_days),
        (
            INTERMITTENT,
            leaks_patterns.intermittent(mind.hours, mind.newest_hour, limits),
            limits.intermittent_days,
        ),
    )
    for kind, rate_lph, days in rates:
        episode = mind.episodes.get(kind)
        if rate_lph is not None:
            started = at - days * DAY_US
            if episode is not None and episode.is_open:
                started = episode.started_at
            litres = rate_lph * (at - started) // HOUR_US
            if kind == INTERMITTENT:
                litres = litres * limits.folded_hours // leaks_hours.DAY_H
            what = Seen(kind=kind, at=at, started_at=started, rate_lph=rate_lph, litres=litres)
            found += seen(mind.episodes, meter, what, limits)
        elif episode is not None and at - episode.seen_at >= PATTERN_OVER_US:
            found += over(mind.episodes, meter, kind, at)
    return found
