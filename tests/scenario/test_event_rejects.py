"""An event that a use case cannot handle is shown at the terminal, and handled on a second try."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cloud import __main__ as aquacis
from cloud import flow
from cloud.kernel import outbox
from cloud.kernel.bus import Retry
from cloud.kernel.console import CommandFailed
from cloud.kernel.events import json_event
from cloud.kernel.postgres_bus import PostgresBus
from cloud.metering.events import ANOMALY_DETECTED
from tests.scenario.conftest import ADMINISTRATION, Api

NOW = 1_764_000_000_000_000
WHOLE = {
    "alert": 7,
    "meter_key": 1,
    "administration": ADMINISTRATION,
    "kind": "burst",
    "level": 0,
    "state": "open",
}


def publish(api: Api, body: dict[str, Any]) -> None:
    event = json_event(
        ANOMALY_DETECTED, body, id=outbox.new_ids(NOW)(), source="metering", time=NOW, key=1
    )
    with api.platform.pool("metering").connection() as connection:
        outbox.publish(connection, [event], blobs=api.platform.blobs)


def run(api: Api, *words: str, capsys: pytest.CaptureFixture[str]) -> Any:
    parsed = aquacis.parser().parse_args(["events", *words])
    parsed.json = True
    parsed.open_platform = lambda: _Lent(api)
    assert parsed.run(parsed) == 0
    return json.loads(capsys.readouterr().out)


class _Lent:
    """The test's platform, which a command may not close."""

    def __init__(self, api: Api) -> None:
        self._platform = api.platform

    def __getattr__(self, name: str) -> Any:
        return getattr(self._platform, name)

    def close(self) -> None:
        """The fixture closes it."""


def consume(api: Api) -> None:
    bus = PostgresBus(
        api.platform.database,
        api.platform.blobs,
        sources=flow.SOURCES,
        retry=Retry(attempts=1, first_s=0.0),
    )
    bus.run_once(flow.subscriptions(api.platform))


def fed(api: Api) -> list[tuple[Any, ...]]:
    with api.platform.pool("operations").connection() as connection:
        return connection.execute("SELECT alert, kind FROM alert_feed ORDER BY feed_key").fetchall()


def test_an_event_that_cannot_be_handled_is_shown_and_the_next_goes_through(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(api, {"alert": 6})
    publish(api, WHOLE)

    consume(api)

    assert fed(api) == [(7, "burst")]
    assert [one["alert"] for one in api.get("/pipeline")["alert_feed"]] == [7]
    (shown,) = run(api, "rejects", capsys=capsys)
    assert (shown["context"], shown["subscription"]) == ("operations", "alert_feed")
    assert run(api, "dismiss", "operations", str(shown["number"]), capsys=capsys)["dismissed"]
    assert run(api, "rejects", capsys=capsys) == []


def test_events_set_aside_are_listed_page_by_page(
    api: Api, capsys: pytest.CaptureFixture[str]
) -> None:
    for alert in (6, 7):
        publish(api, {"alert": alert})
    consume(api)
    parsed = aquacis.parser().parse_args(["events", "rejects", "--limit", "1"])
    parsed.json, parsed.open_platform = True, lambda: _Lent(api)

    assert parsed.run(parsed) == 0

    said = capsys.readouterr()
    more = json.loads(said.err)
    assert more["code"] == "more"
    following = run(api, "rejects", "--after", more["after"], capsys=capsys)
    assert json.loads(said.out) + following == run(api, "rejects", capsys=capsys)
    assert len(following) == 1


def test_a_second_try_has_its_effect_once(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    with api.platform.database.connect("operations") as held:
        held.execute("ALTER TABLE alert_feed ADD CONSTRAINT not_now CHECK (alert <> 7)")
        held.commit()
    publish(api, WHOLE)
    consume(api)
    (shown,) = run(api, "rejects", capsys=capsys)
    with api.platform.database.connect("operations") as held:
        held.execute("ALTER TABLE alert_feed DROP CONSTRAINT not_now")
        held.commit()

    first = run(api, "replay", "operations", str(shown["number"]), capsys=capsys)
    second = run(api, "replay", "operations", str(shown["number"]), capsys=capsys)

    assert (first["replayed"], second["replayed"]) == (True, False)
    assert fed(api) == [(7, "burst")]


def test_a_number_nobody_has_is_refused_in_spanish(api: Api) -> None:
    parsed = aquacis.parser().parse_args(["events", "replay", "operations", "99"])
    parsed.open_platform = lambda: _Lent(api)

    with pytest.raises(CommandFailed, match="no tiene un evento apartado 99"):
        parsed.run(parsed)
