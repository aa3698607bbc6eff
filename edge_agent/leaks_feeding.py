"""What frames tell the leak rules, and the rows that their findings become. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import cbor2

from decoders.reading import Telegram
from decoders.uplink import RowKind
from edge_agent import leaks, leaks_status, memory
from edge_agent.clock_steps import EARLIEST_US
from edge_agent.inputs import Heard
from edge_agent.leaks_limits import Limits
from edge_agent.memory import Meter, Meters
from edge_agent.outbox import Draft

Found = tuple[leaks.Finding, ...]
ClockSet = Sequence[tuple[int, int]]  # from the one instant to the other, µs; oldest first

# When so many fall silent at once it is the receiver, the antenna or the clock, and no meter.
SILENT_TOGETHER: Final = 3
SILENT_SHARE: Final = 0.05


def told_by_wmbus(
    flow: leaks.Flow | None, telegram: Telegram, heard_at: int, limits: Limits
) -> tuple[leaks.Flow | None, Found]:
    """Feed a telegram's register and alarms."""
    found: Found = ()
    name = telegram.natural_id
    if telegram.register_l is not None:
        flow, found = leaks.feed(flow, name, (heard_at, telegram.register_l), limits)
    flow, alarms = _alarmed(flow, telegram, heard_at, limits)
    return flow, found + alarms


def told_by_profile(
    meter: Meter, telegram: Telegram, frame: Heard, offset_us: int, limits: Limits
) -> tuple[leaks.Flow | None, Found, bool]:
    """Feed the rules the part of a profile that they have not seen, oldest first, in UTC.

    An uplink that came late has nothing new. One that is newer by its counter, but whose meter
    says an earlier hour than before, comes from a meter whose clock was set: evidence restarts.
    """
    flow, name = meter.flow, telegram.natural_id
    fresh = _fresh(meter, telegram, frame, offset_us, limits)
    found: Found = ()
    for point in reversed(fresh):
        flow, more = leaks.feed(flow, name, point, limits)
        found += more
    later = frame.session != meter.session or frame.counter >= meter.counter
    if later:
        flow, alarms = _alarmed(flow, telegram, frame.heard_at, limits)
        found += alarms
    return flow, found, bool(fresh)


def _fresh(
    meter: Meter, telegram: Telegram, frame: Heard, offset_us: int, limits: Limits
) -> list[leaks.Point]:
    """Return the points that are new, newest first."""
    flow, series = meter.flow, telegram.series
    if not series:
        return []
    seen_at = flow.last[0] if flow is not None else -(1 << 62)
    fresh: list[leaks.Point] = []
    for local_us, litres in series:
        at = local_us - offset_us
        if at <= seen_at:
            break
        fresh.append((at, litres))
    if fresh:
        return fresh
    newest_at = series[0][0] - offset_us
    later = frame.session == meter.session and frame.counter > meter.counter
    was_set = later and seen_at - newest_at > limits.gap_us
    return [(newest_at, series[0][1])] if was_set else []


def _alarmed(
    flow: leaks.Flow | None, telegram: Telegram, heard_at: int, limits: Limits
) -> tuple[leaks.Flow | None, Found]:
    """Follow the alarms of a telegram that has an alarm word; others say nothing of them."""
    if flow is None or telegram.info_code is None:
        return flow, ()
    return leaks_status.alarmed(flow, telegram.natural_id, heard_at, telegram.status, limits)


def silences(
    meters: Meters,
    limits_of: Mapping[str, Limits],
    household: Limits,
    now: int,
    *,
    clock_set: ClockSet = (),
) -> tuple[tuple[str, ...], Found]:
    """Look at every meter once; return whose memory changed and what is to be said.

    clock_set   how the clock was set of late

    Nothing where many fall silent together: then it is not the meters. Nothing of a meter that
    spoke only while the clock had not been set yet.
    """
    spoke = {
        name: _spoke_at(memory.last_at(meters.packed(name)), clock_set, now) for name in meters
    }
    quiet = [
        name
        for name, at in spoke.items()
        if now - at >= limits_of.get(name, household).silent_us and at >= EARLIEST_US
    ]
    changed: dict[str, Meter] = {}
    found: Found = ()
    for name in quiet:
        meter = meters[name]
        assert meter.flow is not None
        limits = limits_of.get(name, household)
        flow, more = leaks_status.silent(meter.flow, name, now, limits, since=spoke[name])
        if flow is not meter.flow:
            changed[name] = memory.with_flow(meter, flow)
            found += more
    if len(changed) > max(SILENT_TOGETHER, SILENT_SHARE * len(meters)):
        return (), ()
    meters.update(changed)
    return tuple(changed), found


def _spoke_at(at: int, clock_set: ClockSet, now: int) -> int:
    """Return an instant by the clock of now, where it is of before the clock was set.

    Where a clock was set back, what it said twice is taken for the second time.
    """
    is_older = at > now
    for from_at, to_at in clock_set:
        if at <= (from_at if is_older else min(from_at, to_at)):
            at, is_older = at + to_at - from_at, True
    return at


def rows_of(findings: Iterable[leaks.Finding], at: int) -> list[Draft]:
    """Return findings as rows of the outbox; `at`: when they were made, µs of the gateway."""
    return [
        Draft(heard_at=at, kind=RowKind.ANOMALY, payload=cbor2.dumps(_said(finding, at)))
        for finding in findings
    ]


def _said(finding: leaks.Finding, at: int) -> dict[str, object]:
    return {
        "kind": finding.kind,
        "meter": finding.meter,
        "episode": finding.episode,
        "level": finding.level,
        "started_at": finding.started_at,
        "detected_at": at,
        "ended_at": finding.ended_at,
        "rate_lph": finding.rate_lph,
        "litres": finding.litres,
        "state": finding.state,
        "notify": finding.notify,
    }
