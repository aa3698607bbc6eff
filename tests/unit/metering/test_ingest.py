"""What intake makes of good messages, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.kernel.db import Database
from cloud.kernel.shards import shard_of
from cloud.metering.model import ClockSource, Quality
from cloud.metering.service import Metering
from decoders.uplink import RowFlag
from tests.heard import (
    CST_S,
    DAY,
    HOUR,
    MINUTE,
    NOON,
    SECOND,
    Gateway,
    eui,
    import_keys,
    lorawan,
    metering_on,
    published,
    readings,
    report,
    rows_of,
    unheard_of,
    wmbus,
    wmbus_meter,
)


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Metering]:
    with metering_on(database, tmp_path) as made:
        yield made


def test_a_profile_becomes_one_reading_an_hour(service: Metering, database: Database) -> None:
    ack = Gateway().send(service, lorawan(1, [1030, 1020, 1020, 1000], at=NOON - HOUR))

    assert ack.upto == 1
    assert ack.rejected == ()
    assert readings(database) == [
        (eui(1), NOON - (4 - n) * HOUR, litres) for n, litres in enumerate([1000, 1020, 1020, 1030])
    ]


def test_the_next_hour_adds_one_reading_and_repeats_none(
    service: Metering, database: Database
) -> None:
    gateway = Gateway()
    gateway.send(service, lorawan(1, [1020, 1010, 1000], at=NOON - HOUR))
    gateway.send(service, lorawan(1, [1030, 1020, 1010], at=NOON, counter=2))

    assert [litres for _, _, litres in readings(database)] == [1000, 1010, 1020, 1030]
    assert rows_of(
        database, "SELECT readings_new, readings_known FROM batches ORDER BY batch_key"
    ) == [(3, 0), (1, 2)]


def test_a_gap_is_filled_by_a_profile_that_comes_late(
    service: Metering, database: Database
) -> None:
    gateway = Gateway()
    gateway.send(service, lorawan(1, [1000], at=NOON - 5 * HOUR))
    gateway.send(service, lorawan(1, [1050], at=NOON, counter=6))
    gateway.send(service, lorawan(1, [1040, 1030, 1020, 1010], at=NOON - HOUR, counter=5))

    assert [litres for _, _, litres in readings(database)] == [1000, 1010, 1020, 1030, 1040, 1050]
    late = rows_of(
        database, "SELECT register_l FROM readings WHERE quality & %s > 0", int(Quality.LATE)
    )
    assert {litres for (litres,) in late} == {1000, 1010}  # more than three hours after the fact


def test_every_reading_leads_to_its_frame_and_its_bytes(
    service: Metering, database: Database, tmp_path: Path
) -> None:
    gateway = Gateway()
    gateway.hear(lorawan(2, [5], at=NOON), lorawan(1, [1010, 1000], at=NOON))
    message = gateway.message()
    service.ingest(message, gateway.id, NOON)

    [(sha256, batch_row, frame)] = rows_of(
        database,
        """SELECT encode(b.sha256, 'hex'), r.batch_row, encode(c.frame, 'hex') FROM readings r
           JOIN batches b USING (batch_key) JOIN receptions c USING (batch_key, batch_row)
           WHERE r.register_l = 1010""",
    )
    raw = (tmp_path / "blobs" / sha256[:2] / sha256[2:4] / sha256).read_bytes()
    assert raw == message
    assert batch_row == 1
    assert len(frame) == 32


def test_one_uplink_heard_by_two_gateways_is_two_receptions_of_one_reading(
    service: Metering, database: Database
) -> None:
    row = lorawan(1, [1010, 1000], at=NOON)
    Gateway("cerro").send(service, row)
    Gateway("centro").send(service, row)

    assert len(readings(database)) == 2
    assert rows_of(
        database,
        "SELECT count(*), count(DISTINCT frame), count(DISTINCT gateway_key) FROM receptions",
    ) == [(2, 1, 2)]


def test_a_meter_heard_for_the_first_time_is_provisional_and_of_the_gateways_administration(
    service: Metering, database: Database
) -> None:
    Gateway().send(service, lorawan(1, [7], at=NOON))

    assert rows_of(database, "SELECT dev_eui, administration, provisional FROM meters") == [
        (eui(1), "queretaro", True)
    ]


def test_the_registry_adopts_a_provisional_meter_with_its_readings(
    service: Metering, database: Database
) -> None:
    Gateway().send(service, lorawan(1, [7], at=NOON))
    import_keys(service, eui(1), key=None)

    assert rows_of(database, "SELECT count(*), bool_or(provisional) FROM meters") == [(1, False)]
    assert readings(database) == [(eui(1), NOON, 7)]


def test_the_meters_own_clock_offset_places_its_readings(
    service: Metering, database: Database
) -> None:
    import_keys(service, eui(1), key=None, clock_offset_s=CST_S - 3600)
    Gateway().send(service, lorawan(1, [7], at=NOON - 2 * HOUR))

    assert readings(database) == [(eui(1), NOON - HOUR, 7)]


def test_an_encrypted_telegram_is_the_register_of_its_hour_slot(
    service: Metering, database: Database
) -> None:
    import_keys(service, str(wmbus_meter(5)))
    gateway = Gateway()
    gateway.hello(service, at=NOON)
    gateway.send(service, wmbus(5, 12_345, heard_at=NOON + 17 * MINUTE), at=NOON + 18 * MINUTE)

    assert readings(database) == [(str(wmbus_meter(5)), NOON, 12_345)]
    [(clock,)] = rows_of(database, "SELECT clock FROM readings")
    assert clock == ClockSource.GATEWAY_TRUSTED


def test_a_later_telegram_of_the_same_hour_changes_nothing_and_is_no_conflict(
    service: Metering, database: Database
) -> None:
    import_keys(service, str(wmbus_meter(5)))
    gateway = Gateway()
    gateway.hello(service)
    gateway.send(service, wmbus(5, 100, heard_at=NOON + MINUTE), at=NOON + 2 * MINUTE)
    gateway.send(service, wmbus(5, 130, heard_at=NOON + 30 * MINUTE), at=NOON + 31 * MINUTE)

    assert [litres for _, _, litres in readings(database)] == [100]
    assert rows_of(database, "SELECT count(*) FROM reading_conflicts") == [(0,)]


def test_an_earlier_telegram_that_arrives_late_takes_the_slot(
    service: Metering, database: Database
) -> None:
    import_keys(service, str(wmbus_meter(5)))
    slow, quick = Gateway("cerro"), Gateway("centro")
    slow.hello(service)
    quick.hello(service)
    quick.send(service, wmbus(5, 130, heard_at=NOON + 30 * MINUTE), at=NOON + 31 * MINUTE)
    slow.send(service, wmbus(5, 100, heard_at=NOON + MINUTE), at=NOON + 40 * MINUTE)

    assert [litres for _, _, litres in readings(database)] == [100]
    [(quality,)] = rows_of(database, "SELECT quality FROM readings")
    assert quality & Quality.CORRECTED
    assert rows_of(database, "SELECT last_register_l FROM meter_state") == [(100,)]


def test_an_untrusted_clock_fills_a_slot_and_never_wins_one(
    service: Metering, database: Database
) -> None:
    import_keys(service, str(wmbus_meter(5)))
    stranger, trusted = Gateway("cerro"), Gateway("centro")
    trusted.hello(service)
    stranger.send(service, wmbus(5, 100, heard_at=NOON + MINUTE), at=NOON + 2 * MINUTE)
    assert rows_of(database, "SELECT clock, register_l FROM readings") == [
        (ClockSource.GATEWAY_UNTRUSTED, 100)
    ]

    trusted.send(service, wmbus(5, 130, heard_at=NOON + 30 * MINUTE), at=NOON + 31 * MINUTE)

    assert rows_of(database, "SELECT clock, register_l FROM readings") == [
        (ClockSource.GATEWAY_TRUSTED, 130)
    ]


def test_a_gateway_forty_minutes_ahead_is_corrected_before_flooring(
    service: Metering, database: Database
) -> None:
    import_keys(service, str(wmbus_meter(5)))
    gateway = Gateway(ahead=40 * MINUTE)
    gateway.hello(service, at=NOON)
    gateway.hello(service, at=NOON + SECOND)
    gateway.send(service, wmbus(5, 100, heard_at=NOON + 50 * MINUTE), at=NOON + 51 * MINUTE)

    assert readings(database) == [(str(wmbus_meter(5)), NOON, 100)]
    [(offset,)] = rows_of(database, "SELECT clock_offset_us FROM gateways WHERE id = 'cerro'")
    assert abs(offset - 40 * MINUTE) < SECOND


def test_a_gateway_without_echo_is_set_right_by_frames_that_a_trusted_one_heard(
    service: Metering, database: Database
) -> None:
    for meter in range(4):
        import_keys(service, str(wmbus_meter(meter)))
    heard = [wmbus(meter, 100, heard_at=NOON + 50 * MINUTE) for meter in range(4)]
    trusted, wrong = Gateway("centro"), Gateway("cerro", ahead=40 * MINUTE)
    trusted.hello(service, at=NOON)
    trusted.send(service, *heard, at=NOON + 51 * MINUTE)
    wrong.send(service, *heard, at=NOON + 52 * MINUTE)

    assert {at for _, at, _ in readings(database)} == {NOON}
    assert rows_of(
        database,
        """SELECT clock_quality, abs(clock_offset_us - 2400000000) < 1000000, shared_frames
           FROM gateways WHERE id = 'cerro'""",
    ) == [("trusted", True, 4)]


def test_where_a_meters_state_is_behind_what_is_stored_nothing_is_doubled(
    service: Metering, database: Database
) -> None:
    gateway = Gateway()
    gateway.send(service, lorawan(1, [1010, 1000], at=NOON - HOUR))
    with database.connect("metering") as connection:
        connection.execute("UPDATE meter_state SET last_at = NULL, last_register_l = NULL")

    ack = gateway.send(service, lorawan(1, [1020, 1010, 1000], at=NOON, counter=2))

    assert ack.upto == 2
    assert [litres for _, _, litres in readings(database)] == [1000, 1010, 1020]
    assert rows_of(database, "SELECT last_register_l FROM meter_state") == [(1020,)]


def test_two_meter_clock_values_of_one_instant_are_a_conflict_and_the_smaller_is_kept(
    service: Metering, database: Database
) -> None:
    Gateway("cerro").send(service, lorawan(1, [1010, 1000], at=NOON))
    Gateway("centro").send(service, lorawan(1, [1009, 1000], at=NOON, counter=2))

    assert [litres for _, _, litres in readings(database)] == [1000, 1009]
    assert rows_of(database, "SELECT kept_l, other_l, rule FROM reading_conflicts") == [
        (1009, 1010, "smaller_register")
    ]
    [event] = published(database, "reading.conflicted")
    assert event.body()["kept_l"] == 1009


def test_a_compact_frame_is_read_by_the_layout_a_full_frame_taught(
    service: Metering, database: Database
) -> None:
    import_keys(service, str(wmbus_meter(5)))
    gateway = Gateway()
    gateway.hello(service)
    at = NOON + MINUTE
    teacher = wmbus(5, 0, heard_at=at, records=unheard_of(90), flags=RowFlag.TEACHES_FORMAT)
    compact = wmbus(5, 0, heard_at=at + SECOND, records=unheard_of(100), compact=True)
    gateway.send(service, teacher, compact, at=NOON + 3 * MINUTE)

    assert [litres for _, _, litres in readings(database)] == [100]
    assert len(rows_of(database, "SELECT layout FROM compact_formats")) == 1


def test_what_one_worker_learned_another_reads(
    service: Metering, database: Database, tmp_path: Path
) -> None:
    import_keys(service, str(wmbus_meter(5)))
    compact = wmbus(5, 0, heard_at=NOON, records=unheard_of(100), compact=True)
    with metering_on(database, tmp_path) as other:
        assert Gateway("centro").send(other, compact).rejected == ((1, "unknown_signature"),)
        Gateway("cerro").send(service, wmbus(5, 0, heard_at=NOON, records=unheard_of(90)))
        assert other.replay(1).code is None


def test_what_was_recorded_is_published_once_by_shard(
    service: Metering, database: Database
) -> None:
    gateway = Gateway()
    gateway.send(service, *(lorawan(n, [1010, 1000], at=NOON) for n in range(20)))
    gateway.send(service, *(lorawan(n, [1010, 1000], at=NOON, counter=2) for n in range(20)))

    events = published(database, "reading.recorded")
    assert sum(event.rows for event in events) == 40
    assert len({event.shard for event in events}) == len(events)
    meters = [shard_of(int(key)) for event in events for key in event.columns()["meter_key"]]
    assert set(meters) == {event.shard for event in events}


def test_a_register_that_falls_or_leaps_is_kept_and_marked(
    service: Metering, database: Database
) -> None:
    gateway = Gateway()
    gateway.send(service, lorawan(1, [1000], at=NOON - 2 * HOUR))
    gateway.send(service, lorawan(1, [900], at=NOON - HOUR, counter=2))
    gateway.send(service, lorawan(1, [900_000], at=NOON, counter=3))

    marks = [
        quality & ~Quality.LATE
        for (quality,) in rows_of(database, "SELECT quality FROM readings ORDER BY register_at")
    ]
    assert marks == [0, Quality.WENT_BACK, Quality.JUMP]


def test_years_old_readings_get_their_partitions(service: Metering, database: Database) -> None:
    Gateway().send(service, lorawan(1, [10, 5], at=NOON - 700 * DAY))

    assert len(readings(database)) == 2


def test_what_a_gateway_says_of_itself_is_kept(service: Metering, database: Database) -> None:
    Gateway().send(service, report("source_down", at=NOON, source="wmbus", why="a\0b", x=1.5))

    assert rows_of(database, "SELECT kind, payload->>'why' FROM gateway_reports") == [
        ("source_down", "ab")
    ]


def test_the_state_of_a_meter_is_its_newest_register_and_last_status(
    service: Metering, database: Database
) -> None:
    import_keys(service, str(wmbus_meter(5)))
    gateway = Gateway()
    gateway.hello(service)
    gateway.send(
        service,
        wmbus(5, 130, heard_at=NOON + HOUR, info_code=4),
        wmbus(5, 100, heard_at=NOON + MINUTE, info_code=1),
        at=NOON + 2 * HOUR,
    )

    assert rows_of(database, "SELECT last_register_l, info_code FROM meter_state") == [(130, 4)]


def test_frames_are_counted_by_gateway_and_hour(service: Metering, database: Database) -> None:
    gateway = Gateway()
    gateway.send(service, lorawan(1, [1], at=NOON - HOUR), lorawan(2, [1], at=NOON - HOUR))
    gateway.send(service, lorawan(3, [1], at=NOON - HOUR))

    assert rows_of(database, "SELECT frames FROM gateway_hours") == [(3,)]


def test_readings_that_were_written_past_the_states_are_compared_and_kept(
    service: Metering, database: Database
) -> None:
    gateway = Gateway()
    gateway.send(service, lorawan(1, [1010, 1000], at=NOON - HOUR))
    with database.connect("metering") as connection:  # as after a repair by hand
        connection.execute("UPDATE meter_state SET last_at = NULL, last_register_l = NULL")
    gateway.send(service, lorawan(1, [1020, 1010], at=NOON, counter=2))

    assert [litres for _, _, litres in readings(database)] == [1000, 1010, 1020]
