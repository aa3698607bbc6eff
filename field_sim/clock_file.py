"""The city's clock: a small file that every process reads, written here alone.

    {"wall_us": …, "sim_us": …, "speed": …}

means: when the wall showed `wall_us`, the city's time was `sim_us`, and since then it has run
`speed` times as fast. It is written again each second, so that after a kill the city goes on
where it was, and not where it would have got to meanwhile.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from decoders.value import value

SECOND_US = 1_000_000


@value
class Reading:
    """The line through which wall time becomes the city's time. Microseconds."""

    wall_us: int
    sim_us: int
    speed: int

    def at(self, wall_us: int) -> int:
        return self.sim_us + (wall_us - self.wall_us) * self.speed


def read(path: Path) -> Reading | None:
    """Return what the file says, None where there is none."""
    try:
        told = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return Reading(wall_us=told["wall_us"], sim_us=told["sim_us"], speed=told["speed"])


def write(path: Path, reading: Reading) -> None:
    """Write atomically: a reader sees the old line or the new one."""
    told = {"wall_us": reading.wall_us, "sim_us": reading.sim_us, "speed": reading.speed}
    replace_text(path, json.dumps(told))


def replace_text(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    fresh.replace(path)


class ClockFile:
    """The clock's one writer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reading = read(path)

    def resume(self, *, wall_us: int, speed: int) -> Reading:
        """Go on where the clock stopped, however long ago; the first time it is the wall's."""
        stopped_at = wall_us if self.reading is None else self.reading.sim_us
        return self._keep(Reading(wall_us=wall_us, sim_us=stopped_at, speed=speed))

    def tick(self, wall_us: int, *, speed: int | None = None) -> Reading:
        """Write down how far it has got; from now on at `speed`, if given."""
        assert self.reading is not None, "resume first"
        sim_us = self.reading.at(wall_us)
        return self._keep(
            Reading(wall_us=wall_us, sim_us=sim_us, speed=speed or self.reading.speed)
        )

    def _keep(self, reading: Reading) -> Reading:
        write(self.path, reading)
        self.reading = reading
        return reading
