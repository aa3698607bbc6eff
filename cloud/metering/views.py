"""What metering shows: its questions to the database, each with the caller's administrations in it.

A row of an administration that the caller does not serve does not exist here. Pages are keyset
pages: `after` is the sort key of the last row seen, and never an offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

Row = dict[str, Any]
Connection = psycopg.Connection[Any]

LATE = 1  # bit of readings.quality
NEIGHBOUR = timedelta(hours=1)  # a reading this far outside a range still closes its last hour

_METERS = """
SELECT m.meter_key, n.names, m.driver, m.administration, m.provisional, m.version, m.medium,
       s.last_at, s.last_register_l, s.last_heard_at, s.last_received_at, s.info_code,
       coalesce(a.open_alerts, 0)::int AS open_alerts
FROM meters m
CROSS JOIN LATERAL (SELECT array_agg(name ORDER BY length(name), name) AS names
                    FROM meter_names WHERE meter_key = m.meter_key) n
LEFT JOIN meter_state s USING (meter_key)
LEFT JOIN LATERAL (SELECT count(*) AS open_alerts FROM alerts
                   WHERE meter_key = m.meter_key AND state = 'open') a ON true
WHERE m.administration = ANY (%(administrations)s)
"""

_ALERTS = """
SELECT a.alert_key, a.meter_key, a.kind, a.level, a.state, a.rate_lph, a.litres, a.started_at,
       a.opened_at, a.updated_at, a.closed_at, g.id AS gateway,
       (SELECT min(name) FROM meter_names WHERE meter_key = a.meter_key) AS meter
FROM alerts a JOIN meters m USING (meter_key) JOIN gateways g USING (gateway_key)
WHERE m.administration = ANY (%(administrations)s)
"""

_RECEPTIONS = """
SELECT r.frame, r.batch_key, r.batch_row, g.id AS gateway, r.meter_key, r.heard_at, r.counter,
       r.rssi_dbm, r.snr_qdb / 4.0 AS snr_db, r.radio, r.integrity, r.key_version, r.flags,
       r.register_l, b.received_at, b.clock_quality
