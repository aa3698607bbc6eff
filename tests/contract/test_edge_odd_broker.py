"""The cloud link beside a broker that swallows, dawdles, or takes only short packets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

from decoders.uplink import Batch, Row, RowKind, pack_rows
from edge_agent import line
from edge_agent.clock import SystemClock
from edge_agent.forward import CloudLink
from edge_agent.inputs import Connected
from edge_agent.mqtt import broker_at
from edge_agent.sources.port import Inbox
from tests.forwarding import wait_for
from tests.odd_broker import OddBroker

KEEPALIVE_S = 2


class Ends:
    """A broker and a link to it, with what the link logs."""

    def __init__(self, broker: OddBroker, version: str = "3.1.1") -> None:
        self.broker = broker
        self.events: list[str] = []
        self.inbox = Inbox()
        self.link = CloudLink(
            broker=broker_at(
                f"mqtt://127.0.0.1:{broker.port}", version=version, keepalive_s=KEEPALIVE_S
            ),
            gateway="gw-a",
            inbox=self.inbox,
            clock=SystemClock(),
            log=lambda event, **_: self.events.append(event),
        )
        self.link.start()
        wait_for(lambda: isinstance(self.inbox.get(0.1), Connected))

    def end(self) -> None:
        self.link.stop()
        self.broker.close()


@pytest.fixture
def ends() -> Iterator[Callable[..., Ends]]:
    made: list[Ends] = []

    def make(broker: OddBroker, version: str = "3.1.1") -> Ends:
        made.append(Ends(broker, version))
        return made[-1]

    yield make
    for each in made:
        each.end()


def message(payload_bytes: int = 20) -> Batch:
    rows: list[Row] = []
    while payload_bytes > 0:
        payload = os.urandom(min(1000, payload_bytes))
        rows.append(Row(seq=len(rows) + 1, heard_at=1, kind=RowKind.WMBUS, payload=payload))
        payload_bytes -= len(payload)
    return Batch(gateway="gw-a", stream=bytes(16), rows=pack_rows(rows), sent_at=1, started_at=1)


def test_a_broker_that_swallows_messages_does_not_make_the_gateway_mute(
    ends: Callable[..., Ends], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "MISSING_S", 2.0)
    end = ends(OddBroker(swallow=line.UNDER_WAY))
    for _ in range(line.UNDER_WAY):
        end.link.publish(message())
    assert not end.link.is_free
    begun_s = time.monotonic()

    wait_for(lambda: end.link.is_free)

    assert time.monotonic() - begun_s >= 2 * KEEPALIVE_S - 0.5
    assert end.events.count("puback_missing") == 1
    wait_for(lambda: end.broker.accepted == 2 and end.events.count("connected") == 2)
    end.link.publish(message())
    wait_for(lambda: len(end.broker.received) == line.UNDER_WAY + 1)


def test_messages_are_no_longer_than_the_broker_takes(ends: Callable[..., Ends]) -> None:
    end = ends(OddBroker(max_packet=40_000), version="5")

    for _ in range(12):
        wait_for(lambda: end.link.is_free)
        end.link.publish(message(end.link.max_bytes))
    wait_for(lambda: len(end.broker.received) == 12)

    assert (end.broker.refused, end.broker.accepted) == ([], 1)
    assert max(end.broker.received) > 15_000


def test_a_long_message_on_a_line_that_turned_slow_is_let_through(
    ends: Callable[..., Ends],
) -> None:
    end = ends(OddBroker(bytes_per_s=60_000))
    begun_s = time.monotonic()
    end.link.publish(message(600_000))

    wait_for(lambda: len(end.broker.received) == 1)

    assert time.monotonic() - begun_s >= 3 * KEEPALIVE_S, "the line was not slow"
    assert (end.broker.accepted, end.events) == (1, ["connected"])


def test_a_broker_that_stops_reading_is_given_up_all_the_same(ends: Callable[..., Ends]) -> None:
    end = ends(OddBroker(bytes_per_s=60_000))
    end.link.publish(message(600_000))
    time.sleep(1)
    end.broker.bytes_per_s = 0.001
    hung_s = time.monotonic()

    wait_for(lambda: "line_dead" in end.events)

    assert time.monotonic() - hung_s <= 2 * KEEPALIVE_S
