"""The trade-off curve of the leak rules: what each choice costs in load and buys in detection.

    python -m field_sim.leak_sweep FOLDER CURVE.json [NAME…]   score choices on a folder's files
    python -m field_sim.leak_sweep --draw CURVE.json CURVE.svg  draw them

FOLDER holds one file with labels (NAME.json beside NAME.npz) and one without.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_agent.leaks_limits import DEFAULT_LIMITS, Limits
from edge_agent.leaks_replay import NoSeries, Series, read_series
from edge_agent.leaks_scoreboard import Leak, leaks_of, share
from field_sim.leak_board import of_files

WEEK_H, FORTNIGHT_H = 168, 336

CHOICES: Mapping[str, Mapping[str, Any]] = {
    "as shipped": {},
    "no test for standing flow": {"standing_share": 0.0, "standing_hours": 1},
    "standing share 0.15": {"standing_share": 0.15},
    "standing share 0.35": {"standing_share": 0.35},
    "standing share 0.50": {"standing_share": 0.5},
    "told every time": {"again_days": 0, "again_flow_days": 0, "habit_days": 0},
    "loose: 2 days of 6": {"loose_days": 2},
    "loose: 4 days of 6": {"loose_days": 4},
    "folded only": {"loose_days": 7},
    "5 days looked back": {"intermittent_days": 5},
}


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["--draw"]:
        curve = json.loads(Path(arguments[1]).read_text("utf-8"))
        Path(arguments[2]).write_text(drawn(curve), "utf-8")
        return 0
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    planted, leaks, homes = _files(Path(arguments[0]))
    path = Path(arguments[1])
    curve = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for name in arguments[2:] or CHOICES:
        limits = replace(DEFAULT_LIMITS, **CHOICES[name])
        curve[name] = _figures(planted, leaks, homes, limits)
        path.write_text(json.dumps(curve, indent=1) + "\n", "utf-8")
        print(name, json.dumps(curve[name]), file=sys.stderr, flush=True)
    return 0


def _files(folder: Path) -> tuple[tuple[Series, ...], tuple[Leak, ...], tuple[Series, ...]]:
    planted: tuple[Series, ...] = ()
    homes: tuple[Series, ...] = ()
    leaks: tuple[Leak, ...] = ()
    for path in sorted(folder.glob("*.npz")):
        try:
            series = read_series(path)
        except NoSeries:
            continue
        labels = path.with_suffix(".json")
        if labels.exists():
            planted, leaks = series, leaks_of(json.loads(labels.read_text("utf-8")), len(series))
        else:
            homes = series
    return planted, leaks, homes


def _figures(
    planted: Sequence[Series], leaks: Sequence[Leak], homes: Sequence[Series], limits: Limits
) -> dict[str, float]:
    board, moving = of_files(planted, leaks, homes, limits)
    steady = [o for o in board.found if o.leak.kind == "continuous"]
    large = [o for o in steady if o.leak.lph >= 10 and o.gapless_s >= 26 * 3600]
    small = [o for o in steady if o.leak.lph >= 2.5 and o.gapless_s >= 74 * 3600]
    fixed = [o for o in board.found if o.leak.kind == "intermittent_8h"]
    ramps = [o for o in board.found if o.leak.kind == "ramp_14d"]
    return {
        "load_homes": round(board.natural.per_thousand, 3),
        "load_before": round(board.before.per_thousand, 3),
        "large_26h": round(share(large, 26), 4),
        "small_74h": round(share(small, 74), 4),
        "gaps_7d": round(share([o for o in steady if o.leak.lph >= 2.5], WEEK_H), 4),
        "fixed_7d": round(share(fixed, WEEK_H), 4),
        "moving_7d": round(share(moving, WEEK_H), 4),
        "ramps_14d": round(share(ramps, FORTNIGHT_H), 4),
    }


LINES: Sequence[tuple[str, str, str]] = (
    ("large_26h", "≥ 10 l/h within 26 h", "#1f5fa8"),
    ("fixed_7d", "8 h a day, fixed hours, 7 days", "#b3541e"),
    ("moving_7d", "8 h a day, moving hours, 7 days", "#6b7f2a"),
)
WIDTH, HEIGHT, LEFT, TOP = 760, 420, 60, 30
LOAD_MOST = 2.5


def drawn(curve: Mapping[str, Mapping[str, float]]) -> str:
    """Return the curve as SVG: load to the right, detection upward, a mark for each choice."""

    def x(load: float) -> float:
        return LEFT + min(load, LOAD_MOST) / LOAD_MOST * (WIDTH - LEFT - 220)

    def y(part: float) -> float:
        return TOP + (1 - part) * (HEIGHT - TOP - 60)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for tenth in range(0, 11, 2):
        at = y(tenth / 10)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{x(LOAD_MOST):.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{tenth}0 %</text>')
    for half in range(6):
        at = x(half / 2)
        parts.append(f'<text x="{at:.1f}" y="{HEIGHT - 40}" text-anchor="middle">{half / 2}</text>')
    parts.append(
        f'<text x="{LEFT}" y="{HEIGHT - 18}">notifications per 1,000 covered meter-days of real '
        "homes; the broken line is the bar of 1</text>"
    )
    bar = x(1.0)
    parts.append(f'<path d="M{bar:.1f} {TOP}V{y(0):.1f}" stroke="#999" stroke-dasharray="4 4"/>')
    for row, (figure, says, colour) in enumerate(LINES):
        parts.append(
            f'<text x="{WIDTH - 210}" y="{TOP + 20 + 22 * row}" fill="{colour}">{says}</text>'
        )
        for name, figures in curve.items():
            cx, cy = x(figures["load_homes"]), y(figures[figure])
            size = 7 if name == "as shipped" else 4
            parts.append(
                f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="{size}" fill="{colour}">'
                f"<title>{name}: {says}: {figures[figure]:.0%} at {figures['load_homes']}</title>"
                "</circle>"
            )
    parts.append(
        f'<text x="{WIDTH - 210}" y="{TOP + 100}" fill="#555">large mark: as shipped</text>'
    )
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
