"""The weaker and the rarer findings: toilets, ramps, backflow, alarms, silence; and who is told."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent import leaks, leaks_episodes, leaks_feeding, leaks_hours, leaks_status, memory
from edge_agent.leaks import HOUR_US, Finding, Flow, feed
from edge_agent.leaks_limits import (
    CLASSES,
    DAY_US,
    DEFAULT_LIMITS,
    Limits,
    LimitsRefused,
    Thresholds,
    Tier,
    limits_of,
    thresholds_of,
)

METER = "KAW-53885758"
MONDAY = 1_772_409_600_000_000  # 2026-03-02T00:00:00Z


def household(days: int, *, seed: int = 3, idle: float = 0.35) -> list[int]:
    """Litres an hour of people: none at night, none in a share of the day, never the same."""
    chance = random.Random(seed)
    return [
        0 if h % 24 < 6 or chance.random() < idle else chance.choice([3, 8, 15, 22, 40, 70, 120])
        for h in range(24 * days)
    ]


def told(
    litres: Sequence[int], limits: Limits = DEFAULT_LIMITS, *, flow: Flow | None = None
) -> list[Finding]:
    """What is told of hourly reads of a register that grows so."""
    found: list[Finding] = []
    register = 1_000_000
    for hour, drawn in enumerate([0, *litres]):
        register += drawn
        flow, more = feed(flow, METER, (MONDAY + hour * HOUR_US, register), limits)
        found += more
    return [f for f in found if f.notify]


def after_h(finding: Finding) -> int:
    return (finding.ended_at - MONDAY) // HOUR_US


def toilet(days: int, *, lph: int, start: Sequence[int]) -> list[int]:
    """Eight hours a day, from the hours given, day by day."""
    return [lph if 0 <= h % 24 - start[h // 24 % len(start)] < 8 else 0 for h in range(24 * days)]


def added(one: Sequence[int], other: Sequence[int]) -> list[int]:
    return [a + b for a, b in zip(one, other, strict=True)]


@pytest.mark.parametrize("lph", [5, 20, 100])
@pytest.mark.parametrize("start", [[1], [9], [15]])
def test_a_toilet_that_runs_a_third_of_the_day_is_told_within_a_week(
    lph: int, start: list[int]
) -> None:
    first = told(household(20) + added(household(9), toilet(9, lph=lph, start=start)))[0]

    assert first.kind == "intermittent"
    assert 20 * 24 < after_h(first) <= 27 * 24
    assert first.rate_lph == pytest.approx(lph, rel=0.2)


@pytest.mark.parametrize("lph", [5, 20, 100])
def test_a_toilet_that_runs_at_other_hours_each_day_is_told_where_people_are_out(
    lph: int,
) -> None:
    moving = toilet(9, lph=lph, start=[2, 11, 7, 14, 4, 16])

    first = told(household(20, idle=0.85) + added(household(9, idle=0.85), moving))[0]

    assert first.kind == "intermittent"
    assert 20 * 24 < after_h(first) <= 27 * 24


def test_a_household_that_leaks_nothing_is_told_nothing_for_two_years() -> None:
    assert [told(household(365, seed=seed)) for seed in (1, 2)] == [[], []]


def test_a_ramp_is_told_before_its_leak_is_full() -> None:
    ramp = [h * 5 // (14 * 24) for h in range(14 * 24)]

    first = told(household(10) + added(household(14), ramp))[0]

    assert first.kind in {"ramp", "intermittent", "continuous_flow"}
    assert 240 < after_h(first) <= 240 + 13 * 24


def test_a_small_flow_that_stays_small_is_no_ramp() -> None:
    found = told([0] * 24 + [2] * 24 * 30, Limits(continuous=(Tier(lph=50, hours=24),)))

    assert found == []


def test_who_was_told_of_a_toilet_is_told_again_only_when_it_flows_for_days() -> None:
    hours = toilet(9, lph=10, start=[2]) + [10] * 24 * 6

    found = told(hours)

    assert [(f.kind, f.level) for f in found] == [("intermittent", 0), ("continuous_flow", 72)]


def test_the_same_trouble_back_next_week_is_no_news_and_a_greater_one_is() -> None:
    rest = [0] * 24 * 7

    same = told([12] * 30 + rest + [12] * 30 + rest + [12] * 30)
    greater = told([12] * 30 + rest + [40] * 30)

    assert [f.level for f in same] == [24]
    assert [f.rate_lph for f in greater] == [12, 40]


def test_trouble_that_comes_back_and_stays_is_told_after_a_week() -> None:
    found = told([12] * 30 + [0] * 48 + [12] * 24 * 9)

    assert [f.level for f in found] == [24, 168]


def test_a_leak_that_goes_on_is_recalled_each_month() -> None:
    found = told([12] * 24 * 70)

    assert [after_h(f) // 24 for f in found] == [1, 31, 61]
    assert len({f.episode for f in found}) == 1


def test_a_pool_each_week_is_told_once_a_year() -> None:
    week = [800, 800] + [0] * 166

    assert [f.kind for f in told(week * 12)] == ["burst"]


def backflow(gone_l: int) -> list[Finding]:
    flow: Flow | None = None
    found: list[Finding] = []
    registers = [1000, 1000, 1000 - gone_l, 1000 - gone_l, 1001 - gone_l, 1001 - gone_l]
    for hour, register in enumerate(registers + [1100] * 3):
        flow, more = feed(flow, METER, (MONDAY + hour * HOUR_US, register))
        found += more
    return found


def test_a_register_that_stays_lower_is_backflow_until_it_is_back() -> None:
    opened, closed = [f for f in backflow(60) if f.kind == "backflow"]

    assert (opened.kind, opened.state, opened.litres) == ("backflow", "open", 60)
    assert (closed.state, closed.episode) == ("closed", opened.episode)


@pytest.mark.parametrize("gone_l", [1, 8, 900])
def test_a_slip_is_no_backflow_and_neither_is_a_new_register(gone_l: int) -> None:
    assert [f for f in backflow(gone_l) if f.kind == "backflow"] == []


def test_a_meters_own_alarms_open_and_close_once() -> None:
    flow, _ = feed(None, METER, (MONDAY, 1))
    said = []
    for i, status in enumerate([(), ("DRY", "LEAK"), ("DRY",), (), ("LOW_BATTERY", "TAMPER")]):
        flow, found = leaks_status.alarmed(flow, METER, MONDAY + i, status)
        said += [(f.kind, f.state) for f in found]

    assert said == [
        ("dry", "open"),
        ("dry", "closed"),
        ("low_battery", "open"),
        ("tamper", "open"),
    ]
    assert leaks.unpack(leaks.pack(flow)) == flow


def test_a_meter_that_used_to_speak_is_silent_after_two_weeks_until_it_speaks() -> None:
    flow: Flow | None = None
    for hour in range(200):
        flow, _ = feed(flow, METER, (MONDAY + hour * HOUR_US, hour // 3))
    assert flow is not None
    last = flow.last[0]

    flow, early = leaks_status.silent(flow, METER, last + 13 * DAY_US)
    flow, late = leaks_status.silent(flow, METER, last + 14 * DAY_US)
    flow, again = leaks_status.silent(flow, METER, last + 15 * DAY_US)
    flow, back = feed(flow, METER, (last + 16 * DAY_US, 500))

    assert (early, again) == ((), ())
    assert [(f.kind, f.state, f.notify) for f in late] == [("silent", "open", True)]
    assert [(f.kind, f.state) for f in back] == [("silent", "closed")]


def many(speaking: int, quiet: int) -> memory.Meters:
    meters = memory.Meters()
    for number in range(speaking + quiet):
        flow: Flow | None = None
        for hour in range(200 if number < quiet else 600):
            flow, _ = feed(flow, f"m{number}", (MONDAY + hour * HOUR_US, hour))
        meters[f"m{number}"] = memory.Meter(flow=flow)
    return meters


def test_one_silent_meter_is_a_meter_and_many_at_once_are_the_receiver() -> None:
    now = MONDAY + 600 * HOUR_US

    names, found = leaks_feeding.silences(many(40, 1), {}, DEFAULT_LIMITS, now)
    together = leaks_feeding.silences(many(5, 4), {}, DEFAULT_LIMITS, now)

    assert (names, [f.kind for f in found]) == (("m0",), ["silent"])
    assert together == ((), ())


def test_thresholds_are_a_classs() -> None:
    said = {
        "continuous": [[20, 24]],
        "classes": {"shared": {"burst_lph": 4000}, "farm": {"silent_us": 5}},
        "meters": {"kaw-00000001": "shared", "KAW-00000002": "farm"},
    }

    thresholds = thresholds_of(said)

    assert thresholds.of("KAW-9").continuous == (Tier(lph=20, hours=24),)
    assert thresholds.of("KAW-00000001").continuous == CLASSES["shared"].continuous
    assert thresholds.of("KAW-00000001").burst_lph == 4000
    assert thresholds.of("KAW-00000002").silent_us == 5
    assert Thresholds().of("any") == DEFAULT_LIMITS


@pytest.mark.parametrize(
    "said",
    [
        {"continuous": []},
        {"continuous": [[10]]},
        {"continuous": [[10, 400]]},
        {"continuous": [[-1, 24]]},
        {"burst_lph": "much"},
        {"burst_lph": True},
        {"silent_us": 1.5},
        {"unheard": 1},
    ],
)
def test_thresholds_that_mean_nothing_are_refused(said: dict[str, object]) -> None:
    with pytest.raises(LimitsRefused):
        limits_of(said)
    with pytest.raises(LimitsRefused):
        thresholds_of({"classes": {"shared": said}})


def test_a_meter_of_an_unknown_class_is_refused() -> None:
    with pytest.raises(LimitsRefused, match="no known class"):
        thresholds_of({"meters": {"KAW-1": "palace"}})


@given(st.integers(0, 200_000), st.integers(HOUR_US // 2, 200 * HOUR_US))
def test_an_hours_byte_is_never_more_than_its_rate_and_within_six_percent(
    litres: int, lasted_us: int
) -> None:
    rate = litres * HOUR_US / lasted_us

    kept = leaks_hours.RATES[leaks_hours.code_of(litres, lasted_us)]

    assert kept <= rate + 0.5
    assert kept >= min(0.93 * rate - 1, leaks_hours.RATES[254])


@given(st.lists(st.integers(0, 255), max_size=40), st.integers(1, 10))
def test_a_floor_is_a_rate_that_so_many_hours_have(codes: list[int], standing: int) -> None:
    floor = leaks_hours.floor_of(codes, standing)

    rates = [leaks_hours.RATES[c] for c in codes if c != leaks_hours.UNKNOWN]
    if floor is not None:
        near = [r for r in rates if abs(r - floor) <= max(2, 0.16 * floor)]
        assert len(near) >= standing
    elif rates and max(rates) == min(rates):
        assert len(rates) < standing


reads = st.lists(
    st.tuples(
        st.integers(1, 30 * 3_600_000_000),  # µs to the next read
        st.sampled_from([0, 0, 1, 2, 5, 12, 60, 900, -1, -7, -40, -5000, 90_000]),
    ),
    max_size=200,
)


@given(reads, st.randoms(use_true_random=False))
def test_no_stream_of_reads_tells_twice_or_closes_what_was_not_told(
    steps: list[tuple[int, int]], chance: random.Random
) -> None:
    """Gaps, resets, repeats, restarts from a checkpoint: one notification an episode."""
    flow: Flow | None = None
    at, register = MONDAY, 100_000
    open_now: dict[str, str] = {}
    told_at: dict[tuple[str, str], int] = {}
    for after_us, litres in steps:
        at, register = at + after_us, max(0, register + litres)
        flow, found = feed(flow, METER, (at, register))
        for finding in found:
            if finding.state == "closed":
                assert open_now.pop(finding.kind) == finding.episode
                continue
            if finding.notify and finding.kind in open_now:
                assert at - told_at[finding.kind, finding.episode] >= 7 * DAY_US
            assert open_now.get(finding.kind, finding.episode) == finding.episode
            open_now[finding.kind] = finding.episode
            if finding.notify:
                told_at[finding.kind, finding.episode] = at
        assert feed(flow, METER, (at, register)) == (flow, ())  # the same again
        if chance.random() < 0.1:
            flow = leaks.unpack(leaks.pack(flow))


@given(st.integers(0, 400))
def test_a_register_that_stands_tells_nothing(hours: int) -> None:
    assert told([0] * hours) == []


def test_every_kind_has_its_place_in_checkpoints() -> None:
    assert leaks_episodes.KINDS[:6] == (
        *("continuous_flow", "burst", "intermittent", "ramp", "backflow", "silent"),
    )
