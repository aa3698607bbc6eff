"""How well the rules did on series whose leaks are known: detection, delay and load. Pure.

Detection counts from the start of a leak to its end; load counts the days before a leak begins, and
all days of series without one. A covered meter-day is a day with at least one read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from decoders.value import value
from edge_agent.leaks_replay import Alert, Series

HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S
LONGEST_GAP_S: Final = 3 * HOUR_S  # where no read is missing for longer, hours can be promised
BARS_H: Final = (26, 74, 7 * 24, 14 * 24)
BAR_WIDTH: Final = 24


class EventsMalformed(ValueError):
    """A file of events that does not say what it must; says which and what."""


@value
class Leak:
    """A leak that is known: `series` from `starts` to `ends` (seconds of the file's epoch)."""

    series: int
    starts: int
    ends: int
    lph: float
    kind: str


@value
class Outcome:
    """delay_s: None where nobody was told. gapless_s: read without a long gap for so long."""

    leak: Leak
    delay_s: int | None
    rule: str
    gapless_s: int


@value
class Load:
    """Notifications beside a file's covered meter-days without a known leak."""

    notifications: int
    meter_days: int
    by_rule: Mapping[str, int]

    @property
    def per_thousand(self) -> float:
        return 1000 * self.notifications / self.meter_days if self.meter_days else 0.0


def leaks_of(said: Any, series: int) -> tuple[Leak, ...]:  # noqa: ANN401  whatever the JSON holds
    """Read the events of a file of `series` series. Raises EventsMalformed."""
    events = said.get("events") if isinstance(said, dict) else None
    if not isinstance(events, list):
        raise EventsMalformed("no list `events`")
    try:
        leaks = tuple(
            Leak(
                series=int(event["series"]),
                starts=int(event["start_epoch"]),
                ends=int(event["end_epoch"]),
                lph=float(event["rate_l_h"]),
                kind=str(event["type"]),
            )
            for event in events
        )
    except (KeyError, TypeError, ValueError) as error:
        raise EventsMalformed(f"an event lacks or misstates {error}") from None
    if any(not 0 <= leak.series < series for leak in leaks):
        raise EventsMalformed("an event of a series that the file does not have")
    return leaks


def outcomes(
    leaks: Sequence[Leak], alerts: Sequence[Alert], series: Sequence[Series]
) -> tuple[Outcome, ...]:
    """Return what became of each leak."""
    told: dict[int, list[Alert]] = defaultdict(list)
    for alert in alerts:
        told[alert.series].append(alert)
    found = []
    for leak in leaks:
        during = [a for a in told[leak.series] if leak.starts < a.at <= leak.ends]
        first = min(during, key=lambda alert: alert.at, default=None)
        found.append(
            Outcome(
                leak=leak,
                delay_s=None if first is None else first.at - leak.starts,
                rule="" if first is None else first.rule,
                gapless_s=gapless_s(series[leak.series].at_s, leak.starts),
            )
        )
    return tuple(found)


def gapless_s(at_s: Sequence[int], starts: int) -> int:
    """Return how long after `starts` the meter was read without a long gap."""
    last = None
    for at in at_s:
        if at > starts:
            since = at if last is None else last
            if at - since > LONGEST_GAP_S:
                return max(0, since - starts)
        last = at
    return 0 if last is None else max(0, last - starts)


def load(leaks: Sequence[Leak], alerts: Sequence[Alert], series: Sequence[Series]) -> Load:
    """Return the load of a file."""
    begins = {leak.series: leak.starts for leak in sorted(leaks, key=lambda k: -k.starts)}
    days = 0
    for i, one in enumerate(series):
        until = begins.get(i)
        days += len({at // DAY_S for at in one.at_s if until is None or at < until})
    idle = [a for a in alerts if a.series not in begins or a.at <= begins[a.series]]
    return Load(
        notifications=len(idle),
        meter_days=days,
        by_rule=dict(sorted(Counter(alert.rule for alert in idle).items())),
    )


def table(found: Sequence[Outcome]) -> tuple[str, ...]:
    """Return lines: how many leaks of each kind and rate were told of, and when."""
    lines = [
        f"{'kind':<18}{'l/h':>6}{'leaks':>7}{'26 h':>7}{'74 h':>7}{'7 d':>7}{'14 d':>7}{'ever':>7}"
        f"{'median h':>10}"
    ]
    for (kind, lph), group in grouped(found).items():
        cells = "".join([f"{share(group, bar_h):>7.0%}" for bar_h in BARS_H])
        ever = [o.delay_s for o in group if o.delay_s is not None]
        middle = sorted(ever)[len(ever) // 2] / HOUR_S if ever else None
        lines.append(
            f"{kind:<18}{lph:>6g}{len(group):>7}{cells}{len(ever) / len(group):>7.0%}"
            + (f"{middle:>10.0f}" if middle is not None else f"{'-':>10}")
        )
    return tuple(lines)


def plot(found: Sequence[Outcome]) -> tuple[str, ...]:
    """Return a plot for a terminal: the share told of within a week, by kind and rate."""
    lines = [f"{'told within 7 days':<24}0 %{'':{BAR_WIDTH - 8}}100 %"]
    for (kind, lph), group in grouped(found).items():
        filled = round(BAR_WIDTH * share(group, 7 * 24))
        bar = "#" * filled + "." * (BAR_WIDTH - filled)
        lines.append(f"{kind:<18}{lph:>4g}  |{bar}| {share(group, 7 * 24):.0%}")
    return tuple(lines)


def promises(found: Sequence[Outcome]) -> tuple[str, ...]:
    """Return lines: the figures that the guide promises, as they came out here."""
    steady = [o for o in found if o.leak.kind == "continuous"]
    return tuple(
        f"{says:<58}{_of(group, bar_h)}"
        for says, bar_h, group in (
            ("no gap > 3 h, >= 10 l/h, within 26 h", 26, _gapless(steady, 10, 26)),
            ("no gap > 3 h, >= 2.5 l/h, within 74 h", 74, _gapless(steady, 2.5, 74)),
            ("with gaps, >= 2.5 l/h, within 7 days", 168, [o for o in steady if o.leak.lph >= 2.5]),
            ("8 h a day, >= 5 l/h, within 7 days", 168, _kind(found, "intermittent")),
            ("ramps, within 14 days", 336, _kind(found, "ramp")),
        )
        if group
    )


def _gapless(found: Sequence[Outcome], lph: float, hours: int) -> list[Outcome]:
    return [o for o in found if o.leak.lph >= lph and o.gapless_s >= hours * HOUR_S]


def _kind(found: Sequence[Outcome], kind: str) -> list[Outcome]:
    return [o for o in found if o.leak.kind.startswith(kind)]


def _of(group: Sequence[Outcome], bar_h: int) -> str:
    told = round(share(group, bar_h) * len(group))
    return f"{told} of {len(group)} = {told / len(group):.1%}"


def grouped(found: Sequence[Outcome]) -> dict[tuple[str, float], list[Outcome]]:
    """Return outcomes by kind and rate, smallest first."""
    groups: dict[tuple[str, float], list[Outcome]] = defaultdict(list)
    for outcome in sorted(found, key=lambda o: (o.leak.kind, o.leak.lph)):
        groups[outcome.leak.kind, outcome.leak.lph].append(outcome)
    return dict(groups)


def share(group: Sequence[Outcome], bar_h: int) -> float:
    """Return the share of a group told of within so many hours."""
    told = [o for o in group if o.delay_s is not None and o.delay_s <= bar_h * HOUR_S]
    return len(told) / len(group)
