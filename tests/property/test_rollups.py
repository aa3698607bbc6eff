"""Daily consumption adds up, in whatever order readings and their events arrive."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.kernel.db import Database
from cloud.kernel.events import Event, arrow_events, uuid7
from cloud.metering.events import READING_RECORDED
from cloud.metering.rollups import roll_up

START = datetime(2026, 2, 26, 3, tzinfo=UTC)  # before local midnight, across a month's end
DAYS = 6

hours_of_readings = st.lists(
    st.integers(0, DAYS * 24 - 1), min_size=1, max_size=40, unique=True
).map(sorted)


def recorded(meter_key: int, points: list[tuple[datetime, int]]) -> list[Event]:
    instants = [round(at.timestamp() * 1e6) for at, _ in points]
    count = len(points)
    columns: dict[str, Any] = {
        "meter_key": np.full(count, meter_key, dtype=np.int64),
        "register_at": np.array(instants, dtype=np.int64),
        "register_l": np.array([litres for _, litres in points], dtype=np.int64),
        "heard_at": np.array(instants, dtype=np.int64),
        "batch_key": np.ones(count, dtype=np.int64),
        "batch_row": np.zeros(count, dtype=np.int32),
        "clock": np.zeros(count, dtype=np.int16),
        "quality": np.zeros(count, dtype=np.int16),
    }
    return arrow_events(
        READING_RECORDED,
        columns,
        new_id=lambda: uuid7(instants[0], os.urandom(10)),
        source="metering",
        time=instants[0],
    )


def store(
    connection: psycopg.Connection[Any], key: int, points: list[tuple[datetime, int]]
) -> None:
    for at, litres in points:
        day = at.replace(hour=0, minute=0, second=0)
        connection.execute(
            "SELECT ensure_partition('readings', %s, %s, %s)",
            [f"readings_{day:%Y%m%d}", day, day + timedelta(days=1)],
        )
        connection.execute(
            """INSERT INTO readings (meter_key, register_at, register_l, heard_at, batch_key,
                   batch_row, kind, clock, quality) VALUES (%s, %s, %s, %s, 1, 0, 1, 0, 0)""",
            [key, at, litres, at],
        )


def a_meter(connection: psycopg.Connection[Any]) -> int:
    made = connection.execute(
        "INSERT INTO meters (administration, created_at) VALUES ('q', now()) RETURNING meter_key"
    ).fetchone()
    assert made is not None
    return int(made[0])


def days(connection: psycopg.Connection[Any], key: int) -> list[tuple[Any, ...]]:
    return connection.execute(
        """SELECT day_on, first_register_l, next_register_l, readings FROM readings_daily
           WHERE meter_key = %s ORDER BY day_on""",
        [key],
    ).fetchall()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hours=hours_of_readings, seed=st.randoms(use_true_random=False))
def test_days_add_up_and_the_order_of_events_does_not_matter(
    module_database: Database, hours: list[int], seed: Any
) -> None:
    with module_database.connect("metering") as connection:
        key = a_meter(connection)
        points = [(START + timedelta(hours=h), 1000 + 7 * h) for h in hours]
        shuffled = list(points)
        seed.shuffle(shuffled)
        half = len(shuffled) // 2
        for part in (shuffled[:half], shuffled[half:]):
            if part:
                store(connection, key, part)
                roll_up(connection, recorded(key, part))
        once = days(connection, key)
        roll_up(connection, recorded(key, points))

        assert days(connection, key) == once
        used = [after - before for _, before, after, _ in once if after is not None]
        assert sum(used) == once[-1][1] - once[0][1]
        assert sum(count for *_, count in once) == len(points)
        assert once[-1][2] is None
        assert all(a[2] == b[1] for a, b in pairwise(once))
