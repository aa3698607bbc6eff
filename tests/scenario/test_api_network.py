"""What the network desk does over the API: reports of gateways, rejects closed, lists as CSV."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.kernel.db import Database
from tests.heard import (
    HOUR,
    NOON,
    Gateway,
    anomaly,
    eui,
    import_keys,
    lorawan,
    metering_on,
    report,
    wmbus,
    wmbus_meter,
)
from tests.scenario.conftest import Api, composed

LINK = re.compile(r'</api/v1(?P<path>[^?]+)\?(?P<query>[^>]+)>; rel="next"')


@pytest.fixture
def heard(database: Database, tmp_path: Path) -> Iterator[Api]:
    """Readings and alerts of one meter, two telegrams nobody has the key of, two reports."""
    rows = [lorawan(1, [100 + n], at=NOON + n * HOUR, counter=n) for n in range(5)]
    rows += [
        anomaly(eui(1), at=NOON, episode="01" * 8),
        anomaly(eui(1), at=NOON, episode="02" * 8, kind="burst", level=0),
    ]
    rows += [wmbus(5, 100, heard_at=NOON), wmbus(6, 100, heard_at=NOON)]
    rows += [report("source_down", at=NOON, source="radio"), report("shed", at=NOON, rows=7)]
    with composed(database, tmp_path) as api:
        with metering_on(database, tmp_path) as service:
            Gateway().send(service, *rows, at=NOON + 5 * HOUR)
        yield api


def test_reports_of_a_gateway_are_listed_newest_first(heard: Api) -> None:
    shed, down = heard.get("/gateways/cerro/reports")["items"]

    assert (shed["kind"], shed["says"]) == ("shed", {"rows": 7})
    assert (down["kind"], down["says"]) == ("source_down", {"source": "radio"})
    assert heard.get("/gateways/cerro/reports", kind="shed")["items"] == [shed]
    first = heard.get("/gateways/cerro/reports", limit=1)
    assert heard.get("/gateways/cerro/reports", cursor=first["next"])["items"] == [down]
    assert heard.get("/gateways/centro/reports")["items"] == []


def test_rejects_of_a_gateway_are_counted_by_code_and_listed_alone(heard: Api) -> None:
    (counted,) = heard.get("/gateways/cerro/dead-letters")["items"]
    one, two = heard.get("/dead-letters", gateway="cerro")["items"]

    assert (counted["code"], counted["open"], counted["replayed"]) == (one["code"], 2, 0)
    assert counted["last_received_at"] == max(one["received_at"], two["received_at"])
    heard.post(f"/dead-letters/{one['id']}/dismiss")
    (counted,) = heard.get("/gateways/cerro/dead-letters")["items"]
    assert (counted["open"], counted["dismissed"]) == (1, 1)
    assert heard.get("/gateways/centro/dead-letters")["items"] == []
    assert heard.get("/dead-letters", gateway="centro")["items"] == []


def test_a_reject_is_dismissed_once_and_for_all_but_not_after_it_was_replayed(
    heard: Api, database: Database, tmp_path: Path
) -> None:
    one, two = (letter["id"] for letter in heard.get("/dead-letters")["items"])
    for _ in range(2):
        assert heard.post(f"/dead-letters/{one}/dismiss")["state"] == "dismissed"
    with metering_on(database, tmp_path) as service:
        import_keys(service, str(wmbus_meter(5)))
    assert heard.post(f"/dead-letters/{two}/replay")["state"] == "replayed"

    refused = heard.call("POST", f"/dead-letters/{two}/dismiss", {})

    assert (refused.status_code, refused.json()["code"]) == (409, "dead_letter_closed")
    assert heard.get("/dead-letters", state="replayed")["items"][0]["id"] == two


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/meters/1/readings", {"from": "2026-06-01T00:00:00Z", "to": "2026-06-03T00:00:00Z"}),
        ("/meters/1/alerts", {}),
        ("/meters/1/frames", {}),
        ("/alerts", {"state": "open"}),
        ("/dead-letters", {"state": "open"}),
        ("/gateways/cerro/reports", {}),
    ],
)
def test_csv_pages_follow_their_links_to_the_end(
    heard: Api, path: str, asked: dict[str, str]
) -> None:
    whole = heard.call("GET", path, {**asked, "format": "csv"})
    assert whole.headers["content-type"] == "text/csv; charset=utf-8"
    assert "link" not in whole.headers
    header, *expected = whole.text.splitlines()
    assert len(expected) >= 2

    got: list[str] = []
    answer = heard.call("GET", path, {**asked, "format": "csv", "limit": 1})
    for _ in expected:
        columns, row = answer.text.splitlines()
        assert columns == header
        got.append(row)
        found = LINK.fullmatch(answer.headers.get("link", ""))
        if found is None:
            break
        answer = heard.call("GET", f"{found['path']}?{found['query']}", None)

    assert got == expected


def test_a_form_that_we_do_not_write_is_refused(heard: Api) -> None:
    refused = heard.call("GET", "/meters", {"format": "xml"})

    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")
