"""Streaming leak rules: what one meter's register says, sample by sample. Pure.

The same code runs on the gateway and in the cloud. All rules look at the intervals that the meter
itself reported, never at interpolated values: resampling to whole hours invents "hours without
flow" and hides them.

- *continuous flow*: so much for so long without a pause, and standing still at some of the hours
- *intermittent*, *ramp*: `leaks_patterns`
- *burst*: more than a house draws, for half an hour, or a little less for two
- *backflow*: the register stays lower than it was
- *silent*, *dry*, *tamper*, *low battery*: what the meter says of itself, `leaks_status`

A register that goes back, or forward faster than the pipe allows, is doubted: the rules wait for
the next sample to say whether that was one wrong value or a new register.

Thresholds and their sources: `leaks_limits`. Who is told and when: `leaks_episodes`. Measured
detection and load: docs/guides/leaks.md.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from decoders.value import value
from edge_agent import leaks_hours, leaks_memory, leaks_older
from edge_agent.leaks_episodes import (
    BACKFLOW,
    BURST,
    SILENT,
    Finding,
    Kind,
    Seen,
    alarm_bit,
    episode_id,
    over,
    seen,
)
from edge_agent.leaks_interval import Interval, judged
from edge_agent.leaks_limits import DAY_US, DEFAULT_LIMITS, HOUR_US, MINUTE_US, Limits
from edge_agent.leaks_memory import Memory, Run

__all__ = [
    "DEFAULT_LIMITS",
    "HOUR_US",
    "MINUTE_US",
    "NEVER_LATE",
    "NOWHERE",
    "Finding",
    "Flow",
    "Limits",
    "Point",
    "episode_id",
    "feed",
    "last_at",
    "pack",
    "unpack",
]

Point = tuple[int, int]  # (µs UTC, register in litres)
NOWHERE: Final[Point] = (-1, -1)

# Shorter intervals are joined until they are this long and reach another hour: 1 litre of
# resolution in 16 seconds would read as 225 l/h.
EVIDENCE_US: Final = 30 * MINUTE_US
NEARLY_AN_HOUR_US: Final = 50 * MINUTE_US
RECENT_STEP_US: Final = 10 * MINUTE_US  # spacing of the samples kept for the burst window
NEAR_BACK_L: Final = 2  # of its mark: a register that came back


@value
class Flow:
    """What the rules remember of one meter. NOWHERE where there is nothing to remember."""

    last: Point  # newest believed sample
    base: Point  # where the present interval began
    recent: tuple[Point, ...]  # the burst window, oldest first, at least 10 minutes apart
    doubt: Point = NOWHERE  # a sample that did not fit the one before
    burst: Point = NOWHERE  # where the open burst began
    mark: Point = NOWHERE  # what the register was before it went back
    alarms: int = 0  # what the meter says of itself: a bit for each of `leaks_status.ALARMS`
    memory: bytes = b""  # `leaks_memory`


Found = tuple[Finding, ...]


def feed(
    flow: Flow | None, meter: str, point: Point, limits: Limits = DEFAULT_LIMITS
) -> tuple[Flow, Found]:
    """Take one more sample of `meter`'s register; return what to remember and what was found.

    point   (µs UTC, litres). Samples that are not newer than the last one change nothing, except
            where time went back by more than a gap: then the clock was set, evidence restarts.
    """
    if flow is None:
        return Flow(last=point, base=point, recent=(point,)), ()
    at = point[0]
    if at <= flow.last[0]:
        was_set = flow.last[0] - at > limits.gap_us
        return (_restarted(flow, point, limits) if was_set else flow), ()
    if not _fits(flow.last, point, limits):
        doubted = flow.doubt is not NOWHERE and at > flow.doubt[0]
        if doubted and _fits(flow.doubt, point, limits):
            return _another_register(flow, meter, point, limits)
        return replace(flow, doubt=point), ()
    burst, act = _burst_window(flow, point, limits)
    recent = _kept(flow.recent, point, limits)
    memory = flow.memory
    found: Found = ()
    complete = _is_complete(flow, at)
    if complete or act is not None:
        mind = leaks_memory.unpack(memory, limits)
        if act is not None:
            found = act(mind, meter)
        if complete:
            found += _completed(mind, meter, flow, point, limits)
            if burst is NOWHERE:
                burst, more = _long_burst(mind, meter, flow, point, limits)
                found += more
        memory = leaks_memory.pack(mind)
    return (
        Flow(
            last=point,
            base=point if complete else flow.base,
            recent=recent,
            burst=burst,
            mark=NOWHERE if point[1] >= flow.mark[1] else flow.mark,
            alarms=flow.alarms,
            memory=memory,
        ),
        found,
    )


def _is_complete(flow: Flow, at: int) -> bool:
    """Say whether base → `at` is an interval of its own.

    Telegrams every few seconds are cut where the hour is full, whoever hears them. Hourly reads may
    come seconds before or after the full hour: what is nearly an hour long is one.
    """
    lasted_us = at - flow.base[0]
    if lasted_us < EVIDENCE_US:
        return False
    is_read_hourly = at - flow.last[0] >= EVIDENCE_US and lasted_us >= NEARLY_AN_HOUR_US
    return is_read_hourly or at // HOUR_US != flow.base[0] // HOUR_US


def _fits(before: Point, after: Point, limits: Limits) -> bool:
    litres = after[1] - before[1]
    most = limits.plausible_lph * (after[0] - before[0]) / HOUR_US + 2  # ± 1 litre of resolution
    return 0 <= litres <= most


def _another_register(flow: Flow, meter: str, point: Point, limits: Limits) -> tuple[Flow, Found]:
    """Two samples agree that the register is another: water went back, or it is a new one."""
    gone_l = flow.last[1] - flow.doubt[1]
    most = limits.backflow_lph * (flow.doubt[0] - flow.last[0]) / HOUR_US + 2
    restarted = _restarted(flow, point, limits)
    if not limits.backflow_l <= gone_l <= most or point[1] >= flow.last[1] - NEAR_BACK_L:
        return restarted, ()
    mind = leaks_memory.unpack(restarted.memory, limits)
    what = Seen(kind=BACKFLOW, at=point[0], started_at=flow.last[0], litres=gone_l)
    found = seen(mind.episodes, meter, what, limits)
    return replace(restarted, mark=flow.last, memory=leaks_memory.pack(mind)), found


def _restarted(flow: Flow, point: Point, limits: Limits) -> Flow:
    """Forget the evidence, not the open episodes: only data closes those."""
    mind = leaks_memory.unpack(flow.memory, limits)
    fresh = Memory(runs=[Run() for _ in mind.runs], episodes=mind.episodes)
    return Flow(
        last=point,
        base=point,
        recent=(point,),
        burst=NOWHERE if flow.burst is NOWHERE else (flow.burst[0], point[1]),
        alarms=flow.alarms,
        memory=leaks_memory.pack(fresh) if flow.memory else b"",
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


def _burst_window(
    flow: Flow, point: Point, limits: Limits
) -> tuple[Point, Callable[[Memory, str], Found] | None]:
    """Judge the mean over the shortest window of half an hour or more that ends at `point`.

    Returns where the open burst began, and what to do with the memory if that changes something.
    """
    begin = NOWHERE
    for kept in flow.recent:
        if point[0] - kept[0] >= limits.burst_window_us:
            begin = kept
    if begin is NOWHERE:
        return flow.burst, None
    lasted_us = point[0] - begin[0]
    drawn = (point[1] - begin[1]) * HOUR_US
    if flow.burst is not NOWHERE:
        if drawn >= limits.long_burst_lph * lasted_us:
            return flow.burst, None
        litres = max(0, point[1] - flow.burst[1])
        return NOWHERE, lambda mind, meter: over(mind.episodes, meter, BURST, point[0], litres)
    if drawn >= limits.burst_lph * lasted_us and lasted_us <= limits.gap_us:
        what = _burst(begin, point)
        return begin, lambda mind, meter: seen(mind.episodes, meter, what, limits)
    return NOWHERE, None


def _long_burst(
    mind: Memory, meter: str, flow: Flow, point: Point, limits: Limits
) -> tuple[Point, Found]:
    """Judge the last whole hours: less than a burst, but for longer."""
    least = leaks_hours.code_of_rate(limits.long_burst_lph)
    last = mind.hours[-limits.long_burst_hours :]
    if not all(least <= code < leaks_hours.UNKNOWN for code in last):
        return NOWHERE, ()
    begin_at = point[0] - limits.long_burst_hours * HOUR_US
    drawn = sum([leaks_hours.RATES[code] for code in last])
    begin = (min(begin_at, flow.base[0]), point[1] - drawn)
    return begin, seen(mind.episodes, meter, _burst(begin, point), limits)


def _burst(begin: Point, point: Point) -> Seen:
    litres = max(0, point[1] - begin[1])
    return Seen(
        kind=BURST,
        at=point[0],
        started_at=begin[0],
        rate_lph=round(litres * HOUR_US / max(1, point[0] - begin[0])),
        litres=litres,
    )


def _completed(mind: Memory, meter: str, flow: Flow, point: Point, limits: Limits) -> Found:
    """Take the complete interval base → point."""
    interval = Interval(begin=flow.base[0], end=point[0], litres=point[1] - flow.base[1])
    found = judged(mind, meter, interval, limits)
    for kind, is_over in _ended(mind, flow, point):
        if is_over:
            found += over(mind.episodes, meter, kind, point[0], 0)
    return found


def _ended(mind: Memory, flow: Flow, point: Point) -> tuple[tuple[Kind, bool], ...]:
    """Say which episodes a new interval ends: any ends a silence; backflow ends when the register
    is back where it was, or after a day without more of it."""
    backflow = mind.episodes.get(BACKFLOW)
    calm = backflow is not None and point[0] - backflow.seen_at >= DAY_US
    back = point[1] >= flow.mark[1] or calm
    return ((SILENT, True), (BACKFLOW, back and not flow.alarms & alarm_bit(BACKFLOW)))


# version, five points, alarms, how many points of the burst window; then those, then the memory
_LAYOUT: Final = struct.Struct("<B10qBB")
_POINT: Final = struct.Struct("<qq")
_AT: Final = struct.Struct("<q")
NEVER_LATE: Final = (1 << 63) - 1  # no instant is later
_VERSION: Final = 3


def pack(flow: Flow) -> bytes:
    """Return `flow` as bytes for a checkpoint."""
    head = _LAYOUT.pack(
        *(_VERSION, *flow.last, *flow.base, *flow.doubt, *flow.burst, *flow.mark),
        *(flow.alarms, len(flow.recent)),
    )
    return head + b"".join([_POINT.pack(*point) for point in flow.recent]) + flow.memory


def unpack(packed: bytes, limits: Limits = DEFAULT_LIMITS) -> Flow | None:
    """Read a checkpoint of this version or an earlier one.

    None where a version that is not known here wrote it: evidence then starts afresh.
    """
    if len(packed) < _LAYOUT.size or packed[0] != _VERSION:
        return _upgraded(packed, limits)
    *numbers, alarms, kept = _LAYOUT.unpack_from(packed)
    last, base, doubt, burst, mark = (_point(*numbers[i : i + 2]) for i in range(1, 11, 2))
    end = _LAYOUT.size + kept * _POINT.size
    return Flow(
        last=last,
        base=base,
        recent=tuple(_POINT.iter_unpack(packed[_LAYOUT.size : end])),
        doubt=doubt,
        burst=burst,
        mark=mark,
        alarms=alarms,
        memory=packed[end:],
    )


def last_at(packed: bytes, place: int) -> int:
    """Return the instant of the newest sample of the checkpoint that begins at `place`, µs."""
    if len(packed) < place + _LAYOUT.size or packed[place] != _VERSION:
        return NEVER_LATE
    return int(_AT.unpack_from(packed, place + 1)[0])


def _upgraded(packed: bytes, limits: Limits) -> Flow | None:
    older = leaks_older.read(packed, limits)
    if older is None:
        return None
    return Flow(
        last=older.last,
        base=older.base,
        recent=older.recent,
        doubt=_point(*older.doubt),
        burst=_point(*older.burst),
        memory=leaks_memory.pack(older.memory),
    )


def _point(at: int, register: int) -> Point:
    return NOWHERE if at == NOWHERE[0] else (at, register)
