"""What the city says: in order, the same each time, and true when decoded."""

from __future__ import annotations

import base64
import json
from collections import Counter
from itertools import islice, takewhile
from typing import Any

import pytest

from decoders.decode import decode_lorawan, decode_wmbus
from decoders.drivers.registry import known_formats
from edge_agent import leaks
from edge_agent.sources.chirpstack import heard_in
from edge_agent.sources.lines import frames_of
from field_sim.meters import HOUR_US
from field_sim.town import BEFORE_H, Emission, Plan, Town, build

END_H = 498_754
PLAN = Plan(seed=7, meters=60, first_h=END_H - 72, end_h=END_H)
METER_CLOCK_US = -6 * HOUR_US


@pytest.fixture(scope="module")
def town() -> Town:
    return build(PLAN)


@pytest.fixture(scope="module")
def history(town: Town) -> list[Emission]:
    return until(town, PLAN.first_h, END_H)


def until(town: Town, from_h: int, to_h: int) -> list[Emission]:
    emitted = town.emissions(from_h * HOUR_US)
    return list(takewhile(lambda emission: emission.at_us < to_h * HOUR_US, emitted))


def events(history: list[Emission]) -> list[dict[str, Any]]:
    return [json.loads(e.payload) for e in history if e.topic is not None]


def test_emissions_come_in_order(history: list[Emission]) -> None:
    instants = [emission.at_us for emission in history]

    assert instants == sorted(instants)


def test_a_city_that_starts_again_says_the_same_from_there_on(history: list[Emission]) -> None:
    middle_h = END_H - 20

    again = until(build(PLAN), middle_h, END_H)

    assert again == [e for e in history if e.at_us >= middle_h * HOUR_US]


def test_each_uplink_is_heard_by_about_one_and_a_half_gateways(
    town: Town, history: list[Emission]
) -> None:
    heard = {
        (e["deviceInfo"]["devEui"], e["fCnt"], e["rxInfo"][0]["gatewayId"]) for e in events(history)
    }
    uplinks = Counter((eui, counter) for eui, counter, _ in heard)
    sent = 72 * len(town.lorawan) + 3 * len(town.lorawan)

    assert 1.3 < len(heard) / len(uplinks) < 1.9
    assert 0.9 < len(uplinks) / sent < 1


def test_some_events_come_twice_and_some_are_overtaken(history: list[Emission]) -> None:
    marks = Counter(e["deduplicationId"] for e in events(history))
    counters: dict[tuple[int, str], list[int]] = {}
    for emission, event in zip([e for e in history if e.topic], events(history), strict=True):
        key = (emission.gateway, event["deviceInfo"]["devEui"])
        counters.setdefault(key, []).append(event["fCnt"])

    assert 0 < sum(times > 1 for times in marks.values()) < len(marks) / 50
    assert any(seen != sorted(seen) for seen in counters.values())


def test_counters_rise_by_one_with_every_uplink(town: Town) -> None:
    for meter in town.lorawan[:10]:
        sent = []
        for hours in range(100):
            sent.append(meter.counter(hours))
            if meter.sends_daily(hours):
                sent.append(meter.counter(hours) + 1)
        assert sent == list(range(sent[0], sent[0] + len(sent)))


def test_an_hourly_payload_says_the_registers_of_32_hours(
    town: Town, history: list[Emission]
) -> None:
    by_eui = {f"{meter.dev_eui:016x}": meter for meter in town.lorawan}
    checked = 0
    for event in events(history)[:300]:
        meter = by_eui[event["deviceInfo"]["devEui"]]
        telegram = decode_lorawan(
            base64.b64decode(event["data"]),
            port=event["fPort"],
            f_cnt=event["fCnt"],
            dev_eui=meter.dev_eui,
        )
        for local_us, litres in telegram.series:
            hour = (local_us - METER_CLOCK_US) // HOUR_US
            assert litres == town.households.registers(hour, 1)[meter.household, 0]
        checked += len(telegram.series) == 33
    assert checked > 200


def test_the_agent_reads_our_events_and_lines(town: Town, history: list[Emission]) -> None:
    station = {gateway.eui: gateway for gateway in town.gateways}
    keys = {meter.name: meter for meter in town.wmbus}
    lines = 0
    for emission in history[:1500]:
        if emission.topic is not None:
            eui = json.loads(emission.payload)["rxInfo"][0]["gatewayId"]
            heard = heard_in(emission.payload, gateway_eui=eui)
            assert heard is not None
            assert emission.topic.split("/")[1] == station[eui].application
            assert heard.rssi < -60
        else:
            (heard,) = frames_of(emission.payload.decode(), now_us=0)
            name = f"KAW-{heard.frame[7:3:-1].hex()}"
            telegram = decode_wmbus(heard.frame, key=keys[name].key, formats=known_formats())
            true_us = heard.heard_at - town.gateways[emission.gateway].clock_error_us
            assert telegram.register_l == town.households.register_at(keys[name].household, true_us)
            lines += 1
    assert lines > 20


def test_live_telegrams_come_each_16_seconds_full_and_compact(town: Town) -> None:
    live = until(town, END_H, END_H + 1)
    lines = [e for e in live if e.topic is None]
    frames = [frames_of(line.payload.decode(), now_us=5)[0].frame for line in lines]
    formats = known_formats()
    meter = town.wmbus[0]
    own = {f for f in frames if f[7:3:-1].hex() == f"{meter.serial:08d}"}

    told = [decode_wmbus(frame, key=meter.key, formats=formats) for frame in own]

    assert 200 < len(own) <= 225
    assert all(telegram.register_l is not None for telegram in told)
    lengths = Counter(len(frame) for frame in own)
    assert len(lengths) == 2
    assert 0.09 < min(lengths.values()) / len(own) < 0.16


def test_an_outage_silences_a_gateway_or_makes_its_events_late(town: Town) -> None:
    plan = Plan(seed=7, meters=60, first_h=END_H - 200, end_h=END_H)
    long = build(plan)
    history = until(long, plan.first_h, END_H)

    def handed(gateway: int, from_h: int, to_h: int) -> list[Emission]:
        return [
            e
            for e in history
            if e.gateway == gateway and e.topic and from_h <= e.at_us // HOUR_US < to_h
        ]

    assert handed(3, END_H - 72, END_H - 68) == []
    assert handed(1, END_H - 144, END_H - 136) == []
    backlog = handed(1, END_H - 135, END_H - 134)
    late = [e for e in backlog if heard_us(e) < (END_H - 136) * HOUR_US]
    assert len(late) > 100


def heard_us(emission: Emission) -> int:
    heard = heard_in(emission.payload, gateway_eui=None)
    assert heard is not None
    return heard.heard_at


def test_the_young_leak_and_the_burst_are_found_in_the_first_hour_after_history(
    town: Town,
) -> None:
    found = {}
    for leak in town.households.plants[:2]:
        registers = town.households.registers(END_H - 40, 42)[leak.meter].tolist()
        flow, findings = None, []
        for hour, litres in enumerate(registers, start=END_H - 40):
            flow, more = leaks.feed(flow, "m", (hour * HOUR_US, litres))
            findings += [(hour, finding.level) for finding in more if finding.state == "open"]
        found[leak.kind] = findings

    assert found["continuous"][-1] == (END_H + 1, 24)
    assert found["burst"][-1] == (END_H + 1, 0)


def test_the_first_uplink_has_a_past_to_tell(town: Town) -> None:
    assert town.households.first_h == PLAN.first_h - BEFORE_H
    assert len(list(islice(town.emissions(PLAN.first_h * HOUR_US), 10))) == 10
