"""The agent's way to the cloud over mutual TLS, on real brokers: whose certificate, whose topic."""

from __future__ import annotations

import datetime
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from field_sim import mutual_tls
from field_sim.broker import Broker
from field_sim.mutual_tls import Authority, Identity
from field_sim.sink import Sink
from tests.forwarding import AgentProcess, reachable, running, wait_for
from tests.real_parts import BROKERS

GATEWAYS = ("gw-a", "gw-b")
QUIET_S = 1.0  # long enough on loopback for what was forbidden to arrive, had it been let through
ROWS = 50


class Place:
    """A broker, its authority, and what the cloud's side hears of it."""

    def __init__(self, folder: Path, kind: Any) -> None:
        now = datetime.datetime.now(datetime.UTC)
        self.folder = folder
        self.authority = Authority(reachable(folder) / "ca", now=now)
        self.stranger = Authority(folder / "other-ca", now=now)
        self.broker: Broker = mutual_tls.prepare(
            folder / "broker", self.authority, GATEWAYS, kind=kind
        )
        self.cloud = self.authority.issue("cloud")

    def sink(self) -> Sink:
        ca_file = str(self.authority.ca_file)
        return Sink(port=self.broker.port, identity=self.cloud, ca_file=ca_file)

    def settings(self, identity: Identity | None, **more: Any) -> dict[str, Any]:
        told: dict[str, Any] = {
            "broker": f"mqtts://127.0.0.1:{self.broker.port}",
            "ca_file": str(self.authority.ca_file),
        }
        if identity is not None:
            told["cert_file"], told["key_file"] = str(identity.cert_file), str(identity.key_file)
        return told | more


@pytest.fixture(params=BROKERS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path, request.param)
    with running(made.broker, tmp_path / "broker.log"):
        yield made


@pytest.fixture
def agent(place: Place, tmp_path: Path) -> Iterator[Callable[..., AgentProcess]]:
    started: list[AgentProcess] = []

    def make(identity: Identity | None, **more: Any) -> AgentProcess:
        made = AgentProcess(tmp_path / f"agent-{len(started)}", **place.settings(identity, **more))
        made.fill(ROWS)
        started.append(made)
        return made

    yield make
    for each in started:
        each.end()


def test_a_gateway_is_let_in_by_its_certificate_and_speaks_what_the_broker_has(
    place: Place, agent: Callable[..., AgentProcess]
) -> None:
    gateway = agent(place.authority.issue("gw-a"))
    with place.sink() as sink:
        gateway.start()
        wait_for(lambda: sink.upto == ROWS)

        (said,) = gateway.events("connected")
        assert said["mqtt"] == ("5" if place.broker.kind == "mosquitto" else "3.1.1")
        assert gateway.stop() == 0


def test_mqtt_3_1_1_can_be_asked_for(place: Place, agent: Callable[..., AgentProcess]) -> None:
    gateway = agent(place.authority.issue("gw-a"), mqtt="3.1.1")
    with place.sink() as sink:
        gateway.start()
        wait_for(lambda: sink.upto == ROWS)
        assert gateway.events("connected")[0]["mqtt"] == "3.1.1"


@pytest.mark.parametrize(
    "version", [MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5], ids=["3.1.1", "5"]
)
def test_one_gateway_cannot_publish_as_another(place: Place, version: MQTTProtocolVersion) -> None:
    if version == MQTTProtocolVersion.MQTTv5 and place.broker.kind == "nats":
        version = MQTTProtocolVersion.MQTTv311  # it has no other
    with place.sink() as sink:
        codes = _published_by(place, place.authority.issue("gw-a"), "gw-b", version)

        assert sink.last is None, "what A said in B's name has arrived"
    if version == MQTTProtocolVersion.MQTTv5:
        assert codes == [0x87]


def test_an_agent_with_anothers_certificate_gets_nothing_through_and_says_so(
    place: Place, agent: Callable[..., AgentProcess]
) -> None:
    gateway = agent(place.authority.issue("gw-a"), gateway="gw-b")
    with place.sink() as sink:
        process = gateway.start()
        if place.broker.kind == "nats":
            assert process.wait(20) == 77
            assert gateway.events("subscription_refused")
        else:
            wait_for(lambda: bool(gateway.events("publish_refused")))
            assert "certificate" in gateway.events("publish_refused")[0]["hint"]
            assert gateway.stop() == 0
        assert sink.last is None


@pytest.mark.parametrize("whose", ["nobody's", "a stranger's", "an expired one"])
def test_without_a_good_certificate_nobody_gets_in_and_the_agent_keeps_trying(
    place: Place, agent: Callable[..., AgentProcess], whose: str
) -> None:
    identities = {
        "nobody's": None,
        "a stranger's": place.stranger.issue("gw-a"),
        "an expired one": place.authority.issue("gw-a", expired=True),
    }
    gateway = agent(identities[whose])
    with place.sink() as sink:
        gateway.start()
        wait_for(
            lambda: len(gateway.events("broker_closed") + gateway.events("broker_unreachable")) > 2
        )

        assert sink.last is None
        assert not gateway.events("connected")
        assert gateway.stop() == 0


def test_a_broker_of_another_authority_is_not_trusted_and_the_hint_speaks_of_the_clock(
    place: Place, agent: Callable[..., AgentProcess]
) -> None:
    ours = place.authority.issue("gw-a")
    gateway = agent(ours, ca_file=str(place.stranger.ca_file))
    gateway.start()

    wait_for(lambda: bool(gateway.events("broker_unreachable")))

    assert "clock" in gateway.events("broker_unreachable")[0]["hint"]
    assert gateway.stop() == 0


def test_a_renewed_certificate_is_taken_without_a_restart(
    place: Place, agent: Callable[..., AgentProcess]
) -> None:
    gateway = agent(place.authority.issue("gw-a", expired=True))
    with place.sink() as sink:
        gateway.start()
        wait_for(
            lambda: bool(gateway.events("broker_closed") + gateway.events("broker_unreachable"))
        )
        assert sink.last is None

        place.authority.issue("gw-a")  # the same files

        wait_for(lambda: sink.upto == ROWS)


def _published_by(
    place: Place, identity: Identity, name: str, version: MQTTProtocolVersion
) -> list[int]:
    """Publish on `name`'s topic; return what the broker's PUBACK says."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=version)
    context = ssl.create_default_context(cafile=str(place.authority.ca_file))
    context.load_cert_chain(identity.cert_file, identity.key_file)
    client.tls_set_context(context)
    codes: list[int] = []
    answered, connected = threading.Event(), threading.Event()
    client.on_connect = lambda *_: connected.set()

    def on_publish(_c: Any, _d: Any, _mid: int, code: Any, _p: Any) -> None:
        codes.append(int(code.value))
        answered.set()

    client.on_publish = on_publish
    client.connect("127.0.0.1", place.broker.port)
    client.loop_start()
    assert connected.wait(10)
    client.publish(f"aquacis/1/gateway/{name}/up", b"in another's name", qos=1)
    assert answered.wait(10)
    threading.Event().wait(QUIET_S)
    client.disconnect()
    client.loop_stop()
    return codes
