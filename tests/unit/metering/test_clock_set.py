"""Rows that were heard before their gateway's clock was set: in their own hour, or in doubt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cloud.kernel.db import Database
from cloud.metering import clock_steps, rules
from cloud.metering.service import Metering
from decoders.uplink import ClockStep, RowFlag
from decoders.uplink_steps import BY_MAX_US, NOBODY_KNOWS_US
from tests.heard import (
    HOUR,
    MINUTE,
    NOON,
    Gateway,
    anomaly,
    import_keys,
    lorawan,
    metering_on,
    readings,
    rows_of,
    wmbus,
    wmbus_meter,
)

BOOT = 5 * MINUTE  # 1970-01-01 00:05
METER = str(wmbus_meter(5))
CLOCKS = "SELECT clock FROM readings ORDER BY register_at"
TRUSTED, UNTRUSTED = 1, 2


@pytest.fixture
def service(database: Database, tmp_path: Path) -> Iterator[Metering]:
    with metering_on(database, tmp_path) as made:
        import_keys(made, METER)
        yield made


def met(service: Metering, gateway: Gateway) -> Gateway:
    """Let the cloud know a gateway's clock."""
    gateway.hello(service, at=NOON)
    gateway.hello(service, at=NOON)
    return gateway


def test_what_was_heard_in_1970_lands_in_its_own_hour(
    service: Metering, database: Database
) -> None:
    gateway = met(service, Gateway(steps=(ClockStep(seq=2, by_us=NOON + MINUTE - BOOT),)))

    ack = gateway.send(
        service,
        wmbus(5, 100, heard_at=BOOT),
        wmbus(5, 200, heard_at=NOON + HOUR),
        at=NOON + HOUR + MINUTE,
    )

    assert (ack.upto, ack.rejected) == (2, ())
    assert readings(database) == [(METER, NOON, 100), (METER, NOON + HOUR, 200)]
    assert rows_of(database, CLOCKS) == [(TRUSTED,), (TRUSTED,)]


def test_a_clock_an_hour_ahead_that_is_put_right_before_sending_moves_no_reading(
    service: Metering, database: Database
) -> None:
    gateway = met(service, Gateway(steps=(ClockStep(seq=2, by_us=-HOUR),)))

    gateway.send(service, wmbus(5, 100, heard_at=NOON + HOUR), at=NOON + 2 * HOUR)

    assert readings(database) == [(METER, NOON, 100)]
    assert rows_of(database, CLOCKS) == [(TRUSTED,)]


def test_the_clock_that_sends_is_corrected_too(service: Metering, database: Database) -> None:
    gateway = met(service, Gateway(ahead=40 * MINUTE, steps=(ClockStep(seq=2, by_us=-HOUR),)))

    gateway.send(service, wmbus(5, 100, heard_at=NOON + HOUR + 30 * MINUTE), at=NOON + 2 * HOUR)

    assert readings(database) == [(METER, NOON, 100)]


def test_where_nobody_knows_the_reading_is_kept_and_not_trusted(
    service: Metering, database: Database
) -> None:
    guess = ClockStep(seq=2, by_us=NOON + MINUTE - BOOT, doubt_us=NOBODY_KNOWS_US)
    gateway = met(service, Gateway(steps=(guess,)))

    ack = gateway.send(
        service,
        wmbus(5, 100, heard_at=BOOT),
        wmbus(5, 200, heard_at=NOON + HOUR),
        at=NOON + HOUR + MINUTE,
    )

    assert ack.rejected == ()
    assert readings(database) == [(METER, NOON, 100), (METER, NOON + HOUR, 200)]
    assert rows_of(database, CLOCKS) == [(UNTRUSTED,), (TRUSTED,)]


def test_an_alert_of_1970_is_dated_by_the_clock_as_it_was_set(
    service: Metering, database: Database
) -> None:
    gateway = met(service, Gateway(steps=(ClockStep(seq=2, by_us=NOON - BOOT),)))

    ack = gateway.send(service, anomaly(METER, at=BOOT, started_at=BOOT), at=NOON + MINUTE)

    assert ack.rejected == ()
    assert rows_of(
        database, "SELECT (extract(epoch FROM opened_at) * 1000000)::bigint FROM alerts"
    ) == [(NOON,)]


def test_a_refused_row_is_tried_again_in_its_own_hour(
    service: Metering, database: Database
) -> None:
    gateway = met(service, Gateway(steps=(ClockStep(seq=2, by_us=-HOUR),)))
    stranger = str(wmbus_meter(6))
    ack = gateway.send(service, wmbus(6, 100, heard_at=NOON + HOUR), at=NOON + 2 * HOUR)
    assert [seq for seq, _ in ack.rejected] == [1]
    import_keys(service, stranger)

    assert service.replay(1).code is None

    assert readings(database) == [(stranger, NOON, 100)]


@pytest.mark.parametrize("behind", [20 * MINUTE, -20 * MINUTE, 0])
def test_a_network_servers_own_time_is_not_corrected_by_the_gateways_clock(
    service: Metering, database: Database, behind: int
) -> None:
    gateway = met(service, Gateway(ahead=-behind))
    heard_at = NOON + HOUR
    row = lorawan(1, [110, 100], at=NOON, heard_at=heard_at + behind)  # `hear` takes it off again
    row = replace(row, flags=row.flags | RowFlag.FOREIGN_CLOCK)

    ack = gateway.send(service, row, at=heard_at + 2 * MINUTE)

    assert ack.rejected == ()
    assert [litres for _, _, litres in readings(database)] == [100, 110]
    assert rows_of(
        database, "SELECT (extract(epoch FROM heard_at) * 1000000)::bigint FROM receptions"
    ) == [(heard_at,)]


def test_absurd_steps_move_nothing_out_of_what_a_column_holds() -> None:
    steps = [ClockStep(seq=n + 1, by_us=BY_MAX_US) for n in range(64)]

    heard_at, doubtful = clock_steps.moved(
        np.array([(1 << 63) - 1, -(1 << 63)]), np.array([0, 70]), steps
    )

    assert heard_at.tolist() == [2 * BY_MAX_US, -BY_MAX_US]
    assert doubtful.tolist() == [False, False]


def test_each_row_of_a_batch_is_judged_by_its_own_clock() -> None:
    heard_at, verdict = rules.corrected_heard_at(
        np.array([NOON + HOUR, NOON + HOUR]),
        correction_us=0,
        trusted=np.array([True, False]),
        received_at=NOON,
    )

    assert verdict.tolist() == [rules.FUTURE, rules.ACCEPTED]
    assert heard_at.tolist() == [NOON, NOON]
