"""What the nightly scan finds is told like any leak: a row each, once, and over when it is over."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest

from decoders.uplink import MAX_PAYLOAD_BYTES, RowKind
from edge_agent import leaks, memory, reduction, scan_findings
from edge_agent.inputs import NightFinding, Now, Scanned, Store
from edge_agent.leaks_episodes import CONTINUOUS, DAILY_FLOW, NIGHT_FLOW, Kind
from edge_agent.leaks_limits import DAY_US, HOUR_US
from edge_agent.outbox import Draft

START = 1_700_000_000_000_000 // HOUR_US * HOUR_US


def name_of(i: int) -> str:
    return f"KAW-{i:08d}"


def gateway(meters: int, *, lph: int = 0, hours: int = 30) -> reduction.State:
    """A gateway that has heard each meter for some hours at a rate."""
    state = reduction.State(policy=reduction.Policy())
    for i in range(meters):
        flow = None
        for hour in range(hours + 1):
            point = (START + hour * HOUR_US, 1000 + hour * lph)
            flow, _ = leaks.feed(flow, name_of(i), point)
        state.meters[name_of(i)] = memory.Meter(flow=flow)
    return state


def found(i: int = 0, *, kind: Kind = NIGHT_FLOW, lph: int = 6, days: int = 12) -> NightFinding:
    return NightFinding(meter=name_of(i), kind=kind, rate_lph=lph, days=days)


def night(
    state: reduction.State, number: int, *findings: NightFinding, ended: tuple[Kind, ...] = ()
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Store]:
    """Tell the gateway one night's scan; return its anomalies, its reports and what to store."""
    said = Scanned(found=findings, ended=tuple((name_of(0), kind) for kind in ended))
    at = START + number * DAY_US
    _, (stored,) = reduction.scanned(state, said, Now(at=at, wall_s=0.0))
    assert isinstance(stored, Store)
    return of(stored.rows, RowKind.ANOMALY), of(stored.rows, RowKind.REPORT), stored


def of(rows: tuple[Draft, ...], kind: RowKind) -> list[dict[str, Any]]:
    return [cbor2.loads(row.payload) for row in rows if row.kind == kind]


def test_each_finding_is_a_row_and_the_report_counts() -> None:
    state = gateway(200)

    anomalies, reports, stored = night(state, 2, *[found(i) for i in range(200)])

    assert {said["meter"] for said in anomalies} == {name_of(i) for i in range(200)}
    assert {said["kind"] for said in anomalies} == {NIGHT_FLOW}
    assert reports == [{"kind": "scan", "count": 200}]
    assert max(len(row.payload) for row in stored.rows) <= MAX_PAYLOAD_BYTES
    assert set(stored.remember) == {name_of(i) for i in range(200)}


def test_a_finding_says_since_when_and_how_much() -> None:
    (said,), _, _ = night(gateway(1), 20, found(lph=6, days=12))

    assert said["started_at"] == START + 8 * DAY_US
    assert (said["rate_lph"], said["litres"]) == (6, 6 * 24 * 12)
    assert (said["level"], said["state"], said["notify"]) == (0, "open", True)


def test_the_same_every_night_is_told_once_and_recalled_after_a_month() -> None:
    state = gateway(1)

    told = [number for number in range(2, 40) if night(state, number, found())[0]]

    assert told == [2, 32]


def test_it_is_over_when_the_nights_say_so_and_its_return_is_no_news() -> None:
    state = gateway(1)
    (opened,), _, _ = night(state, 2, found())

    (closed,), _, _ = night(state, 5, ended=(NIGHT_FLOW,))

    assert (closed["state"], closed["episode"]) == ("closed", opened["episode"])
    assert not closed["notify"]
    assert night(state, 6, ended=(NIGHT_FLOW,))[0] == []
    assert night(state, 7, found(days=40))[0] == []


def test_a_leak_that_a_rule_has_told_is_not_told_again_by_the_scan() -> None:
    state = gateway(1, lph=20)

    anomalies, reports, _ = night(state, 2, found(lph=20), found(kind=DAILY_FLOW, lph=20))

    assert anomalies == []
    assert reports == [{"kind": "scan", "count": 2}]


def test_two_methods_about_one_water_are_one_notification() -> None:
    anomalies, _, _ = night(gateway(1), 2, found(), found(kind=DAILY_FLOW))

    assert len(anomalies) == 1


def test_a_rule_tells_what_the_scan_has_told_only_if_it_is_much_more_or_lasts() -> None:
    state = gateway(1)
    night(state, 2, found(lph=12))
    flow = state.meters[name_of(0)].flow
    told = []
    for hour in range(80):
        at = START + 3 * DAY_US + hour * HOUR_US
        flow, findings = leaks.feed(flow, name_of(0), (at, 1000 + 14 * hour))
        told += [(hour, f.kind) for f in findings if f.notify]

    assert [kind for _, kind in told] == [CONTINUOUS]
    assert told[0][0] >= 72


def test_what_the_scan_says_of_a_meter_that_is_forgotten_is_passed_over() -> None:
    state = gateway(0)
    state.meters[name_of(1)] = memory.Meter()

    anomalies, reports, stored = night(state, 2, found(0), found(1), ended=(NIGHT_FLOW,))

    assert anomalies == []
    assert reports == [{"kind": "scan", "count": 2}]
    assert stored.remember == ()


def test_the_largest_come_first_where_a_night_finds_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scan_findings, "MOST", 1)

    anomalies, reports, _ = night(gateway(2), 2, found(0, lph=3), found(1, lph=30))

    assert [said["meter"] for said in anomalies] == [name_of(1)]
    assert reports == [{"kind": "scan", "count": 2}]


def test_a_machine_without_scipy_says_whose_the_scan_is() -> None:
    state = gateway(1)

    _, (stored,) = reduction.scanned(
        state, Scanned(unavailable="x" * 4000), Now(at=START, wall_s=0.0)
    )

    assert isinstance(stored, Store)
    (said,) = of(stored.rows, RowKind.REPORT)
    assert said == {"kind": "scan", "unavailable": "x" * 200}
