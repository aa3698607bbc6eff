"""Leaks planted in real households, to score the leak rules: where, how much, and when they run.

The households are the city's own (`data/household_hours.npz`). A series is what a meter with a
register of whole litres would have sent: hourly reads, some missing, with one leak or none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from decoders.value import value
from edge_agent.leaks_limits import DEFAULT_LIMITS, Limits
from edge_agent.leaks_replay import Alert, Series, replayed
from edge_agent.leaks_scoreboard import Leak, Load, Outcome, load, outcomes
from field_sim.households import SOURCE

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

HOUR_S = 3600
DAY_S = 24 * HOUR_S
BEFORE_DAYS, LEAK_DAYS = 45, 21
RAMP_S = 14 * DAY_S
RUNS_S = 8 * HOUR_S  # a day: an intermittent leak
MISSING = 0.02  # of the reads, alone; and …
GAP_CHANCE = 0.002  # … of each read to begin a gap of 2 to 12 hours

SORTS: Sequence[tuple[str, float]] = (
    *(("continuous", lph) for lph in (2.5, 5, 10, 20, 100, 300)),
    *(("intermittent_8h", lph) for lph in (5, 20, 100)),
    *(("intermittent_moving", lph) for lph in (5, 20, 100)),
    *(("ramp_14d", lph) for lph in (5, 20, 100)),
)


@value
class Board:
    """What came out: of each leak, and of the days without one."""

    found: tuple[Outcome, ...]
    before: Load  # the planted series before their leaks
    natural: Load  # households without a planted leak


def scored(*, households: int, seed: int, limits: Limits = DEFAULT_LIMITS) -> Board:
    """Plant every sort of leak in so many households, and leave as many without."""
    random = np.random.default_rng([seed, 9])
    with np.load(SOURCE) as stored:
        litres: Ints = stored["litres"].astype(np.int64)
    chosen = random.permutation(len(litres))[:households]
    leaks: list[Leak] = []
    planted: list[Series] = []
    for house in chosen:
        for kind, lph in SORTS:
            one, leak = _planted(litres[house], kind, lph, len(planted), random)
            planted.append(one)
            leaks.append(leak)
    told = replayed("planted", planted, limits)
    plain = [_read(litres[house], np.zeros(litres.shape[1]), random) for house in chosen]
    untold = replayed("natural", plain, limits)
    return Board(
        found=outcomes(leaks, told, planted),
        before=load(leaks, told, planted),
        natural=load((), untold, plain),
    )


def _planted(
    litres: Ints, kind: str, lph: float, place: int, random: np.random.Generator
) -> tuple[Series, Leak]:
    hours = (BEFORE_DAYS + LEAK_DAYS) * 24
    first = int(random.integers(0, len(litres) - hours))
    start = BEFORE_DAYS * DAY_S + int(random.integers(0, DAY_S))
    end = hours * HOUR_S
    edges = np.arange(hours + 1) * HOUR_S
    extra = np.diff(leaked(edges, kind=kind, lph=lph, start=start, end=end, random=random))
    leak = Leak(series=place, starts=start, ends=end, lph=lph, kind=kind)
    return _read(litres[first : first + hours], extra, random), leak


def leaked(
    at_s: Ints, *, kind: str, lph: float, start: int, end: int, random: np.random.Generator
) -> Floats:
    """Return the litres that a leak has let go by each of `at_s`."""
    since = np.clip(at_s, start, end) - start
    if kind == "continuous":
        return since / HOUR_S * lph
    if kind.startswith("ramp"):
        ramp = np.minimum(since, RAMP_S)
        return (ramp**2 / (2 * RAMP_S) + (since - ramp)) / HOUR_S * lph
    total = np.zeros(len(at_s))
    for day in range((end - start) // DAY_S + 1):
        begin = start + day * DAY_S
        if kind == "intermittent_moving":
            begin += int(random.integers(0, DAY_S - RUNS_S))
        ran = np.clip(at_s, begin, min(begin + RUNS_S, max(end, begin))) - begin
        total += ran / HOUR_S * lph
    return total


def _read(litres: Ints, extra: Floats, random: np.random.Generator) -> Series:
    """Read a register each hour, a few seconds early or late, some reads missing."""
    total = np.concatenate([[0.0], np.cumsum(litres + extra)])
    at_s = np.arange(len(total)) * HOUR_S + random.integers(5, 30, len(total))
    heard = random.random(len(total)) >= MISSING
    for begin in np.flatnonzero(random.random(len(total)) < GAP_CHANCE):
        heard[begin : begin + int(random.integers(2, 12))] = False
    heard[0] = True
    register = np.floor(total[heard] + 1e-6).astype(np.int64)
    return Series(at_s=at_s[heard].tolist(), register_l=register.tolist())


def with_moving_hours(
    series: Sequence[Series], leaks: Sequence[Leak], *, seed: int
) -> Iterator[tuple[Series, Leak]]:
    """Yield copies of the series with intermittent leaks, each day's leak at another hour."""
    random = np.random.default_rng([seed, 10])
    for leak in leaks:
        if leak.kind != "intermittent_8h":
            continue
        one = series[leak.series]
        at_s = np.array(one.at_s, np.int64)
        gone, comes = [
            leaked(at_s, kind=kind, lph=leak.lph, start=leak.starts, end=leak.ends, random=random)
            for kind in ("intermittent_8h", "intermittent_moving")
        ]
        register = np.array(one.register_l) - gone + comes
        whole = np.maximum.accumulate(np.floor(register + 0.5)).astype(np.int64)
        yield Series(at_s=one.at_s, register_l=whole.tolist()), leak


def of_files(
    planted: Sequence[Series], leaks: Sequence[Leak], homes: Sequence[Series], limits: Limits
) -> tuple[Board, tuple[Outcome, ...]]:
    """Score series of files; also what becomes of copies with moving hours."""
    told: tuple[Alert, ...] = replayed("planted", planted, limits)
    copies = list(with_moving_hours(planted, leaks, seed=1))
    moved = [one for one, _ in copies]
    there = [
        Leak(series=i, starts=k.starts, ends=k.ends, lph=k.lph, kind="intermittent_moving")
        for i, (_, k) in enumerate(copies)
    ]
    board = Board(
        found=outcomes(leaks, told, planted),
        before=load(leaks, told, planted),
        natural=load((), replayed("homes", homes, limits), homes),
    )
    return board, outcomes(there, replayed("moved", moved, limits), moved)
