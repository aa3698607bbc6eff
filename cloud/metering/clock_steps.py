"""Rows that were heard before somebody set their gateway's clock. Pure.

The clock of a gateway is measured when it sends (`clock_offsets`); rows that waited are older than
that. The gateway tells by how much it was set since, so that one offset holds for all its rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cloud.metering.clock_offsets import TRUSTED_UNCERTAINTY_US
from cloud.metering.model import Bools, Int64s
from decoders.uplink_steps import BY_MAX_US, ClockStep, sums_after


def moved(heard_at: Int64s, seq: Int64s, steps: Sequence[ClockStep]) -> tuple[Int64s, Bools]:
    """Return when each row was heard by the clock as it was set last, and which are in doubt.

    heard_at, seq   (n,) µs by the clock of then, row numbers
    """
    sums = np.array(sums_after(steps), np.int64)
    place = np.searchsorted(np.array([step.seq for step in steps], np.int64), seq, side="right")
    by_us, doubt_us = sums[place, 0], sums[place, 1]
    doubtful: Bools = doubt_us >= TRUSTED_UNCERTAINTY_US
    return np.clip(heard_at, -BY_MAX_US, BY_MAX_US) + by_us, doubtful
