"""Which frames become rows, and what the rules make of them: real frames, encoded and encrypted."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cbor2
import pytest

from decoders.decode import decode_lorawan
from decoders.drivers.registry import DRIVERS
from decoders.encode import (
    encode_lorawan_hourly,
    encode_wmbus,
    kamstrup_flowiq_records,
    kamstrup_multical_records,
    local_us,
    record,
    session_number,
)
from decoders.ids import MeterId
from decoders.reading import Integrity, Telegram
from decoders.uplink import RowFlag, RowKind
from edge_agent import caps, core, leaks, memory, protocol, reduction
from edge_agent.inputs import (
    BadInput,
    Forget,
    Heard,
    Input,
    Now,
    Settle,
    SourceChanged,
    Store,
    Tick,
)
from edge_agent.keys import address_of
from edge_agent.leaks import HOUR_US
from edge_agent.outbox import Draft

METER = MeterId(manufacturer="KAW", serial="53885758", version=0x3C, medium=0x16)
KEY = bytes(range(16))
NOON = 1_772_452_800_000_000  # 2026-03-02T12:00:00Z
STEP_US = 16_000_000
DEV_EUI = 0x0013EA0001020304


class Bench:
    """A core, and everything it asked for."""

    def __init__(self, policy: reduction.Policy | None = None) -> None:
        keys = {address_of(str(METER)): (KEY,)}
        self.state = core.State(
            reduction=reduction.State(policy=policy or reduction.Policy(keys=keys)),
            link=protocol.Link(stream=bytes(16)),
            pace=protocol.Pace(),
        )
        self.effects: list[core.Effect] = []

    def tell(self, told: Input, *, at: int = NOON) -> list[Draft]:
        """Take one input; return the rows that it led to."""
        self.state, effects = core.step(self.state, told, Now(at=at, wall_s=0.0))
        self.effects += effects
        return [row for effect in effects if isinstance(effect, Store) for row in effect.rows]

    def figure(self, name: str) -> int:
        return self.state.reduction.figures.get(name, 0)


def telegram(
    *, total_l: int, at: int = NOON, info_code: int = 0, flow_lph: int = 0, water_c: int = 15
) -> Heard:
    records = kamstrup_flowiq_records(
        total_l=total_l, info_code=info_code, flow_lph=flow_lph, water_c=(water_c, water_c + 2)
    )
    return heard(records, at=at)


def heard(records: Sequence[Any], *, at: int = NOON, compact: bool = False, **given: Any) -> Heard:
    number = session_number(session=1, minutes=at // 60_000_000 % 500_000, encrypted=True)
    frame = encode_wmbus(
        tuple(records),
        meter=METER,
        session_number=number,
        access_number=1,
        key=KEY,
        compact=compact,
    )
    return Heard(kind=RowKind.WMBUS, frame=frame, heard_at=at, **given)


def uplink(
    registers_l: Sequence[int], *, newest_at: int, f_cnt: int, offset_s: int = -21_600
) -> Heard:
    payload = encode_lorawan_hourly(
        registers_l, local_us=local_us(utc_us=newest_at, offset_s=offset_s)
    )
    return Heard(
        kind=RowKind.LORAWAN,
        frame=payload,
        heard_at=newest_at + 60_000_000,
        radio=DEV_EUI,
        counter=f_cnt,
        port=1,
    )


def said(row: Draft) -> dict[str, Any]:
    told: dict[str, Any] = cbor2.loads(row.payload)
    return told


def test_of_an_hours_telegrams_the_first_valid_one_is_stored() -> None:
    bench = Bench()

    rows = [
        row
        for i in range(2 * 225)
        for row in bench.tell(telegram(total_l=1000 + i // 200, at=NOON + i * STEP_US))
    ]

    assert [row.heard_at for row in rows] == [NOON, NOON + HOUR_US]
    assert all(row.flags == RowFlag.FIRST_OF_HOUR for row in rows)
    assert bench.figure("heard") == 450


def test_every_change_of_the_alarm_word_is_stored() -> None:
    bench = Bench()

    flags = [
        [row.flags for row in bench.tell(telegram(total_l=1, at=NOON + i, info_code=code))]
        for i, code in enumerate([0, 0, 4, 4, 0])
    ]

    assert flags == [[RowFlag.FIRST_OF_HOUR], [], [RowFlag.INFO_CHANGE], [], [RowFlag.INFO_CHANGE]]


def test_every_daily_extreme_is_stored_until_the_day_has_had_its_share() -> None:
    bench = Bench()
    bench.tell(telegram(total_l=1, water_c=15))

    assert bench.tell(telegram(total_l=1, at=NOON + 1, water_c=15)) == []
    warmer = bench.tell(telegram(total_l=1, at=NOON + 2, water_c=16))
    back = bench.tell(telegram(total_l=1, at=NOON + 3, water_c=15))
    more = [bench.tell(telegram(total_l=1, at=NOON + 4, flow_lph=10 + i)) for i in range(60)]

    assert [row.flags for row in warmer] == [RowFlag.DAILY_EXTREME]
    assert back == []
    assert sum(map(len, more)) == reduction.EXTREMES_PER_DAY - 1


def test_every_field_whose_extremes_are_kept_is_one_that_a_wmbus_driver_names() -> None:
    named = {field.into for driver in DRIVERS if driver.matches for field in driver.fields}

    assert set(reduction.EXTREME_FIELDS) <= named


def test_a_cold_night_is_a_daily_extreme() -> None:
    bench = Bench()
    bench.tell(telegram(total_l=1, water_c=15))
    colder = heard(kamstrup_flowiq_records(total_l=1, water_c=(15, 9)), at=NOON + 1)

    assert [row.flags for row in bench.tell(colder)] == [RowFlag.DAILY_EXTREME]


def test_the_telegram_that_teaches_a_layout_is_stored_for_the_cloud_to_learn_it_too() -> None:
    bench = Bench()
    bench.tell(telegram(total_l=1))
    unknown = [record("0413", 7), record("4413", 5), record("02FF20", 0), record("523B", 1)]

    refused = bench.tell(heard(unknown, at=NOON + 1, compact=True))
    taught = bench.tell(heard(unknown, at=NOON + 2))
    known = bench.tell(heard(unknown, at=NOON + 3))

    assert [row.flags for row in refused] == [RowFlag.UNDECODABLE]
    assert len(taught) == 1
    assert known == []
    layouts = [e.layouts for e in bench.effects if isinstance(e, Store) and e.layouts]
    assert [len(layout) for layout in layouts] == [1]
    assert bench.figure("undecodable_unknown_signature") == 1


def test_a_prior_telegram_teaches_and_is_never_a_reading() -> None:
    bench = Bench()
    flags = int(RowFlag.TEACHES_FORMAT)

    rows = bench.tell(heard(kamstrup_multical_records(total_l=9), flags=flags))

    assert [row.flags for row in rows] == [RowFlag.TEACHES_FORMAT]
    assert bench.state.reduction.meters == {}


def test_undecodable_telegrams_are_stored_up_to_a_cap_and_the_rest_is_counted() -> None:
    bench = Bench()
    broken = Heard(kind=RowKind.WMBUS, frame=b"\x01\x02\x03", heard_at=NOON)

    stored = [row for _ in range(100) for row in bench.tell(broken)]
    quiet = bench.tell(Tick(), at=NOON + 1)
    (report,) = bench.tell(Tick(), at=NOON + HOUR_US)

    assert len(stored) == caps.ROWS_PER_HOUR
    assert all(row.flags == RowFlag.UNDECODABLE for row in stored)
    assert quiet == []
    assert said(report)["kind"] == "suppressed"
    assert said(report)["count"] == 100 - caps.ROWS_PER_HOUR


def test_the_sources_own_verdict_counts_as_undecodable() -> None:
    bench = Bench()
    wrong = Heard(kind=RowKind.WMBUS, frame=telegram(total_l=1).frame, heard_at=NOON, code="crc")

    assert [row.flags for row in bench.tell(wrong)] == [RowFlag.UNDECODABLE]
    assert bench.figure("undecodable_crc") == 1


def test_of_a_meter_without_a_key_here_one_telegram_an_hour_is_kept_for_the_cloud() -> None:
    bench = Bench(reduction.Policy())

    rows = [
        row
        for i in range(2 * 225)
        for row in bench.tell(telegram(total_l=1000, at=NOON + i * STEP_US), at=NOON + i * STEP_US)
    ]

    assert [row.heard_at for row in rows if row.kind == RowKind.WMBUS] == [NOON, NOON + HOUR_US]
    reports = [said(row) for row in rows if row.kind == RowKind.REPORT]
    assert [(r["code"], r["count"]) for r in reports] == [("key_missing", 224)]


def test_a_key_that_comes_with_the_line_is_used() -> None:
    bench = Bench(reduction.Policy())

    rows = bench.tell(heard(kamstrup_multical_records(total_l=9), key=KEY))

    assert [row.flags for row in rows] == [RowFlag.FIRST_OF_HOUR]


def test_a_meter_that_is_not_on_the_list_is_not_kept() -> None:
    policy = reduction.Policy(only=frozenset({"KAW-00000001"}))
    bench = Bench(policy)

    assert bench.tell(telegram(total_l=1)) == []
    assert bench.tell(uplink([5, 4], newest_at=NOON, f_cnt=1)) == []
    assert bench.figure("foreign") == 2


def test_lorawan_uplinks_are_all_stored_but_exact_repeats_are_not() -> None:
    bench = Bench()
    first, second = (uplink([9, 8, 7], newest_at=NOON, f_cnt=n) for n in (1, 2))

    rows = [len(bench.tell(frame)) for frame in (first, first, second, first)]

    assert rows == [1, 0, 1, 0]
    assert bench.figure("repeats") == 2


@pytest.mark.parametrize(
    ("flags", "integrity"), [(RowFlag.NETWORK_CHECKED, Integrity.MAC), (0, Integrity.NONE)]
)
def test_only_a_network_server_vouches_for_an_uplink(
    flags: int, integrity: Integrity, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Telegram] = []

    def remembering(*given: Any, **named: Any) -> Telegram:
        decoded.append(decode_lorawan(*given, **named))
        return decoded[-1]

    monkeypatch.setattr(reduction, "decode_lorawan", remembering)

    (row,) = Bench().tell(replace(uplink([9, 8], newest_at=NOON, f_cnt=1), flags=int(flags)))

    assert row.flags == flags
    assert decoded[0].integrity == integrity


def test_an_uplink_that_nobody_can_read_is_stored_all_the_same() -> None:
    bench = Bench()
    noise = Heard(
        kind=RowKind.LORAWAN, frame=b"\xff\xee", heard_at=NOON, radio=1, counter=1, port=3
    )

    assert [row.flags for row in bench.tell(noise)] == [RowFlag.UNDECODABLE]


def test_a_leak_23_hours_old_in_the_profiles_becomes_an_anomaly_in_utc() -> None:
    bench = Bench()
    started = NOON - 23 * HOUR_US
    before = [1000] * 9  # at rest until `started`
    profile = list(reversed(before + [1000 + 10 * h for h in range(1, 24)]))

    quiet = bench.tell(uplink(profile, newest_at=NOON, f_cnt=1))
    rows = bench.tell(uplink([profile[0] + 10, *profile], newest_at=NOON + HOUR_US, f_cnt=2))

    assert [row.kind for row in quiet] == [RowKind.LORAWAN]
    assert [row.kind for row in rows] == [RowKind.LORAWAN, RowKind.ANOMALY]
    told = said(rows[1])
    assert told["meter"] == "0013EA0001020304"
    assert (told["kind"], told["level"], told["state"]) == ("continuous_flow", 24, "open")
    assert told["started_at"] == started
    assert told["ended_at"] == NOON + HOUR_US
    assert (told["rate_lph"], told["litres"]) == (10, 240)
    assert told["episode"] == leaks.episode_id("0013EA0001020304", "continuous_flow", started)


def test_an_alert_from_a_server_elsewhere_is_dated_by_this_gateways_clock() -> None:
    bench = Bench()
    profile = list(reversed([1000] * 9 + [1000 + 10 * h for h in range(1, 25)]))
    event = uplink(profile, newest_at=NOON, f_cnt=1)
    here = NOON + 7 * HOUR_US

    rows = bench.tell(replace(event, flags=int(RowFlag.FOREIGN_CLOCK)), at=here)

    assert [(row.kind, row.heard_at) for row in rows] == [
        (RowKind.LORAWAN, event.heard_at),
        (RowKind.ANOMALY, here),
    ]
    assert rows[0].flags & RowFlag.FOREIGN_CLOCK


def test_a_meters_own_clock_offset_is_used_where_it_has_one() -> None:
    policy = reduction.Policy(offsets_us={"0013EA0001020304": 0})
    bench = Bench(policy)

    rows = bench.tell(uplink([810, 10, 0], newest_at=NOON, f_cnt=1, offset_s=0))

    assert said(rows[1])["started_at"] == NOON - HOUR_US


def test_overlapping_profiles_feed_every_hour_once_and_late_ones_nothing() -> None:
    bench = Bench()
    hours = [1000 + 10 * h for h in range(80)]

    def profile(hour: int) -> Heard:
        shown = list(reversed(hours[max(0, hour - 32) : hour + 1]))
        return uplink(shown, newest_at=NOON + hour * HOUR_US, f_cnt=hour)

    anomalies = []
    for hour in (32, 33, 50, 40, 60, 61, 35, 79):
        anomalies += [
            (hour, said(row)["level"])
            for row in bench.tell(profile(hour))
            if row.kind == RowKind.ANOMALY
        ]

    assert anomalies == [(32, 24), (50, 48), (79, 72)]


def test_a_meter_whose_clock_was_set_back_is_listened_to_again() -> None:
    bench = Bench()
    bench.tell(uplink([100, 90], newest_at=NOON + 9000 * HOUR_US, f_cnt=1))

    bench.tell(uplink([110, 100], newest_at=NOON, f_cnt=2))

    flow = bench.state.reduction.meters["0013EA0001020304"].flow
    assert flow is not None
    assert flow.last == (NOON, 110)


def test_a_wmbus_burst_becomes_an_anomaly() -> None:
    bench = Bench()

    rows = [
        row
        for i in range(225)
        for row in bench.tell(telegram(total_l=1000 + 4 * i, at=NOON + i * STEP_US))
        if row.kind == RowKind.ANOMALY
    ]

    assert [(said(r)["kind"], said(r)["meter"]) for r in rows] == [("burst", "KAW-53885758")]


def test_what_is_no_frame_is_reported_with_what_was_given() -> None:
    bench = Bench()
    bad = BadInput(source="lines", code="malformed", detail="not hex", given=b"zz", token="t")

    (row,) = bench.tell(bad)

    assert row.kind == RowKind.REPORT
    assert said(row)["kind"] == "bad_input"
    assert said(row)["given"] == b"zz"
    assert Settle(token="t") in bench.effects


def test_a_source_that_goes_down_is_reported() -> None:
    (row,) = Bench().tell(SourceChanged(source="radio", kind="source_down", reason="gone"))

    assert said(row) == {"kind": "source_down", "source": "radio", "reason": "gone"}


def test_every_token_is_settled_whatever_became_of_its_frame() -> None:
    bench = Bench()
    for token, frame in enumerate([telegram(total_l=1), telegram(total_l=1, at=NOON + 1)]):
        bench.tell(Heard(kind=frame.kind, frame=frame.frame, heard_at=NOON + token, token=token))

    assert [e.token for e in bench.effects if isinstance(e, Settle)] == [0, 1]


def test_the_memory_of_meters_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduction, "MAX_METERS", 2)
    bench = Bench()
    for n in range(3):
        frame = uplink([9, 8], newest_at=NOON, f_cnt=1)
        bench.tell(
            Heard(kind=frame.kind, frame=frame.frame, heard_at=NOON, radio=n, counter=1, port=1)
        )

    assert list(bench.state.reduction.meters) == [f"{n:016X}" for n in (1, 2)]
    assert Forget(names=(f"{0:016X}",)) in bench.effects


def test_a_restart_remembers_the_hour_the_alarm_word_and_the_flow() -> None:
    bench = Bench()
    bench.tell(telegram(total_l=1000, info_code=4))
    kept = bench.state.reduction.meters["KAW-53885758"]

    after = Bench()
    recovered = memory.unpack(memory.pack(kept))
    assert recovered is not None
    after.state.reduction.meters["KAW-53885758"] = recovered

    assert after.tell(telegram(total_l=1000, at=NOON + STEP_US, info_code=4)) == []
    assert len(after.tell(telegram(total_l=1000, at=NOON + 2 * STEP_US, info_code=0))) == 1
    assert memory.unpack(b"\x00") is None


def test_the_days_extremes_survive_a_restart() -> None:
    bench, after = Bench(), Bench()
    bench.tell(telegram(total_l=1, water_c=15))
    bench.tell(telegram(total_l=1, at=NOON + 1, water_c=20))
    kept = memory.unpack(memory.pack(bench.state.reduction.meters["KAW-53885758"]))
    assert kept is not None
    after.state.reduction.meters["KAW-53885758"] = kept

    assert after.tell(telegram(total_l=1, at=NOON + 2, water_c=18)) == []
    assert len(after.tell(telegram(total_l=1, at=NOON + 3, water_c=21))) == 1
    assert kept.extreme_rows == 1
    assert memory.unpack(memory.pack(kept)[:60]) is None


def test_an_upgrade_of_the_agent_keeps_what_version_1_remembered() -> None:
    written = "013c83070000000000ffffffffffffffff04000000000000000700000009000000"

    kept = memory.unpack(bytes.fromhex(written))

    assert kept == memory.Meter(hour=492_348, info_code=4, counter=7, session=9)


def test_a_checkpoint_of_the_caps_that_is_none_starts_afresh() -> None:
    held = caps.Caps()
    held.hold_back("crc", NOON, NOON)

    assert caps.unpack(caps.pack(held)) == held
    for wrong in (b"", b"\x01", b"\xff", cbor2.dumps({"crc": 5}), cbor2.dumps({"crc": [1] * 9})):
        assert caps.unpack(wrong) == caps.Caps()


def test_what_is_remembered_of_four_thousand_meters_fits_a_small_gateway() -> None:
    """Each with a full burst window, all points of its flow and all extremes it can have."""
    flow: leaks.Flow | None = None
    for step in range(40):
        flow, _ = leaks.feed(flow, "KAW-53885758", (NOON + step * 601_000_000, 1000 + 5 * step))
    extremes = tuple((place, 1.5, 2.5) for place in range(len(reduction.EXTREME_FIELDS)))
    meter = memory.Meter(hour=1, info_code=1, day=1, extremes=extremes, flow=flow)

    tracemalloc.start()
    try:
        meters = memory.Meters()
        for number in range(4000):
            meters[f"KAW-{number:08d}"] = meter
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert meters["KAW-00000001"] == meter
    assert used < 4000 * 700


def test_a_meter_is_heard_under_the_key_it_has_and_under_the_newer_one_it_is_given() -> None:
    newer, newest = bytes(range(1, 17)), bytes(range(2, 18))
    bench = Bench(reduction.Policy(keys={address_of(str(METER)): (newest, newer, KEY)}))

    (row,) = bench.tell(telegram(total_l=100))
    bench.state.reduction.policy = reduction.Policy(keys={address_of(str(METER)): (newest, newer)})
    (refused,) = bench.tell(telegram(total_l=200, at=NOON + HOUR_US))

    assert row.flags == RowFlag.FIRST_OF_HOUR
    assert refused.flags == RowFlag.UNDECODABLE
    assert bench.figure("undecodable_wrong_key") == 1
