"""When reports of several gateways about one meter are one alert. Pure decisions.

An episode is what one agent follows (meter, kind, start). An alert is what people see. Episodes
that overlap in time are the same water: they join one alert. An alert closes with the first
episode of it that closes, because closing takes evidence (flow seen at zero, or the meter seen
normal), while an agent that stopped hearing the meter says nothing. Evidence from before the alert
was opened (another gateway's backlog) closes nothing. A closed alert stays closed: later reports
of its episodes change nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cloud.metering.model import DAY_US, Alert, Anomaly
from decoders.value import value

SILENT = "silent"
KINDS = (
    *("continuous_flow", "burst", "intermittent", "ramp", "backflow"),
    *(SILENT, "dry", "tamper", "low_battery"),
    *("night_flow", "daily_flow"),
)
# What a gateway's nightly scan finds is no news where a rule that sees hours found that water.
SCANNED = frozenset({"night_flow", "daily_flow"})
SAME_WATER = ("continuous_flow", "intermittent", "ramp")
STATES = ("open", "closed")
LEVELS = (0, 12, 24, 48, 72, 168)
LITRES_MAX = 10**12  # a cubic kilometre: more is not a meter's register
EPISODE_HEX_DIGITS = 16
NATURAL_ID = re.compile(r"[@-_]{3}-[0-9A-F]{8}|[0-9A-F]{16}")  # letters: five bits each, from 64


class AnomalyMalformed(ValueError):
    """An anomaly row that does not say what it must; names the field."""

    def __init__(self, field: str) -> None:
        super().__init__(f"anomaly: {field} is missing or not what it must be")
        self.field = field


@value
class Outcome:
    """What to record: the alert as it is now, and whether anything changed for its readers."""

    alert_key: int | None  # None: a new alert
    level: int
    state: str
    rate_lph: int
    litres: int
    started_at: int
    closed_at: int | None
    changed: bool


def anomaly_of(payload: Any) -> Anomaly:  # noqa: ANN401  whatever the CBOR was
    """Read the payload of an anomaly row. Raises AnomalyMalformed."""
    if not isinstance(payload, dict):
        raise AnomalyMalformed("the map")
    episode = _text(payload, "episode")
    if len(episode) != EPISODE_HEX_DIGITS or set(episode) - set("0123456789abcdef"):
        raise AnomalyMalformed("episode")
    level = _whole(payload, "level", 0, LEVELS[-1])
    if level not in LEVELS:
        raise AnomalyMalformed("level")
    return Anomaly(
        kind=_one_of(payload, "kind", KINDS),
        meter=_meter(payload),
        episode=episode,
        level=level,
        started_at=_instant(payload, "started_at"),
        detected_at=_instant(payload, "detected_at"),
        rate_lph=_whole(payload, "rate_lph", 0, LITRES_MAX),
        litres=_whole(payload, "litres", 0, LITRES_MAX),
        state=_one_of(payload, "state", STATES),
    )


def same_leak(anomaly: Anomaly, alerts: Sequence[Alert]) -> Alert | None:
    """Return the alert of this meter and kind that a not yet known episode belongs to.

    alerts  of that meter and kind, the open one first

    There is one open alert at most, so an open episode always joins it.
    """
    for alert in alerts:
        if alert.closed_at is None and anomaly.state == "open":
            return alert
        before_end = alert.closed_at is None or anomaly.started_at < alert.closed_at
        if before_end and anomaly.detected_at >= alert.started_at:
            return alert
    return None


def outcome(anomaly: Anomaly, alert: Alert | None) -> Outcome:
    """Return what a report makes of its alert (None: of no alert yet)."""
    if alert is None:
        return Outcome(
            alert_key=None,
            level=anomaly.level,
            state=anomaly.state,
            rate_lph=anomaly.rate_lph,
            litres=anomaly.litres,
            started_at=anomaly.started_at,
            closed_at=anomaly.detected_at if anomaly.state == "closed" else None,
            changed=True,
        )
    if alert.state == "closed":
        return _unchanged(alert)
    closes = anomaly.state == "closed" and anomaly.detected_at >= alert.opened_at
    level = max(alert.level, anomaly.level)
    return Outcome(
        alert_key=alert.alert_key,
        level=level,
        state="closed" if closes else "open",
        rate_lph=anomaly.rate_lph or alert.rate_lph,
        litres=max(alert.litres, anomaly.litres),
        started_at=min(alert.started_at, anomaly.started_at),
        closed_at=anomaly.detected_at if closes else None,
        changed=closes or level > alert.level,
    )


def _unchanged(alert: Alert) -> Outcome:
    return Outcome(
        alert_key=alert.alert_key,
        level=alert.level,
        state=alert.state,
        rate_lph=alert.rate_lph,
        litres=alert.litres,
        started_at=alert.started_at,
        closed_at=alert.closed_at,
        changed=False,
    )


def _text(payload: Mapping[str, Any], field: str) -> str:
    given = payload.get(field)
    if not isinstance(given, str) or not 0 < len(given) <= 64:
        raise AnomalyMalformed(field)
    return given


def _meter(payload: Mapping[str, Any]) -> str:
    name = _text(payload, "meter")
    if NATURAL_ID.fullmatch(name) is None:
        raise AnomalyMalformed("meter")
    return name


def _one_of(payload: Mapping[str, Any], field: str, allowed: Sequence[str]) -> str:
    given = _text(payload, field)
    if given not in allowed:
        raise AnomalyMalformed(field)
    return given


def _instant(payload: Mapping[str, Any], field: str) -> int:
    return _whole(payload, field, 0, 200 * 366 * DAY_US)


def _whole(payload: Mapping[str, Any], field: str, least: int, most: int) -> int:
    given = payload.get(field)
    if not isinstance(given, int) or isinstance(given, bool) or not least <= given <= most:
        raise AnomalyMalformed(field)
    return given
