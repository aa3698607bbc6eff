"""The worker thread of intake: whatever one message does, the others are taken."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from typing import cast

import psycopg
import pytest

from cloud.metering import intake
from cloud.metering.intake import Message, Taker
from cloud.metering.service import Metering


class Service:
    """Takes what it is given, unless the bytes say how to fail."""

    def __init__(self) -> None:
        self.aside: list[bytes] = []
        self.away = 0

    def ingest(self, message: bytes, gateway: str, received_at: int) -> bytes | None:
        if message == b"breaks":
            raise ZeroDivisionError("a bug")
        if message == b"away" and self.away:
            self.away -= 1
            raise psycopg.OperationalError("the server closed the connection")
        return b"ack of " + message

    def set_aside(self, message: bytes, gateway: str, received_at: int, *, detail: str) -> bytes:
        self.aside.append(message)
        return b"refusal: " + detail.encode()

    def close(self) -> None:
        pass


@pytest.fixture
def answers() -> queue.Queue[bytes]:
    return queue.Queue()


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def taker(
    service: Service, answers: queue.Queue[bytes], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Taker]:
    monkeypatch.setattr(intake, "DATABASE_PAUSE_S", 0.01)
    made = Taker(0, cast(Metering, service), lambda _gateway, answer: answers.put(answer))
    made.start()
    yield made
    made.stop()
    made.join(10)
    assert not made.is_alive()


def message(payload: bytes) -> Message:
    return Message(gateway="cerro", payload=payload, received_at=0, arrived_s=time.monotonic())


def test_a_message_that_breaks_us_is_set_aside_and_the_next_one_is_taken(
    taker: Taker, service: Service, answers: queue.Queue[bytes]
) -> None:
    taker.offer(message(b"breaks"))
    taker.offer(message(b"good"))

    assert answers.get(timeout=10) == b"refusal: ZeroDivisionError: a bug"
    assert answers.get(timeout=10) == b"ack of good"
    assert service.aside == [b"breaks"]


def test_a_database_that_comes_back_soon_costs_nothing(
    taker: Taker, service: Service, answers: queue.Queue[bytes]
) -> None:
    service.away = intake.DATABASE_ATTEMPTS - 1
    taker.offer(message(b"away"))

    assert answers.get(timeout=10) == b"ack of away"


def test_a_database_that_stays_away_is_no_dead_letter_and_no_answer(
    taker: Taker, service: Service, answers: queue.Queue[bytes]
) -> None:
    service.away = intake.DATABASE_ATTEMPTS
    taker.offer(message(b"away"))
    taker.offer(message(b"good"))

    assert answers.get(timeout=10) == b"ack of good"  # the other one comes again by itself
    assert service.aside == []


def test_a_full_queue_says_so_instead_of_growing(
    service: Service, answers: queue.Queue[bytes]
) -> None:
    idle = Taker(1, cast(Metering, service), lambda *_: None)

    taken = [idle.offer(message(b"good")) for _ in range(intake.QUEUED_MAX + 1)]
    assert taken == [True] * intake.QUEUED_MAX + [False]
