"""Households: real ones, moved by whole weeks, with leaks whose age is known."""

from __future__ import annotations

import numpy as np
import pytest

from field_sim.households import ALICANTE_TO_QUERETARO_H, SOURCE, WEEK_H, Households
from field_sim.meters import HOUR_US
from field_sim.plants import NEVER, WISHES, Plant, leaked, plant

FIRST_H = 490_000


def households(seed: int = 3, count: int = 200) -> Households:
    return Households(seed=seed, count=count, first_h=FIRST_H)


def test_a_household_is_a_real_one_moved_by_whole_weeks() -> None:
    city = households()
    with np.load(SOURCE) as stored:
        base, from_h = stored["litres"], int(stored["first_hour"])

    used = city.natural(FIRST_H, 200)

    for house in (0, 77, 199):
        start = FIRST_H - ALICANTE_TO_QUERETARO_H - from_h + int(city.weeks[house]) * WEEK_H
        source = np.take(base[city.base[house]], range(start, start + 200), mode="wrap")
        assert (used[house] == source).all()


def test_each_of_the_46_households_is_used_about_equally_often() -> None:
    _, times = np.unique(households().base, return_counts=True)

    assert len(times) == 46
    assert times.min() >= 4
    assert times.max() <= 5


def test_registers_never_go_back_and_add_up_what_was_used() -> None:
    city = households()

    registers = city.registers(FIRST_H, 2000)

    assert (np.diff(registers, axis=1) == city.litres(FIRST_H, 1999)).all()
    assert (np.diff(registers, axis=1) >= 0).all()


def test_the_same_seed_gives_the_same_registers_whatever_was_asked_before() -> None:
    asked, fresh = households(), households()
    asked.registers(FIRST_H, 10)
    asked.registers(FIRST_H + 900, 5)

    assert (asked.registers(FIRST_H, 1500) == fresh.registers(FIRST_H, 1500)).all()
    assert (households(seed=4).registers(FIRST_H, 1) != fresh.registers(FIRST_H, 1)).any()


def test_within_an_hour_the_register_runs_from_one_full_hour_to_the_next() -> None:
    city = households()
    before, after = city.registers(FIRST_H + 8, 2)[5].tolist()

    middle = city.register_at(5, (FIRST_H + 8) * HOUR_US + HOUR_US // 2)

    assert city.register_at(5, (FIRST_H + 8) * HOUR_US) == before
    assert before <= middle <= after
    assert middle == before + (after - before) // 2


def test_a_planted_leak_is_exactly_as_old_as_it_says() -> None:
    city, end_h = households(), FIRST_H + 960
    city.plants = plant(
        lorawan=range(190),
        wmbus=range(190, 200),
        end_h=end_h,
        natural=city.natural(FIRST_H, 960),
        first_h=FIRST_H,
    )
    youngest = city.plants[0]

    used = city.litres(end_h - 24, 24)[youngest.meter]

    assert len(city.plants) == len(WISHES)
    assert used[0] == 0
    assert (used[1:] >= youngest.rate_lph).all()


def test_a_small_city_has_the_leaks_it_has_houses_for() -> None:
    city = households(count=3)

    planted = plant(
        lorawan=range(3),
        wmbus=(),
        end_h=FIRST_H + 960,
        natural=city.natural(FIRST_H, 960),
        first_h=FIRST_H,
    )

    assert [leak.kind for leak in planted] == ["continuous", "burst", "continuous"]
    assert len({leak.meter for leak in planted}) == 3


@pytest.mark.parametrize("kind", ["continuous", "burst"])
def test_a_leak_runs_from_its_first_hour_until_it_is_mended(kind: str) -> None:
    leak = Plant(meter=0, kind=kind, rate_lph=9, from_h=100, to_h=103)  # type: ignore[arg-type]  # both are Kinds

    assert leaked(leak, np.arange(98, 106)).tolist() == [0, 0, 9, 9, 9, 0, 0, 0]


def test_an_intermittent_leak_runs_eight_hours_a_day_at_changing_hours() -> None:
    leak = Plant(meter=0, kind="intermittent", rate_lph=5, from_h=0, to_h=NEVER)

    days = leaked(leak, np.arange(24 * 30)).reshape(30, 24) > 0

    assert (days.sum(axis=1) == 8).all()
    assert len({int(day.argmax()) for day in days}) > 5
