"""The city's clock survives stops and kills."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cloud.kernel.clock import Course, read_course
from field_sim.clock_file import ClockFile

SECOND = 1_000_000


def test_the_first_start_shows_the_walls_time(tmp_path: Path) -> None:
    clock = ClockFile(tmp_path / "clock.json")

    reading = clock.resume(wall_us=5 * SECOND, speed=60)

    assert reading.at(5 * SECOND) == 5 * SECOND
    assert reading.at(6 * SECOND) == 65 * SECOND


def test_after_a_kill_the_city_goes_on_where_it_last_wrote(tmp_path: Path) -> None:
    first = ClockFile(tmp_path / "clock.json")
    first.resume(wall_us=0, speed=60)
    first.tick(10 * SECOND)  # and is killed then

    again = ClockFile(tmp_path / "clock.json").resume(wall_us=5_000 * SECOND, speed=60)

    assert again.at(5_000 * SECOND) == 600 * SECOND
    assert again.at(5_001 * SECOND) == 660 * SECOND


def test_a_new_speed_begins_where_the_old_one_got_to(tmp_path: Path) -> None:
    clock = ClockFile(tmp_path / "clock.json")
    clock.resume(wall_us=0, speed=1)

    faster = clock.tick(10 * SECOND, speed=60)

    assert faster.at(10 * SECOND) == 10 * SECOND
    assert faster.at(11 * SECOND) == 70 * SECOND
    assert read_course(tmp_path / "clock.json") == faster


@given(st.integers(0, 10**15), st.integers(1, 10**4), st.integers(0, 10**12))
def test_telling_the_line_from_another_instant_changes_no_time(
    wall_us: int, speed: int, later_us: int
) -> None:
    line = Course(wall_us=wall_us, sim_us=wall_us * 2, speed=speed)
    moved = Course(wall_us=wall_us + later_us, sim_us=line.at(wall_us + later_us), speed=speed)

    assert moved.at(wall_us + later_us + 77) == line.at(wall_us + later_us + 77)
