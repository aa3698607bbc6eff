"""`aquacis-edge leaks evaluate FOLDER`: what the rules would have told of the registers in files.

Every `*.npz` file with the arrays `offset`, `t_local_epoch_s` and `register_l` is replayed, blind
to labels; a file without them is named on stderr and left out.

--json   {"alerts": [{"file", "series", "at", "rule", "l_per_h"}]} alone on stdout
without  load of each file, and where NAME.json with `events` lies beside NAME.npz a scoreboard:
         detection by kind and rate as a table and as a plot, delay, and the promised figures
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edge_agent import leaks_scoreboard
from edge_agent.leaks_limits import DEFAULT_LIMITS, Limits, LimitsRefused, limits_of
from edge_agent.leaks_replay import Alert, NoSeries, Series, read_series, replayed

EXIT_DONE: Final = 0
EXIT_USAGE: Final = 2
EXIT_NOTHING: Final = 66  # EX_NOINPUT: no file of the folder holds register series


def evaluate(folder: Path, *, as_json: bool, limits_file: Path | None = None) -> int:
    """Replay a folder; return the exit code."""
    if not folder.is_dir():
        print(f"{folder}: not a folder", file=sys.stderr)
        return EXIT_USAGE
    try:
        limits = _limits(limits_file)
    except (OSError, ValueError) as error:
        print(f"{limits_file}: {error}", file=sys.stderr)
        return EXIT_USAGE
    alerts: list[Alert] = []
    replayed_files = 0
    for path in sorted(folder.glob("*.npz")):
        began_s = time.monotonic()
        try:
            series = read_series(path)
        except NoSeries as error:
            print(f"skipped: {error}", file=sys.stderr)
            continue
        found = replayed(path.stem, series, limits)
        replayed_files += 1
        alerts += found
        if not as_json:
            _show(path, series, found, time.monotonic() - began_s)
    if as_json:
        print(json.dumps({"alerts": [_as_json(alert) for alert in alerts]}))
    return EXIT_DONE if replayed_files else EXIT_NOTHING


def _limits(path: Path | None) -> Limits:
    if path is None:
        return DEFAULT_LIMITS
    said = json.loads(path.read_text("utf-8"))
    if not isinstance(said, dict):
        raise LimitsRefused("a JSON object of thresholds is expected")
    return limits_of(said)


def _as_json(alert: Alert) -> dict[str, object]:
    return {
        "file": alert.file,
        "series": alert.series,
        "at": alert.at,
        "rule": alert.rule,
        "l_per_h": alert.l_per_h,
    }


def _show(path: Path, series: Sequence[Series], alerts: Sequence[Alert], took_s: float) -> None:
    reads = sum([len(one.at_s) for one in series])
    print(f"{path.stem}: {len(series)} series, {reads:,} reads in {took_s:.1f} s")
    leaks = _leaks_beside(path, len(series))
    load = leaks_scoreboard.load(leaks, alerts, series)
    which = "before their leaks" if leaks else "in all"
    print(
        f"  load: {load.notifications} notifications in {load.meter_days:,} covered meter-days"
        f" {which} = {load.per_thousand:.2f} per 1,000"
    )
    for rule, count in load.by_rule.items():
        print(f"    {rule:<18}{count:>5}")
    if leaks:
        found = leaks_scoreboard.outcomes(leaks, alerts, series)
        for part in (
            leaks_scoreboard.table(found),
            leaks_scoreboard.plot(found),
            leaks_scoreboard.promises(found),
        ):
            print()
            print("\n".join(["  " + line for line in part]))
    print()


def _leaks_beside(path: Path, series: int) -> tuple[leaks_scoreboard.Leak, ...]:
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return ()
    try:
        return leaks_scoreboard.leaks_of(json.loads(beside.read_text("utf-8")), series)
    except (OSError, ValueError) as error:
        print(f"{beside.name}: no scoreboard: {error}", file=sys.stderr)
        return ()
