"""The bus on PostgreSQL: each context's outbox is a log, read at the commit horizon."""

from __future__ import annotations

import logging
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate, chain
from typing import Final, Protocol

import psycopg
from psycopg import sql
from psycopg.types.numeric import Int8BinaryLoader

from cloud.kernel import deadletter, log_upkeep
from cloud.kernel.blobs import BlobStore
from cloud.kernel.bus import (
    TRANSIENT,
    Connection,
    HeldElsewhere,
    Reader,
    Retry,
    Subscription,
    Token,
    ready,
)
from cloud.kernel.events import Upcaster, received_all
from cloud.kernel.outbox import CHANNEL
from cloud.kernel.wire import BUNDLE_EVENTS_MAX, events_in, unbundled

log = logging.getLogger(__name__)

RELAY: Final = "relay"
"""The login that may read every outbox and nothing else (role aquacis_relay)."""

PAGE_EVENTS_MAX: Final = 2_000
PAGE_BYTES: Final = 8 * 1024 * 1024
"""A page is one handler call and one commit: large enough to spread the commit's cost over many
events, small enough that the handler's write transaction (which holds the horizon) stays short."""

UNKNOWN_ROWS_MAX: Final = 256
"""Rows are asked for so many at once after some that nobody wanted: the next may be large."""

POLL_FIRST_S: Final = 0.02
POLL_CAP_S: Final = 1.0
"""After a wake-up the horizon may still be held by another transaction: look again soon, then ever
more rarely. The cap bounds the latency when a notification is lost."""

GATHER_S: Final = 0.005
GATHER_BELOW: Final = PAGE_EVENTS_MAX // 2
"""After a small page a reader lets this long pass before it looks again. A stream of small
transactions is then handled some hundred events at a time instead of a commit for each; an event
after a pause is still handled at once."""

HELD_S: Final = 0.5
"""How long a stand-by reader waits before it asks for the inbox row again: the failover time."""

UPKEEP_S: Final = 3600.0
"""Days are made three ahead and dropped three late; an hour more or less does not matter."""

XID8_OID: Final = 5069

Rows = list[tuple[int, int, bytes | None]]
"""xid, id of its last event, and its bytes; None for a row whose events nobody here wants."""


class Database(Protocol):
    """What the bus needs of `cloud.kernel.db`."""

    def connect(self, context: str) -> Connection:
        """Return a new connection as the login role of `context` (or of the relay)."""


class PostgresPage:
    """A page over rows as they came, one or many events in each; see `bus.Page`."""

    def __init__(self, rows: Rows, after: Token) -> None:
        self.after = after
        self.rows = len(rows)  # wanted or not
        self.end: Token = (rows[-1][0], rows[-1][1]) if rows else after
        self._wanted = [row for row in rows if row[2]]  # no event is empty
        held = [unbundled(wire) for _, _, wire in self._wanted if wire]
        self._ends = list(accumulate(map(len, held)))  # of each row, counted in events
        self.events = list(received_all(chain.from_iterable(held)))

    def token(self, index: int) -> Token:
        row = bisect_right(self._ends, index)
        xid, last, _ = self._wanted[row]
        return (xid, last - (self._ends[row] - 1 - index))


