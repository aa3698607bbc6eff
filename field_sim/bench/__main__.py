"""`python -m field_sim.bench [NAME]`: figures, each beside the bare limit of the same run."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

# bench, figure, value, unit, limit, ratio, asked, holds; limit to holds may be None
Figure = Mapping[str, Any]
Progress = Callable[[str], None]

WIDE = 200  # characters: the longest row

BENCHES: Mapping[str, str] = {
    "ingest": "LoRaWAN and wM-Bus batches → committed readings, beside the bare sorted merge",
    "decode": "encrypted wM-Bus telegrams, in batches and one at a time, beside bare AES",
    "bus": "events through two consumer groups, beside the bare SQL pattern",
    "edge": "the agent with 4,000 meters: memory over a month, processor for each telegram",
    "up": "time until the sandbox is ready, and each process's resident memory",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python3 tasks.py bench",
        description=__doc__,
        epilog="\n".join(f"  {name:<8} {what}" for name, what in BENCHES.items())
        + "\n\nexit codes: 0 every figure holds what is asked of it · 1 one does not · 2 usage",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="?", choices=BENCHES)
    parser.add_argument("--json", action="store_true", help="print the figures alone, as a list")
    told = parser.parse_args()
    names = list(BENCHES) if told.name is None else [told.name]
    figures: list[Figure] = []
    for name in names:
        module = importlib.import_module(f"field_sim.bench.{name}")
        figures += module.run(progress)
    if told.json:
        print(json.dumps(figures))
    else:
        show(figures)
    return 0 if all(figure["holds"] in {True, None} for figure in figures) else 1


def progress(text: str) -> None:
    """Say what is being measured: on stderr, stdout is for the figures."""
    print(text, file=sys.stderr, flush=True)


def show(figures: Sequence[Figure]) -> None:
    table = Table("bench", "figure", "value", "unit", "bare limit", "ratio", "asked", "holds")
    for figure in figures:
        holds = {True: "yes", False: "NO", None: ""}[figure["holds"]]
        cells = [number(figure[name]) for name in ("value", "limit", "ratio", "asked")]
        value, limit, ratio, asked = cells
        table.add_row(
            figure["bench"], figure["figure"], value, figure["unit"], limit, ratio, asked, holds
        )
    # a file or a pipe has no width that cells would have to fit
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


def number(held: float | str | None) -> str:
    """Return a figure as a person reads it."""
    if held is None or isinstance(held, str):
        return held or ""
    return f"{held:,.0f}" if abs(held) >= 100 else f"{held:.3g}"


if __name__ == "__main__":
    raise SystemExit(main())
