"""What the network desk asks: gateways, their hours, their losses, and how the flow is doing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from psycopg.rows import dict_row

from cloud.metering.views import Connection, Row

HOURS_SHOWN = 24
LEARNED_OVER = timedelta(days=7)  # a week has every kind of day once
HOURS_OF = timedelta(hours=1)

# Frames an hour to expect: configured, or the median full hour of the last week.
_GATEWAYS = """
SELECT g.*, coalesce(s.backlog, 0)::bigint AS backlog, s.behind_since,
       coalesce(l.losses, 0)::int AS losses,
       coalesce(g.expected_per_hour, e.usual)::int AS expected,
       coalesce(h.frames, 0)::int AS received
FROM gateways g
LEFT JOIN LATERAL (SELECT greatest(0, head - upto) AS backlog,
                          CASE WHEN head > upto THEN last_heard_at END AS behind_since
                   FROM edge_streams
                   WHERE gateway_key = g.gateway_key ORDER BY seen_at DESC LIMIT 1) s ON true
LEFT JOIN LATERAL (SELECT count(*) AS losses FROM edge_losses
                   WHERE gateway_key = g.gateway_key AND certain) l ON true
LEFT JOIN LATERAL (SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY frames) AS usual
                   FROM gateway_hours WHERE gateway_key = g.gateway_key
                     AND hour_at >= %(hour_at)s - %(learned_over)s
                     AND hour_at < %(hour_at)s) e ON true
LEFT JOIN gateway_hours h ON h.gateway_key = g.gateway_key AND h.hour_at = %(hour_at)s - %(one)s
WHERE g.administration = ANY (%(administrations)s)
"""


_RECENT = """
SELECT coalesce(sum(b.frames), 0)::bigint AS frames, count(*) AS batches,
           coalesce(sum(b.rows), 0)::bigint AS rows,
           coalesce(sum(b.readings_new), 0)::bigint AS readings,
           coalesce(sum(b.readings_new + b.readings_known), 0)::bigint AS decoded,
           coalesce(sum(b.rejected), 0)::bigint AS rejected,
           percentile_disc(0.5) WITHIN GROUP (ORDER BY
               extract(epoch FROM b.received_at - b.sent_at)
               + coalesce(b.clock_offset_us, 0) / 1e6) AS send_lag_s
    FROM batches b JOIN gateways g USING (gateway_key)
    WHERE b.received_at > %(since)s AND g.administration = ANY (%(administrations)s)
"""

_TOTALS = """
SELECT (SELECT coalesce(sum(frames_total), 0) FROM gateways
            WHERE administration = ANY (%(administrations)s))::bigint AS telegrams,
           (SELECT coalesce(sum(readings_total), 0) FROM gateways
            WHERE administration = ANY (%(administrations)s))::bigint AS readings_total,
           (SELECT coalesce(sum(heard_total), 0) FROM gateways
            WHERE administration = ANY (%(administrations)s))::bigint AS heard_total,
           (SELECT count(*) FROM meters
            WHERE administration = ANY (%(administrations)s)) AS meters,
           (SELECT count(*) FROM alerts a JOIN meters m USING (meter_key)
            WHERE a.state = 'open'
              AND m.administration = ANY (%(administrations)s)) AS open_alerts,
           (SELECT count(*) FROM row_dead_letters d LEFT JOIN gateways g USING (gateway_key)
            WHERE d.state = 'open' AND (g.administration IS NULL AND %(strangers)s
                  OR g.administration = ANY (%(administrations)s))) AS dead_letters,
           (SELECT count(*) FROM alerts a JOIN meters m USING (meter_key)
            WHERE a.updated_at > %(since)s
              AND m.administration = ANY (%(administrations)s)) AS alerts_recent,
           (SELECT max(s.last_received_at) FROM meter_state s JOIN meters m USING (meter_key)
            WHERE m.administration = ANY (%(administrations)s)) AS stored_at
