"""What a meter says of itself beside its register, and what its silence says. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from edge_agent import leaks_hours, leaks_memory
from edge_agent.leaks import Flow, Found
from edge_agent.leaks_episodes import ALARMS, SILENT, Kind, Seen, alarm_bit, over, seen
from edge_agent.leaks_limits import DEFAULT_LIMITS, Limits


def alarmed(
    flow: Flow, meter: str, at: int, status: Iterable[str], limits: Limits = DEFAULT_LIMITS
) -> tuple[Flow, Found]:
    """Follow the alarms that a telegram has on (`Telegram.status`): dry, reversed, tamper, battery.

    The meter has watched for as long as its maker thinks right: its word counts at once.
    """
    now = 0
    for name in status:
        if name in ALARMS:
            now |= alarm_bit(ALARMS[name])
    if now == flow.alarms:
        return flow, ()
    mind = leaks_memory.unpack(flow.memory, limits)
    found: Found = ()
    kinds: list[Kind] = sorted(set(ALARMS.values()))
    for kind in kinds:
        was_on, is_on = flow.alarms & alarm_bit(kind), now & alarm_bit(kind)
        if is_on and not was_on:
            what = Seen(kind=kind, at=at, started_at=at, litres=0)
            found += seen(mind.episodes, meter, what, limits)
        elif was_on and not is_on:
            found += over(mind.episodes, meter, kind, at, 0)
    return replace(flow, alarms=now, memory=leaks_memory.pack(mind)), found


def silent(
    flow: Flow,
    meter: str,
    now: int,
    limits: Limits = DEFAULT_LIMITS,
    *,
    since: int | None = None,
) -> tuple[Flow, Found]:
    """Say that a meter that used to speak has said nothing for too long.

    since   when it spoke last by the clock of now, where that was set since

    Its next complete interval ends that.
    """
    since = flow.last[0] if since is None else since
    if now - since < limits.silent_us:
        return flow, ()
    mind = leaks_memory.unpack(flow.memory, limits)
    before = mind.episodes.get(SILENT)
    spoken = leaks_hours.HOURS - mind.hours.count(leaks_hours.UNKNOWN)
    if spoken < limits.spoken_hours or (before is not None and before.is_open):
        return flow, ()
    what = Seen(kind=SILENT, at=now, started_at=since, litres=0)
    found = seen(mind.episodes, meter, what, limits)
    return replace(flow, memory=leaks_memory.pack(mind)), found
