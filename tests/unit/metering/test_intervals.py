"""Hourly consumption: a gap is a gap, and hours add up."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from cloud.metering.intervals import HOUR, Point, day_start, hourly, local_day

START = datetime(2026, 3, 1, tzinfo=UTC)


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def point(hours: float, register_l: int, *, late: bool = False) -> Point:
    return Point(at=at(hours), register_l=register_l, late=late)


def litres(points: list[Point], hours: int) -> list[int | None]:
    return [one.litres for one in hourly(points, from_at=START, to_at=at(hours))]


def test_consumption_is_the_difference_of_registers() -> None:
    assert litres([point(0, 100), point(1, 112), point(2, 112)], 2) == [12, 0]


def test_a_missing_register_makes_gaps_on_both_sides() -> None:
    points = [point(0, 100), point(1, 110), point(3, 130), point(4, 131)]

    assert litres(points, 4) == [10, None, None, 1]


def test_a_register_minutes_off_the_hour_still_stands_for_it() -> None:
    assert litres([point(0.1, 100), point(1.2, 103)], 1) == [3]


def test_a_register_half_an_hour_away_does_not() -> None:
    assert litres([point(0, 100), point(1.5, 103)], 1) == [None]


def test_a_register_that_fell_is_no_consumption() -> None:
    assert litres([point(0, 100), point(1, 40), point(2, 45)], 2) == [None, 5]


def test_an_hour_that_a_late_register_closes_is_late() -> None:
    hours = hourly([point(0, 1), point(1, 2, late=True), point(2, 3)], from_at=START, to_at=at(2))

    assert [one.late for one in hours] == [True, True]


@given(st.lists(st.integers(0, 500), min_size=1, max_size=60))
def test_full_hours_add_up_to_the_registers(uses: list[int]) -> None:
    points = [point(0, 7)]
    for hour, used in enumerate(uses, start=1):
        points.append(point(hour, points[-1].register_l + used))

    hours = hourly(points, from_at=START, to_at=at(len(uses)))

    assert [one.litres for one in hours] == uses
    assert sum(one.litres or 0 for one in hours) == points[-1].register_l - 7
    assert all(one.to_at - one.from_at == HOUR for one in hours)


def test_a_day_begins_where_the_utility_is() -> None:
    assert day_start(date(2026, 3, 1)) == datetime(2026, 3, 1, 6, tzinfo=UTC)
    assert local_day(datetime(2026, 3, 1, 5, 59, tzinfo=UTC)) == date(2026, 2, 28)


def test_summer_time_counts_where_the_law_still_had_it() -> None:
    assert day_start(date(2021, 7, 1)) == datetime(2021, 7, 1, 5, tzinfo=UTC)
