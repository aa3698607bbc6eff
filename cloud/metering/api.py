"""REST of metering under `/api/v1`: meters, their readings, frames and alerts, and why."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import groupby
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query

from cloud.kernel.auth import Principal, Role, require
from cloud.kernel.paging import PageQuery, page
from cloud.kernel.problems import NOT_FOUND, Problem
from cloud.kernel.web import OpenPlatform
from cloud.metering import shapes, views
from cloud.metering.answers import (
    Alert,
    Day,
    DecodedFrame,
    Explanation,
    Frame,
    Hour,
    Meter,
    Page,
    Reading,
    listed,
    shown,
)
from cloud.metering.asked import (
    BIGINT_MAX,
    cursor_frame,
    cursor_key,
    cursor_reading,
    time_range,
    zoned,
)
from cloud.metering.csv_answer import AnswerForm
from cloud.metering.explain import explain_reading, frame_fields
from cloud.metering.intervals import Point, hourly, local_day
from cloud.metering.network_api import router as network_router
from cloud.metering.network_views import full_hour

CONTEXT = "metering"

router = APIRouter(prefix="/api/v1")
router.include_router(network_router)

Looks = require(Role.FIELD, Role.SUPERVISOR, Role.NETWORK, Role.ADMIN)
Reads = require(Role.FIELD, Role.CLERK, Role.SUPERVISOR, Role.NETWORK, Role.ADMIN)

Looker = Annotated[Principal, Depends(Looks)]
Reader = Annotated[Principal, Depends(Reads)]
Key = Annotated[int, Path(ge=1, le=BIGINT_MAX)]
FrameHash = Annotated[str, Path(pattern=r"^[0-9a-fA-F]{32}$")]


@router.get("/meters", responses=listed(Page[Meter]))
def list_meters(
    *,
    principal: Reader,
    platform: OpenPlatform,
    form: AnswerForm,
    wanted: PageQuery,
    q: Annotated[str | None, Query(max_length=64)] = None,
) -> Any:  # noqa: ANN401  JSON or CSV
    """Meters by key; `q` finds any part of a serial or DevEUI."""
    with platform.pool(CONTEXT).connection() as connection:
        rows = views.meters(
            connection,
            administrations=principal.administrations,
            search=q,
            after=cursor_key(wanted.after, first=0),
            limit=wanted.rows,
        )
    answer = page(rows, wanted, key=lambda row: [row["meter_key"]], item=shapes.meter)
    return form.written(answer)


@router.get("/meters/{meter_key}", responses=shown(Meter))
def one_meter(
    principal: Reader,
    platform: OpenPlatform,
    meter_key: Key,
) -> Any:  # noqa: ANN401  JSON
    """One meter: its names, its newest register, its open alerts."""
    with platform.pool(CONTEXT).connection() as connection:
        return shapes.meter(_meter(connection, principal, meter_key))


@router.get(
    "/meters/{meter_key}/readings", responses=listed(Page[Reading] | Page[Hour] | Page[Day])
)
def meter_readings(
    *,
    principal: Reader,
    platform: OpenPlatform,
    form: AnswerForm,
    wanted: PageQuery,
    meter_key: Key,
    resolution: Literal["native", "hourly", "daily"] = "native",
    from_at: Annotated[datetime | None, Query(alias="from")] = None,
    to_at: Annotated[datetime | None, Query(alias="to")] = None,
) -> Any:  # noqa: ANN401  JSON or CSV
    """Readings of [from, to), oldest first: registers as read, or litres by hour or local day."""
    begin, end = time_range(from_at, to_at, now=platform.clock.now())
    with platform.pool(CONTEXT).connection() as connection:
        _meter(connection, principal, meter_key)
        if resolution == "daily":
            days = views.days(
                connection,
                meter_key=meter_key,
                from_on=local_day(begin),
                to_on=local_day(end - timedelta(microseconds=1)) + timedelta(days=1),
            )
            answer = {"items": [shapes.day(row) for row in days], "next": None}
        elif resolution == "hourly":
            answer = _hours(connection, meter_key, full_hour(begin), full_hour(end))
        else:
            answer = _native(connection, meter_key, wanted, begin, end)
    return form.written(answer)


def _hours(
    connection: views.Connection, meter_key: int, begin: datetime, end: datetime
) -> dict[str, Any]:
    found = views.registers(connection, meter_key=meter_key, from_at=begin, to_at=end)
    points = [Point(at=r["register_at"], register_l=r["register_l"], late=r["late"]) for r in found]
    hours = hourly(points, from_at=begin, to_at=end)
    return {"items": [shapes.hour(one) for one in hours], "next": None}


def _native(
    connection: views.Connection,
    meter_key: int,
    wanted: PageQuery,
    begin: datetime,
    end: datetime,
) -> dict[str, Any]:
    go_on = cursor_reading(wanted.after, begin=begin)
    rows = views.readings(
        connection, meter_key=meter_key, from_at=go_on, to_at=end, limit=wanted.rows
    )
    return page(rows, wanted, key=lambda r: [r["register_at"].isoformat()], item=shapes.reading)


@router.get("/meters/{meter_key}/frames", responses=listed(Page[Frame]))
def meter_frames(
    *,
    principal: Looker,
    platform: OpenPlatform,
    form: AnswerForm,
    wanted: PageQuery,
    meter_key: Key,
) -> Any:  # noqa: ANN401  JSON or CSV
    """Frames of a meter, the last heard first, each with everyone who heard it."""
    with platform.pool(CONTEXT).connection() as connection:
        _meter(connection, principal, meter_key)
        found = views.meter_frames(
            connection,
            administrations=principal.administrations,
            meter_key=meter_key,
            before=cursor_frame(wanted.after),
            limit=wanted.rows,
        )
        known = _receptions(connection, principal, [row["frame"] for row in found])
    answer = page(
        found,
        wanted,
        key=lambda row: [row["last_heard_at"].isoformat(), row["frame"].hex()],
        item=lambda row: shapes.frame(known[row["frame"]]),
    )
    return form.written(answer)


@router.get("/meters/{meter_key}/alerts", responses=listed(Page[Alert]))
def meter_alerts(
    *,
    principal: Looker,
    platform: OpenPlatform,
    form: AnswerForm,
    wanted: PageQuery,
    meter_key: Key,
) -> Any:  # noqa: ANN401  JSON or CSV
    """Alerts of a meter, newest first."""
    with platform.pool(CONTEXT).connection() as connection:
        _meter(connection, principal, meter_key)
        answer = _alerts(connection, principal, wanted, state=None, meter_key=meter_key)
    return form.written(answer)


@router.get("/frames/{frame_hash}", responses=shown(DecodedFrame))
def one_frame(
    principal: Looker,
    platform: OpenPlatform,
    frame_hash: FrameHash,
) -> Any:  # noqa: ANN401  JSON
    """One frame: who heard it, its bytes, and what it says, decoded again now."""
    frame = bytes.fromhex(frame_hash)
    with platform.pool(CONTEXT).connection() as connection:
        known = _receptions(connection, principal, [frame])
        if frame not in known:
            raise Problem(NOT_FOUND)
        said = frame_fields(connection, platform, known[frame][0])
    return {**shapes.frame(known[frame]), **said}


@router.get("/alerts", responses=listed(Page[Alert]))
def list_alerts(
    *,
    principal: Looker,
    platform: OpenPlatform,
    form: AnswerForm,
    wanted: PageQuery,
    state: Literal["open", "closed"] | None = None,
) -> Any:  # noqa: ANN401  JSON or CSV
    """Alerts, newest first."""
    with platform.pool(CONTEXT).connection() as connection:
        answer = _alerts(connection, principal, wanted, state=state, meter_key=None)
    return form.written(answer)


@router.get("/explain/reading", responses=shown(Explanation))
def explain(
    *,
    principal: Looker,
    platform: OpenPlatform,
    meter: Annotated[str, Query(max_length=64)],
    at: datetime,
) -> Any:  # noqa: ANN401  JSON
    """From a reading to the bytes it came in, decoded again before your eyes."""
    instant = zoned(at)
    with platform.pool(CONTEXT).connection() as connection:
        meter_key = views.meter_key_of(
            connection, administrations=principal.administrations, name=meter
        )
        if meter_key is None:
            raise Problem(NOT_FOUND)
        explained = explain_reading(connection, platform, meter_key, instant)
    if explained is None:
        raise Problem(NOT_FOUND, detail="El medidor no tiene lecturas en ese momento")
    return explained


def _meter(connection: views.Connection, principal: Principal, meter_key: int) -> views.Row:
    found = views.meter(connection, administrations=principal.administrations, meter_key=meter_key)
    if found is None:
        raise Problem(NOT_FOUND)
    return found


def _receptions(
    connection: views.Connection, principal: Principal, frames: list[bytes]
) -> dict[bytes, list[views.Row]]:
    rows = views.receptions(connection, administrations=principal.administrations, frames=frames)
    rows.sort(key=lambda row: (row["frame"], row["heard_at"], row["gateway"]))
    return {frame: list(same) for frame, same in groupby(rows, key=lambda row: row["frame"])}


def _alerts(
    connection: views.Connection,
    principal: Principal,
    wanted: PageQuery,
    *,
    state: str | None,
    meter_key: int | None,
) -> dict[str, Any]:
    rows = views.alerts(
        connection,
        administrations=principal.administrations,
        state=state,
        meter_key=meter_key,
        before=cursor_key(wanted.after, first=BIGINT_MAX),
        limit=wanted.rows,
    )
    return page(rows, wanted, key=lambda row: [row["alert_key"]], item=shapes.alert)
