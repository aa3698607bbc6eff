"""The bus delivers what was committed, once, in order per shard, whatever commits when."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence

import psycopg

from cloud.kernel import outbox
from cloud.kernel.blobs import address_of
from cloud.kernel.bus import TryLater
from cloud.kernel.events import INLINE_BYTES_MAX, Event
from cloud.kernel.shards import SHARDS
from tests.contract.bus_stage import (
    CONSUMER,
    IGNORED,
    PUBLISHER,
    SECOND,
    Connection,
    Stage,
    fact,
    record,
    subscription,
    wait_until,
)


def test_bus_delivers_to_every_consumer_once(stage: Stage) -> None:
    stage.publish(*map(fact, range(250)))
    both = [subscription(), subscription(consumer=SECOND)]

    handled = stage.bus.run_once(both) + stage.bus.run_once(both)

    assert handled == 500
    assert stage.effects(CONSUMER) == stage.effects(SECOND) == list(range(250))


def test_bus_waits_for_a_transaction_that_commits_late(stage: Stage) -> None:
    with stage.transaction() as late:
        outbox.publish(late, [fact(1)], blobs=stage.blobs)
        stage.publish(fact(2))
        stage.bus.run_once([subscription()])
        late.commit()

    stage.bus.run_once([subscription()])

    assert sorted(stage.effects()) == [1, 2]


def test_bus_delivers_nothing_of_a_rolled_back_transaction(stage: Stage) -> None:
    with stage.transaction() as connection:
        outbox.publish(connection, list(map(fact, range(9))), blobs=stage.blobs)
        connection.rollback()
        outbox.publish(connection, [fact(9)], blobs=stage.blobs)

    stage.bus.run_once([subscription()])

    assert stage.effects() == [9]


class Producer(threading.Thread):
    """Publishes facts about its own keys, in transactions short and long, some rolled back."""

    def __init__(self, stage: Stage, number: int, transactions: int) -> None:
        super().__init__()
        self.stage = stage
        self.random = random.Random(number)
        self.key = number  # its facts share a shard, so their order must hold
        self.transactions = transactions
        self.committed: list[int] = []

    def run(self) -> None:
        with self.stage.database.connect(PUBLISHER) as connection:
            for turn in range(self.transactions):
                first = (self.key * self.transactions + turn) * 10
                facts = [fact(first + i, key=self.key) for i in range(self.random.randint(1, 9))]
                outbox.publish(connection, facts, blobs=self.stage.blobs)
                time.sleep(self.random.choice((0, 0, 0.001, 0.03)))
                if self.random.random() < 0.15:
                    connection.rollback()
                    continue
                connection.commit()
                self.committed += [each.body()["n"] for each in facts]


def test_bus_loses_nothing_among_interleaved_commits_and_rollbacks(stage: Stage) -> None:
    producers = [Producer(stage, number, transactions=60) for number in range(6)]

    with stage.running(subscription(), subscription(consumer=SECOND)):
        for producer in producers:
            producer.start()
        for producer in producers:
            producer.join()
        committed = sorted(n for producer in producers for n in producer.committed)
        wait_until(lambda: len(stage.effects(CONSUMER)) >= len(committed))
        wait_until(lambda: len(stage.effects(SECOND)) >= len(committed))

    for consumer in (CONSUMER, SECOND):
        assert sorted(stage.effects(consumer)) == committed
    for producer in producers:
        mine = set(producer.committed)
        assert [n for n in stage.effects() if n in mine] == producer.committed


def test_bus_keeps_order_within_a_shard(stage: Stage) -> None:
    facts = [fact(n, key=n % 200) for n in range(3000)]
    for begin in range(0, 3000, 100):
        stage.publish(*facts[begin : begin + 100])

    stage.bus.run_once([subscription()])

    handled = stage.rows("SELECT shard, n FROM effect ORDER BY place")
    for shard in range(SHARDS):
        mine = [n for s, n in handled if s == shard]
        assert mine == sorted(mine)
    assert len(handled) == 3000


def test_bus_passes_over_events_nobody_here_wants(stage: Stage) -> None:
    for n in range(40):
        stage.publish(*[fact(-1, kind=IGNORED) for _ in range(60)], fact(n))

    assert stage.bus.run_once([subscription()]) == 40
    assert stage.effects() == list(range(40))


def test_bus_carries_large_events_as_blobs(stage: Stage) -> None:
    large, small = fact(1, pad=INLINE_BYTES_MAX), fact(2)
    stage.publish(large, small)
    seen: list[Event] = []

    stage.bus.run_once([subscription(lambda _, events: seen.extend(events))])

    assert seen == [large, small]
    assert stage.blobs.exists(address_of(large.data))


def test_bus_keeps_every_attribute_of_an_event(stage: Stage) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    sent = Event(
        id=fact(0).id,
        source=PUBLISHER,
        type="thing.happened",
        time=17,
        dataschema="thing.happened/3",
        traceparent=trace,
        shard=63,
        key=-5,
        rows=12,
        first_at=-1,
        last_at=99,
        content_type="text/plain",
        data=b"\0;\n\xff",
    )
    stage.publish(sent)
    seen: list[Event] = []

    stage.bus.run_once([subscription(lambda _, events: seen.extend(events))])

    assert seen == [sent]
    assert seen[0].attributes == sent.attributes


def test_bus_tries_for_ever_when_the_failure_is_not_the_events_fault(stage: Stage) -> None:
    failures = [
        psycopg.errors.SerializationFailure(),
        TryLater("the other system is away"),
        psycopg.OperationalError("connection lost"),
        *[psycopg.errors.DeadlockDetected() for _ in range(5)],
    ]

    def stumbling(connection: Connection, events: Sequence[Event]) -> None:
        record(connection, events)
        if failures:
            raise failures.pop()

    with stage.running(subscription(stumbling)):
        stage.publish(*map(fact, range(20)))
        wait_until(lambda: len(stage.effects()) == 20)

    assert not failures
    assert stage.effects() == list(range(20))
    assert stage.rows("SELECT * FROM dead_letter") == []


def test_bus_outlives_its_connections(stage: Stage) -> None:
    with stage.running(subscription()):
        for n in range(30):
            stage.publish(fact(n))
            if n % 10 == 5:
                _cut_every_connection_of_the_bus(stage)
        wait_until(lambda: len(stage.effects()) >= 30)

    assert Counter(stage.effects()) == Counter(range(30))


def _cut_every_connection_of_the_bus(stage: Stage) -> None:
    with stage.database.connect_admin() as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname ="
            " current_database() AND usename IN ('aquacis_relay', 'aquacis_operations')"
        )


def test_bus_hears_of_a_new_event_at_once(stage: Stage) -> None:
    delays = []
    with stage.running(subscription()):
        stage.publish(fact(-1))
        wait_until(lambda: stage.effects() == [-1])
        time.sleep(2.5)  # its polling has become slow: only the wake-up is quick now
        with stage.database.connect(CONSUMER) as watcher:
            for n in range(5):
                began = time.monotonic()
                stage.publish(fact(n))
                while not watcher.execute("SELECT 1 FROM effect WHERE n = %s", (n,)).fetchone():
                    watcher.rollback()
                delays.append(time.monotonic() - began)

    assert sorted(delays)[2] < 0.5, delays
