"""Keeping the PostgreSQL log: days made ahead, old days dropped, a restored log re-based."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import psycopg
from psycopg import sql

from cloud.kernel.bus import START, Connection, Subscription, Token

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


def rebase(administrator: psycopg.Connection[Any], contexts: Sequence[str]) -> None:
    """Give a restored log transaction ids that sort before every one to come, in one transaction.

    A new cluster counts transactions from the start again: an old event's xid would be above the
    commit horizon for months, and then between new ones. Each old event becomes (0, n) with n its
    rank, and each reader's position the n of the last event it had handled. Safe to call twice.
    Source: PostgreSQL documentation, pg_current_xact_id: unique within one cluster's life.
    """
    with administrator.transaction():
        for source in contexts:
            log = sql.Identifier(source, "outbox")
            for consumer in contexts:
                administrator.execute(
                    sql.SQL(
                        "UPDATE {inbox} i SET xid = '0', id = (SELECT {base} + count(*) FROM {log}"
                        " WHERE xid <> '0' AND (xid, id) <= (i.xid, i.id))"
                        " WHERE partition = %s AND xid <> '0'"
                    ).format(inbox=sql.Identifier(consumer, "inbox"), base=_ranked(log), log=log),
                    (source,),
                )
            administrator.execute(
                sql.SQL(
                    "UPDATE {log} o SET xid = '0', id = r.base + r.place FROM (SELECT xid, id,"
                    " {base} AS base, row_number() OVER (ORDER BY xid, id) AS place FROM {log}"
                    " WHERE xid <> '0') r WHERE (o.xid, o.id) = (r.xid, r.id)"
                ).format(log=log, base=_ranked(log))
            )


def _ranked(log: sql.Identifier) -> sql.Composed:
    """The highest rank that an earlier `rebase` gave out."""
    return sql.SQL("(SELECT coalesce(max(id), 0) FROM {log} WHERE xid = '0')").format(log=log)
