"""Readings in PostgreSQL: one sorted merge for each batch, and the newest register of each meter.

Writers lock the state rows of all meters of a batch in meter_key order. Under that lock a reading
newer than its meter's state is new for certain, and only the others are compared with what is
stored. What is new goes in key order straight into the table; where a state turned out to be
behind, COPY → temporary table → INSERT … ORDER BY key ON CONFLICT DO NOTHING (docs/adr/0011).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from psycopg import sql

from cloud.kernel.clock import from_us
from cloud.metering import copying
from cloud.metering.copying import POSTGRES_EPOCH_US, copy_rows, instants, whole
from cloud.metering.model import (
    DAY_US,
    KIND_TOTAL,
    NEVER,
    Bools,
    Conflict,
    Int64s,
    Readings,
    States,
)
from decoders.value import value

Connection = psycopg.Connection[Any]

_TEMPORARY = """
CREATE TEMPORARY TABLE IF NOT EXISTS incoming (meter_key bigint, register_at timestamptz,
    register_l bigint, heard_at timestamptz, batch_row integer, clock smallint, quality smallint)
    ON COMMIT DELETE ROWS;
CREATE TEMPORARY TABLE IF NOT EXISTS claimed (n integer, meter_key bigint, register_at timestamptz)
    ON COMMIT DELETE ROWS;
"""

_MATCH = np.dtype(
    [
        ("count", ">i2"),
        *(
            field
            for name, size in [
                ("n", 4),
                ("register_l", 8),
                ("heard_at", 8),
                ("clock", 2),
                ("batch_key", 8),
                ("batch_row", 4),
            ]
            for field in ((f"{name}_length", ">i4"), (name, f">i{size}"))
        ),
    ]
)
"""A row of the binary COPY of `_stored_like`: six fields, none NULL."""

_MINUS_INFINITY = -(1 << 63)  # of timestamptz, on the wire
_SILENT = -(1 << 63)  # stands for no info code
_COPY_HEADER_BYTES = 19
_COPY_TRAILER_BYTES = 2


class StateBehind(Exception):
    """Readings newer than their meter's state are stored already: somebody wrote past the lock."""

    def __init__(self, *, given: int, inserted: int) -> None:
        super().__init__(f"{given} readings should be new, {inserted} were")


@value
class Stored:
    """What is stored under the keys of some readings: `place[i]` is the index of the reading."""

    place: Int64s
    readings: Readings
    batch_key: Int64s


def prepare(connection: Connection) -> None:
    """Make the temporary tables of a fresh connection, and teach it to send keys."""
    connection.adapters.register_dumper(np.ndarray, copying.KeysDumper)
    connection.adapters.register_dumper(copying.Instants, copying.InstantsDumper)
    connection.execute(_TEMPORARY)


