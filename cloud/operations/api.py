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
from cloud.metering.answers import shown
from cloud.metering.network_api import gateway_items, sees_all
from cloud.metering.network_views import HOURS_SHOWN
from cloud.metering.shapes import instant
from cloud.operations.answers import Pipeline
from cloud.operations.picture import WINDOW_S, Stage, Told, View, stages
from cloud.operations.rates import Rates

FEED_SHOWN = 20

router = APIRouter(prefix="/api/v1", tags=["operations"])

Overseer = Annotated[Principal, Depends(require(Role.SUPERVISOR, Role.NETWORK, Role.ADMIN))]


_rates = Rates()


@router.get("/pipeline", responses=shown(Pipeline))
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
    heard = _rates.of(("heard", view.administrations), flow["heard_total"], now_s=view.wall_s)
    found = stages(flow, gateways, heard_per_s=heard, told=told, view=view)
    return {
        "now": instant(view.now),
        "speed": view.speed,
        "stages": [_shown(stage) for stage in found],
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


def _shown(stage: Stage) -> dict[str, Any]:
    return {
        "id": stage.id,
        "rate_per_s": round(stage.rate_per_s, 2),
        "total": stage.total,
        "lag_s": None if stage.lag_s is None else round(stage.lag_s, 1),
        "ok": stage.ok,
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


def _history(path: Path) -> dict[str, Any] | None:
    """Return how far the sandbox city has replayed its past; None once it lives in the present."""
    try:
        told = json.loads(path.read_text()).get("history")
    except (OSError, ValueError, AttributeError):
        return None
    if not isinstance(told, dict) or told.get("done") == told.get("total"):
        return None
    return {"done": told.get("done"), "total": told.get("total"), "eta_s": told.get("eta_s")}
