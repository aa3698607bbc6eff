"""A publisher and consumers on a real database: what the bus contract plays on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from cloud.kernel import outbox
from cloud.kernel.blobs import FolderBlobs
from cloud.kernel.bus import Bus, Handler, Retry, Subscription
from cloud.kernel.db import Database
from cloud.kernel.events import Event, EventType, json_event
from cloud.kernel.postgres_bus import PostgresBus

PUBLISHER, CONSUMER, SECOND = "metering", "operations", "kernel"
HAPPENED = EventType(name="thing.happened", version=1)
IGNORED = EventType(name="thing.ignored", version=1)
NOW_US = 1_790_000_000_000_000
QUICK = Retry(attempts=3, first_s=0.01, cap_s=0.1)

Connection = psycopg.Connection[Any]
Adapter = Callable[[Database, FolderBlobs], Bus]

ADAPTERS: dict[str, Adapter] = {
    "postgres": lambda database, blobs: PostgresBus(
        database, blobs, sources=[PUBLISHER], retry=QUICK
    ),
}
"""A later adapter joins here, and every test of the contract runs on it unchanged."""

_new_id = outbox.new_ids(NOW_US)


def record(connection: Connection, events: Sequence[Event]) -> None:
    """The effect: one row for each event, in the order of handling."""
    for event in events:
        connection.execute(
            "INSERT INTO effect (n, shard, event_id) VALUES (%s, %s, %s)",
            (event.body()["n"], event.shard, event.id),
        )


def subscription(
    handler: Handler = record, *, consumer: str = CONSUMER, name: str = "contract"
) -> Subscription:
    return Subscription(
        consumer=consumer, name=name, types=frozenset({HAPPENED.name}), handler=handler
    )


def fact(n: int, *, key: int | None = None, kind: EventType = HAPPENED, pad: int = 0) -> Event:
    body = {"n": n, "pad": "x" * pad}
    return json_event(
        kind, body, id=_new_id(), source=PUBLISHER, time=NOW_US, key=n if key is None else key
    )


class Stage:
    """One database with an effect table in each consumer's schema."""

    def __init__(self, database: Database, folder: Path, adapter: Adapter) -> None:
        self.database = database
        self.folder = folder
        self.blobs = FolderBlobs(folder)
        self.bus = adapter(database, self.blobs)
        for consumer in (CONSUMER, SECOND):
            with database.connect(consumer) as connection:
                connection.execute(
                    "CREATE TABLE effect (place bigint GENERATED ALWAYS AS IDENTITY,"
                    " n bigint NOT NULL, shard smallint NOT NULL, event_id uuid NOT NULL)"
                )

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction of the publisher, committed at the end."""
        with self.database.connect(PUBLISHER) as connection:
            yield connection

    def publish(self, *events: Event) -> None:
        with self.transaction() as connection:
            outbox.publish(connection, events, blobs=self.blobs)

    def effects(self, consumer: str = CONSUMER) -> list[int]:
        """Return the numbers of the handled events, in the order of handling."""
        return [row[0] for row in self.rows("SELECT n FROM effect ORDER BY place", consumer)]

    def rows(self, query: str, context: str = CONSUMER) -> list[Any]:
        with self.database.connect(context) as connection:
            return connection.execute(query.encode()).fetchall()

    @contextmanager
    def running(self, *subscriptions: Subscription) -> Iterator[None]:
        """The bus delivers in the background meanwhile."""
        stop = threading.Event()
        thread = threading.Thread(target=self.bus.run, args=(subscriptions, stop))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(timeout=30)
            assert not thread.is_alive()


def wait_until(true: Callable[[], bool], *, timeout_s: float = 30.0) -> None:
    """Return when `true()`; fail when that takes longer than `timeout_s`."""
    give_up = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < give_up, f"not within {timeout_s} s"
        time.sleep(0.02)