class PostgresLog:
    """Reads the outboxes of some contexts through the relay's own connection."""

    def __init__(self, connect: Callable[[], Connection], sources: Sequence[str]) -> None:
        self._connect = connect
        self._queries = {source: _query(source) for source in sources}
        self._sources = tuple(sources)
        self._connection: Connection | None = None
        self._left: dict[str, tuple[Token, Rows]] = {}  # of a page that was too long
        self._limits = dict.fromkeys(self._sources, 64)  # grows once the events are known small

    def partitions(self) -> Sequence[str]:
        return self._sources

    def read(self, partition: str, *, after: Token, types: frozenset[str]) -> PostgresPage:
        token, rows = self._left.pop(partition, (None, []))
        limit = self._limits[partition]
        if token != after:
            rows = self._fetch(partition, after, types, limit)
        now, later = _split(rows)
        page = PostgresPage(now, after)
        if later:
            self._left[partition] = (page.end, later)
        if later or page.rows == limit:
            self._limits[partition] = _next_limit(page)
        return page

    def close(self) -> None:
        self._left.clear()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _fetch(self, partition: str, after: Token, types: frozenset[str], limit: int) -> Rows:
        cursor = self._connected().cursor(binary=True)
        named = (list(types), str(after[0]), after[1], limit)
        cursor.execute(self._queries[partition], named, prepare=True)
        return cursor.fetchall()

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
            self._connection.autocommit = True  # a read that opens no transaction
            self._connection.adapters.register_loader(XID8_OID, Int8BinaryLoader)
            # A log that grew by a million since its last ANALYZE must still be read by its index,
            # in order, page by page, and never sorted whole.
            for other_plan in ("enable_seqscan", "enable_bitmapscan", "enable_sort"):
                self._connection.execute(f"SET {other_plan} = off")
            # Planning over the days anew for every page costs a third of reading it.
            self._connection.execute("SET plan_cache_mode = force_generic_plan")
        return self._connection


def _query(source: str) -> bytes:
    # An event nobody here wants comes as a bare token: its body never leaves the server.
    return (
        sql.SQL(
            "SELECT xid, id, CASE WHEN type = ANY(%b) THEN wire END FROM {outbox}"
            " WHERE (xid, id) > (%b::text::xid8, %b)"
            " AND xid < pg_snapshot_xmin(pg_current_snapshot())"
            " ORDER BY xid, id LIMIT %b"
        )
        .format(outbox=sql.Identifier(source, "outbox"))
        .as_bytes()
    )


def _split(rows: Rows) -> tuple[Rows, Rows]:
    """Return the rows of this page, and those that would make it more than twice too long.

    Rows are asked for before it is known how many events they hold, and of what size.
    """
    events = size = 0
    for number, (_, _, wire) in enumerate(rows, start=1):
        events += events_in(wire) if wire else 1
        size += len(wire) if wire else 0
        if events > 2 * PAGE_EVENTS_MAX - BUNDLE_EVENTS_MAX or size > PAGE_BYTES:
            return rows[:number], rows[number:]
    return rows, []


def _next_limit(page: PostgresPage) -> int:
    """Return how many rows to ask for, given that they are like those of `page`."""
    if not page.events:
        return UNKNOWN_ROWS_MAX
    size = sum(map(len, page.events[::7])) * 7  # of every seventh: a guess in any case
    share = min(2.0, PAGE_EVENTS_MAX / len(page.events), PAGE_BYTES / size)
    return max(1, min(PAGE_EVENTS_MAX, int(page.rows * share)))


