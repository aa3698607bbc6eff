"""Alerts in PostgreSQL. The caller holds the state row of the meter, so reports come one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, LiteralString

import psycopg
from psycopg.rows import dict_row

from cloud.kernel.clock import to_us
from cloud.metering import alerts
from cloud.metering.model import DAY_US, Alert, Anomaly, Gateway
from cloud.metering.store import storable

Connection = psycopg.Connection[Any]

_OVERLAPPING_LOOKED_AT = 16  # newest alerts of one meter and kind


def report(
    connection: Connection,
    anomaly: Anomaly,
    *,
    meter_key: int,
    gateway: Gateway,
    received_at: int,
) -> Alert | None:
    """Record what a gateway says of an episode; return the alert when its readers should know.

    A meter that is silent to one gateway and heard by another is not silent: nothing is recorded.
    Nor is what a nightly scan says of a meter whose leak is an open alert already, by any gateway.
    """
    if anomaly.kind == alerts.SILENT and _heard_since(connection, anomaly, meter_key=meter_key):
        return None
    alert = _alert_of(connection, anomaly, meter_key=meter_key)
    if alert is None and _is_known_water(connection, anomaly, meter_key=meter_key):
        return None
    result = alerts.outcome(anomaly, alert)
    values = {
        "level": result.level,
        "state": result.state,
        "rate_lph": result.rate_lph,
        "litres": result.litres,
        "started_at": storable(result.started_at),
        "closed_at": None if result.closed_at is None else storable(result.closed_at),
        "updated_at": storable(received_at),
        "opened_at": storable(anomaly.detected_at),
        "meter_key": meter_key,
        "gateway_key": gateway.gateway_key,
        "kind": anomaly.kind,
        "alert_key": result.alert_key,
    }
    now = _alerts(connection, _INSERT if alert is None else _UPDATE, values)[0]
    connection.execute(
        """INSERT INTO alert_episodes AS e VALUES (%s, %s, %s, %s)
           ON CONFLICT (episode) DO UPDATE SET state = excluded.state WHERE e.state = 'open'""",
        [anomaly.episode, now.alert_key, gateway.gateway_key, anomaly.state],
    )
    return now if result.changed else None


def _heard_since(connection: Connection, anomaly: Anomaly, *, meter_key: int) -> bool:
    """Say whether somebody has heard the meter a day or more after it fell silent to this one."""
    if anomaly.state == "closed":
        return False
    heard = connection.execute(
        "SELECT last_heard_at FROM meter_state WHERE meter_key = %s", [meter_key]
    ).fetchone()
    later = storable(anomaly.started_at + DAY_US)
    return heard is not None and heard[0] is not None and heard[0] >= later


def _is_known_water(connection: Connection, anomaly: Anomaly, *, meter_key: int) -> bool:
    """Say whether a scan's episode without an alert is one that an open alert stands for."""
    if anomaly.kind not in alerts.SCANNED:
        return False
    known = connection.execute(
        """SELECT 1 FROM alerts
            WHERE meter_key = %s AND kind = ANY(%s) AND state = 'open' LIMIT 1""",
        [meter_key, list(alerts.SAME_WATER)],
    ).fetchone()
    return known is not None


def _alert_of(connection: Connection, anomaly: Anomaly, *, meter_key: int) -> Alert | None:
    known = _alerts(connection, _BY_EPISODE, {"episode": anomaly.episode})
    if known:
        return known[0]
    of_meter = {"meter_key": meter_key, "kind": anomaly.kind, "limit": _OVERLAPPING_LOOKED_AT}
    return alerts.same_leak(anomaly, _alerts(connection, _OF_METER, of_meter))


_BY_EPISODE = """SELECT a.* FROM alerts a JOIN alert_episodes USING (alert_key)
    WHERE episode = %(episode)s"""
_OF_METER = """SELECT * FROM alerts WHERE meter_key = %(meter_key)s AND kind = %(kind)s
    ORDER BY (state = 'open') DESC, opened_at DESC LIMIT %(limit)s"""
_INSERT = """INSERT INTO alerts (meter_key, gateway_key, kind, level, state, rate_lph, litres,
        started_at, opened_at, updated_at, closed_at)
    VALUES (%(meter_key)s, %(gateway_key)s, %(kind)s, %(level)s, %(state)s, %(rate_lph)s,
        %(litres)s, %(started_at)s, %(opened_at)s, %(updated_at)s, %(closed_at)s)
    RETURNING *"""
_UPDATE = """UPDATE alerts SET level = %(level)s, state = %(state)s, rate_lph = %(rate_lph)s,
        litres = %(litres)s, started_at = %(started_at)s, closed_at = %(closed_at)s,
        updated_at = %(updated_at)s
    WHERE alert_key = %(alert_key)s
    RETURNING *"""


def _alerts(
    connection: Connection, statement: LiteralString, values: Mapping[str, Any]
) -> list[Alert]:
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(statement, values).fetchall()
    return [
        Alert(
            alert_key=row["alert_key"],
            meter_key=row["meter_key"],
            kind=row["kind"],
            level=row["level"],
            state=row["state"],
            rate_lph=row["rate_lph"],
            litres=row["litres"],
            started_at=to_us(row["started_at"]),
            opened_at=to_us(row["opened_at"]),
            closed_at=None if row["closed_at"] is None else to_us(row["closed_at"]),
        )
        for row in rows
    ]
