"""Checkpoints of earlier versions of the rules: an upgrade keeps the open episodes. Pure."""

from __future__ import annotations

import struct
from typing import Final

from decoders.value import value
from edge_agent.leaks_episodes import BURST, CONTINUOUS, Episode
from edge_agent.leaks_limits import Limits
from edge_agent.leaks_memory import Memory, Run

# version, level, quiet_us, least_lph, then six points, then the burst window
_LAYOUT_2: Final = struct.Struct("<BBqq12q")
_LAYOUT_1: Final = struct.Struct("<BBq12q")  # which knew no least_lph
_POINT: Final = struct.Struct("<qq")


@value
class Older:
    """What an earlier version remembered; points are (µs UTC, litres), -1 where there is none."""

    last: tuple[int, int]
    base: tuple[int, int]
    doubt: tuple[int, int]
    burst: tuple[int, int]
    recent: tuple[tuple[int, int], ...]
    memory: Memory


def read(packed: bytes, limits: Limits) -> Older | None:
    """Read a checkpoint of version 1 or 2; None where it is of neither."""
    if len(packed) >= _LAYOUT_2.size and packed[0] == 2:
        layout = _LAYOUT_2
        _, level, quiet_us, least_lph, *flat = layout.unpack_from(packed)
    elif len(packed) >= _LAYOUT_1.size and packed[0] == 1:
        layout, least_lph = _LAYOUT_1, 0
        _, level, quiet_us, *flat = layout.unpack_from(packed)
    else:
        return None
    last, base, doubt, run, opened, burst = [(flat[i], flat[i + 1]) for i in range(0, 12, 2)]
    memory = Memory(quiet_us=quiet_us, runs=[Run() for _ in limits.continuous])
    if opened[0] >= 0:
        place = _tier(level, limits)
        memory.episodes[CONTINUOUS] = Episode(
            kind=CONTINUOUS,
            is_open=True,
            started_at=opened[0],
            seen_at=last[0],
            level=level,
            rate_lph=least_lph,
            told_at=last[0],
            told_lph=least_lph,
            is_told=True,
            tier=place,
        )
        if run[0] >= 0:
            memory.runs[place] = Run(since=run[0], evidence_us=base[0] - run[0])
    if burst[0] >= 0:
        memory.episodes[BURST] = Episode(
            kind=BURST,
            is_open=True,
            started_at=burst[0],
            seen_at=last[0],
            told_at=last[0],
            is_told=True,
        )
    return Older(
        last=last,
        base=base,
        doubt=doubt,
        burst=burst,
        recent=tuple(_POINT.iter_unpack(packed[layout.size :])),
        memory=memory,
    )


def _tier(level: int, limits: Limits) -> int:
    """Return the place of the first tier that lasts as long as `level` hours."""
    for place, tier in enumerate(limits.continuous):
        if tier.hours >= max(level, 1):
            return place
    return len(limits.continuous) - 1
