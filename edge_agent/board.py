"""What the gateway's board says of itself: room on its disk, memory, temperature, supply voltage.

Read from where Linux shows it. What a board does not have is absent, never 0. Sources: sysfs ABI of
the kernel (`sysfs-class-thermal`, `sysfs-class-hwmon`, `sysfs-class-power`), proc(5), statvfs(3).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

KIB: Final = 1024
COLDEST_C, HOTTEST_C = -60, 150  # what a sensor without a wire says lies outside
MOST_MV: Final = 80_000  # PoE and a 48 V battery bank lie below
SUPPLY_LABELS: Final = ("vin", "supply", "dcin", "input", "poe", "12v", "24v", "48v", "batt")


def resident_kib() -> int:
    """Return this process's resident memory; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // KIB
    except (OSError, ValueError, IndexError):
        return 0


class Board:
    """The machine that the agent runs on. `root`: where /proc and /sys hang; "/" but in tests."""

    def __init__(self, folder: Path, *, root: Path = Path("/")) -> None:
        """`folder`: on the disk whose room counts."""
        self._folder = folder
        self._root = root

    def figures(self) -> dict[str, int]:
        """Return what can be read now.

        disk_free_kib, disk_total_kib          where the outbox is, for who is not root
        memory_available_kib, memory_total_kib
        temperature_c                          the hottest sensor, whole °C
        supply_mv                              what feeds the board, mV
        uptime_s                               since the board was switched on
        """
        said = {**self._disk(), **self._memory()}
        temperature_c, supply_mv, uptime_s = (
            self._temperature_c(),
            self._supply_mv(),
            self._uptime_s(),
        )
        if temperature_c is not None:
            said["temperature_c"] = temperature_c
        if supply_mv is not None:
            said["supply_mv"] = supply_mv
        if uptime_s is not None:
            said["uptime_s"] = uptime_s
        return said

    def _disk(self) -> dict[str, int]:
        try:
            disk = os.statvfs(self._folder)
        except OSError:
            return {}
        return {
            "disk_free_kib": disk.f_bavail * disk.f_frsize // KIB,
            "disk_total_kib": disk.f_blocks * disk.f_frsize // KIB,
        }

    def _memory(self) -> dict[str, int]:
        said: dict[str, int] = {}
        names = {"MemAvailable": "memory_available_kib", "MemTotal": "memory_total_kib"}
        for line in (_text(self._root / "proc/meminfo") or "").splitlines():
            name, _, rest = line.partition(":")
            if name in names and rest.split():
                number = _whole(rest.split()[0])
                said |= {names[name]: number} if number is not None else {}
        return said

    def _uptime_s(self) -> int | None:
        said = (_text(self._root / "proc/uptime") or "").partition(".")[0]
        return _whole(said)

    def _temperature_c(self) -> int | None:
        zones = self._found("sys/class/thermal", "thermal_zone*/temp")
        sensors = self._found("sys/class/hwmon", "hwmon*/temp*_input")
        millis = [_number(path) for path in (*zones, *sensors)]
        degrees = [round(m / 1000) for m in millis if m is not None]
        believable = [d for d in degrees if COLDEST_C <= d <= HOTTEST_C]
        return max(believable, default=None)

    def _supply_mv(self) -> int | None:
        """A voltage that is called an input; else the only one there is; else a power supply's."""
        inputs = sorted(self._found("sys/class/hwmon", "hwmon*/in*_input"))
        named = [path for path in inputs if _is_supply(path)]
        if named or len(inputs) == 1:
            return _first_mv((_number(path) for path in named or inputs), of=1)
        online = sorted(self._found("sys/class/power_supply", "*/voltage_now"))
        return _first_mv((_number(path) for path in online), of=1000)  # µV

    def _found(self, folder: str, pattern: str) -> Iterator[Path]:
        try:
            yield from (self._root / folder).glob(pattern)
        except OSError:
            return


def _is_supply(path: Path) -> bool:
    label = _text(path.with_name(path.name.replace("_input", "_label"))) or ""
    return any(word in label.lower() for word in SUPPLY_LABELS)


def _first_mv(numbers: Iterable[int | None], *, of: int) -> int | None:
    millis = (number // of for number in numbers if number is not None)
    return next((mv for mv in millis if 0 < mv <= MOST_MV), None)


def _number(path: Path) -> int | None:
    return _whole(_text(path) or "")


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


def _text(path: Path) -> str | None:
    """Return a small file's text, None where it is not there or its driver gives an error."""
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return file.read(8192).strip()
    except OSError:
        return None
