"""What the platform asks of a broker, of both that it can start."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from field_sim import broker as brokers
from field_sim.broker import Broker, BrokerFailed, Kind
from field_sim.supervisor import start
from tests.real_parts import BROKERS

APPLICATIONS = {"gw-a": "11111111-0000-4000-8000-000000000001", "gw-b": "22222222-app"}
QUIET_S = 0.6  # long enough on loopback for what was forbidden to arrive, had it been let through


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    prepared = brokers.prepare(_reachable(tmp_path), APPLICATIONS, kind=request.param)
    process = start(prepared.command, run_as=prepared.run_as, log=tmp_path / "broker.log")
    try:
        brokers.wait_ready(prepared, lambda: process.poll() is None)
        yield prepared
    finally:
        process.terminate()
        process.wait(10)


def _reachable(folder: Path) -> Path:
    """Open pytest's private folders, so that a broker that left root finds its files."""
    for parent in (folder, *folder.parents):
        if parent.owner() == "root" and parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    return folder / "broker"


class Client:
    """A client that remembers what it heard."""

    def __init__(self, broker: Broker, user: str, *, password: str | None = None) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.arrived = threading.Event()
        self.code: int | None = None
        connected, subscribed = threading.Event(), threading.Event()
        self._connected, self._subscribed = connected, subscribed
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"test-{user}-{id(self)}")
        self.client.username_pw_set(user, password or broker.passwords[user])
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.on_message = self._on_message
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        assert connected.wait(5)

    def _on_connect(self, _c: Any, _u: Any, _f: Any, reason: Any, _p: Any) -> None:
        self.code = reason.value
        self._connected.set()

    def _on_message(self, _c: Any, _u: Any, message: mqtt.MQTTMessage) -> None:
        self.heard.append((message.topic, bytes(message.payload)))
        self.arrived.set()

    def subscribe(self, topic: str) -> None:
        self.client.subscribe(topic, qos=1)
        assert self._subscribed.wait(5)
        self._subscribed.clear()

    def publish(self, topic: str, payload: bytes) -> None:
        self.client.publish(topic, payload, qos=1).wait_for_publish(5)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def connect(broker: Broker) -> Iterator[Any]:
    clients: list[Client] = []

    def make(user: str, **options: Any) -> Client:
        clients.append(Client(broker, user, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def test_a_gateways_own_uplink_reaches_the_cloud(connect: Any) -> None:
    cloud, gateway = connect("cloud"), connect("gw-a")
    cloud.subscribe("aquacis/1/gateway/+/up")

    gateway.publish("aquacis/1/gateway/gw-a/up", b"mine")

    assert cloud.arrived.wait(5)
    assert cloud.heard == [("aquacis/1/gateway/gw-a/up", b"mine")]


def test_a_publish_in_another_gateways_name_is_dropped(connect: Any) -> None:
    cloud, gateway = connect("cloud"), connect("gw-a")
    cloud.subscribe("aquacis/1/gateway/+/up")

    gateway.publish("aquacis/1/gateway/gw-b/up", b"forged")

    assert not cloud.arrived.wait(QUIET_S)


def test_a_gateway_cannot_publish_what_only_the_cloud_says(connect: Any) -> None:
    victim, gateway = connect("gw-b"), connect("gw-a")
    victim.subscribe("aquacis/1/gateway/gw-b/down")

    gateway.publish("aquacis/1/gateway/gw-b/down", b"forged")

    assert not victim.arrived.wait(QUIET_S)


@pytest.mark.parametrize("topic", ["aquacis/1/gateway/gw-b/down", "aquacis/1/gateway/+/down", "#"])
def test_another_gateways_downlink_is_not_heard(connect: Any, topic: str) -> None:
    cloud, spy = connect("cloud"), connect("gw-a")
    spy.subscribe(topic)

    cloud.publish("aquacis/1/gateway/gw-b/down", b"secret")

    assert not spy.arrived.wait(QUIET_S)


def test_a_gateway_hears_its_own_chirpstack_and_no_other(connect: Any) -> None:
    city, own, other = connect("city"), connect("gw-a"), connect("gw-b")
    topic = f"application/{APPLICATIONS['gw-a']}/device/0013ea0000000001/event/up"
    own.subscribe(f"application/{APPLICATIONS['gw-a']}/device/+/event/+")
    other.subscribe(f"application/{APPLICATIONS['gw-a']}/device/+/event/+")

    city.publish(topic, b"{}")

    assert own.arrived.wait(5)
    assert not other.arrived.wait(QUIET_S)


def test_a_wrong_password_is_refused(broker: Broker, connect: Any) -> None:
    assert connect("gw-a", password="guessed").code != 0
    assert not brokers.signed_in(broker.port, "gw-a", "guessed")


def test_what_a_sleeping_client_missed_waits_for_it(broker: Broker, connect: Any) -> None:
    topic, heard = "aquacis/1/gateway/gw-a/down", threading.Event()
    sleeper = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="gw-a", clean_session=False)
    sleeper.username_pw_set("gw-a", broker.passwords["gw-a"])
    sleeper.on_message = lambda *_: heard.set()
    ready = threading.Event()
    sleeper.on_subscribe = lambda *_: ready.set()
    sleeper.connect("127.0.0.1", broker.port)
    sleeper.loop_start()
    sleeper.subscribe(topic, qos=1)
    assert ready.wait(5)
    sleeper.disconnect()
    sleeper.loop_stop()

    connect("cloud").publish(topic, b"later")

    sleeper.connect("127.0.0.1", broker.port)
    sleeper.loop_start()
    arrived = heard.wait(5)
    sleeper.disconnect()
    sleeper.loop_stop()
    assert arrived


@pytest.mark.parametrize("kind", BROKERS)
def test_passwords_are_kept_and_readable_by_their_owner_alone(tmp_path: Path, kind: Kind) -> None:
    first = brokers.prepare(tmp_path / "b", APPLICATIONS, kind=kind)
    second = brokers.prepare(tmp_path / "b", APPLICATIONS, kind=kind)

    assert first.passwords == second.passwords
    assert first.port == second.port
    assert len(set(first.passwords.values())) == len(first.passwords)
    private = [p for p in (tmp_path / "b").rglob("*") if p.name in {"passwords", "passwords.json"}]
    assert private
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}


def test_a_taken_port_is_said_and_a_dead_broker_too(tmp_path: Path, broker: Broker) -> None:
    with pytest.raises(BrokerFailed, match="broker_port_taken"):
        brokers.prepare(tmp_path / "second", APPLICATIONS, port=broker.port)

    dead = brokers.prepare(tmp_path / "third", APPLICATIONS)
    process = subprocess.Popen(["true"])
    process.wait()
    with pytest.raises(BrokerFailed, match="broker_dead"):
        brokers.wait_ready(dead, lambda: process.poll() is None)
