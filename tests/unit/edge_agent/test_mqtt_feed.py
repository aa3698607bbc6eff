"""How a subscription to a network server may die, and that each death leaves nothing behind."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from decoders.uplink import RowKind
from edge_agent.inputs import BadInput, Heard, SourceChanged
from edge_agent.mqtt import Broker
from edge_agent.sources import mqtt_feed
from edge_agent.sources.mqtt_feed import MqttFeed
from edge_agent.sources.port import Delivered, Inbox
from edge_agent.sources.supervisor import Backoff, Supervised
from edge_agent.sources.uplinks import BadEvent

CONNECTED = b"\x20\x02\x00\x00"
GRANTED = b"\x90\x03\x00\x01\x01"
QUICK = Backoff(first_s=0.01, most_s=0.02)

Script = Callable[[socket.socket], None]


class ScriptedBroker:
    """Accepts connections and does to each what the script says; then closes it."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return  # closed
            self.connections += 1
            with connection:
                try:
                    self._script(connection)
                except OSError:
                    continue  # the client went first

    def close(self) -> None:
        self._server.close()


@pytest.fixture
def broker() -> Iterator[Callable[[Script], ScriptedBroker]]:
    made: list[ScriptedBroker] = []

    def make(script: Script) -> ScriptedBroker:
        made.append(ScriptedBroker(script))
        return made[-1]

    yield make
    for each in made:
        each.close()


def packet(connection: socket.socket) -> bytes:
    """One MQTT packet of at most 127 bytes from the client."""
    head = connection.recv(2)
    return head + connection.recv(head[1]) if len(head) == 2 else b""


def publish(payload: bytes, *, mid: int) -> bytes:
    body = b"\x00\x01t" + mid.to_bytes(2, "big") + payload
    return bytes([0x32, len(body)]) + body


def granted(connection: socket.socket) -> None:
    assert packet(connection)[0] == 0x10
    connection.sendall(CONNECTED)
    assert packet(connection)[0] == 0x82
    connection.sendall(GRANTED)


def read(event: bytes, *, token: object) -> Heard | None:
    if event == b"bad":
        raise BadEvent("malformed", "bad")
    if event == b"bug":
        raise ZeroDivisionError("a bug")
    if event == b"nothing":
        return None
    return Heard(kind=RowKind.LORAWAN, frame=event, heard_at=1, token=token)


class Bench:
    """A source on a scripted broker, and what it delivered."""

    def __init__(self, broker: ScriptedBroker, backoff: Backoff = QUICK) -> None:
        self.inbox = Inbox()
        feed = MqttFeed(
            broker=Broker(host="127.0.0.1", port=broker.port, user="norte"),
            client_id="test",
            topics=("t",),
            read=read,
        )
        self.source = Supervised(feed, name="server", inbox=self.inbox, backoff=backoff)
        self.got: list[Delivered] = []
        self.source.start()

    def wait(self, until: Callable[[], bool], timeout_s: float = 10) -> None:
        end = time.monotonic() + timeout_s
        while not until() and time.monotonic() < end:
            given = self.inbox.get(0.02)
            if given is not None:
                self.got.append(given)
        assert until(), self.got

    @property
    def heard(self) -> list[Heard]:
        return [given for given in self.got if isinstance(given, Heard)]

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(one.kind, one.reason) for one in self.got if isinstance(one, SourceChanged)]


def refuses_the_user(connection: socket.socket) -> None:
    packet(connection)
    connection.sendall(b"\x20\x02\x00\x05")


def refuses_the_topic(connection: socket.socket) -> None:
    packet(connection)
    connection.sendall(CONNECTED)
    packet(connection)
    connection.sendall(b"\x90\x03\x00\x01\x80")
    packet(connection)


def closes_at_once(connection: socket.socket) -> None:
    packet(connection)


def talks_nonsense(connection: socket.socket) -> None:
    packet(connection)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    time.sleep(0.1)


def closes_after_the_grant(connection: socket.socket) -> None:
    granted(connection)


def stays(connection: socket.socket) -> None:
    granted(connection)
    packet(connection)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (refuses_the_user, "refused 'norte': Not authorized"),
        (refuses_the_topic, "refused user 'norte' the subscription to t"),
        (closes_at_once, "127.0.0.1"),
        (talks_nonsense, "127.0.0.1"),
        (closes_after_the_grant, "127.0.0.1"),
    ],
)
def test_each_death_is_said_and_tried_again(
    broker: Callable[[Script], ScriptedBroker], script: Script, reason: str
) -> None:
    scripted = broker(script)
    bench = Bench(scripted)

    bench.wait(lambda: any(kind == "source_down" for kind, _ in bench.said))
    bench.wait(lambda: scripted.connections >= 3)
    bench.source.stop()

    down = next(said for kind, said in bench.said if kind == "source_down")
    assert reason in down


