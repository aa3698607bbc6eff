"""How a context consumes events: each event's effect exactly once, on any log that repeats itself.

A *log* (PostgreSQL now, Kafka later) hands out pages of events in an order that never changes
within a partition, each with a token that only grows. A *reader* runs a subscription's handler on
a page in one transaction of the consumer, and moves the subscription's inbox row in that same
transaction. Whatever is delivered again is at or before the inbox row, so it is skipped.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

import psycopg

from cloud.kernel import deadletter, telemetry
from cloud.kernel.blobs import BlobStore
from cloud.kernel.events import Event, Upcaster, upcast
from cloud.kernel.wire import END
from decoders.value import value

log = logging.getLogger(__name__)

HANDLED = telemetry.counter(
    "aquacis_events_handled_total", "Events whose effect is committed.", "consumer", "subscription"
)
DEAD_LETTERED = telemetry.counter(
    "aquacis_events_dead_lettered_total", "Events set aside.", "consumer", "subscription"
)

Connection = psycopg.Connection[Any]
Handler = Callable[[Connection, Sequence[Event]], None]
"""The effect of some events, in order, inside the caller's transaction: it neither commits nor
rolls back. Raising undoes all of it; the bus then narrows down to the event that is to blame."""

Token = tuple[int, int]
"""Where an event stands in its partition of a log; compared, never computed with."""

START: Final[Token] = (0, 0)


SKIP_S: Final = 10.0
"""Passing over unwanted events is written down this often: seldom enough to cost nothing, often
enough that old days of the log can be dropped and a restart reads little again."""


class TryLater(Exception):
    """A handler cannot work now (another system is away): retried for ever, never dead-lettered."""


TRANSIENT: Final = (psycopg.OperationalError, psycopg.InterfaceError, TryLater)
"""Failures that are not the event's fault: connection lost, serialization, deadlock, disk full."""


@value
class Subscription:
    """One consumer's interest: the types it wants and what to do with them."""

    consumer: str  # the context in whose schema the effect happens
    name: str  # unique within the consumer; never changed, the inbox row is found by it
    types: frozenset[str]
    handler: Handler


@value
class Retry:
    """How often and how far apart a failing handler is tried again (wall clock)."""

    attempts: int = 5  # of a single event, before it becomes a dead letter
    first_s: float = 0.1
    cap_s: float = 30.0  # a database that comes back is noticed within this

    def delay_s(self, attempt: int) -> float:
        """Return the pause after the `attempt`-th failure, counted from 1."""
        return min(self.cap_s, self.first_s * 2.0 ** min(attempt - 1, 30))


class Page(Protocol):
    """Some consecutive events of one partition, those of other types left out."""

    @property
    def after(self) -> Token:
        """The token this page was asked for."""

    @property
    def end(self) -> Token:
        """The token of the last event the log looked at, wanted or not."""

    @property
    def events(self) -> Sequence[Event]:
        """The wanted ones, in order."""

    def token(self, index: int) -> Token:
        """Return where event `index` stands."""


class Log(Protocol):
    """The port a bus adapter implements: reading one partition onward from a token."""

    def partitions(self) -> Sequence[str]:
        """Return the partitions there are."""

    def read(self, partition: str, *, after: Token, types: frozenset[str]) -> Page:
        """Return the next page; `page.end == after` when there is nothing new yet.

        It may repeat events at or before `after`; it may not skip one or change the order.
        """

    def close(self) -> None:
        """Let go of connections; the next read opens them again."""


class Bus(Protocol):
    """What every adapter offers; `tests/contract/test_bus*.py` says what it promises."""

    def run(self, subscriptions: Sequence[Subscription], stop: threading.Event) -> None:
        """Deliver until `stop` is set. Several processes may run the same subscriptions."""

    def run_once(self, subscriptions: Sequence[Subscription]) -> int:
        """Deliver everything visible now; return how many events were handled."""

    def replay(self, subscriptions: Sequence[Subscription], consumer: str, number: int) -> bool:
        """Handle a dead-lettered event again; return False when that was already done."""


