"""The nightly scan itself, in a process of its own that ends: SciPy's memory ends with it.

    python -m edge_agent.scan_child < question > answer

question   one JSON object: {"meters": {name: {"nights": [l/h or null, …], "hours": […]}}}
           nights: each night's floor, oldest first; hours: those of the last week, oldest first
           and "open": kinds of the meter's open episodes that are the scan's
answer     one JSON object: {"found": [{"meter", "kind", "method", "rate_lph", "days", "p"}],
           "ended": [[meter, kind], …]} or {"unavailable": why} where SciPy is not installed

kind is "night_flow" or "daily_flow", one finding of each for a meter; days: since when.

Three methods, each blind to the streaming rules:

- *change_point*: the night flow stepped up. Pettitt's rank test finds where, and how likely chance
  is; the step is the difference of the medians.
- *cusum*: the night flow drifts up: a one-sided cumulative sum against the first nights' median.
- *folded*: some hours of the day carry a flow that others do not, every day, at one rate: a Mann-
  Whitney test between those hours' minima and the rest.

Sources: Pettitt 1979 (Appl. Stat. 28, 126-135); Page 1954 (Biometrika 41, 100-115).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from math import exp
from typing import Any, Final

NIGHT_FLOW: Final = "night_flow"  # as in `leaks_episodes`; nothing of the agent is loaded here
DAILY_FLOW: Final = "daily_flow"
NIGHTS_MIN: Final = 14
STEP_LPH: Final = 2.0  # a smaller step is within the resolution of two hourly reads
CHANCE: Final = 0.001  # of a step by chance, for one meter and night: 4 in 4,000 meters
CUSUM_SLACK_LPH: Final = 1.0
CUSUM_LIMIT_LPH: Final = 20.0
CUSUM_BASE: Final = 7  # nights
DAY_H: Final = 24
FOLD_DAYS: Final = 7  # a weekday and a weekend: some houses only rest on one of them
FOLD_HOURS: Final = 6
FOLD_LPH: Final = 4.0
FOLD_STANDING: Final = 5  # of those hours within …
FOLD_STANDS_LPH: Final = 2.0  # … a litre of resolution at both ends
FOLD_STANDS_SHARE: Final = 0.25  # … or the same leak on another day

Rates = Sequence[float | None]
Finding = dict[str, Any]


def scanned(question: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a question. The one place that loads SciPy."""
    try:
        stats = statistics()
    except ImportError as error:
        return {"unavailable": str(error)}
    found: list[Finding] = []
    ended: list[tuple[str, str]] = []
    for name, known in question["meters"].items():
        of_meter = _of_meter(known, stats)
        found += [{"meter": name, **finding} for finding in of_meter]
        if known["nights"] and known["nights"][-1] is not None:
            named = {finding["kind"] for finding in of_meter}
            ended += [(name, kind) for kind in known.get("open", ()) if kind not in named]
    return {"found": found, "ended": ended}


def statistics() -> Any:  # noqa: ANN401  a module
    """Return `scipy.stats`. Raises ImportError where SciPy is not installed."""
    return import_module("scipy.stats")  # a hundred megabytes: here, and nowhere else


def _of_meter(known: Mapping[str, Any], stats: Any) -> list[Finding]:  # noqa: ANN401  a module
    """Return what flows in one meter still: the last night has half of its step, or is unknown."""
    nights = known["nights"]
    found: list[Finding] = []
    methods = (("change_point", change_point(nights, stats)), ("cusum", cusum(nights)))
    for method, finding in methods:
        if finding is None or found:
            continue
        if nights[-1] is None or 2 * nights[-1] >= finding["rate_lph"]:
            days = len(nights) - finding.pop("since_night")
            found.append({"kind": NIGHT_FLOW, "method": method, "days": days, **finding})
    finding = folded(known["hours"], stats)
    if finding is not None:
        found.append({"kind": DAILY_FLOW, "method": "folded", "days": FOLD_DAYS, **finding})
    return found


def change_point(nights: Rates, stats: Any) -> Finding | None:  # noqa: ANN401  a module
    """Find the night since which the floor is higher."""
    known = [(i, rate) for i, rate in enumerate(nights) if rate is not None]
    count = len(known)
    if count < NIGHTS_MIN:
        return None
    ranks = stats.rankdata([rate for _, rate in known])
    summed, most, place = 0.0, 0.0, 0
    for i in range(count - 1):
        summed += float(ranks[i])
        statistic = (i + 1) * (count + 1) - 2 * summed  # > 0: what follows is higher
        if statistic > most:
            most, place = statistic, i + 1
    if place == 0:
        return None  # all alike, or only ever lower
    chance = min(1.0, exp(-6 * most * most / (count**3 + count**2)))  # one-sided
    before = _median([rate for _, rate in known[:place]])
    after = _median([rate for _, rate in known[place:]])
    if chance > CHANCE or after - before < STEP_LPH:
        return None
    return {"rate_lph": after - before, "since_night": known[place][0], "p": chance}


def cusum(nights: Rates) -> Finding | None:
    """Find a floor that has drifted up, however slowly."""
    known = [(i, rate) for i, rate in enumerate(nights) if rate is not None]
    if len(known) < NIGHTS_MIN:
        return None
    base = _median([rate for _, rate in known[:CUSUM_BASE]])
    total, since = 0.0, -1
    for i, rate in known[CUSUM_BASE:]:
        total = max(0.0, total + min(rate - base, 10 * CUSUM_SLACK_LPH) - CUSUM_SLACK_LPH)
        since = -1 if total == 0.0 else i if since < 0 else since
    newest = _median([rate for _, rate in known[-3:]])
    if total < CUSUM_LIMIT_LPH or newest - base < STEP_LPH:
        return None
    return {"rate_lph": newest - base, "since_night": since, "p": None}


def folded(hours: Rates, stats: Any) -> Finding | None:  # noqa: ANN401  a module
    """Find the hours of the day that never rest, beside others that do: a toilet's pattern."""
    if len(hours) < FOLD_DAYS * DAY_H:
        return None
    window = hours[-FOLD_DAYS * DAY_H :]
    lows: list[float] = []
    for hour in range(DAY_H):
        known = [rate for rate in window[hour::DAY_H] if rate is not None]
        lows.append(min(known) if 2 * len(known) >= FOLD_DAYS else 0.0)
    twice = lows + lows
    starts = range(DAY_H)
    start = max(starts, key=lambda first: min(twice[first : first + FOLD_HOURS]))
    inside = twice[start : start + FOLD_HOURS]
    outside = twice[start + FOLD_HOURS : start + DAY_H]
    rate = min(inside)
    if rate < FOLD_LPH or _median(outside) >= rate / 2:
        return None
    chance = float(stats.mannwhitneyu(inside, outside, alternative="greater").pvalue)
    spread = sorted(inside)[FOLD_STANDING - 1] - rate
    if chance > CHANCE or spread > max(FOLD_STANDS_LPH, FOLD_STANDS_SHARE * rate):
        return None
    return {"rate_lph": rate, "p": chance}


def _median(rates: Sequence[float]) -> float:
    ordered = sorted(rates)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


if __name__ == "__main__":
    json.dump(scanned(json.load(sys.stdin)), sys.stdout)
