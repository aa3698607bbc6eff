"""The worker thread of intake: whatever one message does, the others are taken."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Iterator
from typing import cast

import psycopg
import pytest

from cloud.kernel.blobs import BlobDamaged
from cloud.kernel.keyvault import UnwrapRefused, Wrapped
from cloud.metering import intake
from cloud.metering.intake import Message, Taker
from cloud.metering.service import Metering

OURS: dict[bytes, Exception] = {
    b"disk": OSError(28, "No space left on device"),
    b"key": UnwrapRefused(Wrapped(kek_id="a", kek_version=1, sealed=b""), "not in this vault"),
    b"memory": MemoryError(),
    b"blob": BlobDamaged("ab" * 32),
    b"row": psycopg.errors.DiskFull("could not extend file"),
}


class Service:
    """Takes what it is given, unless the bytes say how to fail."""

    def __init__(self) -> None:
        self.aside: list[bytes] = []
        self.away = 0
        self.letters_full = False

    def ingest(self, message: bytes, gateway: str, received_at: int) -> bytes | None:
        if message == b"breaks":
            raise ZeroDivisionError("a bug")
        if message in OURS:
            raise OURS[message]
        if message == b"away" and self.away:
            self.away -= 1
            raise psycopg.OperationalError("the server closed the connection")
        return b"ack of " + message

    def set_aside(self, message: bytes, gateway: str, received_at: int, *, detail: str) -> bytes:
        if self.letters_full:
            raise OSError(28, "No space left on device")
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
    monkeypatch.setattr(intake, "PAUSE_S", 0.01)
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
    service.away = intake.ATTEMPTS - 1
    taker.offer(message(b"away"))

    assert answers.get(timeout=10) == b"ack of away"


def test_a_database_that_stays_away_is_no_dead_letter_and_no_answer(
    taker: Taker, service: Service, answers: queue.Queue[bytes]
) -> None:
    service.away = intake.ATTEMPTS
    taker.offer(message(b"away"))
    taker.offer(message(b"good"))

    assert answers.get(timeout=10) == b"ack of good"  # the other one comes again by itself
    assert service.aside == []


@pytest.mark.parametrize("fault", OURS)
def test_a_fault_of_ours_is_neither_answered_nor_held_against_the_message(
    taker: Taker, service: Service, answers: queue.Queue[bytes], fault: bytes
) -> None:
    taker.offer(message(fault))
    taker.offer(message(b"good"))

    assert answers.get(timeout=10) == b"ack of good"
    assert service.aside == []


def test_a_dead_letter_that_cannot_be_kept_is_not_answered_and_the_thread_lives(
    taker: Taker, service: Service, answers: queue.Queue[bytes]
) -> None:
    service.letters_full = True
    taker.offer(message(b"breaks"))
    taker.offer(message(b"good"))

    assert answers.get(timeout=10) == b"ack of good"
    assert taker.is_alive()


def test_intake_ends_with_a_code_of_its_own_when_a_thread_has_died() -> None:
    died = Taker(1, cast(Metering, Service()), lambda *_: None)
    died.start()
    died.stop()
    died.join(10)

    with pytest.raises(intake.TakerDied, match="intake-1"):
        asyncio.run(asyncio.wait_for(intake.watch([died], every_s=0.01), 10))


def test_a_full_queue_says_so_instead_of_growing(
    service: Service, answers: queue.Queue[bytes]
) -> None:
    idle = Taker(1, cast(Metering, service), lambda *_: None)

    taken = [idle.offer(message(b"good")) for _ in range(intake.QUEUED_MAX + 1)]
    assert taken == [True] * intake.QUEUED_MAX + [False]
