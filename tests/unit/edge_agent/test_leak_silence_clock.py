"""A clock that is set makes no meter silent."""

from __future__ import annotations

import pytest

from decoders.uplink import RowKind
from edge_agent import leaks_feeding, memory, reduction
from edge_agent.inputs import ClockStepped, Now, Store
from edge_agent.leaks import HOUR_US, Flow, feed
from edge_agent.leaks_limits import DEFAULT_LIMITS

MONDAY = 1_772_409_600_000_000
BOOT = 5 * 60 * 1_000_000
DAY_US = 24 * HOUR_US
DAYS_14 = 14 * DAY_US


def spoken(*, since: int, hours: int = 200, meters: int = 2) -> memory.Meters:
    """Meters that spoke each hour, by the clock of then."""
    known = memory.Meters()
    for number in range(meters):
        flow: Flow | None = None
        for hour in range(hours):
            flow, _ = feed(flow, f"m{number}", (since + hour * HOUR_US, hour))
        known[f"m{number}"] = memory.Meter(flow=flow)
    return known


def alerts(state: reduction.State, at: int) -> list[str]:
    """What a look at the silent says at an instant, a frame having been heard."""
    state.figures["heard"] = state.figures.get("heard", 0) + 1
    _, effects = reduction.ticked(state, Now(at=at, wall_s=1.0))
    stored = [row for effect in effects if isinstance(effect, Store) for row in effect.rows]
    return [str(row.kind.name) for row in stored if row.kind == RowKind.ANOMALY]


def stepped(state: reduction.State, from_at: int, to_at: int) -> None:
    told = ClockStepped(from_at=from_at, to_at=to_at, first=1)
    reduction.clock_stepped(state, told, Now(at=to_at, wall_s=1.0))


def test_ntp_sets_a_clock_of_1970_and_no_meter_is_silent() -> None:
    state = reduction.State(policy=reduction.Policy())
    state.meters.update(spoken(since=BOOT))

    assert alerts(state, MONDAY) == []  # even an agent that saw nothing of the step


@pytest.mark.parametrize("ahead", [30 * DAY_US, 10 * 365 * DAY_US, -30 * DAY_US])
def test_silence_is_counted_across_a_clock_that_was_set(ahead: int) -> None:
    state = reduction.State(policy=reduction.Policy())
    state.meters.update(spoken(since=MONDAY))
    last = MONDAY + 199 * HOUR_US

    stepped(state, last + HOUR_US, last + HOUR_US + ahead)
    assert alerts(state, last + HOUR_US + ahead) == []
    stepped(state, last + 2 * HOUR_US + ahead, last + 2 * HOUR_US)
    assert alerts(state, last + 2 * HOUR_US) == []
    stepped(state, last + 3 * HOUR_US, last + 3 * HOUR_US + ahead)

    assert alerts(state, last + DAYS_14 - HOUR_US + ahead) == []
    assert alerts(state, last + DAYS_14 + HOUR_US + ahead) == ["ANOMALY", "ANOMALY"]


def test_a_silence_that_was_there_is_dated_by_the_clock_of_now() -> None:
    now = MONDAY + 199 * HOUR_US + DAYS_14 + 365 * DAY_US
    step = (MONDAY + 200 * HOUR_US, MONDAY + 200 * HOUR_US + 365 * DAY_US)

    _, found = leaks_feeding.silences(
        spoken(since=MONDAY), {}, DEFAULT_LIMITS, now, clock_set=[step]
    )

    assert [finding.started_at for finding in found] == [now - DAYS_14] * 2
