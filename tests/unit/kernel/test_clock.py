"""The machine's clock and the simulated city's, told apart by one setting."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.kernel import clock
from cloud.kernel.clock import ClockUnreadable, Course, FileClock, SystemClock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND_US = 1_000_000


@dataclass
class Wall:
    """A machine's clock that a test moves."""

    us: int = 1_790_000_000_000_000

    def now(self) -> datetime:
        return clock.from_us(self.us)

    def now_us(self) -> int:
        return self.us

    @property
    def speed(self) -> float:
        return 1.0


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "clock.json"


@pytest.fixture(autouse=True)
def _always_recheck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "RECHECK_S", 0)


def test_the_system_clock_is_aware_and_in_utc() -> None:
    now = SystemClock().now()

    assert now.utcoffset() == timedelta(0)
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=5)


def test_simulated_time_runs_at_its_speed(file: Path) -> None:
    wall = Wall()
    clock.write_course(file, Course(wall_us=wall.us, sim_us=clock.to_us(NOON), speed=60))
    city = FileClock(file, wall)

    assert (city.now(), city.speed) == (NOON, 60)
    wall.us += 10 * SECOND_US
    assert city.now() == NOON + timedelta(minutes=10)


def test_a_changed_course_is_noticed_by_a_clock_already_running(file: Path) -> None:
    wall = Wall()
    clock.write_course(file, Course(wall_us=wall.us, sim_us=0, speed=1))
    city = FileClock(file, wall)
    assert city.now_us() == 0

    clock.write_course(file, Course(wall_us=wall.us, sim_us=5, speed=60))

    assert city.now_us() == 5


def test_the_file_is_looked_at_no_more_often_than_need_be(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "RECHECK_S", 3600)
    clock.write_course(file, Course(wall_us=0, sim_us=0, speed=1))
    city = FileClock(file, Wall(us=7))
    assert city.now_us() == 7

    file.unlink()

    assert city.now_us() == 7


@pytest.mark.parametrize("written", ["", "{}", '{"wall_us": 1}', "[1, 2]", '{"wall_us": "x"}'])
def test_a_file_that_is_no_clock_is_an_error_that_names_it(file: Path, written: str) -> None:
    file.write_text(written)

    with pytest.raises(ClockUnreadable, match=r"clock\.json: not a clock"):
        FileClock(file).now()


def test_a_missing_file_is_an_error_that_names_it(file: Path) -> None:
    with pytest.raises(ClockUnreadable, match="No such file"):
        FileClock(file).now_us()


def test_a_course_is_written_whole_and_leaves_nothing_beside_it(file: Path) -> None:
    clock.write_course(file, Course(wall_us=1, sim_us=2, speed=3))
    clock.write_course(file, Course(wall_us=4, sim_us=5, speed=6))

    assert json.loads(file.read_text()) == {"wall_us": 4, "sim_us": 5, "speed": 6}
    assert list(file.parent.iterdir()) == [file]


def test_a_setting_names_the_clock(file: Path) -> None:
    assert isinstance(clock.clock_named(None), SystemClock)
    assert isinstance(clock.clock_named("system"), SystemClock)
    named = clock.clock_named(f"file:{file}")
    assert isinstance(named, FileClock)
    assert named.path == file
    for wrong in ("file:", "sundial"):
        with pytest.raises(ValueError, match="AQUACIS_CLOCK"):
            clock.clock_named(wrong)


@given(st.integers(-(2**52), 2**53))
def test_microseconds_survive_the_trip_through_a_datetime(instant_us: int) -> None:
    assert clock.to_us(clock.from_us(instant_us)) == instant_us


@given(st.integers(0, 10**15), st.integers(0, 10**15), st.sampled_from([0.0, 1.0, 60.0, 3600.0]))
def test_simulated_time_never_runs_backwards(earlier: int, later: int, speed: float) -> None:
    course = Course(wall_us=500, sim_us=1_700_000_000_000_000, speed=speed)
    first, second = sorted((earlier, later))

    assert course.at(first) <= course.at(second)
