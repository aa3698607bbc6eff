"""What the picture of the flow says of each stage, from what is known of that stage. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from decoders.value import value

WINDOW_S = 15  # wall seconds that a rate is taken over: long enough for agents' batches
SILENT_S = 60  # wall seconds without a sign of life after which a stage counts as stopped


@value
class View:
    """Who looks, and when. `now` is the city's, `wall_s` monotonic."""

    now: datetime
    speed: float
    wall_s: float
    administrations: tuple[str, ...]

    def since(self, at: str | None) -> float:
        """Return how long ago an instant of an answer is, in the city's seconds."""
        if at is None:
            return float("inf")
        return (self.now - datetime.fromisoformat(at)).total_seconds()


@value
class Told:
    """What the events have told operations so far."""

    hours: list[dict[str, Any]]  # readings recorded in each of the last hours of receipt
    behind_s: float  # wall seconds since it last moved on, while events wait; 0 when none do


@value
class Stage:
    """One stage of the picture. `ok` is False where it has come to a stop."""

    id: str
    rate_per_s: float  # wall seconds
    total: int
    lag_s: float | None  # the city's seconds
    ok: bool


def stages(
    flow: Mapping[str, Any],
    gateways: Sequence[Mapping[str, Any]],
    *,
    heard_per_s: float | None,
    told: Told,
    view: View,
) -> list[Stage]:
    """Return the six stages in the order of the flow.

    flow         of `network_views.flow`; gateways: as the API shows them
    heard_per_s  what the gateways hear, stored or not; None until it was looked at twice
    """
    silent_s = SILENT_S * view.speed
    seen_s = [view.since(gateway["last_seen_at"]) for gateway in gateways]
    somebody, everybody = (bool(seen_s) and last(seen_s) < silent_s for last in (min, max))
    waiting = sum(gateway["backlog"] for gateway in gateways)
    behind_s = [view.since(g["behind_since"]) for g in gateways if g["behind_since"]]
    stored_s = None if flow["stored_at"] is None else (view.now - flow["stored_at"]).total_seconds()
    arrives = stored_s is not None and stored_s < silent_s
    send_s = None if flow["send_lag_s"] is None else max(0.0, float(flow["send_lag_s"]))
    rows, frames, batches, readings, alerts = (
        float(flow[name]) / WINDOW_S
        for name in ("rows", "frames", "batches", "readings", "alerts_recent")
    )
    heard = rows if heard_per_s is None else heard_per_s
    told_s = told.behind_s * view.speed
    table = (
        ("radio", heard, flow["heard_total"], None, somebody),
        ("agent", rows, waiting, max(behind_s, default=0.0), everybody),
        ("broker", batches, flow["batches"], send_s, somebody),
        ("intake", frames, flow["telegrams"], send_s, arrives),
        ("store", readings, flow["readings_total"], stored_s, arrives),
        ("alerts", alerts, flow["open_alerts"], told_s, told.behind_s < SILENT_S),
    )
    return [
        Stage(id=name, rate_per_s=rate, total=int(total), lag_s=lag_s, ok=ok)
        for name, rate, total, lag_s, ok in table
    ]
