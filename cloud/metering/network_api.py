"""REST for the network desk: gateways expected against received, and what had to be refused."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query

from cloud.kernel.auth import Principal, Role, require
from cloud.kernel.paging import PageQuery, page
from cloud.kernel.platform import Platform
from cloud.kernel.problems import NOT_FOUND, Problem, problem_type
from cloud.kernel.web import OpenPlatform
from cloud.metering import network_views, shapes, views
from cloud.metering.answers import (
    DeadLetter,
    Gateway,
    GatewayHours,
    Page,
    Rejects,
    Report,
    listed,
    shown,
)
from cloud.metering.asked import BIGINT_MAX, cursor_key, time_range
from cloud.metering.csv_answer import AnswerForm
from cloud.metering.network_views import HOURS_SHOWN, full_hour
from cloud.metering.service import Metering

CONTEXT = "metering"

DEAD_LETTER_CLOSED = problem_type("dead_letter_closed", 409, "El rechazo ya se aceptó")

router = APIRouter(tags=["network"])  # joined to metering's in `api.py`

Operator = Annotated[Principal, Depends(require(Role.NETWORK, Role.ADMIN))]
Key = Annotated[int, Path(ge=1, le=BIGINT_MAX)]
GatewayId = Annotated[str, Path(pattern=r"^[a-z0-9-]{1,32}$")]


@router.get("/gateways", responses=listed(Page[Gateway]))
def list_gateways(
    principal: Operator,
    platform: OpenPlatform,
    form: AnswerForm,
) -> Any:  # noqa: ANN401  JSON or CSV
    """Gateways with what was expected and received in each of the last 24 full hours."""
    items = gateway_items(platform, principal)
    if form.is_csv:
        items = [{name: held for name, held in i.items() if name != "hours"} for i in items]
    return form.written({"items": items, "next": None})


def gateway_items(platform: Platform, principal: Principal) -> list[dict[str, Any]]:
    """Return the caller's gateways as the API shows them."""
    now = platform.clock.now()
    end = full_hour(now)
    with platform.pool(CONTEXT).connection() as connection:
        rows = network_views.gateways(
            connection, administrations=principal.administrations, now=now
        )
        hours = network_views.gateway_hours(
            connection,
            gateway_keys=[row["gateway_key"] for row in rows],
            from_at=end - timedelta(hours=HOURS_SHOWN),
            to_at=end,
        )
    return [dict(shapes.gateway(row, hours[row["gateway_key"]])) for row in rows]


@router.get("/gateways/{gateway}/hours", responses=listed(GatewayHours))
def one_gateway_hours(
    *,
    principal: Operator,
    platform: OpenPlatform,
    form: AnswerForm,
    gateway: GatewayId,
    from_at: Annotated[datetime | None, Query(alias="from")] = None,
    to_at: Annotated[datetime | None, Query(alias="to")] = None,
) -> Any:  # noqa: ANN401  JSON or CSV
    """Frames of each full hour of [from, to) beside those expected, and what was lost."""
    now = platform.clock.now()
    begin, end = time_range(from_at, to_at, now=now)
    with platform.pool(CONTEXT).connection() as connection:
        rows = network_views.gateways(
            connection, administrations=principal.administrations, now=now
        )
        found = next((row for row in rows if row["id"] == gateway), None)
        if found is None:
            raise Problem(NOT_FOUND)
        key = found["gateway_key"]
        hours = network_views.gateway_hours(
            connection, gateway_keys=[key], from_at=full_hour(begin), to_at=full_hour(end)
        )[key]
        lost = network_views.losses(connection, gateway_key=key)
    answer = {
        "items": [shapes.gateway_hour(one, found["expected"]) for one in hours],
        "next": None,
        "losses": [shapes.loss(row) for row in lost],
    }
    return form.written(answer)


@router.get("/gateways/{gateway}/reports", responses=listed(Page[Report]))
def gateway_reports(
    *,
    principal: Operator,
    platform: OpenPlatform,
    form: AnswerForm,
    wanted: PageQuery,
    gateway: GatewayId,
    kind: Annotated[str | None, Query(max_length=64)] = None,
) -> Any:  # noqa: ANN401  JSON or CSV
    """What a gateway reported of itself, newest first: source_down, suppressed, shed, …"""
    with platform.pool(CONTEXT).connection() as connection:
        gateway_key = network_views.gateway_key_of(
            connection, administrations=principal.administrations, gateway=gateway
        )
        if gateway_key is None:
            raise Problem(NOT_FOUND)
        rows = network_views.reports(
            connection,
            gateway_key=gateway_key,
            kind=kind,
            before=cursor_key(wanted.after, first=BIGINT_MAX),
            limit=wanted.rows,
        )
    return form.written(page(rows, wanted, key=lambda r: [r["report_key"]], item=shapes.report))


