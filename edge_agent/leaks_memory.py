"""What the rules remember of one meter beyond its newest samples, as the bytes of a checkpoint.

A gateway follows thousands of meters: these bytes are read once an hour for each, when an interval
is complete, and carried along unread by every telegram in between. Pure.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from edge_agent import leaks_episodes
from edge_agent.leaks_hours import HOURS, NOTHING_KNOWN
from edge_agent.leaks_limits import Limits

NEVER: Final = -1


@dataclass
class Run:
    """Flow above one tier's rate: since when, and how much of it counts as evidence, in µs."""

    since: int = NEVER
    evidence_us: int = 0


@dataclass
class Memory:
    """newest_hour: hours since 1970 of the last of `hours`; NEVER where none is known."""

    newest_hour: int = NEVER
    hours: bytes = NOTHING_KNOWN
    quiet_us: int = 0
    runs: list[Run] = field(default_factory=list)
    episodes: leaks_episodes.Episodes = field(default_factory=dict)


_HEAD: Final = struct.Struct(f"<Bqq{HOURS}sB")  # version, newest_hour, quiet_us, hours, runs
_RUN: Final = struct.Struct("<II")  # seconds: since, evidence; every byte counts 4,000 times
_NO_SECOND: Final = 0xFFFFFFFF
_SECOND_US: Final = 1_000_000
_VERSION: Final = 1


def pack(memory: Memory) -> bytes:
    runs = [_RUN.pack(*_seconds(run)) for run in memory.runs]
    head = _HEAD.pack(_VERSION, memory.newest_hour, memory.quiet_us, memory.hours, len(runs))
    return head + b"".join(runs) + leaks_episodes.pack(memory.episodes)


def unpack(packed: bytes, limits: Limits) -> Memory:
    """Read what `pack` wrote; nothing is remembered where there are no bytes.

    Runs begin again where the limits have another number of tiers than when they were written.
    """
    tiers = len(limits.continuous)
    if len(packed) < _HEAD.size or packed[0] != _VERSION:
        return Memory(runs=[Run() for _ in range(tiers)])
    _, newest_hour, quiet_us, hours, count = _HEAD.unpack_from(packed)
    end = _HEAD.size + count * _RUN.size
    runs = [_run(*seconds) for seconds in _RUN.iter_unpack(packed[_HEAD.size : end])]
    return Memory(
        newest_hour=newest_hour,
        hours=hours,
        quiet_us=quiet_us,
        runs=runs if count == tiers else [Run() for _ in range(tiers)],
        episodes=leaks_episodes.unpack(packed[end:]),
    )


def _seconds(run: Run) -> tuple[int, int]:
    since_s = _NO_SECOND if run.since == NEVER else run.since // _SECOND_US
    return min(since_s, _NO_SECOND), min(run.evidence_us // _SECOND_US, _NO_SECOND)


def _run(since_s: int, evidence_s: int) -> Run:
    since = NEVER if since_s == _NO_SECOND else since_s * _SECOND_US
    return Run(since=since, evidence_us=evidence_s * _SECOND_US)
