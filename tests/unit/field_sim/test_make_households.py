"""From registers read about hourly in local time to litres in UTC hours."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from field_sim.make_households import (
    FIRST_MONDAY_H,
    WEEK_H,
    WEEKS,
    hour_of_each_read,
    litres_by_hour,
    to_utc_s,
)

HOUR_S = 3600
START_S = FIRST_MONDAY_H * HOUR_S


def wall(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def test_summer_and_winter_time_become_utc() -> None:
    local = np.array([wall("2016-07-01 12:00"), wall("2016-12-01 12:00")])

    assert to_utc_s(local).tolist() == [wall("2016-07-01 10:00"), wall("2016-12-01 11:00")]


def test_the_hour_that_autumn_repeats_is_taken_twice() -> None:
    local = [wall(f"2016-10-30 {clock}") for clock in ("01:30", "02:30", "02:29", "03:29")]

    utc = to_utc_s(np.array(local))

    assert np.diff(utc).tolist() == [3600, 3540, 3600]


def test_reads_an_hour_apart_stay_an_hour_apart_whatever_their_minute() -> None:
    jitter = [0, 40, -30, 50, -60, 20]
    at = np.array([START_S + 1800 + i * HOUR_S + s for i, s in enumerate(jitter)])

    assert np.diff(hour_of_each_read(at)).tolist() == [1] * 5


def test_an_hour_without_water_stays_one_and_no_litre_is_lost() -> None:
    uses = [5, 0, 0, 7, 0, 12, 0, 0, 0, 3]
    # March in Madrid is UTC+1: its clock shows an hour more
    at = np.array([START_S + HOUR_S + 600 + i * HOUR_S for i in range(len(uses) + 1)])
    register = np.cumsum([1000, *uses])

    litres = litres_by_hour(at, register)

    assert litres[1:11].tolist() == uses


def test_a_gap_is_shared_out_in_the_shape_of_another_week() -> None:
    week = [10 if hour % 24 == 20 else 0 for hour in range(WEEK_H)]
    uses = np.array(week * 3)
    at = np.arange(len(uses) + 1) * HOUR_S + START_S + HOUR_S - 60
    register = np.cumsum([0, *uses])
    missing = slice(WEEK_H + 19, WEEK_H + 47)  # 28 hours with two evenings

    litres = litres_by_hour(np.delete(at, missing), np.delete(register, missing))

    around = litres[WEEK_H + 10 : WEEK_H + 60]
    assert around.sum() == uses[WEEK_H + 10 : WEEK_H + 60].sum()
    assert sorted(np.flatnonzero(around).tolist()) == [10, 34]


def test_a_register_that_slips_back_uses_nothing_meanwhile() -> None:
    at = np.arange(6) * HOUR_S + START_S + HOUR_S + 60
    register = np.array([100, 110, 108, 111, 111, 120])

    litres = litres_by_hour(at, register)

    assert litres[1:6].tolist() == [10, 0, 1, 0, 9]
    assert len(litres) == WEEKS * WEEK_H
