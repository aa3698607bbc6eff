"""Every route of the real application × every role × own, foreign and unknown ids.

The walk is driven by the application itself: a route that is new fails until it declares a
guard, and until this file says who should be let in and where its ids come from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import cbor2
import psycopg
import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from fastapi.testclient import TestClient
from httpx import Response
from pydantic import TypeAdapter

from cloud import app as composition
from cloud.kernel import config
from cloud.kernel.auth.guard import Guard, Public
from cloud.kernel.auth.principal import ALL_ADMINISTRATIONS, Role
from cloud.kernel.auth.users import User
from cloud.kernel.clock import to_us
from cloud.kernel.config import GatewayConfig
from cloud.kernel.db import Database
from cloud.kernel.platform import Platform
from cloud.metering.registry import NewMeter
from cloud.metering.service import Metering
from decoders.encode import encode_lorawan_hourly
from decoders.uplink import Batch, Row, RowFlag, RowKind, encode_batch, pack_rows
from decoders.value import value

OWN, FOREIGN = "queretaro", "corregidora"
PORT = 2
HOUR = datetime(2026, 11, 20, 18, tzinfo=UTC)
EVERY_ROLE = frozenset(Role)
LOOKS = frozenset({Role.FIELD, Role.SUPERVISOR, Role.NETWORK, Role.ADMIN})
READS = LOOKS | {Role.CLERK}
OPERATES = frozenset({Role.NETWORK, Role.ADMIN})

# Who should be let in: written by hand from the design, not read from the code.
ALLOWED: dict[str, frozenset[Role]] = {
    "/api/v1/me": EVERY_ROLE,
    "/oidc/userinfo": EVERY_ROLE,
    "/api/v1/meters": READS,
    "/api/v1/meters/{meter_key}": READS,
    "/api/v1/meters/{meter_key}/readings": READS,
    "/api/v1/meters/{meter_key}/frames": LOOKS,
    "/api/v1/meters/{meter_key}/alerts": LOOKS,
    "/api/v1/frames/{frame_hash}": LOOKS,
    "/api/v1/alerts": LOOKS,
    "/api/v1/explain/reading": LOOKS,
    "/api/v1/gateways": OPERATES,
    "/api/v1/gateways/{gateway}/hours": OPERATES,
    "/api/v1/gateways/{gateway}/reports": OPERATES,
    "/api/v1/gateways/{gateway}/dead-letters": OPERATES,
    "/api/v1/dead-letters": OPERATES,
    "/api/v1/dead-letters/{dead_letter_key}/replay": OPERATES,
    "/api/v1/dead-letters/{dead_letter_key}/dismiss": OPERATES,
    "/api/v1/pipeline": OPERATES | {Role.SUPERVISOR},
}
FOR_EVERYBODY = {
    "/healthz", "/readyz", "/metrics", "/openapi.json", "/{path:path}",
    "/.well-known/openid-configuration", "/oidc/jwks", "/oidc/estilo.css", "/oidc/authorize",
    "/oidc/token", "/oidc/revoke", "/oidc/logout",
}  # fmt: skip


AROUND = {"from": "2026-11-20T00:00:00Z", "to": "2026-11-22T00:00:00Z"}
QUERIES: dict[str, tuple[dict[str, str], ...]] = {
    "/api/v1/meters/{meter_key}/readings": (
        AROUND,
        {"resolution": "hourly", **AROUND},
        {"resolution": "daily", **AROUND},
    ),
    "/api/v1/gateways/{gateway}/hours": (AROUND,),
}
REFUSED_IDS = {"not_found", "invalid_input", "instant_invalid", "method_not_allowed"}


@value
class Holdings:
    """What one administration has: the ids that its routes take, and texts that give it away."""

    ids: dict[str, str]  # path and required query parameters by name
    marks: tuple[str, ...]


NOBODYS = Holdings(
    ids={
        "meter_key": "999999",
        "frame_hash": "00" * 16,
        "gateway": "gw-nobody",
        "dead_letter_key": "999999",
        "meter": "KAW-00000000",
        "at": HOUR.isoformat(),
    },
    marks=(),
)


@value
class Walk:
    """The application, how to call it, and what was seeded."""

    app: FastAPI
    platform: Platform
    client: TestClient
    own: Holdings
    foreign: Holdings

    def token(self, *roles: Role, of: tuple[str, ...] = (OWN,)) -> dict[str, str]:
        """Return the headers of somebody with these roles, signed by the real issuer."""
        assert self.platform.issuer is not None
        user = User(
            user_id=uuid4(),
            name="alguien",
            roles=tuple(role.value for role in roles),
            administrations=of,
        )
        return {"Authorization": f"Bearer {self.platform.issuer.access_token(user)}"}

    def call(
        self,
        route: RouteContext,
        of: Holdings,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Response:
        """Call a route with the ids of an administration, and more of a query."""
        assert route.path is not None
        method = next(iter(route.methods or ()))
        wanted = {name: of.ids[name] for name in required_query(route)}
        path = route.path.format(**of.ids)
        wanted.update(query or {})
        answer: Response = self.client.request(method, path, params=wanted, headers=headers)
        return answer

    def routes(self) -> list[RouteContext]:
        return list(iter_route_contexts(self.app.routes))

    def guarded(self) -> list[tuple[RouteContext, Guard]]:
        found = [(route, guards_of(route.dependant)) for route in self.routes()]
        return [(r, guard) for r, declared in found for guard in declared if type(guard) is Guard]

    def with_ids(self) -> list[tuple[RouteContext, Guard]]:
        return [(r, g) for r, g in self.guarded() if "{" in str(r.path) or required_query(r)]


def guards_of(dependant: Dependant) -> list[Guard | Public]:
    """Return every guard a route declares, wherever in its dependencies."""
    found = [guard for each in dependant.dependencies for guard in guards_of(each)]
    call = dependant.call
    return [*found, call] if isinstance(call, Guard | Public) else found


def undeclared(app: FastAPI) -> list[str]:
    return [
        named(route)
        for route in iter_route_contexts(app.routes)
        if not isinstance(route.original_route, APIRoute) or len(guards_of(route.dependant)) != 1
    ]


def required_query(route: RouteContext) -> list[str]:
    return [field.alias for field in route.dependant.query_params if field.field_info.is_required()]


def named(route: RouteContext) -> str:
    return f"{'/'.join(sorted(route.methods or ()))} {route.path}"


@pytest.fixture(scope="module")
def walk(module_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    settings = config.load(
        Path(),
        {
            "AQUACIS_STATE": str(tmp_path_factory.mktemp("state")),
            "AQUACIS_HTTP_PORT": "8080",
            "AQUACIS_ADMINISTRATIONS": json.dumps(
                {OWN: {"name": "Querétaro"}, FOREIGN: {"name": "Corregidora"}}
            ),
        },
    )
    platform = composition.assemble(settings, module_database)
    try:
        app = composition.create_app(platform)
        yield Walk(
            app=app,
            platform=platform,
            client=TestClient(app, base_url=settings.base_url),
            own=seeded(platform, OWN, number=1),
            foreign=seeded(platform, FOREIGN, number=2),
        )
    finally:
        platform.close()


def seeded(platform: Platform, administration: str, *, number: int) -> Holdings:
    """Give an administration a gateway, a meter with a reading, an alert and a dead letter.

    Everything comes in as from a real gateway.
    """
    gateway, eui = f"gw-{administration}", 0x0013EA0000000000 + number
    name = f"{eui:016X}"
    with Metering.on(platform) as metering:
        metering.register_gateways([GatewayConfig(id=gateway, administration=administration)])
        metering.import_meters([NewMeter(name=name, dev_eui=name, administration=administration)])
        acked = metering.ingest(_batch(gateway, eui, number), gateway, to_us(HOUR))
    assert acked is not None
    with platform.pool("metering").connection() as connection:
        (meter_key,) = _one(connection, "SELECT meter_key FROM meter_names WHERE name = %s", name)
        (frame,) = _one(connection, "SELECT frame FROM receptions WHERE meter_key = %s", meter_key)
        (letter,) = _one(
            connection,
            "SELECT dead_letter_key FROM row_dead_letters WHERE topic_gateway = %s",
            gateway,
        )
        _one(connection, "SELECT 1 FROM alerts WHERE meter_key = %s", meter_key)
    return Holdings(
        ids={
            "meter_key": str(meter_key),
            "frame_hash": frame.hex(),
            "gateway": gateway,
            "dead_letter_key": str(letter),
            "meter": name,
            "at": HOUR.isoformat(),
        },
        marks=(name, gateway, frame.hex()),
    )


def _batch(gateway: str, eui: int, number: int) -> bytes:
    hourly = encode_lorawan_hourly(
        [1000 * number, 990 * number], local_us=to_us(HOUR) - 6 * 3600 * 1_000_000
    )
    anomaly = {
        "kind": "continuous_flow",
        "meter": f"{eui:016X}",
        "episode": f"{number:016x}",
        "level": 24,
        "started_at": to_us(HOUR) - 86_400_000_000,
        "detected_at": to_us(HOUR),
        "rate_lph": 12,
        "litres": 288,
        "state": "open",
    }
    flags = RowFlag.NETWORK_CHECKED
    row = Row(seq=1, heard_at=to_us(HOUR), kind=RowKind.LORAWAN, flags=flags, payload=hourly)
    rows = (
        replace(row, radio=eui, counter=7, port=PORT),
        replace(row, seq=2, kind=RowKind.ANOMALY, payload=cbor2.dumps(anomaly)),
        replace(row, seq=3, kind=RowKind.WMBUS, payload=b"not a telegram"),
    )
    return encode_batch(
        Batch(
            gateway=gateway,
            stream=bytes([number]) * 16,
            rows=pack_rows(rows),
            sent_at=to_us(HOUR),
            started_at=to_us(HOUR),
            head=3,
            head_at=to_us(HOUR),
        )
    )


def _one(connection: psycopg.Connection[Any], query: str, given: object) -> Any:  # a row
    rows = connection.execute(query, [given]).fetchall()
    assert len(rows) == 1, f"{query} gave {len(rows)} rows"
    return rows[0]


def test_all_routes_declare_one_guard(walk: Walk) -> None:
    assert not undeclared(walk.app), "declare Depends(require(…)) or Depends(public)"


def test_routes_without_a_guard_are_caught(walk: Walk) -> None:
    careless = composition.create_app(walk.platform)
    careless.get("/api/v1/everything")(lambda: "open to the world")

    assert undeclared(careless) == ["GET /api/v1/everything"]


def test_routes_let_in_who_the_design_names(walk: Walk) -> None:
    declared = {str(route.path): guard.roles for route, guard in walk.guarded()}

    assert declared == ALLOWED


def test_routes_for_everybody_are_those_meant_so(walk: Walk) -> None:
    open_to_all = {str(r.path) for r in walk.routes() if type(guards_of(r.dependant)[0]) is Public}

    assert open_to_all == FOR_EVERYBODY


def test_routes_say_in_the_description_who_needs_a_token(walk: Walk) -> None:
    described = walk.client.get("/openapi.json").json()["paths"]

    for route, _ in walk.guarded():
        if str(route.path).startswith("/api/"):
            (operation,) = described[route.path].values()
            assert operation["security"] == [{"OpenIdConnect": []}], named(route)


def test_routes_take_only_ids_this_test_can_fill(walk: Walk) -> None:
    for route, _ in walk.guarded():
        names = {field.alias for field in route.dependant.path_params} | set(required_query(route))

        assert names <= walk.own.ids.keys(), f"{named(route)}: seed one and name it in Holdings"


def test_routes_refuse_who_shows_no_token_or_a_forged_one(walk: Walk) -> None:
    for route, _ in walk.guarded():
        answer = walk.call(route, walk.own)

        assert (answer.status_code, code_of(answer)) == (401, "unauthenticated"), named(route)
        assert answer.headers["www-authenticate"] == "Bearer", named(route)
        answer = walk.call(route, walk.own, {"Authorization": "Bearer eyJhbGciOiJub25lIn0.e30."})
        assert answer.status_code == 401, named(route)


def test_routes_refuse_each_role_they_do_not_name(walk: Walk) -> None:
    refused = 0
    for route, _ in walk.guarded():
        for role in EVERY_ROLE - ALLOWED[str(route.path)]:
            for holdings in (walk.own, walk.foreign, NOBODYS):
                answer = walk.call(route, holdings, walk.token(role, of=(ALL_ADMINISTRATIONS,)))

                assert answer.status_code == 403, f"{named(route)} as {role}"
                assert code_of(answer) == "role_missing"
                refused += 1
    assert refused > 100  # the walk did walk


def test_routes_let_each_role_they_name_see_its_own(walk: Walk) -> None:
    for route, _ in walk.guarded():
        for role in sorted(ALLOWED[str(route.path)]):
            answer = walk.call(route, walk.own, walk.token(role))

            assert answer.status_code == 200, f"{named(route)} as {role}: {answer.text}"


def test_routes_show_nothing_of_a_foreign_administration(walk: Walk) -> None:
    for route, _ in walk.guarded():
        for role in sorted(ALLOWED[str(route.path)]):
            answer = walk.call(route, walk.own, walk.token(role))

            shown = [mark for mark in walk.foreign.marks if mark.lower() in answer.text.lower()]
            assert not shown, f"{named(route)} as {role}"


def test_routes_do_not_know_foreign_ids(walk: Walk) -> None:
    """A foreign id answers exactly as one that nobody has: it must not even be guessed at."""
    for route, _ in walk.with_ids():
        for role in sorted(ALLOWED[str(route.path)]):
            foreign = walk.call(route, walk.foreign, walk.token(role))
            nobodys = walk.call(route, NOBODYS, walk.token(role))

            assert foreign.status_code == 404, f"{named(route)} as {role}: {foreign.text}"
            assert without_trace(foreign) == without_trace(nobodys), named(route)


def test_routes_do_not_know_own_ids_either_without_an_administration(walk: Walk) -> None:
    for route, guard in walk.with_ids():
        for of in ((), ("tequisquiapan",)):  # none; one that this deployment does not have
            answer = walk.call(route, walk.own, walk.token(*guard.roles, of=of))

            assert answer.status_code == 404, f"{named(route)} of {of}: {answer.text}"


def test_routes_list_nothing_without_an_administration(walk: Walk) -> None:
    marks = (*walk.own.marks, *walk.foreign.marks)
    for route, guard in walk.guarded():
        answer = walk.call(route, walk.own, walk.token(*guard.roles, of=()))

        assert not [m for m in marks if m in answer.text and m not in str(answer.url)], named(route)


def test_routes_show_both_administrations_to_who_has_all(walk: Walk) -> None:
    for route, guard in walk.with_ids():
        for holdings in (walk.own, walk.foreign):
            answer = walk.call(route, holdings, walk.token(*guard.roles, of=(ALL_ADMINISTRATIONS,)))

            assert answer.status_code == 200, f"{named(route)}: {answer.text}"


def test_routes_answer_a_wild_id_with_a_problem_and_no_stack(walk: Walk) -> None:
    wild = ("0", "-1", "9" * 40, "%00", "..%2f..", "'; DROP TABLE meters; --", "é" * 64)
    for route, guard in walk.with_ids():
        for given in wild:
            held = Holdings(ids=dict.fromkeys(walk.own.ids, given), marks=())
            answer = walk.call(route, held, walk.token(*guard.roles))

            assert answer.status_code in {404, 405, 422}, f"{named(route)} {given}: {answer.text}"
            assert code_of(answer) in REFUSED_IDS


def test_routes_answer_what_the_description_promises(walk: Walk) -> None:
    described = 0
    for route, guard in walk.guarded():
        if not str(route.path).startswith("/api/v1/"):
            continue
        for query in QUERIES.get(str(route.path), ({},)):
            answer = walk.call(route, walk.own, walk.token(*guard.roles), query)
            told = route.original_route
            assert isinstance(told, APIRoute)
            promised = TypeAdapter(told.responses[200]["model"])

            promised.validate_python(answer.json(), strict=True)
            described += 1
    assert described >= len(ALLOWED)


def test_the_description_says_how_each_route_refuses_and_which_can_be_csv(walk: Walk) -> None:
    described = walk.client.get("/openapi.json").json()["paths"]
    for path, methods in described.items():
        for method, told in methods.items():
            refusal = told["responses"]["default"]["content"]["application/problem+json"]
            assert "code" in refusal["schema"]["required"], f"{method} {path}"
            is_csv = "text/csv" in told["responses"]["200"].get("content", {})
            asked = {one["name"] for one in told.get("parameters", ())}
            assert is_csv == ("format" in asked), f"{method} {path}"
    assert "/api/v1/meters" in described


def test_routes_show_a_strangers_dead_letters_to_who_serves_all_alone(walk: Walk) -> None:
    with Metering.on(walk.platform) as metering:
        refused = metering.ingest(_batch("gw-stranger", 0x99, 9), "gw-stranger", to_us(HOUR))
    assert refused is None  # nobody answers a gateway that is not registered

    for of, shown in (((OWN,), False), ((), False), ((ALL_ADMINISTRATIONS,), True)):
        listed = walk.client.get("/api/v1/dead-letters", headers=walk.token(Role.NETWORK, of=of))

        assert ("gw-stranger" in listed.text) is shown, of


def code_of(answer: Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return str(answer.json()["code"])


def without_trace(answer: Response) -> dict[str, Any]:
    return {name: held for name, held in answer.json().items() if name != "trace_id"}
