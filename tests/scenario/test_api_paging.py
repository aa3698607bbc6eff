"""Lists page by page: nothing twice, nothing skipped; a page or date that cannot be is told so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloud.kernel.db import Database
from cloud.kernel.paging import encode
from tests.heard import HOUR, MINUTE, NOON, SECOND, Gateway, lorawan, metering_on
from tests.scenario.conftest import Api, composed

FRAMES = 5
HEARD = NOON + 6 * HOUR


@pytest.fixture
def heard(database: Database, tmp_path: Path) -> Iterator[Api]:
    """Five frames that one gateway heard at the very same instant, and another a bit earlier."""
    rows = [
        replace(lorawan(1, [100 + n], at=NOON + n * HOUR, counter=n), heard_at=HEARD)
        for n in range(FRAMES)
    ]
    earlier = [replace(row, heard_at=HEARD - 3 * SECOND) for row in rows]
    with composed(database, tmp_path) as api:
        with metering_on(database, tmp_path) as service:
            Gateway().send(service, *rows, at=HEARD + MINUTE)
            Gateway("centro").send(service, *earlier, at=HEARD + MINUTE)
        yield api


def pages(api: Api, path: str, **query: Any) -> list[list[dict[str, Any]]]:
    got: list[list[dict[str, Any]]] = []
    cursor: dict[str, str] = {}
    while len(got) < 20:
        answer = api.get(path, **query, **cursor)
        got.append(answer["items"])
        if answer["next"] is None:
            return got
        cursor = {"cursor": answer["next"]}
    raise AssertionError("pages without end")


def test_frames_of_one_instant_come_once_each_whatever_the_page(heard: Api) -> None:
    (everything,) = pages(heard, "/meters/1/frames")
    in_pages = pages(heard, "/meters/1/frames", limit=2)

    assert [len(page) for page in in_pages] == [2, 2, 1]
    assert [frame for page in in_pages for frame in page] == everything
    assert len({frame["hash"] for frame in everything}) == FRAMES
    assert {len(frame["receptions"]) for frame in everything} == {2}


@pytest.mark.parametrize(
    "given",
    [
        {"from": "0001-01-01T00:00:00+14:00"},
        {"to": "9999-12-31T23:59:59-14:00"},
        {"from": "1969-12-31T23:59:59Z"},
        {"to": "2200-01-01T00:00:00Z"},
    ],
)
@pytest.mark.parametrize("path", ["/meters/1/readings", "/gateways/cerro/hours"])
def test_dates_that_no_clock_of_ours_shows_are_refused(
    heard: Api, path: str, given: dict[str, str]
) -> None:
    answer = heard.call("GET", path, given)

    assert (answer.status_code, answer.json()["code"]) == (422, "instant_invalid")


def test_an_instant_of_year_one_is_refused_by_explain_too(heard: Api) -> None:
    asked = {"meter": "1", "at": "0001-01-01T00:00:00+14:00"}
    answer = heard.call("GET", "/explain/reading", asked)

    assert (answer.status_code, answer.json()["code"]) == (422, "instant_invalid")


@pytest.mark.parametrize(
    "key",
    [
        ["0001-01-01T00:00:00+14:00"],
        ["9999-12-31T23:59:59.999999+00:00", "00"],
        ["2026-06-01T00:00:00+00:00", "no"],
        [1 << 70],
        [-1],
        [[]],
    ],
)
@pytest.mark.parametrize(
    "path", ["/meters", "/meters/1/readings", "/meters/1/frames", "/alerts", "/dead-letters"]
)
def test_a_cursor_of_nowhere_is_refused_and_breaks_nothing(
    heard: Api, path: str, key: list[Any]
) -> None:
    answer = heard.call("GET", path, {"cursor": encode(key)})

    assert (answer.status_code, answer.json()["code"]) == (422, "cursor_invalid")


@pytest.mark.parametrize(
    ("path", "name"),
    [("/meters", "q"), ("/dead-letters", "code"), ("/explain/reading", "meter")],
)
def test_a_zero_byte_finds_nothing_and_breaks_nothing(heard: Api, path: str, name: str) -> None:
    answer = heard.call("GET", path, {name: "a\x00b", "at": "2026-06-01T00:00:00Z"})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
