"""What a caller is told: problem documents in Spanish with a code, and never a stack."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Annotated

import psycopg
import pytest
from fastapi import FastAPI, Query
from fastapi.testclient import TestClient
from pydantic import BaseModel

from cloud.kernel import problems, telemetry, web
from cloud.kernel.config import Settings
from cloud.kernel.paging import PageQuery, decode, encode, page
from cloud.kernel.problems import Problem, problem_type
from cloud.kernel.telemetry import JsonLines

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
DRY = problem_type("meter_dry", 409, "El medidor está seco")


class Order(BaseModel):
    litres: int


@pytest.fixture
def client() -> TestClient:
    app = FastAPI(openapi_url=None)
    problems.install(app)
    settings = Settings(state=Path(), public_url="https://agua.example")
    app.add_middleware(web.Envelope, settings=settings)

    @app.get("/dry")
    def dry() -> None:
        raise Problem(DRY, detail="Toma 17", headers={"Retry-After": "60"}, contract="C-17")

    @app.get("/bug")
    def bug() -> None:
        raise RuntimeError("postgresql://a:planted@h/d broke")

    @app.get("/down")
    def down() -> None:
        raise psycopg.OperationalError("connection refused on 10.0.0.7")

    @app.get("/list")
    def listed(wanted: PageQuery) -> dict[str, object]:
        numbers = [n for n in range(1, 26) if not wanted.after or n > int(str(wanted.after[0]))]
        return page(numbers[: wanted.rows], wanted, key=lambda n: [n], item=lambda n: n)

    @app.post("/orders")
    def order(given: Order, many: Annotated[int, Query(ge=1, le=9)] = 1) -> int:
        return given.litres * many

    return TestClient(app, raise_server_exceptions=False)


def test_a_problem_is_a_document_for_people_and_programs(client: TestClient) -> None:
    answer = client.get("/dry", headers={"traceparent": TRACEPARENT})

    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "60"
    assert answer.json() == {
        "type": "urn:aquacis:problem:meter_dry",
        "title": "El medidor está seco",
        "status": 409,
        "code": "meter_dry",
        "detail": "Toma 17",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "contract": "C-17",
    }


def test_a_bug_tells_only_how_to_report_it_and_the_log_has_the_rest(client: TestClient) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines(process="test"))
    logging.getLogger().addHandler(handler)
    try:
        answer = client.get("/bug")
    finally:
        logging.getLogger().removeHandler(handler)

    told, logged = answer.json(), json.loads(stream.getvalue())
    assert (answer.status_code, told["code"]) == (500, "unexpected")
    assert "broke" not in answer.text
    assert telemetry.trace_id(logged["traceparent"]) == told["trace_id"]
    assert "RuntimeError" in logged["error"]
    assert "planted" not in stream.getvalue()


def test_a_database_that_is_away_asks_to_try_again(client: TestClient) -> None:
    answer = client.get("/down")

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "5"
    assert "10.0.0.7" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("DELETE", "/dry", 405, "method_not_allowed"),
        ("POST", "/orders", 422, "invalid_input"),
        ("GET", "/list?cursor=%00", 422, "invalid_input"),
        ("GET", "/dry%00", 404, "not_found"),
    ],
)
def test_what_the_framework_refuses_is_a_problem_too(
    client: TestClient, method: str, path: str, status: int, code: str
) -> None:
    answer = client.request(method, path)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


def test_each_wrong_field_is_named_in_spanish(client: TestClient) -> None:
    answer = client.post("/orders?many=10", json={"litres": "muchos"})

    assert answer.json()["errors"] == [
        {"field": "many", "message": "debe ser menor o igual que 9"},
        {"field": "litres", "message": "debe ser un número entero"},
    ]
    assert "muchos" not in answer.text  # what was typed may be anything


def test_a_body_over_the_limit_is_refused_with_or_without_its_length(client: TestClient) -> None:
    chunks = (b"x" * (web.BODY_BYTES_MAX // 2) for _ in range(3))

    for body in (b"x" * (web.BODY_BYTES_MAX + 1), chunks):
        answer = client.post("/orders", content=body, headers={"content-type": "application/json"})

        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_every_answer_carries_the_security_headers(client: TestClient) -> None:
    for path in ("/dry", "/bug", "/nowhere", "/list"):
        headers = client.get(path).headers

        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; ")
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["strict-transport-security"] == "max-age=63072000"


def test_a_callers_broken_trace_is_not_carried_on(client: TestClient) -> None:
    told = client.get("/dry", headers={"traceparent": "00-evil"}).json()

    assert len(told["trace_id"]) == 32
    assert told["trace_id"] != "evil"


def test_pages_follow_each_other_to_the_end(client: TestClient) -> None:
    seen: list[int] = []
    cursor: str | None = ""
    while cursor is not None:
        params = {"limit": "10"} | ({"cursor": cursor} if cursor else {})
        answer = client.get("/list", params=params).json()
        seen += answer["items"]
        cursor = answer["next"]

    assert seen == list(range(1, 26))


@pytest.mark.parametrize("cursor", ["x", "!!!", "e30", "WzEuNV0", "W10x", "W251bGwsIHt9XQ"])
def test_a_cursor_that_is_not_ours_is_a_problem(client: TestClient, cursor: str) -> None:
    answer = client.get("/list", params={"cursor": cursor})

    assert (answer.status_code, answer.json()["code"]) == (422, "cursor_invalid")


def test_a_cursor_is_the_sort_key_and_nothing_else() -> None:
    assert decode(encode(["2026-03-01T06:00:00+00:00", 17, None])) == (
        "2026-03-01T06:00:00+00:00",
        17,
        None,
    )


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "many"])
def test_a_page_has_a_bounded_size(client: TestClient, limit: str) -> None:
    assert client.get("/list", params={"limit": limit}).status_code == 422
