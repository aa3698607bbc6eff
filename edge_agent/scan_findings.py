"""What the nightly scan's findings become: episodes like the rules' own, told once. Pure.

A scan says the same every night as long as the water runs. It is therefore followed like any other
trouble of a meter: who was told of this water by a rule is not told of it by the scan, nor by the
scan each night, and the nights that say that it is over end the episode.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from edge_agent import leaks, leaks_episodes, leaks_memory, memory
from edge_agent.inputs import NightFinding, Scanned
from edge_agent.leaks_episodes import DAILY_FLOW, NIGHT_FLOW, Kind
from edge_agent.leaks_limits import DAY_US, Thresholds
from edge_agent.memory import Meters

KINDS: Final[tuple[Kind, ...]] = (NIGHT_FLOW, DAILY_FLOW)
MOST: Final = 1000  # findings taken in one night, the largest first; the next night has the rest


def told(
    meters: Meters, said: Scanned, thresholds: Thresholds, at: int
) -> tuple[tuple[str, ...], tuple[leaks.Finding, ...]]:
    """Follow what a scan found at `at` (µs); return whose memory changed, what is to be said."""
    changed: dict[str, None] = {}
    rows: tuple[leaks.Finding, ...] = ()
    for name, what in _all(said):
        meter = meters.get(name)
        if meter is None or meter.flow is None:
            continue  # forgotten since
        limits = thresholds.of(name)
        mind = leaks_memory.unpack(meter.flow.memory, limits)
        if isinstance(what, NightFinding):
            rows += leaks_episodes.seen(mind.episodes, name, _seen(what, mind.episodes, at), limits)
        else:
            rows += leaks_episodes.over(mind.episodes, name, what, at)
        flow = replace(meter.flow, memory=leaks_memory.pack(mind))
        meters[name] = memory.with_flow(meter, flow)
        changed[name] = None
    return tuple(changed), rows


def _all(said: Scanned) -> Iterable[tuple[str, NightFinding | Kind]]:
    """Yield what ended, then what was found, the largest first."""
    yield from said.ended
    largest = sorted(said.found, key=lambda finding: -finding.rate_lph)
    yield from ((finding.meter, finding) for finding in largest[:MOST])


def _seen(found: NightFinding, episodes: leaks_episodes.Episodes, at: int) -> leaks_episodes.Seen:
    """An episode begins where the scan says, but after the one before it ended."""
    before = episodes.get(found.kind)
    since = at - found.days * DAY_US
    return leaks_episodes.Seen(
        kind=found.kind,
        at=at,
        started_at=since if before is None else max(since, before.seen_at),
        rate_lph=found.rate_lph,
    )