def ensure_partitions(
    connection: Connection, *, register_at: Int64s, heard_at: Int64s, known: set[int]
) -> None:
    """Make the day and month partitions these instants need; `known` days are skipped.

    The caller commits before anything else is locked.
    """
    days = set(np.unique(register_at // DAY_US).tolist()) - known
    for day in sorted(days):
        connection.execute("SELECT ensure_reading_day(%s)", [from_us(day * DAY_US)])
    heard_days = {-1 - day for day in np.unique(heard_at // DAY_US).tolist()} - known
    months = {from_us((-1 - day) * DAY_US).replace(day=1) for day in heard_days}
    for month in sorted(months):
        connection.execute("SELECT ensure_reception_month(%s)", [month])
    known |= days | heard_days


def lock_states(connection: Connection, meter_keys: Int64s) -> States:
    """Lock the state rows of these meters (distinct, rising) and return them.

    Raises StateBehind when one is gone: an import has just joined it to another meter.
    """
    with connection.cursor(binary=True) as cursor:
        cursor.execute(
            """SELECT array_agg(meter_key), array_agg(last_at), array_agg(last_register_l)
               FROM (SELECT meter_key, coalesce(last_at, '-infinity') AS last_at,
                         coalesce(last_register_l, 0) AS last_register_l
                     FROM meter_state WHERE meter_key = ANY (%s)
                     ORDER BY meter_key FOR NO KEY UPDATE) locked""",
            [meter_keys],
        )
        result = cursor.pgresult
        assert result is not None
        arrays = [result.get_value(0, place) for place in range(3)]
    found, last_at, last_register_l = (
        np.zeros(0, np.int64) if array is None else copying.elements_of(array) for array in arrays
    )
    if len(found) != len(meter_keys):
        raise StateBehind(given=len(meter_keys), inserted=len(found))
    return States(
        meter_key=found,
        last_at=np.where(last_at == _MINUS_INFINITY, NEVER, last_at + POSTGRES_EPOCH_US),
        last_register_l=last_register_l,
    )


def stored_like(connection: Connection, readings: Readings) -> Stored:
    """Return what is stored under the keys of these readings."""
    if not len(readings):
        return _stored(np.zeros(0, _MATCH), readings)
    columns = {
        "n": whole("int4", np.arange(len(readings), dtype=np.int32)),
        "meter_key": whole("int8", readings.meter_key),
        "register_at": instants(readings.register_at),
    }
    copy_rows(connection, "claimed", columns)
    # literal bounds let the planner leave out every other day
    statement = sql.SQL(
        """COPY (SELECT c.n, r.register_l, r.heard_at, r.clock, r.batch_key, r.batch_row
                 FROM claimed c JOIN readings r ON r.meter_key = c.meter_key
                     AND r.register_at = c.register_at AND r.kind = {kind}
                 WHERE r.register_at BETWEEN {first} AND {last})
           TO STDOUT (FORMAT binary)"""
    ).format(
        kind=sql.Literal(KIND_TOTAL),
        first=sql.Literal(from_us(int(readings.register_at.min()))),
        last=sql.Literal(from_us(int(readings.register_at.max()))),
    )
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        stream = b"".join(bytes(part) for part in copy)
    body = stream[_COPY_HEADER_BYTES:-_COPY_TRAILER_BYTES]
    return _stored(np.frombuffer(body, _MATCH), readings)


def insert(
    connection: Connection, readings: Readings, *, batch_key: int, certain: bool = False
) -> None:
    """Add readings whose keys are free, in key order. Raises StateBehind when one was not.

    certain   the state lock says that they are free: they go straight into the table, which costs
              half as much as the merge. Where that is wrong, the transaction has failed.
    """
    n = len(readings)
    if not n:
        return
    columns = _columns(readings)
    if certain:
        columns["batch_key"] = whole("int8", np.full(n, batch_key, np.int64))
        columns["kind"] = whole("int2", np.full(n, KIND_TOTAL, np.int16))
        try:
            copy_rows(connection, "readings", columns)
        except psycopg.errors.UniqueViolation:
            raise StateBehind(given=n, inserted=0) from None
        return
    copy_rows(connection, "incoming", columns)
    inserted = connection.execute(
        """INSERT INTO readings (meter_key, register_at, register_l, heard_at, batch_key,
                batch_row, kind, clock, quality)
            SELECT meter_key, register_at, register_l, heard_at, %s, batch_row, %s, clock, quality
            FROM incoming ORDER BY meter_key, register_at ON CONFLICT DO NOTHING""",
        [batch_key, KIND_TOTAL],
    ).rowcount
    if inserted != n:
        raise StateBehind(given=n, inserted=inserted)


def replace(connection: Connection, readings: Readings, *, batch_key: int) -> None:
    """Put readings in the place of what is stored under their keys."""
    if not len(readings):
        return
    connection.execute(
        """UPDATE readings r SET register_l = u.register_l,
                heard_at = 'epoch'::timestamptz + u.heard_at * interval '1 microsecond',
                batch_key = %s, batch_row = u.batch_row, clock = u.clock, quality = u.quality
            FROM unnest(%s::bigint[], %s::timestamptz[], %s::bigint[], %s::bigint[], %s::int[],
                %s::smallint[], %s::smallint[])
                AS u (meter_key, register_at, register_l, heard_at, batch_row, clock, quality)
            WHERE r.meter_key = u.meter_key AND r.register_at = u.register_at
              AND r.kind = %s""",
        [
            batch_key,
            readings.meter_key.tolist(),
            [from_us(at) for at in readings.register_at.tolist()],
            readings.register_l.tolist(),
            readings.heard_at.tolist(),
            readings.row.tolist(),
            readings.clock.tolist(),
            readings.quality.tolist(),
            KIND_TOTAL,
        ],
    )


def save_states(
    connection: Connection,
    *,
    meter_key: Int64s,
    last_at: Int64s,
    last_register_l: Int64s,
    heard_at: Int64s,
    info_code: Int64s,
    has_info: Bools,
    received_at: int,
) -> None:
    """Bring the locked states up to date. Columns (meters,); last_at NEVER = no newer reading."""
    connection.execute(
        """UPDATE meter_state s SET
               last_at = CASE WHEN n.last_at = %(never)s THEN s.last_at ELSE n.last_at END,
               last_register_l = CASE WHEN n.last_at = %(never)s
                                      THEN s.last_register_l ELSE n.last_register_l END,
               last_heard_at = greatest(s.last_heard_at, n.heard_at),
               last_received_at = %(received_at)s,
               info_code = CASE WHEN n.info_code = %(silent)s OR s.info_at > n.heard_at
                                THEN s.info_code ELSE n.info_code END,
               info_at = CASE WHEN n.info_code = %(silent)s OR s.info_at > n.heard_at
                              THEN s.info_at ELSE n.heard_at END
           FROM unnest(%(meter_key)s::bigint[], %(last_at)s::timestamptz[],
                    %(last_register_l)s::bigint[], %(heard_at)s::timestamptz[],
                    %(info_code)s::bigint[])
                AS n (meter_key, last_at, last_register_l, heard_at, info_code)
           WHERE s.meter_key = n.meter_key""",
        {
            "meter_key": meter_key,
            "last_at": copying.Instants(values=np.where(last_at == NEVER, 0, last_at)),
            "never": from_us(0),
            "last_register_l": last_register_l,
            "heard_at": copying.Instants(values=heard_at),
            "info_code": np.where(has_info, info_code, _SILENT),
            "silent": _SILENT,
            "received_at": from_us(received_at),
        },
    )


def record_conflict(connection: Connection, conflict: Conflict, *, detected_at: int) -> bool:
    """Record two values for one instant; False when they were recorded before."""
    return bool(
        connection.execute(
            """INSERT INTO reading_conflicts (meter_key, register_at, kind, kept_l, other_l,
                   kept_batch_key, kept_batch_row, other_batch_key, other_batch_row, rule,
                   detected_at)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING""",
            [
                conflict.meter_key,
                from_us(conflict.register_at),
                KIND_TOTAL,
                conflict.kept_l,
                conflict.other_l,
                conflict.kept_batch_key,
                conflict.kept_batch_row,
                conflict.other_batch_key,
                conflict.other_batch_row,
                conflict.rule,
                from_us(detected_at),
            ],
        ).rowcount
    )


def _columns(readings: Readings) -> dict[str, copying.Column]:
    return {
        "meter_key": whole("int8", readings.meter_key),
        "register_at": instants(readings.register_at),
        "register_l": whole("int8", readings.register_l),
        "heard_at": instants(readings.heard_at),
        "batch_row": whole("int4", readings.row),
        "clock": whole("int2", readings.clock),
        "quality": whole("int2", readings.quality),
    }


def _stored(matches: npt.NDArray[Any], readings: Readings) -> Stored:
    place = matches["n"].astype(np.int64)
    return Stored(
        place=place,
        batch_key=matches["batch_key"].astype(np.int64),
        readings=Readings(
            meter_key=readings.meter_key[place],
            register_at=readings.register_at[place],
            register_l=matches["register_l"].astype(np.int64),
            heard_at=matches["heard_at"].astype(np.int64) + POSTGRES_EPOCH_US,
            row=matches["batch_row"].astype(np.int32),
            clock=matches["clock"].astype(np.int16),
            quality=np.zeros(len(place), np.int16),
        ),
    )