@router.get("/gateways/{gateway}/dead-letters", responses=listed(Page[Rejects]))
def gateway_rejects(
    principal: Operator, platform: OpenPlatform, form: AnswerForm, gateway: GatewayId
) -> Any:  # noqa: ANN401  JSON or CSV
    """How many dead letters of each code a gateway has; `/dead-letters?gateway=` lists them."""
    with platform.pool(CONTEXT).connection() as connection:
        gateway_key = network_views.gateway_key_of(
            connection, administrations=principal.administrations, gateway=gateway
        )
        if gateway_key is None:
            raise Problem(NOT_FOUND)
        rows = network_views.rejects(connection, gateway_key=gateway_key)
    return form.written({"items": [shapes.rejects(row) for row in rows], "next": None})


@router.get("/dead-letters", responses=listed(Page[DeadLetter]))
def list_dead_letters(
    *,
    principal: Operator,
    platform: OpenPlatform,
    form: AnswerForm,
    wanted: PageQuery,
    code: Annotated[str | None, Query(max_length=64)] = None,
    state: Literal["open", "replayed", "dismissed"] | None = None,
    gateway: Annotated[str | None, Query(max_length=32)] = None,
) -> Any:  # noqa: ANN401  JSON or CSV
    """What could not be accepted, newest first, with its bytes and its reason."""
    with platform.pool(CONTEXT).connection() as connection:
        rows = views.dead_letters(
            connection,
            administrations=principal.administrations,
            code=code,
            state=state,
            gateway=gateway,
            before=cursor_key(wanted.after, first=BIGINT_MAX),
            limit=wanted.rows,
            strangers=sees_all(platform, principal),
        )
    answer = page(rows, wanted, key=lambda r: [r["dead_letter_key"]], item=shapes.dead_letter)
    return form.written(answer)


@router.post("/dead-letters/{dead_letter_key}/replay", responses=shown(DeadLetter))
def replay_dead_letter(
    principal: Operator,
    platform: OpenPlatform,
    dead_letter_key: Key,
) -> Any:  # noqa: ANN401  JSON or CSV
    """Try a refused row or message again, with today's keys and decoders."""
    with platform.pool(CONTEXT).connection() as connection:
        _dead_letter(connection, platform, principal, dead_letter_key)
    with Metering.on(platform) as metering:
        metering.replay(dead_letter_key)
    with platform.pool(CONTEXT).connection() as connection:
        return shapes.dead_letter(_dead_letter(connection, platform, principal, dead_letter_key))


@router.post("/dead-letters/{dead_letter_key}/dismiss", responses=shown(DeadLetter))
def dismiss_dead_letter(principal: Operator, platform: OpenPlatform, dead_letter_key: Key) -> Any:  # noqa: ANN401  JSON
    """Close a refused row or message for good; its bytes stay. One that was replayed stays so."""
    with platform.pool(CONTEXT).connection() as connection:
        _dead_letter(connection, platform, principal, dead_letter_key)
    with Metering.on(platform) as metering:
        state = metering.dismiss(dead_letter_key)
    if state != "dismissed":
        raise Problem(DEAD_LETTER_CLOSED)
    with platform.pool(CONTEXT).connection() as connection:
        return shapes.dead_letter(_dead_letter(connection, platform, principal, dead_letter_key))


def sees_all(platform: Platform, principal: Principal) -> bool:
    """Say whether the caller serves every administration: what strangers sent is theirs to see."""
    return all(principal.sees(code) for code in platform.settings.administration_codes)


def _dead_letter(
    connection: views.Connection, platform: Platform, principal: Principal, key: int
) -> views.Row:
    found = views.dead_letter(
        connection,
        administrations=principal.administrations,
        dead_letter_key=key,
        strangers=sees_all(platform, principal),
    )
    if found is None:
        raise Problem(NOT_FOUND)
    return found
