"""The bus when an event is poison, a consumer is killed, or the log repeats itself."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from cloud.kernel import deadletter
from cloud.kernel.bus import Reader, Token
from cloud.kernel.deadletter import DeadLetter, NoSuchDeadLetter
from cloud.kernel.events import INLINE_BYTES_MAX, Event
from cloud.kernel.postgres_bus import RELAY, PostgresLog, PostgresPage
from tests.contract.bus_stage import (
    CONSUMER,
    PUBLISHER,
    QUICK,
    Connection,
    Stage,
    fact,
    record,
    subscription,
    wait_until,
)

ROOT = Path(__file__).parents[2]


class Disliked(ValueError):
    """The handler refuses this event."""

    code = "disliked"


def refusing(*poison: int) -> Callable[[Connection, Sequence[Event]], None]:
    """Return a handler that refuses some events after it has had half of its effect."""

    def handler(connection: Connection, events: Sequence[Event]) -> None:
        for event in events:
            record(connection, [event])
            if event.body()["n"] in poison:
                raise Disliked(f"number {event.body()['n']}")

    return handler


def letters(stage: Stage) -> list[DeadLetter]:
    with stage.database.connect(CONSUMER) as connection:
        return deadletter.find(connection, state=None)


def test_bus_sets_poison_aside_and_goes_on(stage: Stage) -> None:
    facts = list(map(fact, range(300)))
    stage.publish(*facts)

    stage.bus.run_once([subscription(refusing(0, 77, 78, 299))])

    assert stage.effects() == [n for n in range(300) if n not in {0, 77, 78, 299}]
    assert [letter.event(stage.blobs) for letter in letters(stage)] == [
        facts[n] for n in (0, 77, 78, 299)
    ]
    first = letters(stage)[0]
    assert (first.code, first.attempts, first.state) == ("disliked", QUICK.attempts, "open")
    assert first.subscription == "contract"
    assert "Disliked: number 0" in first.reason
    assert first.headers["id"] == str(facts[0].id)


def test_bus_gives_a_handler_that_recovers_its_event(stage: Stage) -> None:
    attempts: list[int] = []

    def handler(connection: Connection, events: Sequence[Event]) -> None:
        attempts.append(len(events))
        if len(attempts) < 3:
            raise Disliked("not yet")
        record(connection, events)

    stage.publish(fact(1))
    stage.bus.run_once([subscription(handler)])

    assert stage.effects() == [1]
    assert letters(stage) == []


def test_bus_replays_a_dead_letter_with_one_effect(stage: Stage) -> None:
    stage.publish(*map(fact, range(3)))
    stage.bus.run_once([subscription(refusing(1))])
    number = letters(stage)[0].id
    mended = [subscription()]

    replayed = [stage.bus.replay(mended, CONSUMER, number) for _ in range(3)]

    assert replayed == [True, False, False]
    assert stage.effects() == [0, 2, 1]
    assert letters(stage)[0].state == "replayed"


def test_bus_counts_a_replay_that_fails_again(stage: Stage) -> None:
    stage.publish(fact(1))
    stage.bus.run_once([subscription(refusing(1))])
    number = letters(stage)[0].id

    with pytest.raises(Disliked):
        stage.bus.replay([subscription(refusing(1))], CONSUMER, number)

    assert letters(stage)[0].attempts == QUICK.attempts + 1
    assert letters(stage)[0].state == "open"
    assert stage.effects() == []


def test_bus_replays_a_dismissed_dead_letter_when_asked(stage: Stage) -> None:
    stage.publish(fact(1))
    stage.bus.run_once([subscription(refusing(1))])
    number = letters(stage)[0].id
    with stage.database.connect(CONSUMER) as connection:
        deadletter.dismiss(connection, number)
    assert letters(stage)[0].state == "dismissed"

    assert stage.bus.replay([subscription()], CONSUMER, number)
    assert stage.effects() == [1]


def test_bus_refuses_to_replay_what_is_not_there(stage: Stage) -> None:
    stage.publish(fact(1))
    stage.bus.run_once([subscription(refusing(1))])
    number = letters(stage)[0].id

    with pytest.raises(NoSuchDeadLetter):
        stage.bus.replay([subscription()], CONSUMER, number + 1)
    with pytest.raises(LookupError, match="no subscription contract"):
        stage.bus.replay([subscription(name="another")], CONSUMER, number)


def test_bus_sets_an_event_aside_whose_blob_is_gone_and_replays_it_later(stage: Stage) -> None:
    large = fact(1, pad=INLINE_BYTES_MAX)
    stage.publish(fact(0), large, fact(2))
    address = stage.blobs.put(large.data)
    path = stage.folder / address[:2] / address[2:4] / address
    path.unlink()

    stage.bus.run_once([subscription()])
    assert stage.effects() == [0, 2]
    assert [(letter.code, letter.blob) for letter in letters(stage)] == [("blob_missing", address)]

    stage.blobs.put(large.data)
    assert stage.bus.replay([subscription()], CONSUMER, letters(stage)[0].id)
    assert stage.effects() == [0, 2, 1]


class Stuttering(PostgresLog):
    """A log that delivers at least once: every read begins some events too early."""

    def read(self, partition: str, *, after: Token, types: frozenset[str]) -> PostgresPage:
        earlier = (after[0], max(0, after[1] - 7)) if after[1] > 3 else (0, 0)
        return super().read(partition, after=earlier, types=types)


def test_bus_absorbs_events_that_are_delivered_again(stage: Stage) -> None:
    log = Stuttering(lambda: stage.database.connect(RELAY), [PUBLISHER])
    reader = Reader(
        subscription(),
        log,
        lambda: stage.database.connect(CONSUMER),
        blobs=stage.blobs,
        upcasters={},
        retry=QUICK,
        stop=threading.Event(),
    )
    for n in range(0, 60, 3):
        stage.publish(fact(n), fact(n + 1), fact(n + 2))
        reader.step()
        if n % 9 == 0:
            reader.close()  # a restart: all it knows is in the database
    reader.close()

    assert stage.effects() == list(range(60))


@contextmanager
def consumer_process(stage: Stage, adapter: str) -> Iterator[subprocess.Popen[str]]:
    """A consumer in a process of its own, killed at the end if it still lives."""
    arguments = [adapter, stage.database.admin_dsn]
    arguments += [str(stage.database.passwords_path), str(stage.folder)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.contract.bus_consumer", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def handles_something(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "handling\n"


def test_bus_has_each_effect_once_although_consumers_are_killed(stage: Stage, adapter: str) -> None:
    chance = random.Random(7)
    sent = 0
    for _ in range(6):
        with consumer_process(stage, adapter) as process:
            for _ in range(4):
                stage.publish(*map(fact, range(sent, sent + 50)))
                sent += 50
                handles_something(process)
            time.sleep(chance.uniform(0, 0.03))
            process.send_signal(signal.SIGKILL)

    stage.bus.run_once([subscription()])
    wait_until(lambda: stage.bus.run_once([subscription()]) == 0 and len(stage.effects()) >= sent)

    assert Counter(stage.effects()) == Counter(range(sent))
    assert stage.effects() == list(range(sent))


def test_bus_fails_over_to_the_other_consumer(stage: Stage, adapter: str) -> None:
    with consumer_process(stage, adapter) as one, consumer_process(stage, adapter) as other:
        sent = 0

        def publish_for(seconds: float) -> None:
            nonlocal sent
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                stage.publish(*map(fact, range(sent, sent + 10)))
                sent += 10
                time.sleep(0.02)

        publish_for(2.0)
        wait_until(lambda: len(stage.effects()) > 0)
        one.send_signal(signal.SIGKILL)
        publish_for(1.0)
        wait_until(lambda: len(stage.effects()) >= sent, timeout_s=10)
        assert other.poll() is None

    assert stage.effects() == list(range(sent))


def test_bus_has_one_reader_of_a_subscription_at_a_time(stage: Stage) -> None:
    stage.publish(*map(fact, range(100)))
    inside, go_on = threading.Event(), threading.Event()

    def waiting(connection: Connection, events: Sequence[Event]) -> None:
        record(connection, events)
        inside.set()
        assert go_on.wait(20)

    first = threading.Thread(target=stage.bus.run_once, args=([subscription(waiting)],))
    first.start()
    assert inside.wait(20)
    handled_meanwhile = stage.bus.run_once([subscription()])
    go_on.set()
    first.join()

    assert handled_meanwhile == 0
    assert stage.effects() == list(range(100))
