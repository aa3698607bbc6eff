"""How far each outbox of each gateway is taken over, and what of them will never come.

Every function runs in the caller's transaction, under the lock of the gateway (`store`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg

from cloud.kernel.clock import to_us
from cloud.metering.model import Gateway, Loss, Stream
from cloud.metering.store import storable

Connection = psycopg.Connection[Any]


def stream_of(connection: Connection, gateway: Gateway, stream: bytes) -> Stream | None:
    """Return a stream of a gateway, None when nothing was heard of it yet."""
    row = connection.execute(
        f"{_STREAM} WHERE gateway_key = %s AND stream = %s", [gateway.gateway_key, stream]
    ).fetchone()
    return None if row is None else _stream(row)


def newest_stream(connection: Connection, gateway: Gateway) -> Stream | None:
    """Return the stream the gateway used last, by our clock: its own may have been wrong."""
    row = connection.execute(
        f"{_STREAM} WHERE gateway_key = %s ORDER BY seen_at DESC, stream_key DESC LIMIT 1",
        [gateway.gateway_key],
    ).fetchone()
    return None if row is None else _stream(row)


def streams_to_resend(connection: Connection) -> list[tuple[str, Stream]]:
    """Return (gateway id, stream) of every stream that a restored cloud asks about."""
    rows = connection.execute(
        """SELECT g.id, s.gateway_key, stream, upto, head, head_at, started_at, last_heard_at,
               resend, early::text
           FROM edge_streams s JOIN gateways g USING (gateway_key) WHERE resend ORDER BY g.id"""
    ).fetchall()
    return [(row[0], _stream(row[1:])) for row in rows]


def mark_all_for_resend(connection: Connection) -> int:
    """Ask every gateway to send again what follows on its `upto`: after a restore."""
    return connection.execute("UPDATE edge_streams SET resend = true").rowcount


def save_stream(connection: Connection, stream: Stream, *, seen_at: int) -> None:
    """Record how far a stream is taken over; its resend request is answered by any message."""
    connection.execute(
        """INSERT INTO edge_streams AS s (gateway_key, stream, upto, head, head_at, started_at,
               first_heard_at, last_heard_at, seen_at, resend, early)
           VALUES (%(key)s, %(stream)s, %(upto)s, %(head)s, %(head_at)s, %(started_at)s,
               %(heard_at)s, %(heard_at)s, %(seen_at)s, %(resend)s, %(early)s::int8multirange)
           ON CONFLICT (gateway_key, stream) DO UPDATE SET upto = excluded.upto,
               head = excluded.head, head_at = excluded.head_at,
               first_heard_at = coalesce(s.first_heard_at, excluded.first_heard_at),
               last_heard_at = coalesce(excluded.last_heard_at, s.last_heard_at),
               seen_at = greatest(s.seen_at, excluded.seen_at), resend = excluded.resend,
               early = excluded.early""",
        {
            "key": stream.gateway_key,
            "stream": stream.stream,
            "upto": stream.upto,
            "head": stream.head,
            "head_at": _optional(stream.head_at),
            "started_at": storable(stream.started_at),
            "heard_at": _optional(stream.last_heard_at),
            "seen_at": storable(seen_at),
            "resend": stream.resend,
            "early": "{" + ",".join(f"[{first},{last}]" for first, last in stream.early) + "}",
        },
    )


def record_loss(connection: Connection, gateway: Gateway, loss: Loss, *, reported_at: int) -> bool:
    """Record a loss; False when as much was known before.

    A later report of the same rows replaces the earlier one when it is certain or longer.
    """
    return bool(
        connection.execute(
            """INSERT INTO edge_losses AS l (gateway_key, stream, first_seq, last_seq, reason,
                   certain, from_at, to_at, reported_at, kind, rows, seqs)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s::int8multirange)
               ON CONFLICT (gateway_key, stream, first_seq, reason) DO UPDATE SET
                   last_seq = excluded.last_seq, certain = excluded.certain,
                   from_at = excluded.from_at, to_at = excluded.to_at,
                   reported_at = excluded.reported_at, kind = excluded.kind,
                   rows = excluded.rows, seqs = excluded.seqs
               WHERE excluded.certain AND (NOT l.certain OR excluded.last_seq > l.last_seq)""",
            [
                gateway.gateway_key,
                loss.stream,
                loss.first_seq,
                loss.last_seq,
                loss.reason,
                loss.certain,
                _optional(loss.from_at),
                _optional(loss.to_at),
                storable(reported_at),
                loss.kind,
                loss.rows,
                _multirange(loss.runs),
            ],
        ).rowcount
    )


def _multirange(runs: Sequence[tuple[int, int]]) -> str | None:
    inside = ",".join(f"[{first},{last}]" for first, last in runs)
    return f"{{{inside}}}" if runs else None


_STREAM = """SELECT gateway_key, stream, upto, head, head_at, started_at, last_heard_at, resend,
                    early::text FROM edge_streams"""

_RANGE = re.compile(r"\[(\d+),(\d+)\)")  # PostgreSQL writes whole numbers half open


def _stream(row: Sequence[Any]) -> Stream:
    key, stream, upto, head, head_at, started_at, last_heard_at, resend, early = row
    return Stream(
        gateway_key=key,
        stream=bytes(stream),
        upto=upto,
        head=head,
        head_at=None if head_at is None else to_us(head_at),
        started_at=to_us(started_at),
        last_heard_at=None if last_heard_at is None else to_us(last_heard_at),
        resend=resend,
        early=tuple((int(first), int(end) - 1) for first, end in _RANGE.findall(early)),
    )


def _optional(instant_us: int | None) -> datetime | None:
    return None if instant_us is None else storable(instant_us)