HOSTILE = {
    "a SUBACK without codes": b"\x90\x00",
    "a PUBLISH without a topic": b"\x32\x00",
    "a topic longer than its packet": b"\x32\x04\xff\xff\x00\x00",
    "a topic that is no UTF-8": b"\x32\x05\x00\x02\xff\xfe\x00",
    "a PUBLISH without its number": b"\x32\x04\x00\x02tt",
    "a type that there is not": b"\xf0\x00",
    "a length of five bytes": b"\x30\xff\xff\xff\xff\x01",
    "a second CONNACK": b"\x20\x00",
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_broker_that_does_not_speak_mqtt_costs_its_connection_only(
    broker: Callable[[Script], ScriptedBroker], hostile: bytes
) -> None:
    def says(connection: socket.socket) -> None:
        granted(connection)
        connection.sendall(hostile if scripted.connections < 3 else publish(b"fine", mid=1))
        connection.settimeout(0.3)
        packet(connection)

    scripted = broker(says)
    bench = Bench(scripted)

    bench.wait(lambda: any(heard.frame == b"fine" for heard in bench.heard))
    bench.source.stop()

    assert ("source_up", bench.said[0][1]) in bench.said[1:]


def test_a_broker_that_says_nothing_is_given_up(
    broker: Callable[[Script], ScriptedBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_feed, "GRANT_S", 0.3)
    ended = threading.Event()

    def silent(connection: socket.socket) -> None:
        while not ended.is_set() and connection.recv(100):
            pass

    bench = Bench(broker(silent))
    bench.wait(lambda: any(kind == "source_down" for kind, _ in bench.said))
    ended.set()
    bench.source.stop()

    assert "did not grant the subscription" in bench.said[0][1]


def test_what_is_settled_is_acknowledged_and_nothing_else(
    broker: Callable[[Script], ScriptedBroker],
) -> None:
    acks: list[int] = []

    def three(connection: socket.socket) -> None:
        granted(connection)
        for mid, payload in ((7, b"one"), (8, b"two"), (9, b"nothing"), (10, b"bad")):
            connection.sendall(publish(payload, mid=mid))
        while said := packet(connection):
            if said[0] == 0x40:
                acks.append(int.from_bytes(said[2:4], "big"))

    bench = Bench(broker(three))
    bench.wait(lambda: len(bench.heard) == 2 and isinstance(bench.got[-1], BadInput))
    bench.source.settle([bench.heard[1].token])
    bench.wait(lambda: sorted(acks) == [8, 9])
    time.sleep(0.1)
    bench.source.stop()

    assert sorted(acks) == [8, 9]


def test_tokens_of_an_earlier_connection_or_another_source_acknowledge_nothing(
    broker: Callable[[Script], ScriptedBroker],
) -> None:
    acks: list[bytes] = []

    def first_dies(connection: socket.socket) -> None:
        granted(connection)
        connection.sendall(publish(b"one", mid=1))
        if scripted.connections == 1:
            time.sleep(0.1)
            return
        while said := packet(connection):
            acks.append(said)

    scripted = broker(first_dies)
    bench, other = Bench(scripted), Bench(broker(stays))
    bench.wait(lambda: len(bench.heard) == 2)
    early, late = (heard.token for heard in bench.heard)

    other.source.settle([early, late])
    bench.source.settle([early])
    time.sleep(0.1)
    assert not acks
    bench.source.settle([late])
    bench.wait(lambda: len(acks) == 1)
    bench.source.stop()
    other.source.stop()


def test_a_fault_of_ours_in_a_message_ends_the_connection_and_not_the_source(
    broker: Callable[[Script], ScriptedBroker],
) -> None:
    def once_a_bug(connection: socket.socket) -> None:
        granted(connection)
        connection.sendall(publish(b"bug" if scripted.connections == 1 else b"fine", mid=1))
        packet(connection)

    scripted = broker(once_a_bug)
    bench = Bench(scripted)
    bench.wait(lambda: len(bench.heard) == 1)
    bench.source.stop()

    assert ("source_down", "ZeroDivisionError: a bug") in bench.said


def test_a_source_that_cannot_hand_over_stops_all_the_same(
    broker: Callable[[Script], ScriptedBroker],
) -> None:
    def floods(connection: socket.socket) -> None:
        granted(connection)
        for mid in range(1, 100):
            connection.sendall(publish(b"one", mid=mid))
        packet(connection)

    bench = Bench(broker(floods))
    bench.inbox._most = 3
    end = time.monotonic() + 5
    while len(bench.inbox) < 3 and time.monotonic() < end:
        time.sleep(0.01)

    began_s = time.monotonic()
    bench.source.stop()

    assert time.monotonic() - began_s < 3
    bench.inbox.close()


def test_a_hundred_deaths_leave_no_file_and_no_thread_behind(
    broker: Callable[[Script], ScriptedBroker],
) -> None:
    scripted = broker(closes_after_the_grant)
    bench = Bench(scripted, Backoff(first_s=0.001, most_s=0.001))
    bench.wait(lambda: scripted.connections >= 5)
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()

    bench.wait(lambda: scripted.connections >= 105, timeout_s=40)
    bench.source.stop()

    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= files + 2
    assert threading.active_count() <= threads + 1
