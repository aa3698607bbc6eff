"""`aquacis-edge leaks …`: the rules, tried on registers in files; and the nightly scan, by hand."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge_agent import leaks_evaluate


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Add what can be asked of the rules."""
    asked = parser.add_subparsers(required=True, dest="leaks", metavar="WHAT")
    says = "replay the registers of *.npz files; what would have been told of them?"
    trying = asked.add_parser("evaluate", help=says, description=says)
    trying.add_argument("folder", type=Path, help="where the files lie, NAME.json beside NAME.npz")
    trying.add_argument("--json", action="store_true", help="the alerts alone, as one JSON object")
    trying.add_argument(
        "--limits", type=Path, metavar="FILE", help="thresholds, JSON, as in the settings' `leaks`"
    )


def run(given: argparse.Namespace) -> int:
    return leaks_evaluate.evaluate(given.folder, as_json=given.json, limits_file=given.limits)
