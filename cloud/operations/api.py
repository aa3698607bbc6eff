"""REST for the operators' pages: the flow as a whole, alive."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from cloud.kernel.auth import Principal, Role, require
from cloud.kernel.platform import Platform
from cloud.kernel.web import OpenPlatform
from cloud.metering import network_views
from cloud.metering.network_api import gateway_items, sees_all
from cloud.metering.network_views import HOURS_SHOWN
from cloud.metering.shapes import instant
from cloud.operations.rates import Rates
from decoders.value import value

WINDOW_S = 15  # wall seconds that a rate is taken over: long enough for agents' batches
FEED_SHOWN = 20
SILENT_S = 60  # wall seconds without a batch after which a stage counts as stopped

router = APIRouter(prefix="/api/v1", tags=["operations"])

Overseer = Annotated[Principal, Depends(require(Role.SUPERVISOR, Role.NETWORK, Role.ADMIN))]


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


_rates = Rates()


@router.get("/pipeline")
def pipeline(principal: Overseer, platform: OpenPlatform) -> Any:  # noqa: ANN401  JSON
    """The flow from radio to alert: rates in wall seconds, lags in the city's."""
    view = View(
        now=platform.clock.now(),
        speed=max(platform.clock.speed, 1.0),
        wall_s=time.monotonic(),
        administrations=principal.administrations,
    )
    everything = sees_all(platform, principal)
    with platform.pool("metering").connection() as connection:
        flow = network_views.flow(
            connection,
            administrations=principal.administrations,
            strangers=everything,
            since=view.now - timedelta(seconds=WINDOW_S * view.speed),
            now=view.now,
        )
    gateways = gateway_items(platform, principal)
    told = _told(platform, view.now, flow["newest_event"])
    return {
        "now": instant(view.now),
        "speed": view.speed,
        "stages": [
            {
                "id": stage.id,
                "rate_per_s": round(stage.rate_per_s, 2),
                "total": int(stage.total),
                "lag_s": None if stage.lag_s is None else round(stage.lag_s, 1),
                "ok": stage.ok,
            }
            for stage in _stages(flow, gateways, told, view)
        ],
        "gateways": gateways,
        "history": _history(platform.settings.state / "city.json"),
        "readings_total": flow["readings_total"],
        "telegrams_total": flow["heard_total"],
        "meters_total": flow["meters"],
        "open_alerts": flow["open_alerts"],
        "dead_letters": flow["dead_letters"],
        "alert_feed": _feed(platform, principal.administrations),
        # events do not say whose they are: only who serves everybody sees them added up
        "recorded_hours": told.hours if everything else [],
    }


def _feed(platform: Platform, administrations: Sequence[str]) -> list[dict[str, Any]]:
    """Return what was last told of alerts, newest first: opened, worse, closed."""
    with platform.pool("operations").connection() as connection:
        rows = connection.execute(
            """SELECT alert, meter_key, kind, level, state, told_at FROM alert_feed
               WHERE administration = ANY (%s) ORDER BY feed_key DESC LIMIT %s""",
            [list(administrations), FEED_SHOWN],
        ).fetchall()
    names = ("alert", "meter_key", "kind", "level", "state")
    return [{**dict(zip(names, row, strict=False)), "at": instant(row[-1])} for row in rows]


def _told(platform: Platform, now: datetime, newest: tuple[str, int] | None) -> Told:
    """Read how far the events have got here; `newest` is the last batch of readings published."""
    with platform.pool("operations").connection() as connection:
        rows = connection.execute(
            """SELECT hour_at, readings FROM recorded_hours WHERE hour_at > %s - %s
               ORDER BY hour_at""",
            [now, timedelta(hours=HOURS_SHOWN)],
        ).fetchall()
        behind = connection.execute(
            """SELECT coalesce(max(extract(epoch FROM clock_timestamp() - moved_at)), 0)::float8
               FROM inbox WHERE subscription = 'recorded_hours' AND partition = 'metering'
                 AND (xid, id) < (%s::xid8, %s)""",
            newest or ("0", 0),
        ).fetchone()
    assert behind is not None, "an aggregate has a row"
    hours = [{"from": instant(hour_at), "readings": readings} for hour_at, readings in rows]
    return Told(hours=hours, behind_s=behind[0])


@value
class Stage:
    """One stage of the picture. `ok` is False where it has come to a stop."""

    id: str
    rate_per_s: float  # wall seconds
    total: int
    lag_s: float | None  # the city's seconds
    ok: bool


def _stages(
    flow: dict[str, Any], gateways: list[dict[str, Any]], told: Told, view: View
) -> list[Stage]:
    """Return the six stages in the order of the flow, each judged by what is known of it."""
    silent_s = SILENT_S * view.speed
    seen_s = [view.since(gateway["last_seen_at"]) for gateway in gateways]
    behind_s = [view.since(g["behind_since"]) for g in gateways if g["behind_since"]]
    stored_s = None if flow["stored_at"] is None else (view.now - flow["stored_at"]).total_seconds()
    send_s = None if flow["send_lag_s"] is None else max(0.0, float(flow["send_lag_s"]))
    heard = _rates.of(("heard", view.administrations), flow["heard_total"], now_s=view.wall_s)
    rows = float(flow["rows"]) / WINDOW_S
    arrives = stored_s is not None and stored_s < silent_s
    all_seen = bool(seen_s) and max(seen_s) < silent_s
    return [
        Stage(
            id="radio",
            rate_per_s=rows if heard is None else heard,
            total=flow["heard_total"],
            lag_s=None,
            ok=bool(seen_s) and min(seen_s) < silent_s,
        ),
        Stage(
            id="agent",
            rate_per_s=rows,
            total=sum(gateway["backlog"] for gateway in gateways),
            lag_s=max(behind_s, default=0.0),
            ok=all_seen,
        ),
        Stage(
            id="broker",
            rate_per_s=float(flow["batches"]) / WINDOW_S,
            total=flow["batches"],
            lag_s=send_s,
            ok=bool(seen_s) and min(seen_s) < silent_s,
        ),
        Stage(
            id="intake",
            rate_per_s=float(flow["frames"]) / WINDOW_S,
            total=flow["telegrams"],
            lag_s=send_s,
            ok=arrives,
        ),
        Stage(
            id="store",
            rate_per_s=float(flow["readings"]) / WINDOW_S,
            total=flow["readings_total"],
            lag_s=stored_s,
            ok=arrives,
        ),
        Stage(
            id="alerts",
            rate_per_s=float(flow["alerts_recent"]) / WINDOW_S,
            total=flow["open_alerts"],
            lag_s=told.behind_s * view.speed,
            ok=told.behind_s < SILENT_S,
        ),
    ]


def _history(path: Path) -> dict[str, Any] | None:
    """Return how far the sandbox city has replayed its past; None once it lives in the present."""
    try:
        told = json.loads(path.read_text()).get("history")
    except (OSError, ValueError, AttributeError):
        return None
    if not isinstance(told, dict) or told.get("done") == told.get("total"):
        return None
    return {"done": told.get("done"), "total": told.get("total"), "eta_s": told.get("eta_s")}
