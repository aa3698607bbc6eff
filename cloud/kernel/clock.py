"""What time it is: the machine's, or the simulated city's.

Used for facts (`heard_at`, `received_at`, `now` in rules). Tokens, TLS, retries and timeouts
stay on the machine's own clocks, whatever the city's speed.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from cloud.kernel import private_files
from decoders.value import value

VARIABLE = "AQUACIS_CLOCK"
RECHECK_S = 0.2  # how late a changed speed may be noticed

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """A source of instants. Both methods tell the same time."""

    def now(self) -> datetime:
        """Return the present instant, aware, in UTC."""
        ...

    def now_us(self) -> int:
        """Return the present instant in microseconds since 1970 UTC."""
        ...

    @property
    def speed(self) -> float:
        """Return how many seconds pass here in one of the machine's."""
        ...


class ClockUnreadable(Exception):
    """The file that tells the simulated time is missing or not in its format."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"clock file {path}: {reason}")
        self.path = path


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return from_us(self.now_us())

    def now_us(self) -> int:
        return time.time_ns() // 1000

    @property
    def speed(self) -> float:
        return 1.0


@value
class Course:
    """How simulated time runs: it was `sim_us` at the machine's `wall_us`, and runs at `speed`."""

    wall_us: int
    sim_us: int
    speed: float

    def at(self, wall_us: int) -> int:
        """Return the simulated instant (µs) at the machine's instant `wall_us`."""
        return self.sim_us + round((wall_us - self.wall_us) * self.speed)


@dataclass
class FileClock:
    """The simulated city's clock, as `field_sim` wrote it down for every process to read.

    The file is replaced whole, never rewritten in place; a new course is noticed within
    `RECHECK_S`. Raises `ClockUnreadable`.
    """

    path: Path
    wall: Clock = field(default_factory=SystemClock)
    _course: Course | None = None
    _version: tuple[int, int] = (0, 0)
    _checked_at_s: float = float("-inf")

    def now(self) -> datetime:
        return from_us(self.now_us())

    def now_us(self) -> int:
        return self._current().at(self.wall.now_us())

    @property
    def speed(self) -> float:
        return self._current().speed

    def _current(self) -> Course:
        at_s = time.monotonic()
        if self._course is None or at_s - self._checked_at_s >= RECHECK_S:
            self._checked_at_s = at_s
            self._reread()
        assert self._course is not None
        return self._course

    def _reread(self) -> None:
        try:
            status = self.path.stat()
            version = (status.st_mtime_ns, status.st_ino)
            if version != self._version:
                self._course, self._version = read_course(self.path), version
        except OSError as error:
            raise ClockUnreadable(self.path, error.strerror or str(error)) from error


def read_course(path: Path) -> Course:
    """Return the course as it was written. Raises OSError, `ClockUnreadable` for no clock."""
    try:
        written = json.loads(path.read_text())
        return Course(
            wall_us=int(written["wall_us"]),
            sim_us=int(written["sim_us"]),
            speed=float(written["speed"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ClockUnreadable(path, f"not a clock: {error!r}") from error


def write_course(path: Path, course: Course) -> None:
    """Set the simulated clock: atomically, and so that a power cut leaves the old or the new."""
    told = {"wall_us": course.wall_us, "sim_us": course.sim_us, "speed": course.speed}
    private_files.write(path, json.dumps(told).encode())


def clock_named(name: str | None) -> Clock:
    """Return the clock that `AQUACIS_CLOCK` names: `file:<path>`, or the machine's.

    Raises ValueError for a name that is neither.
    """
    if not name or name == "system":
        return SystemClock()
    kind, _, path = name.partition(":")
    if kind != "file" or not path:
        raise ValueError(f"{VARIABLE}={name!r}: expected 'system' or 'file:<path>'")
    return FileClock(Path(path))


def from_us(instant_us: int) -> datetime:
    """Return microseconds since 1970 UTC as an aware datetime; exact."""
    return _EPOCH + timedelta(microseconds=instant_us)


def to_us(instant: datetime) -> int:
    """Return an aware datetime as microseconds since 1970 UTC; exact."""
    assert instant.tzinfo is not None, "an instant without a zone is nobody's instant"
    return (instant - _EPOCH) // timedelta(microseconds=1)