class HeldElsewhere(Exception):
    """Another reader of this subscription holds the inbox row."""


class Reader:
    """Runs one subscription over every partition of a log."""

    def __init__(
        self,
        subscription: Subscription,
        events: Log,
        connect: Callable[[], Connection],
        *,
        blobs: BlobStore,
        upcasters: Mapping[str, Upcaster],
        retry: Retry,
        stop: threading.Event,
    ) -> None:
        self._subscription = subscription
        self._log = events
        self._connect = connect
        self._blobs = blobs
        self._upcasters = upcasters
        self._retry = retry
        self._stop = stop
        self._connection: Connection | None = None
        self._stored: dict[str, Token] = {}  # the inbox row as last seen
        self._after: dict[str, Token] = {}  # where to read on: ahead of it by unwanted events
        self._skipped_at = 0.0
        self.handled = 0

    def step(self) -> bool:
        """Handle at most one page of every partition; return whether there was anything to read.

        Raises `HeldElsewhere`, or a transient failure; in both cases call it again later.
        """
        moved = False
        for partition in self._log.partitions():
            if self._stop.is_set():
                break
            moved = self._step(partition) or moved
        return moved

    def close(self) -> None:
        """Forget everything that is not in the database."""
        self._stored.clear()
        self._after.clear()
        self._log.close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _step(self, partition: str) -> bool:
        if partition not in self._after:
            self._stored[partition] = self._after[partition] = self._enrol(partition)
        after = self._after[partition]
        page = self._log.read(partition, after=after, types=self._subscription.types)
        if page.events:
            self._settle(partition, page, 0, len(page.events))
        elif page.end > after and time.monotonic() > self._skipped_at + SKIP_S:
            self._skip(partition, page.end)
        self._after[partition] = max(page.end, self._stored[partition])
        return page.end > after

    def _skip(self, partition: str, token: Token) -> None:
        """Move the inbox row past events nobody here wants."""
        connection = self._connected()
        with self._moved(connection, partition, token, 0) as position:
            pass
        self._stored[partition] = max(token, position)
        self._skipped_at = time.monotonic()

    def _settle(self, partition: str, page: Page, begin: int, end: int) -> None:
        """Give events begin…end their effect, in order; the ones that cannot become dead letters.

        Halves are committed one after the other, so the innocent never wait for the guilty one's
        attempts more than once, and order holds.
        """
        try:
            self._effect(partition, page, begin, end)
        except (HeldElsewhere, *TRANSIENT):
            raise
        except Exception as failure:
            if end - begin == 1:
                self._insist(partition, page, begin, failure)
                return
            middle = (begin + end) // 2
            self._settle(partition, page, begin, middle)
            self._settle(partition, page, middle, end)

    def _insist(self, partition: str, page: Page, index: int, failure: Exception) -> None:
        """Try one event again, a few times, then set it aside."""
        for attempt in range(1, self._retry.attempts):
            if self._stop.wait(self._retry.delay_s(attempt)):
                raise TryLater("stopping") from failure
            try:
                self._effect(partition, page, index, index + 1)
                return
            except (HeldElsewhere, *TRANSIENT):
                raise
            except Exception as again:
                failure = again
        self._bury(partition, page, index, failure)

    def _effect(self, partition: str, page: Page, begin: int, end: int) -> None:
        """Run the handler on events begin…end and move the inbox row, in one transaction."""
        connection = self._connected()
        last = page.end if end == len(page.events) else page.token(end - 1)
        with self._moved(connection, partition, last, end - begin) as position:
            first = begin
            while first < end and page.token(first) <= position:  # delivered again
                first += 1
            if first > begin:
                self._move(connection, partition, position, begin - first)  # counted too many
            if first < end:
                events = ready(page.events[first:end], self._blobs, self._upcasters)
                self._subscription.handler(connection, events)
        self._stored[partition] = max(last, position)
        self.handled += end - first
        HANDLED.labels(self._subscription.consumer, self._subscription.name).inc(end - first)

    def _bury(self, partition: str, page: Page, index: int, failure: Exception) -> None:
        """Keep an event as a dead letter and move past it, in one transaction."""
        connection = self._connected()
        token = page.token(index)
        with self._moved(connection, partition, token, 0) as position:
            if token > position:
                letter = deadletter.record_event(
                    connection,
                    page.events[index],
                    subscription=self._subscription.name,
                    code=deadletter.code_of(failure),
                    reason="".join(traceback.format_exception(failure)),
                    attempts=self._retry.attempts,
                )
                log.error(
                    "event_dead_lettered",
                    extra={
                        "consumer": self._subscription.consumer,
                        "subscription": self._subscription.name,
                        "event_id": str(page.events[index].id),
                        "event_type": page.events[index].type,
                        "event_trace": page.events[index].traceparent,
                        "dead_letter": letter,
                    },
                )
        self._stored[partition] = max(token, position)
        DEAD_LETTERED.labels(self._subscription.consumer, self._subscription.name).inc()

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
            self._connection.autocommit = True  # transaction() then opens and ends each one
        return self._connection

    def _enrol(self, partition: str) -> Token:
        """Return the inbox row's token, made at the start of the log when there is none."""
        connection = self._connected()
        names = (self._subscription.name, partition)
        connection.execute(
            "INSERT INTO inbox (subscription, partition, xid, id) VALUES (%s, %s, '0', 0)"
            " ON CONFLICT DO NOTHING",
            names,
        )
        row = connection.execute(
            "SELECT xid::text::bigint, id FROM inbox WHERE subscription = %s AND partition = %s",
            names,
        ).fetchone()
        assert row is not None
        return (row[0], row[1])

    @contextmanager
    def _moved(
        self, connection: Connection, partition: str, token: Token, events: int
    ) -> Iterator[Token]:
        """A transaction that took the inbox row and moved it to `token` unless it was further.

        Yields where it stood. One statement locks and moves; what fails afterwards takes it back.
        Raises `HeldElsewhere` when another reader has the row, and `TryLater` when it went back
        (a restored backup): what this reader fetched may then start too late.
        """
        with connection.transaction():
            row = self._move(connection, partition, token, events).fetchone()
            if row is None:
                raise HeldElsewhere
            stood = (row[0], row[1])
            if stood < self._stored[partition]:
                name = f"{self._subscription.name}/{partition}"
                raise TryLater(f"inbox {name} went back to {stood}")
            yield stood

    def _move(
        self, connection: Connection, partition: str, token: Token, events: int
    ) -> psycopg.Cursor[Any]:
        names = {"subscription": self._subscription.name, "partition": partition}
        place = {"xid": str(token[0]), "id": token[1], "events": events}
        return connection.execute(_MOVE, {**names, **place}, prepare=True)


_MOVE: Final = """
UPDATE inbox i
SET xid = CASE WHEN o.behind THEN %(xid)b::text::xid8 ELSE o.xid END,
    id = CASE WHEN o.behind THEN %(id)b ELSE o.id END,
    handled = i.handled + %(events)b, moved_at = now()
FROM (SELECT subscription, partition, xid, id,
             (xid, id) < (%(xid)b::text::xid8, %(id)b) AS behind FROM inbox
      WHERE subscription = %(subscription)b AND partition = %(partition)b
      FOR UPDATE SKIP LOCKED) o
WHERE (i.subscription, i.partition) = (o.subscription, o.partition)
RETURNING o.xid::text::bigint, o.id
"""


def ready(
    events: Sequence[Event], blobs: BlobStore, upcasters: Mapping[str, Upcaster]
) -> Sequence[Event]:
    """Return events with their bodies, in the newest version the consumer knows.

    Raises what the blob store or an upcaster raises.
    """
    if END in [event[-1] for event in events]:  # no body: it may be in the blob store
        events = [event.whole(blobs.get) for event in events]
    return [upcast(event, upcasters) for event in events] if upcasters else events
