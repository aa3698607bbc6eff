"""Daily consumption, stored: from a local day's first register to the next day's first register.

Days add up: what ran over midnight, or in a gap of days, is in the day before the next register.
Where a register fell between the two (a new meter, or one turned back), nobody knows how much ran:
the day says so (`went_back`) and has no litres.
A projection of `reading.recorded`, recomputed from the readings themselves, so that handling an
event twice, or two events in another order, ends in the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import psycopg

from cloud.kernel.events import Event
from cloud.metering.intervals import day_start, local_day

HOUR_US = 3_600_000_000
DAY = timedelta(days=1)

Connection = psycopg.Connection[Any]
MeterDay = tuple[int, date]  # meter_key, local date

_DAYS_BEFORE = """
SELECT a.meter_key, p.day_on
FROM unnest(%(meters)s::bigint[], %(days)s::date[]) AS a (meter_key, day_on)
CROSS JOIN LATERAL (SELECT day_on FROM readings_daily d
                    WHERE d.meter_key = a.meter_key AND d.day_on < a.day_on
                    ORDER BY d.day_on DESC LIMIT 1) p
"""

_RECOMPUTE = """
INSERT INTO readings_daily AS d
    (meter_key, day_on, first_at, first_register_l, next_at, next_register_l, readings, late,
     went_back)
SELECT a.meter_key, a.day_on, f.register_at, f.register_l, n.register_at, n.register_l,
       c.readings, c.late, coalesce(c.fell, false) OR coalesce(n.register_l < c.last_l, false)
FROM unnest(%(meters)s::bigint[], %(days)s::date[], %(begins)s::timestamptz[],
            %(ends)s::timestamptz[]) AS a (meter_key, day_on, begin_at, end_at)
CROSS JOIN LATERAL (SELECT register_at, register_l FROM readings r
                    WHERE r.meter_key = a.meter_key AND r.kind = 1
                      AND r.register_at >= a.begin_at AND r.register_at < a.end_at
                    ORDER BY r.register_at LIMIT 1) f
CROSS JOIN LATERAL (SELECT count(*)::int AS readings, bool_or(quality & 1 <> 0) AS late,
                           bool_or(register_l < before_l) AS fell,
                           (array_agg(register_l ORDER BY register_at DESC))[1] AS last_l
                    FROM (SELECT r.register_at, r.register_l, r.quality,
                                 lag(r.register_l) OVER (ORDER BY r.register_at) AS before_l
                          FROM readings r WHERE r.meter_key = a.meter_key AND r.kind = 1
                            AND r.register_at >= a.begin_at AND r.register_at < a.end_at) one) c
LEFT JOIN LATERAL (SELECT register_at, register_l FROM readings r
                   WHERE r.meter_key = a.meter_key AND r.kind = 1 AND r.register_at >= a.end_at
                   ORDER BY r.register_at LIMIT 1) n ON true
ORDER BY a.meter_key, a.day_on
ON CONFLICT (meter_key, day_on) DO UPDATE
SET (first_at, first_register_l, next_at, next_register_l, readings, late, went_back) =
    (excluded.first_at, excluded.first_register_l, excluded.next_at, excluded.next_register_l,
     excluded.readings, excluded.late, excluded.went_back)
WHERE (d.first_at, d.first_register_l, d.next_at, d.next_register_l, d.readings, d.late,
       d.went_back)
      IS DISTINCT FROM
      (excluded.first_at, excluded.first_register_l, excluded.next_at, excluded.next_register_l,
       excluded.readings, excluded.late, excluded.went_back)
"""


def roll_up(connection: Connection, events: Sequence[Event]) -> None:
    """Bring the days that some `reading.recorded` events touch up to date."""
    touched = {day for event in events for day in days_of(event)}
    if touched:
        recompute(connection, touched)


def days_of(event: Event) -> set[MeterDay]:
    """Return the meters and local days in one event."""
    columns = event.columns()
    hours = np.stack([columns["meter_key"], columns["register_at"] // HOUR_US], axis=1)
    return {(int(key), _day_of_hour(int(hour))) for key, hour in np.unique(hours, axis=0)}


def recompute(connection: Connection, days: Iterable[MeterDay]) -> None:
    """Write the roll-ups of `days`, and of each meter's day before, whose end they are."""
    asked = set(days)
    meters, dates = zip(*sorted(asked), strict=True)
    before = connection.execute(_DAYS_BEFORE, {"meters": list(meters), "days": list(dates)})
    asked.update((key, day) for key, day in before.fetchall())
    meters, dates = zip(*sorted(asked), strict=True)
    connection.execute(
        _RECOMPUTE,
        {
            "meters": list(meters),
            "days": list(dates),
            "begins": [day_start(day) for day in dates],
            "ends": [day_start(day + DAY) for day in dates],
        },
    )


@lru_cache(maxsize=4096)
def _day_of_hour(hour: int) -> date:
    return local_day(datetime.fromtimestamp(hour * 3600, tz=UTC))
