"""Keeping the PostgreSQL log: days made ahead, old days dropped, a restored log re-based."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import psycopg
from psycopg import sql

from cloud.kernel.bus import START, Connection, Subscription, Token
from cloud.kernel.wire import BUNDLE_EVENTS_MAX

DAYS_AHEAD: Final = 3
"""Today and the next two: upkeep runs every hour, and two days of it may fail."""

DAYS_KEPT: Final = 3
"""Whole past days kept although every consumer is past them, for who wants to look back."""

LOCK_TIMEOUT: Final = "2s"
"""Dropping a day waits for readers, and publishers wait for it: rather try again in an hour."""


class Database(Protocol):
    """What upkeep needs of `cloud.kernel.db`."""

    def connect(self, context: str) -> Connection:
        """Return a new connection as the login role of `context`."""


def keep(database: Database, sources: Sequence[str], consumers: Sequence[Subscription]) -> int:
    """Make the coming days of every source's log, drop the old ones; return how many went.

    consumers   *every* subscription there is, also those that other processes run: a day goes
                only when each of them is past it

    Raises `psycopg.Error`; then call it again later.
    """
    dropped = 0
    for source in sources:
        slowest = min(_positions(database, source, consumers), default=START)
        with database.connect(source) as connection:
            connection.execute(sql.SQL("SET lock_timeout = {}").format(LOCK_TIMEOUT))
            connection.execute("SELECT outbox_make_partitions(current_date, %s)", (DAYS_AHEAD,))
            connection.commit()
            row = connection.execute(
                "SELECT outbox_drop_partitions(current_date - %s, %s::text::xid8, %s)",
                (DAYS_KEPT, str(slowest[0]), slowest[1]),
            ).fetchone()
            assert row is not None
            dropped += row[0]
    return dropped


def _positions(
    database: Database, source: str, consumers: Sequence[Subscription]
) -> Iterable[Token]:
    """Yield where each subscription stands in a source's log; at its start if it never began."""
    for each in consumers:
        with database.connect(each.consumer) as connection:
            row = connection.execute(
                "SELECT xid::text::bigint, id FROM inbox"
                " WHERE subscription = %s AND partition = %s",
                (each.name, source),
            ).fetchone()
        yield START if row is None else (row[0], row[1])


def rebase(administrator: psycopg.Connection[Any], contexts: Sequence[str]) -> int:
    """Give a restored log transaction ids that sort before every one to come; return its length.

    A new cluster counts transactions from the start again: an old event's xid would be above the
    commit horizon for months, and then between new ones. Each old event becomes (0, n) with n its
    rank, and each reader's position the n of the last event it had handled; all of it in one
    transaction, and safe to do again with a log that was restored before.
    Source: PostgreSQL documentation, pg_current_xact_id: unique within one cluster's life.
    """
    with administrator.transaction():
        return sum(_rebase_one(administrator, source, contexts) for source in contexts)


def _rebase_one(administrator: psycopg.Connection[Any], source: str, readers: Sequence[str]) -> int:
    """Rebase one context's log. Its ids are set in two steps, the first below zero, because an
    earlier restore may have given out the same ones."""
    log = sql.Identifier(source, "outbox")
    for reader in readers:
        inbox = sql.Identifier(reader, "inbox")
        statement = _REBASE_INBOX.format(inbox=inbox, log=log, most=BUNDLE_EVENTS_MAX)
        administrator.execute(statement, (source,))
    moved = administrator.execute(_REBASE_LOG.format(log=log)).fetchone()
    administrator.execute(sql.SQL("UPDATE {log} SET id = -id").format(log=log))
    assert moved is not None
    return int(moved[0])


# A row's id is that of the last of its events: a reader may stand in the middle of one.
_REBASE_INBOX: Final = sql.SQL(
    """UPDATE {inbox} i SET xid = '0', id = (
           SELECT coalesce(sum(CASE WHEN o.xid < i.xid THEN o.events ELSE
                                    least(o.events, greatest(0, i.id - o.id + o.events)) END), 0)
           FROM {log} o
           WHERE (o.xid, o.id) < (i.xid, i.id + {most}))
       WHERE partition = %s"""
)
_REBASE_LOG: Final = sql.SQL(
    """WITH moved AS (
           UPDATE {log} o SET xid = '0', id = -r.place
           FROM (SELECT xid, id, sum(events) OVER (ORDER BY xid, id) AS place FROM {log}) r
           WHERE (o.xid, o.id) = (r.xid, r.id)
           RETURNING o.events)
       SELECT coalesce(sum(events), 0) FROM moved"""
)