class PostgresBus:
    """Delivers the events of `sources` to subscriptions, in this process's threads.

    Several processes may run the same subscriptions: each has one reader at a time, and another
    takes over when it dies.
    """

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        *,
        sources: Sequence[str],
        upcasters: Mapping[str, Upcaster] | None = None,
        retry: Retry | None = None,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._sources = tuple(sources)
        self._upcasters = upcasters or {}
        self._retry = retry or Retry()

    def run(self, subscriptions: Sequence[Subscription], stop: threading.Event) -> None:
        """Deliver until `stop` is set: a thread for each subscription, one that listens, one that
        keeps the log's days. Give it every subscription there is: old days go by their positions.
        """
        wakes = [threading.Event() for _ in subscriptions]
        threads = [
            threading.Thread(target=self._serve, args=(each, wake, stop), name=f"bus {each.name}")
            for each, wake in zip(subscriptions, wakes, strict=True)
        ]
        threads.append(threading.Thread(target=self._listen, args=(wakes, stop), name="bus wake"))
        threads.append(
            threading.Thread(target=self._upkeep, args=(subscriptions, stop), name="bus upkeep")
        )
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def run_once(self, subscriptions: Sequence[Subscription]) -> int:
        """Deliver everything that is visible now and return how many events were handled.

        Raises a transient failure instead of waiting for it to pass.
        """
        handled = 0
        for subscription in subscriptions:
            with self._reader(subscription, threading.Event()) as reader:
                try:
                    while reader.step():
                        pass
                except HeldElsewhere:
                    pass
                handled += reader.handled
        return handled

    def replay(self, subscriptions: Sequence[Subscription], consumer: str, number: int) -> bool:
        """Handle a dead-lettered event again; return False when that was already done.

        Raises `NoSuchDeadLetter`, `LookupError` when its subscription is gone, or what the
        handler raises; the dead letter then stays, its attempt counted.
        """
        handlers = {each.name: each for each in subscriptions if each.consumer == consumer}

        def handle(connection: Connection, letter: deadletter.DeadLetter) -> None:
            if letter.subscription not in handlers:
                raise LookupError(f"dead letter {number}: no subscription {letter.subscription}")
            events = ready([letter.event(self._blobs)], self._blobs, self._upcasters)
            handlers[letter.subscription].handler(connection, events)

        with self._database.connect(consumer) as connection:
            connection.autocommit = True
            return deadletter.replay(connection, number, handle)

    @contextmanager
    def _reader(self, subscription: Subscription, stop: threading.Event) -> Iterator[Reader]:
        reader = Reader(
            subscription,
            PostgresLog(lambda: self._database.connect(RELAY), self._sources),
            lambda: self._database.connect(subscription.consumer),
            blobs=self._blobs,
            upcasters=self._upcasters,
            retry=self._retry,
            stop=stop,
        )
        try:
            yield reader
        finally:
            reader.close()

    def _serve(
        self, subscription: Subscription, wake: threading.Event, stop: threading.Event
    ) -> None:
        """Run one subscription until `stop`; no failure ends it."""
        failures, idle_s = 0, POLL_FIRST_S
        with self._reader(subscription, stop) as reader:
            while not stop.is_set():
                handled = reader.handled
                try:
                    busy = reader.step()
                    failures = 0
                except HeldElsewhere:
                    stop.wait(HELD_S)
                    continue
                except Exception as failure:
                    failures += 1
                    self._failed(subscription, failure, failures)
                    reader.close()
                    stop.wait(self._retry.delay_s(failures))
                    continue
                if busy or wake.is_set():
                    idle_s = POLL_FIRST_S
                    wake.clear()
                if not busy:
                    wake.wait(idle_s)
                    idle_s = min(POLL_CAP_S, 2 * idle_s)
                elif reader.handled - handled < GATHER_BELOW:
                    stop.wait(GATHER_S)

    def _failed(self, subscription: Subscription, failure: Exception, failures: int) -> None:
        level = logging.WARNING if isinstance(failure, TRANSIENT) else logging.ERROR
        log.log(
            level,
            "bus_retry",
            extra={
                "consumer": subscription.consumer,
                "subscription": subscription.name,
                "failures": failures,
                "error": repr(failure),
            },
        )

    def _listen(self, wakes: Sequence[threading.Event], stop: threading.Event) -> None:
        """Wake every reader when somebody published; polling goes on without it."""
        while not stop.is_set():
            try:
                with self._database.connect(RELAY) as connection:
                    connection.autocommit = True
                    connection.execute(f"LISTEN {CHANNEL}")
                    while not stop.is_set():
                        if any(True for _ in connection.notifies(timeout=0.5, stop_after=1)):
                            for wake in wakes:
                                wake.set()
                            stop.wait(GATHER_S)
            except psycopg.Error:
                stop.wait(self._retry.delay_s(3))
        for wake in wakes:
            wake.set()

    def _upkeep(self, subscriptions: Sequence[Subscription], stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                log_upkeep.keep(self._database, self._sources, subscriptions)
            except psycopg.Error as failure:
                log.warning("log_upkeep_failed", extra={"error": repr(failure)})
            stop.wait(UPKEEP_S)
