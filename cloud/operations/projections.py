"""Operations' own picture of the flow, made from what metering publishes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from cloud.kernel.events import Event

Connection = psycopg.Connection[Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR_US = 3_600_000_000


def count_recorded(connection: Connection, events: Sequence[Event]) -> None:
    """Add recorded readings to the hour in which they arrived."""
    hours: dict[int, tuple[int, int, int]] = defaultdict(lambda: (0, 0, 0))
    for event in events:
        hour = event.time // HOUR_US * HOUR_US
        count, rows, newest = hours[hour]
        hours[hour] = (count + 1, rows + event.rows, max(newest, event.last_at or 0))
    with connection.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO recorded_hours AS h (hour_at, events, readings, newest_at)
               VALUES (%s, %s, %s, %s)
               ON CONFLICT (hour_at) DO UPDATE SET events = h.events + excluded.events,
                   readings = h.readings + excluded.readings,
                   newest_at = greatest(h.newest_at, excluded.newest_at)""",
            [
                (instant(hour), count, rows, instant(newest))
                for hour, (count, rows, newest) in sorted(hours.items())
            ],
        )


def tell_alerts(connection: Connection, events: Sequence[Event]) -> None:
    """Append each state of an alert to the feed."""
    with connection.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO alert_feed
                   (alert, meter_key, administration, kind, level, state, told_at)
               VALUES (%(alert)s, %(meter_key)s, %(administration)s, %(kind)s, %(level)s,
                       %(state)s, %(told_at)s)""",
            [{**event.body(), "told_at": instant(event.time)} for event in events],
        )


def instant(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)