FROM receptions r
JOIN gateways g USING (gateway_key) JOIN batches b USING (batch_key) JOIN meters m USING (meter_key)
WHERE m.administration = ANY (%(administrations)s)
"""


def _rows(connection: Connection, query: str, **given: object) -> list[Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, given).fetchall()


def meters(
    connection: Connection,
    *,
    administrations: Sequence[str],
    search: str | None,
    after: int,
    limit: int,
) -> list[Row]:
    """Return meters by key, from `after` on; `search` matches any part of any of their names."""
    query = _METERS + " AND m.meter_key > %(after)s"
    if search:
        query += """ AND EXISTS (SELECT FROM meter_names x WHERE x.meter_key = m.meter_key
                                 AND position(upper(%(search)s) IN upper(x.name)) > 0)"""
    return _rows(
        connection,
        query + " ORDER BY m.meter_key LIMIT %(limit)s",
        administrations=list(administrations),
        search=search,
        after=after,
        limit=limit,
    )


def meter(connection: Connection, *, administrations: Sequence[str], meter_key: int) -> Row | None:
    found = _rows(
        connection,
        _METERS + " AND m.meter_key = %(meter_key)s",
        administrations=list(administrations),
        meter_key=meter_key,
    )
    return found[0] if found else None


def meter_key_of(
    connection: Connection, *, administrations: Sequence[str], name: str
) -> int | None:
    """Return the meter that bears `name` (serial with manufacturer, DevEUI, or its key)."""
    found = _rows(
        connection,
        """SELECT m.meter_key FROM meters m
           WHERE m.administration = ANY (%(administrations)s)
             AND (m.meter_key::text = %(name)s OR EXISTS (
                  SELECT FROM meter_names n WHERE n.meter_key = m.meter_key
                  AND n.name = upper(%(name)s)))""",
        administrations=list(administrations),
        name=name,
    )
    return found[0]["meter_key"] if found else None


def readings(
    connection: Connection, *, meter_key: int, from_at: datetime, to_at: datetime, limit: int
) -> list[Row]:
    """Return the readings of [from_at, to_at), oldest first, with the frame that said each."""
    return _rows(
        connection,
        """SELECT r.register_at, r.register_l, r.kind, r.quality, r.clock, r.heard_at,
                  r.batch_key, r.batch_row, b.received_at, encode(f.frame, 'hex') AS frame
           FROM readings r JOIN batches b USING (batch_key)
           LEFT JOIN receptions f ON f.meter_key = r.meter_key AND f.heard_at = r.heard_at
                                 AND f.batch_key = r.batch_key AND f.batch_row = r.batch_row
           WHERE r.meter_key = %(meter_key)s
             AND r.register_at >= %(from_at)s AND r.register_at < %(to_at)s
           ORDER BY r.register_at, r.kind LIMIT %(limit)s""",
        meter_key=meter_key,
        from_at=from_at,
        to_at=to_at,
        limit=limit,
    )


def registers(
    connection: Connection, *, meter_key: int, from_at: datetime, to_at: datetime
) -> list[Row]:
    """Return the registers of a range and of its neighbourhood, for hourly consumption."""
    return _rows(
        connection,
        """SELECT register_at, register_l, quality & %(late)s <> 0 AS late FROM readings
           WHERE meter_key = %(meter_key)s AND kind = 1
             AND register_at >= %(from_at)s AND register_at <= %(to_at)s
           ORDER BY register_at""",
        meter_key=meter_key,
        late=LATE,
        from_at=from_at - NEIGHBOUR,
        to_at=to_at + NEIGHBOUR,
    )


def days(connection: Connection, *, meter_key: int, from_on: date, to_on: date) -> list[Row]:
    """Return the stored daily roll-ups of [from_on, to_on).

    litres   None while no later register is known, and where a register fell (`went_back`)
    """
    return _rows(
        connection,
        """SELECT day_on, first_at, first_register_l, next_at, next_register_l, readings, late,
                  went_back,
                  CASE WHEN NOT went_back THEN next_register_l - first_register_l END AS litres
           FROM readings_daily WHERE meter_key = %(meter_key)s
             AND day_on >= %(from_on)s AND day_on < %(to_on)s ORDER BY day_on""",
        meter_key=meter_key,
        from_on=from_on,
        to_on=to_on,
    )


def meter_frames(
    connection: Connection,
    *,
    administrations: Sequence[str],
    meter_key: int,
    before: tuple[datetime, bytes],
    limit: int,
) -> list[Row]:
    """Return a meter's frames, each once with `last_heard_at`, the last heard first.

    before   (last_heard_at, frame) of the last one seen: what follows on it
    """
    before_at, before_frame = before
    return _rows(
        connection,
        """SELECT r.frame, r.heard_at AS last_heard_at
           FROM receptions r JOIN meters m USING (meter_key)
           WHERE m.administration = ANY (%(administrations)s) AND r.meter_key = %(meter_key)s
             AND r.heard_at <= %(before_at)s
             AND (r.heard_at, r.frame) < (%(before_at)s, %(before_frame)s)
             AND NOT EXISTS (
                 SELECT FROM receptions o WHERE o.frame = r.frame AND o.meter_key = r.meter_key
                 AND (o.heard_at, o.batch_key, o.batch_row)
                     > (r.heard_at, r.batch_key, r.batch_row))
           ORDER BY r.heard_at DESC, r.frame DESC LIMIT %(limit)s""",
        administrations=list(administrations),
        meter_key=meter_key,
        before_at=before_at,
        before_frame=before_frame,
        limit=limit,
    )


def receptions(
    connection: Connection, *, administrations: Sequence[str], frames: Sequence[bytes]
) -> list[Row]:
    """Return every reception of the given frames, in the order they were heard."""
    return _rows(
        connection,
        _RECEPTIONS + " AND r.frame = ANY (%(frames)s) ORDER BY r.heard_at, g.id",
        administrations=list(administrations),
        frames=list(frames),
    )


def reception_of(connection: Connection, *, reading: Row) -> Row | None:
    """Return the reception that a reading came in."""
    found = _rows(
        connection,
        """SELECT * FROM receptions
           WHERE meter_key = %(meter_key)s AND heard_at = %(heard_at)s
             AND batch_key = %(batch_key)s AND batch_row = %(batch_row)s""",
        **{name: reading[name] for name in ("meter_key", "heard_at", "batch_key", "batch_row")},
    )
    return found[0] if found else None


def reading_at(connection: Connection, *, meter_key: int, at: datetime) -> Row | None:
    """Return the newest reading at or before `at`, with the batch its frame came in."""
    found = _rows(
        connection,
        """SELECT r.*, b.sha256, b.received_at, b.sent_at, b.clock_offset_us, b.clock_quality,
                  b.decoder_version, b.stream, b.first_seq, g.id AS gateway, m.clock_offset_s,
                  m.administration
           FROM readings r JOIN batches b USING (batch_key) JOIN gateways g USING (gateway_key)
           JOIN meters m USING (meter_key)
           WHERE r.meter_key = %(meter_key)s AND r.register_at <= %(at)s AND r.kind = 1
           ORDER BY r.register_at DESC LIMIT 1""",
        meter_key=meter_key,
        at=at,
    )
    return found[0] if found else None


def batch(connection: Connection, *, batch_key: int) -> Row | None:
    found = _rows(
        connection, "SELECT * FROM batches WHERE batch_key = %(batch_key)s", batch_key=batch_key
    )
    return found[0] if found else None


def conflicts(connection: Connection, *, meter_key: int, at: datetime) -> list[Row]:
    return _rows(
        connection,
        """SELECT * FROM reading_conflicts WHERE meter_key = %(meter_key)s AND register_at = %(at)s
           ORDER BY conflict_key""",
        meter_key=meter_key,
        at=at,
    )


def alerts(
    connection: Connection,
    *,
    administrations: Sequence[str],
    state: str | None,
    meter_key: int | None,
    before: int,
    limit: int,
) -> list[Row]:
    """Return alerts, newest first, with a key below `before`."""
    query = _ALERTS + " AND a.alert_key < %(before)s"
    if state:
        query += " AND a.state = %(state)s"
    if meter_key is not None:
        query += " AND a.meter_key = %(meter_key)s"
    return _rows(
        connection,
        query + " ORDER BY a.alert_key DESC LIMIT %(limit)s",
        administrations=list(administrations),
        state=state,
        meter_key=meter_key,
        before=before,
        limit=limit,
    )


def dead_letters(
    connection: Connection,
    *,
    administrations: Sequence[str],
    code: str | None,
    state: str | None,
    before: int,
    limit: int,
    strangers: bool,
    gateway: str | None = None,
) -> list[Row]:
    """Return what was refused, newest first; `strangers`: of gateways nobody registered, too."""
    query = """
        SELECT d.*, g.administration FROM row_dead_letters d
        LEFT JOIN gateways g USING (gateway_key)
        WHERE (g.administration = ANY (%(administrations)s)
               OR g.administration IS NULL AND %(strangers)s)
          AND d.dead_letter_key < %(before)s"""
    if code:
        query += " AND d.code = %(code)s"
    if state:
        query += " AND d.state = %(state)s"
    if gateway:
        query += " AND g.id = %(gateway)s"
    return _rows(
        connection,
        query + " ORDER BY d.dead_letter_key DESC LIMIT %(limit)s",
        administrations=list(administrations),
        strangers=strangers,
        code=code,
        state=state,
        gateway=gateway,
        before=before,
        limit=limit,
    )


def dead_letter(
    connection: Connection,
    *,
    administrations: Sequence[str],
    dead_letter_key: int,
    strangers: bool,
) -> Row | None:
    found = dead_letters(
        connection,
        administrations=administrations,
        code=None,
        state=None,
        before=dead_letter_key + 1,
        limit=1,
        strangers=strangers,
    )
    return found[0] if found and found[0]["dead_letter_key"] == dead_letter_key else None
