"""REST for the operators' pages: the flow as a whole, alive."""

from __future__ import annotations

import json
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

WINDOW_S = 15  # wall seconds that a rate is taken over: long enough for agents' batches
SILENT_S = 60  # wall seconds without a batch after which a stage counts as stopped

router = APIRouter(prefix="/api/v1", tags=["operations"])

Overseer = Annotated[Principal, Depends(require(Role.SUPERVISOR, Role.NETWORK, Role.ADMIN))]


@router.get("/pipeline")
def pipeline(principal: Overseer, platform: OpenPlatform) -> Any:  # noqa: ANN401  JSON
    """The flow from radio to alert: rates in wall seconds, lags in the city's."""
    now, speed = platform.clock.now(), max(platform.clock.speed, 1.0)
    since = now - timedelta(seconds=WINDOW_S * speed)
    everything = sees_all(platform, principal)
    with platform.pool("metering").connection() as connection:
        flow = network_views.flow(
            connection,
            administrations=principal.administrations,
            strangers=everything,
            since=since,
            now=now,
        )
    gateways = gateway_items(platform, principal)
    return {
        "now": instant(now),
        "speed": speed,
        "stages": _stages(flow, gateways, speed, now),
        "gateways": gateways,
        "history": _history(platform.settings.state / "city.json"),
        "readings_total": flow["readings_total"],
        "telegrams_total": flow["telegrams"],
        "meters_total": flow["meters"],
        "open_alerts": flow["open_alerts"],
        "dead_letters": flow["dead_letters"],
        # events do not say whose they are: only who serves everybody sees them added up
        "recorded_hours": _recorded_hours(platform, now) if everything else [],
    }


def _recorded_hours(platform: Platform, now: datetime) -> list[dict[str, Any]]:
    """Return how many readings the last hours of receipt recorded, as told by events."""
    with platform.pool("operations").connection() as connection:
        rows = connection.execute(
            """SELECT hour_at, readings FROM recorded_hours WHERE hour_at > %s - %s
               ORDER BY hour_at""",
            [now, timedelta(hours=HOURS_SHOWN)],
        ).fetchall()
    return [{"from": instant(hour_at), "readings": readings} for hour_at, readings in rows]


def _stages(
    flow: dict[str, Any],
    gateways: list[dict[str, Any]],
    speed: float,
    now: datetime,
) -> list[dict[str, Any]]:
    """Return the six stages in the order of the flow."""
    waiting = sum(gateway["backlog"] for gateway in gateways)
    stored_at = flow["stored_at"]
    stored_lag_s = None if stored_at is None else (now - stored_at).total_seconds()
    alive = stored_lag_s is not None and stored_lag_s < SILENT_S * speed
    send_lag_s = None if flow["send_lag_s"] is None else max(0.0, float(flow["send_lag_s"]))
    parts = (
        ("radio", flow["rows"], flow["telegrams"], None),
        ("agent", flow["rows"], waiting, None),
        ("broker", flow["batches"], flow["batches"], send_lag_s),
        ("intake", flow["frames"], flow["telegrams"], send_lag_s),
        ("store", flow["readings"], flow["readings_total"], stored_lag_s),
        ("alerts", flow["alerts_recent"], flow["open_alerts"], stored_lag_s),
    )
    return [
        {
            "id": name,
            "rate_per_s": round(float(count) / WINDOW_S, 2),
            "total": int(total),
            "lag_s": None if lag_s is None else round(lag_s, 1),
            "ok": alive,
        }
        for name, count, total, lag_s in parts
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
