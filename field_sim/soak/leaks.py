"""Soak `leaks`: every sort of leak planted by seed in real households, scored as a scoreboard.

The load is counted on the same households without a planted leak, and on the planted series before
their leaks. Held to the figures of docs/guides/leaks.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import ceil
from pathlib import Path

from edge_agent.leaks_scoreboard import HOUR_S, Outcome, plot, promises, share, table
from field_sim.leak_board import Board, scored
from field_sim.soak.truth import Verdict

LOAD_MOST = 1.0  # per 1,000 covered meter-days
WEEK_H, FORTNIGHT_H = 168, 336
BARS: Sequence[tuple[str, str, float, int, float]] = (
    # says, kind, least l/h, within hours, at least
    ("continuous >= 2.5 l/h in a week", "continuous", 2.5, WEEK_H, 0.95),
    ("8 h a day >= 5 l/h in a week", "intermittent_8h", 5, WEEK_H, 0.70),
    ("ramps in a fortnight", "ramp_14d", 5, FORTNIGHT_H, 0.95),
)


def run(folder: Path, *, n: int, seed: int) -> Verdict:
    """Plant in `n` households; the table goes beside the counts, into `folder` and to stderr."""
    board = scored(households=n, seed=seed)
    lines = (*table(board.found), "", *plot(board.found), "", *promises(board.found))
    (folder / "scoreboard.txt").write_text("\n".join(lines) + "\n", "utf-8")
    print(*lines, sep="\n", file=sys.stderr)
    return Verdict(
        counts={
            "leaks planted": len(board.found),
            "told of": sum([o.delay_s is not None for o in board.found]),
            "covered meter-days of homes": board.natural.meter_days,
            "notifications there": board.natural.notifications,
            "notifications before a leak": board.before.notifications,
        },
        must_be_zero=missed(board),
        notes=[f"load on homes: {board.natural.per_thousand:.2f} per 1,000 meter-days"],
    )


def missed(board: Board) -> dict[str, int]:
    """Return how far each promise was missed; 0 where it was kept."""
    kept = {
        "gapless >= 10 l/h not told in 26 h": _late(board.found, 10, 26),
        "gapless >= 2.5 l/h not told in 74 h": _late(board.found, 2.5, 74),
    }
    for says, kind, lph, bar_h, least in BARS:
        group = [o for o in board.found if o.leak.kind == kind and o.leak.lph >= lph]
        told = round(share(group, bar_h) * len(group))
        kept[f"short of {least:.0%}: {says}"] = max(0, ceil(least * len(group)) - told)
    idle = board.natural.notifications + board.before.notifications
    days = board.natural.meter_days + board.before.meter_days
    kept["notifications above the load"] = max(0, idle - round(LOAD_MOST * days / 1000))
    return kept


def _late(found: Sequence[Outcome], lph: float, bar_h: int) -> int:
    """Count leaks of meters read without a gap that nobody was told of in time."""
    bar_s = bar_h * HOUR_S
    return sum(
        [
            o.delay_s is None or o.delay_s > bar_s
            for o in found
            if o.leak.kind == "continuous" and o.leak.lph >= lph and o.gapless_s >= bar_s
        ]
    )
