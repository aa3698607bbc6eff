"""Where the gateway reads its clocks. Nothing else in this package does.

Two clocks, never mixed: the *gateway's clock* (µs since 1970 UTC; may be simulated, may be wrong,
may jump) stamps what is heard and sent; the *monotonic* clock times out retries.
"""

from __future__ import annotations

import json
import os
import time
from hashlib import blake2b
from pathlib import Path
from typing import Final, Protocol

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
CHECK_EACH_S = 0.2  # a simulation's clock file is looked at no more often


class Clock(Protocol):
    """What the shell needs of time."""

    def now_us(self) -> int:
        """The gateway's clock: µs since 1970 UTC."""

    def ticks_us(self) -> int:
        """µs on a clock that runs as fast as `now_us` but that nobody sets."""

    def life(self) -> bytes:
        """Name what `ticks_us` counts from, in 16 bytes: it means nothing beside another one's."""


class SystemClock:
    """The machine's own clock, `offset_us` ahead of it."""

    def __init__(self, *, offset_us: int = 0) -> None:
        self._offset_us = offset_us

    def now_us(self) -> int:
        return time.time_ns() // 1000 + self._offset_us

    def ticks_us(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000  # goes on while asleep, too

    def life(self) -> bytes:
        try:
            boot = BOOT_ID.read_bytes()
        except OSError:  # then each run of the agent is one of its own
            return os.urandom(16)
        return blake2b(boot, digest_size=16).digest()


class FileClock:
    """The clock of a simulated city: a JSON file {"wall_us", "sim_us", "speed"}.

    now = sim_us + (wall - wall_us) · speed. The file is replaced atomically by who simulates;
    while it is missing or damaged the last good one holds. `offset_us`: how far this gateway's
    own clock is ahead.
    """

    def __init__(self, path: Path, *, offset_us: int = 0) -> None:
        self._path = path
        self._offset_us = offset_us
        self._checked_s = float("-inf")
        self._stamp = (0, 0)
        self._wall_us, self._sim_us, self._speed = 0, 0, 1.0
        self._reload()

    def now_us(self) -> int:
        return self.ticks_us() + self._offset_us

    def ticks_us(self) -> int:
        if time.monotonic() - self._checked_s >= CHECK_EACH_S:
            self._reload()
        wall_us = time.time_ns() // 1000
        return self._sim_us + round((wall_us - self._wall_us) * self._speed)

    def life(self) -> bytes:
        return b"a simulated city"

    def _reload(self) -> None:
        self._checked_s = time.monotonic()
        try:
            stat = os.stat(self._path)
            stamp = (stat.st_mtime_ns, stat.st_ino)
            if stamp == self._stamp:
                return
            given = json.loads(self._path.read_bytes())
            anchor = int(given["wall_us"]), int(given["sim_us"]), float(given["speed"])
        except (OSError, ValueError, KeyError, TypeError):
            if self._stamp == (0, 0):
                self._wall_us = self._sim_us = time.time_ns() // 1000
            return
        self._stamp = stamp
        self._wall_us, self._sim_us, self._speed = anchor


def clock_from(setting: str, *, offset_us: int = 0) -> Clock:
    """Return the clock that a setting names: "system" or "file:<path>". Raises ValueError."""
    if setting in {"", "system"}:
        return SystemClock(offset_us=offset_us)
    kind, _, path = setting.partition(":")
    if kind != "file" or not path:
        raise ValueError(f"clock {setting!r}: system or file:<path> is expected")
    return FileClock(Path(path), offset_us=offset_us)
