"""Streaming leak rules: what one meter's register says, sample by sample. Pure.

Two rules, both on the intervals that the meter itself reported, never on interpolated values
(resampling to whole hours invents "hours without flow" and hides them):

- *continuous flow*: every interval of 24, 48, 72 hours drew more than a limit; closes after an
  hour that did not.
- *burst*: the mean over at least half an hour is a fifth of Q3 or more.

A gap of more than three hours breaks the evidence for opening. A register that goes back, or
forward faster than the pipe allows, is doubted: the rules wait for the next sample to say whether
that was one wrong value or a new register, and raise nothing meanwhile.

Sources: Kamstrup MULTICAL 21 / flowIQ 2102 data sheets (leak surveillance from 0.1 % of Q3, no
hour without flow in 24 h; burst > 20 % of Q3 for 30 min); Sensus iPERL+ (tiers 24/48/72 h).
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import Final, Literal

from decoders.value import value

MINUTE_US: Final = 60_000_000
HOUR_US: Final = 60 * MINUTE_US

Kind = Literal["continuous_flow", "burst"]
CONTINUOUS: Final = "continuous_flow"
BURST: Final = "burst"

Point = tuple[int, int]  # (µs UTC, register in litres)
NOWHERE: Final[Point] = (-1, -1)


@value
class Limits:
    """When a flow is a finding. Defaults: a household meter with Q3 = 2.5 m³/h."""

    continuous_lph: float = 2.5  # 0.1 % of Q3: above it, not at it
    levels_h: tuple[int, ...] = (24, 48, 72)
    quiet_us: int = HOUR_US  # without flow above the limit, to close
    gap_us: int = 3 * HOUR_US  # a longer silence is no evidence
    burst_lph: float = 500.0  # 20 % of Q3: at it or above
    burst_window_us: int = 30 * MINUTE_US
    plausible_lph: float = 5000.0  # 2 × Q3; faster is a wrong value, not water
    slack_us: int = 10 * MINUTE_US  # "hourly" reads come up to minutes early


DEFAULT_LIMITS: Final = Limits()

# Shorter intervals are joined until they are this long and reach another hour: 1 litre of
# resolution in 16 seconds would read as 225 l/h.
EVIDENCE_US: Final = 30 * MINUTE_US
USE_BEFORE_US: Final = 3 * HOUR_US  # a leak that begins while people use water: their last hours
RECENT_STEP_US: Final = 10 * MINUTE_US  # spacing of the samples kept for the burst window


@value
class Finding:
    """An episode opened, escalated or closed.

    episode      16 hex digits; the same wherever the same start hour was seen
    level        hours of continuous flow: 24 | 48 | 72; 0 for a burst
    started_at   µs UTC; ended_at: µs UTC of the newest sample
    rate_lph     continuous flow: the least that any interval drew since the level before, since
                 what runs when nobody draws water is the leak, and the rest is use; burst: the
                 mean
    litres       lost at that rate (continuous flow), or drawn in all (burst)
    """

    kind: Kind
    meter: str
    episode: str
    level: int
    started_at: int
    ended_at: int
    rate_lph: int
    litres: int
    state: Literal["open", "closed"]


@value
class Flow:
    """What the rules remember of one meter. NOWHERE where there is nothing to remember."""

    last: Point  # newest believed sample
    base: Point  # where the present evidence interval began
    recent: tuple[Point, ...]  # the burst window, oldest first, at least 10 minutes apart
    doubt: Point = NOWHERE  # a sample that did not fit the one before
    run: Point = NOWHERE  # where flow above the limit began
    open: Point = NOWHERE  # where the open continuous-flow episode began
    level: int = 0
    quiet_us: int = 0
    least_lph: int = 0  # the least flow of an interval since the level before; 0 = none yet
    burst: Point = NOWHERE  # where the open burst began


def episode_id(meter: str, kind: str, started_at: int) -> str:
    """Name an episode so that two gateways that saw the same start say the same name."""
    text = f"{meter}|{kind}|{started_at // HOUR_US}"
    return blake2b(text.encode(), digest_size=8).hexdigest()


def feed(
    flow: Flow | None, meter: str, point: Point, limits: Limits = DEFAULT_LIMITS
) -> tuple[Flow, tuple[Finding, ...]]:
    """Take one more sample of `meter`'s register; return what to remember and what was found.

    point   (µs UTC, litres). Samples that are not newer than the last one change nothing, except
            where time went back by more than a gap: then the clock was set, evidence restarts.
    """
    if flow is None:
        return Flow(last=point, base=point, recent=(point,)), ()
    at = point[0]
    if at <= flow.last[0]:
        was_set = flow.last[0] - at > limits.gap_us
        return (_restarted(flow, point) if was_set else flow), ()
    if not _fits(flow.last, point, limits):
        doubted = flow.doubt is not NOWHERE and at > flow.doubt[0]
        is_new = doubted and _fits(flow.doubt, point, limits)
        return (_restarted(flow, point) if is_new else _changed(flow, doubt=point)), ()
    burst, burst_found = _burst(flow, meter, point, limits)
    recent = _kept(flow.recent, point, limits)
    if at // HOUR_US == flow.base[0] // HOUR_US or at - flow.base[0] < EVIDENCE_US:
        return _changed(flow, last=point, recent=recent, doubt=NOWHERE, burst=burst), burst_found
    after, found = _continuous(flow, meter, point, limits)
    run, opened, level, quiet_us, least_lph = after
    moved = Flow(
        last=point,
        base=point,
        recent=recent,
        run=run,
        open=opened,
        level=level,
        quiet_us=quiet_us,
        least_lph=least_lph,
        burst=burst,
    )
    return moved, burst_found + found


def _fits(before: Point, after: Point, limits: Limits) -> bool:
    litres = after[1] - before[1]
    most = limits.plausible_lph * (after[0] - before[0]) / HOUR_US + 2  # ± 1 litre of resolution
    return 0 <= litres <= most


def _restarted(flow: Flow, point: Point) -> Flow:
    """Forget the evidence, not the open episodes: only data closes those."""
    return Flow(
        last=point,
        base=point,
        recent=(point,),
        open=NOWHERE if flow.open is NOWHERE else (flow.open[0], point[1]),
        level=flow.level,
        least_lph=flow.least_lph,
        burst=NOWHERE if flow.burst is NOWHERE else (flow.burst[0], point[1]),
    )


def _changed(
    flow: Flow,
    *,
    last: Point | None = None,
    recent: tuple[Point, ...] | None = None,
    doubt: Point | None = None,
    burst: Point | None = None,
) -> Flow:
    return Flow(
        last=flow.last if last is None else last,
        base=flow.base,
        recent=flow.recent if recent is None else recent,
        doubt=flow.doubt if doubt is None else doubt,
        run=flow.run,
        open=flow.open,
        level=flow.level,
        quiet_us=flow.quiet_us,
        least_lph=flow.least_lph,
        burst=flow.burst if burst is None else burst,
    )


def _kept(recent: tuple[Point, ...], point: Point, limits: Limits) -> tuple[Point, ...]:
    """Return the burst window with `point`: the newest sample old enough, and all younger."""
    old_enough = point[0] - limits.burst_window_us
    first = 0
    for i, kept in enumerate(recent):
        if kept[0] <= old_enough:
            first = i
    if point[0] - recent[-1][0] >= RECENT_STEP_US:
        return (*recent[first:], point)
    return recent[first:]


def _burst(
    flow: Flow, meter: str, point: Point, limits: Limits
) -> tuple[Point, tuple[Finding, ...]]:
    """Judge the mean over the shortest window of half an hour or more that ends at `point`."""
    begin = NOWHERE
    for kept in flow.recent:
        if point[0] - kept[0] >= limits.burst_window_us:
            begin = kept
    if begin is NOWHERE:
        return flow.burst, ()
    lasted_us = point[0] - begin[0]
    high = (point[1] - begin[1]) * HOUR_US >= limits.burst_lph * lasted_us
    is_open = flow.burst is not NOWHERE
    if high and not is_open and lasted_us <= limits.gap_us:
        return begin, (_burst_finding(meter, begin, point, is_open=True),)
    if not high and is_open:
        return NOWHERE, (_burst_finding(meter, flow.burst, point, is_open=False),)
    return flow.burst, ()


_Continuous = tuple[Point, Point, int, int, int]  # run, open, level, quiet_us, least_lph


def _continuous(
    flow: Flow, meter: str, point: Point, limits: Limits
) -> tuple[_Continuous, tuple[Finding, ...]]:
    """Judge the interval base → point; return what to remember of it, and findings."""
    lasted_us = point[0] - flow.base[0]
    drawn = point[1] - flow.base[1]
    if not drawn * HOUR_US > limits.continuous_lph * lasted_us:
        quiet_us = flow.quiet_us + lasted_us
        if flow.open is NOWHERE or quiet_us < limits.quiet_us - limits.slack_us:
            return (NOWHERE, flow.open, flow.level, quiet_us, flow.least_lph), ()
        found = _continuous_finding(
            meter, flow.open, point, level=flow.level, rate_lph=flow.least_lph, is_open=False
        )
        return (NOWHERE, NOWHERE, 0, 0, 0), (found,)
    if lasted_us > limits.gap_us:
        return (point, flow.open, flow.level, 0, flow.least_lph), ()
    rate_lph = drawn * HOUR_US // lasted_us
    run = flow.base if flow.run is NOWHERE else flow.run
    least_lph = _least(flow, run, point, rate_lph)
    level = _level(point[0] - run[0] + limits.slack_us, limits)
    if level <= flow.level:
        return (run, flow.open, flow.level, 0, least_lph), ()
    opened = run if flow.open is NOWHERE else flow.open
    found = _continuous_finding(meter, opened, point, level=level, rate_lph=least_lph, is_open=True)
    return (run, opened, level, 0, rate_lph), (found,)


def _least(flow: Flow, run: Point, point: Point, rate_lph: int) -> int:
    """Return the least flow so far, the first hours of a run left out: they may still be use."""
    before = 0 if flow.run is NOWHERE and flow.open is NOWHERE else flow.least_lph
    if point[0] - run[0] <= USE_BEFORE_US:
        return before
    return rate_lph if before == 0 else min(before, rate_lph)


def _level(lasted_us: int, limits: Limits) -> int:
    reached = 0
    for level_h in limits.levels_h:
        if lasted_us >= level_h * HOUR_US:
            reached = level_h
    return reached


def _continuous_finding(
    meter: str, started: Point, point: Point, *, level: int, rate_lph: int, is_open: bool
) -> Finding:
    return Finding(
        kind=CONTINUOUS,
        meter=meter,
        episode=episode_id(meter, CONTINUOUS, started[0]),
        level=level,
        started_at=started[0],
        ended_at=point[0],
        rate_lph=rate_lph,
        litres=rate_lph * (point[0] - started[0]) // HOUR_US,
        state="open" if is_open else "closed",
    )


def _burst_finding(meter: str, started: Point, point: Point, *, is_open: bool) -> Finding:
    drawn = max(0, point[1] - started[1])
    return Finding(
        kind=BURST,
        meter=meter,
        episode=episode_id(meter, BURST, started[0]),
        level=0,
        started_at=started[0],
        ended_at=point[0],
        rate_lph=round(drawn * HOUR_US / max(1, point[0] - started[0])),
        litres=drawn,
        state="open" if is_open else "closed",
    )


# version, level, quiet_us, least_lph, then the six points, then the window
_LAYOUT: Final = struct.Struct("<BBqq12q")
_LAYOUT_1: Final = struct.Struct("<BBq12q")  # of version 1, which knew no least_lph
_POINT: Final = struct.Struct("<qq")
_VERSION: Final = 2


def pack(flow: Flow) -> bytes:
    """Return `flow` as bytes for a checkpoint."""
    head = _LAYOUT.pack(
        _VERSION,
        flow.level,
        flow.quiet_us,
        flow.least_lph,
        *flow.last,
        *flow.base,
        *flow.doubt,
        *flow.run,
        *flow.open,
        *flow.burst,
    )
    return head + b"".join([_POINT.pack(*point) for point in flow.recent])


def unpack(packed: bytes) -> Flow | None:
    """Read a checkpoint of this version or an earlier one.

    None where a version that is not known here wrote it: evidence then starts afresh.
    """
    if len(packed) >= _LAYOUT.size and packed[0] == _VERSION:
        layout = _LAYOUT
        _, level, quiet_us, least_lph, *flat = layout.unpack_from(packed)
    elif len(packed) >= _LAYOUT_1.size and packed[0] == 1:
        layout, least_lph = _LAYOUT_1, 0
        _, level, quiet_us, *flat = layout.unpack_from(packed)
    else:
        return None
    points = [_point(flat[i], flat[i + 1]) for i in range(0, 12, 2)]
    last, base, doubt, run, opened, burst = points
    recent = tuple(_POINT.iter_unpack(packed[layout.size :]))
    return Flow(
        last=last,
        base=base,
        recent=recent,
        doubt=doubt,
        run=run,
        open=opened,
        level=level,
        quiet_us=quiet_us,
        least_lph=least_lph,
        burst=burst,
    )


def _point(at: int, register: int) -> Point:
    return NOWHERE if at == NOWHERE[0] else (at, register)