"""


_NEWEST_BATCH = """
SELECT xid::text, id FROM outbox WHERE type = 'reading.recorded' ORDER BY xid DESC, id DESC LIMIT 1
"""


def _rows(connection: Connection, query: str, **given: object) -> list[Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, given).fetchall()


def full_hour(at: datetime) -> datetime:
    """Return the beginning of the hour that `at` is in."""
    return at.replace(minute=0, second=0, microsecond=0)


def gateways(connection: Connection, *, administrations: Sequence[str], now: datetime) -> list[Row]:
    """Return gateways; `received` and `expected` are of the last full hour."""
    return _rows(
        connection,
        _GATEWAYS + " ORDER BY g.id",
        administrations=list(administrations),
        hour_at=full_hour(now),
        learned_over=LEARNED_OVER,
        one=HOURS_OF,
    )


def gateway_hours(
    connection: Connection, *, gateway_keys: Sequence[int], from_at: datetime, to_at: datetime
) -> dict[int, list[Row]]:
    """Return every hour of [from_at, to_at) for each gateway, silent ones with 0 frames."""
    rows = _rows(
        connection,
        """SELECT g.gateway_key, hour_at, coalesce(h.frames, 0) AS frames
           FROM unnest(%(keys)s::bigint[]) AS g (gateway_key)
           CROSS JOIN generate_series(%(from_at)s::timestamptz, %(last)s, '1 hour') AS hour_at
           LEFT JOIN gateway_hours h USING (gateway_key, hour_at)
           ORDER BY g.gateway_key, hour_at""",
        keys=list(gateway_keys),
        from_at=from_at,
        last=to_at - HOURS_OF,
    )
    hours: dict[int, list[Row]] = {key: [] for key in gateway_keys}
    for row in rows:
        hours[row["gateway_key"]].append(row)
    return hours


def losses(connection: Connection, *, gateway_key: int) -> list[Row]:
    return _rows(
        connection,
        """SELECT first_seq, last_seq, reason, kind, rows, certain, from_at, to_at, reported_at
           FROM edge_losses WHERE gateway_key = %(gateway_key)s ORDER BY loss_key DESC LIMIT 100""",
        gateway_key=gateway_key,
    )


def gateway_key_of(
    connection: Connection, *, administrations: Sequence[str], gateway: str
) -> int | None:
    """Return the key of a gateway by its id."""
    found = _rows(
        connection,
        """SELECT gateway_key FROM gateways
           WHERE id = %(gateway)s AND administration = ANY (%(administrations)s)""",
        gateway=gateway,
        administrations=list(administrations),
    )
    return found[0]["gateway_key"] if found else None


def reports(
    connection: Connection, *, gateway_key: int, kind: str | None, before: int, limit: int
) -> list[Row]:
    """Return what a gateway reported of itself, the last received first, below key `before`."""
    return _rows(
        connection,
        """SELECT report_key, kind, heard_at, received_at, payload FROM gateway_reports
           WHERE gateway_key = %(gateway_key)s AND report_key < %(before)s
             AND (%(kind)s::text IS NULL OR kind = %(kind)s)
           ORDER BY report_key DESC LIMIT %(limit)s""",
        gateway_key=gateway_key,
        kind=kind,
        before=before,
        limit=limit,
    )


def rejects(connection: Connection, *, gateway_key: int) -> list[Row]:
    """Return how many dead letters of each code a gateway has, the most still open first."""
    return _rows(
        connection,
        """SELECT code, count(*) FILTER (WHERE state = 'open') AS open,
                  count(*) FILTER (WHERE state = 'replayed') AS replayed,
                  count(*) FILTER (WHERE state = 'dismissed') AS dismissed,
                  max(received_at) AS last_received_at
           FROM row_dead_letters WHERE gateway_key = %(gateway_key)s
           GROUP BY code ORDER BY open DESC, last_received_at DESC, code""",
        gateway_key=gateway_key,
    )


def flow(
    connection: Connection,
    *,
    administrations: Sequence[str],
    strangers: bool,
    since: datetime,
    now: datetime,
) -> dict[str, Any]:
    """Return what went through since `since`, and the totals of the administrations.

    frames, readings, rejected   in the window
    send_lag_s, newest_at        of the window's batches: cloud's receipt minus send, corrected
    """
    given = {"administrations": list(administrations), "since": since, "strangers": strangers}
    recent = _rows(connection, _RECENT, **given)[0]
    totals = _rows(connection, _TOTALS, **given)[0]
    last = _rows(connection, _NEWEST_BATCH)
    newest = (last[0]["xid"], last[0]["id"]) if last else None
    return {**recent, **totals, "newest_event": newest, "now": now}
