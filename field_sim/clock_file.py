"""The city's clock: a small file that every process reads, written here alone.

    {"wall_us": …, "sim_us": …, "speed": …}

means: when the wall showed `wall_us`, the city's time was `sim_us`, and since then it has run
`speed` times as fast. It is written again each second, so that after a kill the city goes on
where it was, and not where it would have got to meanwhile.
"""

from __future__ import annotations

from pathlib import Path

from cloud.kernel.clock import Course, read_course, write_course


class ClockFile:
    """The clock's one writer."""

    def __init__(self, path: Path) -> None:
        """Raises ClockUnreadable for a file that is no clock."""
        self.path = path
        self.course = read_course(path) if path.exists() else None

    def resume(self, *, wall_us: int, speed: int) -> Course:
        """Go on where the clock stopped, however long ago; the first time it is the wall's."""
        stopped_at = wall_us if self.course is None else self.course.sim_us
        return self._keep(Course(wall_us=wall_us, sim_us=stopped_at, speed=speed))

    def tick(self, wall_us: int, *, speed: int | None = None) -> Course:
        """Write down how far it has got; from now on at `speed`, if given."""
        assert self.course is not None, "resume first"
        sim_us = self.course.at(wall_us)
        return self._keep(Course(wall_us=wall_us, sim_us=sim_us, speed=speed or self.course.speed))

    def _keep(self, course: Course) -> Course:
        write_course(self.path, course)
        self.course = course
        return course
