"""Sources against real brokers that are killed, and on ports that are unplugged."""

from __future__ import annotations

import base64
import json
import os
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest

from decoders.encode import encode_lorawan_hourly
from decoders.uplink import RowKind
from edge_agent.clock import SystemClock
from edge_agent.inputs import BadInput, Heard, SourceChanged
from edge_agent.mqtt import broker_at
from edge_agent.source_configs import ChirpStackConfig, MultiTechConfig, SourceConfig
from edge_agent.source_wiring import source_of
from edge_agent.sources import amber, imst
from edge_agent.sources.port import Delivered, Inbox
from edge_agent.sources.supervisor import Supervised
from field_sim import broker as brokers
from field_sim.open_broker import PATIENCE_S, OpenBroker, Publisher
from field_sim.soak import sources as sources_soak
from tests.contract.test_edge_broker import Cloud, Gateway, broker, run, wait_for
from tests.real_parts import BROKERS

__all__ = ["broker", "run"]  # fixtures: the cloud's broker, and the agent as a process
CAPTURED = Path(__file__).parents[1] / "vectors" / "lorawan" / "chirpstack_up_protobuf.json"
NEWEST_US = 1_772_452_800_000_000
TELEGRAM = bytes.fromhex(
    "2A442D2C998734761B168D2091D37CAC21E1D68CDAFFCD3DC452BD802913FF7B1706CA9E355D6C2701CC24"
)


@pytest.fixture(params=BROKERS)
def kind(request: pytest.FixtureRequest) -> brokers.Kind:
    found: brokers.Kind = request.param
    return found


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[brokers.Kind], OpenBroker]]:
    made: list[OpenBroker] = []

    def make(kind: brokers.Kind) -> OpenBroker:
        made.append(OpenBroker(tmp_path / f"broker-{len(made)}", kind))
        return made[-1]

    yield make
    for each in made:
        each.kill()


def multitech_event(number: int) -> bytes:
    payload = encode_lorawan_hourly([1000 + number, 1000], local_us=NEWEST_US)
    said: dict[str, Any] = {
        "deveui": "00-80-00-ff-00-00-00-01",
        "appeui": "16-ea-76-f6-ab-66-3d-80",
        "devaddr": "01ef971d",
        "time": "2026-03-02T12:00:00.123456Z",
        "fcnt": number,
        "port": 1,
        "size": len(payload),
        "data": base64.b64encode(payload).decode(),
        "rssi": -97,
        "lsnr": 7.5,
    }
    return json.dumps(said).encode()


