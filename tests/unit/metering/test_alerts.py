"""Reports of gateways become alerts: one for each leak, whoever saw it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud.kernel.db import Database
from cloud.metering.alerts import KINDS
from cloud.metering.service import Metering
from decoders.uplink import Row
from edge_agent import leaks_episodes
from tests.heard import (
    DAY,
    HOUR,
    NOON,
    Gateway,
    anomaly,
    eui,
    lorawan,
    metering_on,
    published,
    rows_of,
)

METER = eui(1)
ONE, TWO = "01" * 8, "02" * 8


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Metering]:
    with metering_on(database, tmp_path) as made:
        yield made


def send(service: Metering, gateway: Gateway, *rows: Row) -> None:
    """Send rows at the instant the last of them was heard."""
    gateway.send(service, *rows, at=rows[-1].heard_at)


def alerts(database: Database) -> list[tuple[Any, ...]]:
    return rows_of(database, "SELECT kind, level, state FROM alerts ORDER BY alert_key")


def told(database: Database) -> list[tuple[str, int]]:
    bodies = [event.body() for event in published(database, "anomaly.detected")]
    return [(body["state"], body["level"]) for body in bodies]


def test_a_leak_opens_rises_and_closes_as_one_alert(service: Metering, database: Database) -> None:
    gateway = Gateway()
    send(service, gateway, anomaly(METER, at=NOON, episode=ONE))
    send(service, gateway, anomaly(METER, at=NOON + DAY, episode=ONE, level=48, litres=600))
    send(service, gateway, anomaly(METER, at=NOON + DAY + HOUR, episode=ONE, level=48))
    send(
        service, gateway, anomaly(METER, at=NOON + 30 * HOUR, episode=ONE, level=48, state="closed")
    )

    assert alerts(database) == [("continuous_flow", 48, "closed")]
    assert told(database) == [("open", 24), ("open", 48), ("closed", 48)]
    [(litres, closed)] = rows_of(
        database, "SELECT litres, closed_at = to_timestamp(%s) FROM alerts", NOON / 1e6 + 30 * 3600
    )
    assert (litres, closed) == (600, True)


def test_two_gateways_that_see_the_same_leak_make_one_alert(
    service: Metering, database: Database
) -> None:
    send(service, Gateway("cerro"), anomaly(METER, at=NOON, episode=ONE))
    send(service, Gateway("centro"), anomaly(METER, at=NOON + HOUR, episode=TWO))

    assert alerts(database) == [("continuous_flow", 24, "open")]
    assert told(database) == [("open", 24)]


def test_the_first_gateway_that_sees_it_end_closes_it_and_the_other_does_not_reopen_it(
    service: Metering, database: Database
) -> None:
    one, two = Gateway("cerro"), Gateway("centro")
    send(service, one, anomaly(METER, at=NOON, episode=ONE))
    send(service, two, anomaly(METER, at=NOON + HOUR, episode=TWO))
    send(service, two, anomaly(METER, at=NOON + 2 * HOUR, episode=TWO, state="closed"))
    send(service, one, anomaly(METER, at=NOON + 3 * HOUR, episode=ONE, level=48))

    assert alerts(database) == [("continuous_flow", 24, "closed")]


def test_a_burst_and_a_leak_of_one_meter_are_two_alerts(
    service: Metering, database: Database
) -> None:
    send(
        service,
        Gateway(),
        anomaly(METER, at=NOON, episode=ONE),
        anomaly(METER, at=NOON, episode=TWO, kind="burst", level=0),
    )

    assert alerts(database) == [("continuous_flow", 24, "open"), ("burst", 0, "open")]


def test_the_next_leak_of_a_meter_is_another_alert(service: Metering, database: Database) -> None:
    gateway = Gateway()
    send(service, gateway, anomaly(METER, at=NOON, episode=ONE))
    send(service, gateway, anomaly(METER, at=NOON + HOUR, episode=ONE, state="closed"))
    send(service, gateway, anomaly(METER, at=NOON + 3 * DAY, episode=TWO))

    assert [state for _, _, state in alerts(database)] == ["closed", "open"]


def test_a_backlog_about_last_week_does_not_close_todays_leak(
    service: Metering, database: Database
) -> None:
    send(service, Gateway("cerro"), anomaly(METER, at=NOON, episode=ONE))
    send(
        service,
        Gateway("centro"),
        anomaly(METER, at=NOON - 7 * DAY, episode=TWO),
        anomaly(METER, at=NOON - 6 * DAY, episode=TWO, state="closed"),
    )

    assert alerts(database) == [("continuous_flow", 24, "open")]


def test_an_end_whose_beginning_was_lost_is_still_told(
    service: Metering, database: Database
) -> None:
    send(service, Gateway(), anomaly(METER, at=NOON, episode=ONE, state="closed"))

    assert told(database) == [("closed", 24)]


def test_an_alert_sent_twice_is_one(service: Metering, database: Database) -> None:
    gateway = Gateway()
    gateway.hear(anomaly(METER, at=NOON, episode=ONE))
    message = gateway.message()
    service.ingest(message, "cerro", NOON)
    service.ingest(message, "cerro", NOON)

    assert told(database) == [("open", 24)]


@pytest.mark.parametrize(
    "kind", ["intermittent", "ramp", "backflow", "dry", "tamper", "low_battery"]
)
def test_the_edges_further_rules_become_alerts(
    service: Metering, database: Database, kind: str
) -> None:
    send(service, Gateway(), anomaly(METER, at=NOON, episode=ONE, kind=kind, level=0))

    assert alerts(database) == [(kind, 0, "open")]


def test_a_meter_silent_to_one_gateway_and_heard_by_another_is_not_silent(
    service: Metering, database: Database
) -> None:
    quiet, hears = Gateway("cerro"), Gateway("centro")
    since = NOON - 14 * DAY

    send(
        service,
        quiet,
        anomaly(METER, at=NOON, episode=ONE, kind="silent", level=0, started_at=since),
    )
    send(service, hears, lorawan(2, [5, 5], at=NOON))
    send(
        service,
        quiet,
        anomaly(eui(2), at=NOON + HOUR, episode=TWO, kind="silent", level=0, started_at=since),
    )

    assert alerts(database) == [("silent", 0, "open")]


def test_a_scan_adds_no_alert_to_the_rules_alert_of_the_same_water(
    service: Metering, database: Database
) -> None:
    rules, scans = Gateway("cerro"), Gateway("centro")

    send(service, rules, anomaly(METER, at=NOON, episode=ONE, level=24))
    for state in ("open", "closed"):
        scanned = anomaly(
            METER, at=NOON + HOUR, episode=TWO, kind="night_flow", level=0, state=state
        )
        send(service, scans, scanned)

    assert alerts(database) == [("continuous_flow", 24, "open")]


def test_what_a_scan_alone_sees_is_an_alert_until_it_is_over(
    service: Metering, database: Database
) -> None:
    gateway = Gateway("cerro")
    said: dict[str, Any] = {"episode": ONE, "kind": "night_flow", "level": 0}

    send(service, gateway, anomaly(METER, at=NOON, **said))
    opened = alerts(database)
    send(service, gateway, anomaly(METER, at=NOON + DAY, state="closed", **said))

    assert opened == [("night_flow", 0, "open")]
    assert alerts(database) == [("night_flow", 0, "closed")]


def test_every_kind_that_a_gateway_tells_is_known_and_has_its_words() -> None:
    web = Path(__file__).parents[3] / "cloud" / "portal" / "web" / "src" / "i18n"

    assert set(KINDS) == set(leaks_episodes.KINDS)
    for language in ("es-MX", "en"):
        words = json.loads((web / f"{language}.json").read_text("utf-8"))
        assert set(words["alert"]["kind"]) == set(KINDS)
