"""How much water each household of the city uses, hour by hour, for ever.

A household is one of 46 real ones (`data/household_hours.npz`, see its licence there) moved by a
seeded number of whole weeks, and from Alicante's standard time to Querétaro's, so that mornings
are mornings and Sundays are Sundays. Everything is a pure function of the seed and the hour: a
city that starts again has the same registers.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from field_sim.plants import Ints, Plant, leaked

SOURCE = Path(__file__).parent / "data" / "household_hours.npz"
WEEK_H = 168
ALICANTE_TO_QUERETARO_H = 7  # UTC+1 to UTC-6, both standard time
BLOCK_H = 4 * WEEK_H  # registers are computed this many hours at a time
LEAST_REGISTER_L, MOST_REGISTER_L = 4_000, 900_000  # of meters one to five years old


class Households:
    """The city's households from hour `first_h` (UTC hours since 1970) on.

    Only `plants` changes after construction, once: where the leaks are depends on natural use.
    """

    def __init__(self, *, seed: int, count: int, first_h: int) -> None:
        with np.load(SOURCE) as stored:
            self._base: Ints = stored["litres"].astype(np.int64)
            self._base_from_h = int(stored["first_hour"])
        random = np.random.default_rng([seed, 1])
        bases, self._cycle_h = self._base.shape
        self.base: Ints = random.permutation(np.arange(count) % bases)
        self.weeks: Ints = random.integers(0, self._cycle_h // WEEK_H, count)
        self._start_l: Ints = random.integers(LEAST_REGISTER_L, MOST_REGISTER_L, count)
        self.first_h = first_h
        self.count = count
        self.plants: tuple[Plant, ...] = ()
        self._registers = self._start_l[:, None]

    def natural(self, from_h: int, hours: int) -> Ints:
        """Return litres used in each hour, (households, hours), without planted leaks."""
        wanted = np.arange(from_h, from_h + hours)
        shifted = wanted[None, :] - ALICANTE_TO_QUERETARO_H - self._base_from_h
        position = (shifted + self.weeks[:, None] * WEEK_H) % self._cycle_h
        natural: Ints = self._base[self.base[:, None], position]
        return natural

    def litres(self, from_h: int, hours: int) -> Ints:
        """Return litres through each meter in each hour, (households, hours), leaks included."""
        through = self.natural(from_h, hours)
        wanted = np.arange(from_h, from_h + hours)
        for plant in self.plants:
            through[plant.meter] += leaked(plant, wanted)
        return through

    def registers(self, from_h: int, count: int) -> Ints:
        """Return registers in litres at the beginning of each hour, (households, count)."""
        assert from_h >= self.first_h, "before the city was built"
        while self.first_h + self._registers.shape[1] < from_h + count:
            self._extend()
        start = from_h - self.first_h
        return self._registers[:, start : start + count]

    def register_at(self, household: int, at_us: int) -> int:
        """Return one register in litres at an instant, µs UTC: within an hour it runs evenly."""
        hour, within_us = divmod(at_us, 3_600_000_000)
        before, after = self.registers(hour, 2)[household].tolist()
        return int(before + (after - before) * within_us // 3_600_000_000)

    def _extend(self) -> None:
        have = self._registers.shape[1]
        litres = self.litres(self.first_h + have - 1, BLOCK_H)
        block = self._registers[:, -1:] + np.cumsum(litres, axis=1)
        self._registers = np.concatenate([self._registers, block], axis=1)

    @cached_property
    def order(self) -> npt.NDArray[np.int64]:
        """A seeded order of the households: who gets which leak."""
        return np.argsort(self._start_l, kind="stable")