class Ears:
    """One source in this process, and what it delivered."""

    def __init__(self, config: SourceConfig) -> None:
        self.inbox = Inbox()
        source = source_of(config, gateway="norte", inbox=self.inbox, clock=SystemClock())
        assert isinstance(source, Supervised)
        self.source = source
        self.got: list[Delivered] = []
        self.source.start()

    def wait(self, until: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE_S
        while not until() and time.monotonic() < end:
            given = self.inbox.get(0.05)
            if given is not None:
                self.got.append(given)
        assert until(), self.got

    def settle(self) -> None:
        self.source.settle([given.token for given in self.heard])

    @property
    def heard(self) -> list[Heard]:
        return [given for given in self.got if isinstance(given, Heard)]

    @property
    def kinds(self) -> list[str]:
        return [given.kind for given in self.got if isinstance(given, SourceChanged)]


def multitech(near: OpenBroker) -> MultiTechConfig:
    return MultiTechConfig(name="conduit", broker=broker_at(near.url))


def test_uplinks_of_a_conduit_are_heard_on_both_its_topics(
    kind: brokers.Kind, opened: Callable[[brokers.Kind], OpenBroker]
) -> None:
    near = opened(kind)
    ears = Ears(multitech(near))
    ears.wait(lambda: ears.kinds == ["source_up"])

    with Publisher(near) as conduit:
        conduit.publish("lora/00-80-00-ff-00-00-00-01/up", multitech_event(1))
        conduit.publish(
            "lora/16-ea-76-f6-ab-66-3d-80/00-80-00-ff-00-00-00-01/up", multitech_event(2)
        )
        conduit.publish("lora/00-80-00-ff-00-00-00-01/joined", b"{}")
        conduit.publish("lora/00-80-00-ff-00-00-00-01/up", b"{}{")
        ears.wait(lambda: len(ears.heard) == 2 and isinstance(ears.got[-1], BadInput))
    ears.source.stop()

    assert sorted(heard.counter for heard in ears.heard) == [1, 2]
    assert ears.heard[0].radio == 0x008000FF00000001


def test_what_was_not_settled_is_delivered_again_to_the_next_agent(
    kind: brokers.Kind, opened: Callable[[brokers.Kind], OpenBroker]
) -> None:
    near = opened(kind)
    first = Ears(multitech(near))
    first.wait(lambda: first.kinds == ["source_up"])
    with Publisher(near) as conduit:
        conduit.publish("lora/00-80-00-ff-00-00-00-01/up", multitech_event(1))
        first.wait(lambda: len(first.heard) == 1)
        first.settle()
        conduit.publish("lora/00-80-00-ff-00-00-00-01/up", multitech_event(2))
        first.wait(lambda: len(first.heard) == 2)
        time.sleep(0.5)  # the first acknowledgement leaves by paho's own thread
        first.source.stop()
        conduit.publish("lora/00-80-00-ff-00-00-00-01/up", multitech_event(3))

    second = Ears(multitech(near))
    second.wait(lambda: {heard.counter for heard in second.heard} == {2, 3})
    second.source.stop()


def test_a_broker_that_is_killed_is_found_again_when_it_is_back(
    kind: brokers.Kind, opened: Callable[[brokers.Kind], OpenBroker]
) -> None:
    near = opened(kind)
    ears = Ears(multitech(near))
    ears.wait(lambda: ears.kinds == ["source_up"])

    for outage in (1, 2):
        near.kill()
        ears.wait(lambda: ears.kinds[-1] == "source_down")
        near.start()
        ears.wait(lambda: ears.kinds[-1] == "source_up")
        with Publisher(near) as conduit:
            conduit.publish("lora/00-80-00-ff-00-00-00-01/up", multitech_event(outage))
        ears.wait(lambda n=outage: len(ears.heard) == n)  # type: ignore[misc]
        ears.settle()
    ears.source.stop()

    assert ears.source.figures()["source_conduit_deaths"] >= 2


def test_a_broker_that_is_not_there_yet_is_waited_for(
    kind: brokers.Kind, opened: Callable[[brokers.Kind], OpenBroker]
) -> None:
    near = opened(kind)
    near.kill()
    ears = Ears(multitech(near))
    ears.wait(lambda: ears.kinds == ["source_down"])

    near.start()
    ears.wait(lambda: ears.kinds == ["source_down", "source_up"])
    ears.source.stop()


def test_protobuf_of_a_chirpstack_on_the_gateway_is_heard_as_json_is(
    kind: brokers.Kind, opened: Callable[[brokers.Kind], OpenBroker]
) -> None:
    near = opened(kind)
    application = "4f3c13e6-ecfa-496b-8b63-eedf77195658"
    ears = Ears(ChirpStackConfig(name="cs", broker=broker_at(near.url), application=application))
    ears.wait(lambda: ears.kinds == ["source_up"])
    events = json.loads(CAPTURED.read_text())["events"]

    with Publisher(near) as server:
        for event in events:
            server.publish(event["topic"], bytes.fromhex(event["payload_hex"]))
        server.publish(f"application/{application}/device/70b3d54990000001/event/up", b"\x0a\xff")
        ears.wait(lambda: isinstance(ears.got[-1], BadInput))
    ears.source.stop()

    assert len(ears.heard) >= 20
    assert {heard.radio >> 24 for heard in ears.heard} == {0x70B3D54990}


class Stick:
    """A receiver on a pty behind a stable name, that can be pulled out and put back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plug_in()

    def plug_in(self) -> None:
        self._receiver, self._slave = os.openpty()
        tty.setraw(self._receiver)
        self.path.symlink_to(os.ttyname(self._slave))

    def says(self, given: bytes) -> None:
        os.write(self._receiver, given)

    def pull_out(self) -> None:
        self.path.unlink()
        os.close(self._slave)
        os.close(self._receiver)


def reports(cloud: Cloud) -> list[tuple[str, str]]:
    """What the gateway told the cloud of its sources: (kind, source), in order."""
    rows = sorted(cloud.of(RowKind.REPORT), key=lambda row: row.seq)
    said = [cbor2.loads(row.payload) for row in rows]
    return [(one["kind"], one["source"]) for one in said if "source" in one]


def counters(cloud: Cloud) -> set[int]:
    return {row.counter for row in cloud.of(RowKind.LORAWAN)}


@pytest.mark.parametrize("broker", ["nats"], indirect=True)
def test_several_sources_at_once_and_the_death_of_some_disturbs_no_other(
    broker: brokers.Broker,
    run: Callable[..., Gateway],
    opened: Callable[[brokers.Kind], OpenBroker],
    tmp_path: Path,
) -> None:
    conduit, chirpstack = opened("nats"), opened("nats")
    imst_stick, amber_stick = Stick(tmp_path / "ttyUSB0"), Stick(tmp_path / "ttyUSB1")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    gateway = run(
        sources=[
            {"kind": "multitech", "name": "conduit", "broker": conduit.url},
            {"kind": "chirpstack", "name": "cs", "broker": chirpstack.url},
            {"kind": "imst", "name": "imst", "path": str(imst_stick.path), "mode": "C1B"},
            {"kind": "amber", "name": "amber", "path": str(amber_stick.path)},
            {"kind": "lines", "name": "rtl", "path": str(fifo)},
        ]
    )
    cloud = Cloud(broker)
    gateway.start()
    names = {"conduit", "cs", "imst", "amber", "rtl"}
    wait_for(lambda: {s for k, s in reports(cloud) if k == "source_up"} == names)

    conduit.kill()
    imst_stick.pull_out()
    wait_for(lambda: {s for k, s in reports(cloud) if k == "source_down"} == {"conduit", "imst"})

    captured = json.loads(CAPTURED.read_text())["events"][0]
    with Publisher(chirpstack) as server:
        server.publish(captured["topic"], bytes.fromhex(captured["payload_hex"]))
    amber_stick.says(amber.message(amber.TELEGRAM_HEARD, TELEGRAM[1:] + b"\xd2"))
    fifo.write_text("C1;1;1;2026-03-01 10:00:00.000;-97;102;76348799;0x2A44\n")
    wait_for(lambda: len(cloud.of(RowKind.LORAWAN)) == 1 and len(cloud.of(RowKind.WMBUS)) == 2)

    conduit.start()
    imst_stick.plug_in()
    wait_for(lambda: reports(cloud).count(("source_up", "conduit")) == 2)
    wait_for(lambda: reports(cloud).count(("source_up", "imst")) == 2)
    with Publisher(conduit) as server:
        server.publish("lora/00-80-00-ff-00-00-00-01/up", multitech_event(77))
    imst_stick.says(imst.message(imst.RADIO, imst.TELEGRAM_HEARD, b"\x44" + bytes(20)))
    wait_for(lambda: 77 in counters(cloud) and len(cloud.of(RowKind.WMBUS)) == 3)

    assert {s for k, s in reports(cloud) if k == "source_down"} == {"conduit", "imst"}
    assert gateway.stop() == 0
    cloud.stop()
    amber_stick.pull_out()
    imst_stick.pull_out()


def test_what_a_conduit_published_is_stored_although_the_agent_is_killed_again_and_again(
    broker: brokers.Broker,
    run: Callable[..., Gateway],
    opened: Callable[[brokers.Kind], OpenBroker],
) -> None:
    conduit = opened(broker.kind)
    gateway = run(sources=[{"kind": "multitech", "name": "conduit", "broker": conduit.url}])
    cloud = Cloud(broker)
    gateway.start()
    wait_for(lambda: ("source_up", "conduit") in reports(cloud))

    with Publisher(conduit) as server:
        for number in range(300):
            server.publish("lora/00-80-00-ff-00-00-00-01/up", multitech_event(number))
            if number % 100 == 50:
                assert gateway.process is not None
                gateway.process.kill()
                gateway.process.wait()
                gateway.start()

    wait_for(lambda: counters(cloud) == set(range(300)))
    assert gateway.stop() == 0
    cloud.stop()


@pytest.mark.parametrize("broker", ["nats"], indirect=True)
def test_a_replay_that_drains_ends_when_the_cloud_holds_every_line(
    broker: brokers.Broker, run: Callable[..., Gateway], tmp_path: Path
) -> None:
    recording = tmp_path / "recording"
    lines = [
        {"payload_hex": f"{number:04x}", "fport": 1, "f_cnt": number, "dev_eui": "0080000000000001"}
        for number in range(1, 500)
    ]
    recording.write_text("\n".join(json.dumps(line) for line in lines))
    gateway = run(sources=[{"kind": "lines", "path": str(tmp_path / "shut")}])
    cloud = Cloud(broker)

    playing = gateway.start("replay", str(recording), "--speed", "max", "--drain", "30")

    assert playing.wait(PATIENCE_S) == 0
    cloud.stop()
    assert counters(cloud) == set(range(1, 500))
    assert {source for _, source in reports(cloud)} == {"replay"}


def test_sources_taken_away_one_after_another_lose_nothing_that_was_said(tmp_path: Path) -> None:
    verdict = sources_soak.run(tmp_path, n=4, seed=7)

    assert verdict.holds, verdict
