"""The gateway agent as a process, against real brokers: what it hears arrives, whatever dies."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cbor2
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from decoders.encode import encode_lorawan_hourly
from decoders.uplink import Ack, Batch, Row, RowKind, decode_batch, encode_ack
from field_sim import broker as brokers
from field_sim.broker import Broker
from tests.real_parts import BROKERS

ROOT = Path(__file__).parents[2]
APPLICATIONS = {
    "norte": "4f3c13e6-ecfa-496b-8b63-eedf77195658",
    "sur": "5f3c13e6-ecfa-496b-8b63-eedf77195659",
}
NEWEST_US = 1_772_452_800_000_000
PATIENCE_S = 75.0  # the NATS server offers an unacknowledged message again after 30 s
TELEGRAM = "2A442D2C998734761B168D2091D37CAC21E1D68CDAFFCD3DC452BD802913FF7B1706CA9E355D6C2701CC24"
KEY = "28F64A24988064A079AA2C807D6102AE"


def wait_for(what: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    prepared = brokers.prepare(tmp_path / "broker", APPLICATIONS, kind=request.param)
    with (tmp_path / "broker.log").open("wb") as log:
        process = subprocess.Popen(
            prepared.command,
            stderr=log,
            stdout=log,
            user=prepared.run_as[0] if prepared.run_as else None,
            group=prepared.run_as[1] if prepared.run_as else None,
            extra_groups=[] if prepared.run_as else None,
        )
    try:
        brokers.wait_ready(prepared, lambda: process.poll() is None)
        yield prepared
    finally:
        process.kill()
        process.wait()


class Client:
    """A client of the broker, as one of its accounts."""

    def __init__(self, broker: Broker, user: str, topic: str | None = None) -> None:
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"test-{user}")
        self.client.username_pw_set(user, broker.passwords[user])
        self.client.max_queued_messages_set(0)
        self.client.on_message = lambda _c, _d, message: self.take(bytes(message.payload))
        subscribed = threading.Event()
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()
        if topic is not None:
            self.client.subscribe(topic, qos=1)
            assert subscribed.wait(PATIENCE_S)

    def take(self, _message: bytes) -> None:
        """Nothing, unless there is something to take."""

    def stop(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Cloud(Client):
    """Holds the rows of each stream, contiguous, and says so."""

    def __init__(self, broker: Broker, *, gateway: str = "norte") -> None:
        self.gateway = gateway
        self.rows: dict[tuple[bytes, int], Row] = {}
        self.upto: dict[bytes, int] = {}
        self.last: Batch | None = None
        super().__init__(broker, "cloud", f"aquacis/1/gateway/{gateway}/up")

    def take(self, message: bytes) -> None:
        batch = decode_batch(message)
        upto = self.upto.get(batch.stream, 0)
        missing = batch.rows.count and batch.rows.column("seq")[0] > upto + 1
        if not missing:
            for row in batch.rows:
                self.rows.setdefault((batch.stream, row.seq), row)
                upto = max(upto, row.seq)
        self.upto[batch.stream] = upto
        self.last = batch
        ack = Ack(
            stream=batch.stream,
            upto=upto,
            credit=5000,
            cloud_at=time.time_ns() // 1000,
            resend_from=upto + 1 if missing else None,
        )
        self.client.publish(f"aquacis/1/gateway/{self.gateway}/down", encode_ack(ack), qos=1)

    def of(self, kind: RowKind) -> list[Row]:
        return [row for row in self.rows.values() if row.kind == kind]


class ChirpStack(Client):
    """Publishes uplinks as a real server does."""

    def __init__(self, broker: Broker, *, gateway: str = "norte") -> None:
        self.application = APPLICATIONS[gateway]
        super().__init__(broker, "city")

    def up(self, number: int) -> None:
        self.publish(json.dumps(self._event(number)).encode())

    def publish(self, event: bytes) -> None:
        topic = f"application/{self.application}/device/0013ea0000000001/event/up"
        self.client.publish(topic, event, qos=1)

    def _event(self, number: int) -> dict[str, Any]:
        payload = encode_lorawan_hourly([1000 + number, 1000], local_us=NEWEST_US)
        return {
            "time": "2026-03-02T12:00:00.123456789+00:00",
            "deviceInfo": {"devEui": "0013ea0000000001", "applicationId": self.application},
            "devAddr": "01da4231",
            "fCnt": number,
            "fPort": 1,
            "data": base64.b64encode(payload).decode(),
            "rxInfo": [{"gatewayId": "0016c001f1500002", "rssi": -97, "snr": 7.5}],
        }


class Gateway:
    """One agent process after another, on one state folder."""

    def __init__(self, tmp_path: Path, broker: Broker, **settings: Any) -> None:
        self.folder = tmp_path
        self.log = tmp_path / "agent.log"
        self.config = tmp_path / "gateway.json"
        user = settings.get("user", "norte")
        told = {
            "gateway": "norte",
            "broker": broker.url,
            "password": broker.passwords[user],
            "state": str(tmp_path / "agent"),
            "sources": [{"kind": "chirpstack", "application": APPLICATIONS["norte"]}],
            "pace": {"linger_s": 0.05, "ack_timeout_s": 2},
        }
        self.config.write_text(json.dumps(told | settings))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, command: str = "run", *more: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge_agent", command, "--config", str(self.config), *more],
                cwd=ROOT,
                stderr=log,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        return self.process

    def events(self, name: str) -> list[dict[str, Any]]:
        said = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [event for event in said if event["event"] == name]

    def stop(self) -> int:
        """Ask it to stop; return its exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def run(tmp_path: Path, broker: Broker) -> Iterator[Callable[..., Gateway]]:
    started: list[Gateway] = []

    def make(**settings: Any) -> Gateway:
        started.append(Gateway(tmp_path, broker, **settings))
        return started[-1]

    yield make
    for gateway in started:
        if gateway.process is not None and gateway.process.poll() is None:
            gateway.process.kill()
            gateway.process.wait()


@pytest.fixture
def cloud(broker: Broker) -> Iterator[Cloud]:
    client = Cloud(broker)
    yield client
    client.stop()


@pytest.fixture
def chirpstack(broker: Broker) -> Iterator[ChirpStack]:
    client = ChirpStack(broker)
    yield client
    client.stop()


def test_uplinks_reach_the_cloud_and_the_health_says_how_many(
    run: Callable[..., Gateway], cloud: Cloud, chirpstack: ChirpStack
) -> None:
    gateway = run()
    gateway.start()
    wait_for(lambda: cloud.last is not None and len(cloud.of(RowKind.REPORT)) >= 1)

    for number in range(200):
        chirpstack.up(number)
    chirpstack.publish(b"{not json")
    wait_for(lambda: len(cloud.of(RowKind.LORAWAN)) == 200)
    wait_for(lambda: (cloud.last.health or {}).get("source_committed") == 201)  # type: ignore[union-attr]

    health = cloud.last.health or {}  # type: ignore[union-attr]
    assert 0 < health["disk_free_kib"] <= health["disk_total_kib"]  # type: ignore[operator]
    assert health["last_ack_age_s"] <= PATIENCE_S  # type: ignore[operator]
    assert health["source_chirpstack-0_up"] == 1
    row = cloud.of(RowKind.LORAWAN)[0]
    assert (row.radio, row.session, row.port) == (0x0013EA0000000001, 0x01DA4231, 1)
    assert (row.rssi, row.snr) == (-97, 30)
    assert row.heard_at == NEWEST_US + 123_456
    assert gateway.stop() == 0


def test_what_chirpstack_published_is_stored_although_the_agent_is_killed_again_and_again(
    run: Callable[..., Gateway], cloud: Cloud, chirpstack: ChirpStack
) -> None:
    gateway = run()
    gateway.start()
    wait_for(lambda: cloud.last is not None and len(cloud.of(RowKind.REPORT)) >= 1)

    for number in range(600):
        chirpstack.up(number)
        if number % 150 == 100:
            assert gateway.process is not None
            gateway.process.kill()
            gateway.process.wait()
            gateway.start()

    wait_for(lambda: {row.counter for row in cloud.of(RowKind.LORAWAN)} == set(range(600)))
    streams = {stream for stream, _ in cloud.rows}
    assert len(streams) == 1, "one outbox file is one stream"
    assert gateway.stop() == 0


def test_lines_wait_on_disk_while_the_cloud_is_away_and_drain_sends_them(
    run: Callable[..., Gateway], broker: Broker, tmp_path: Path
) -> None:
    lines = tmp_path / "lines"
    lines.write_text(json.dumps({"telegram_hex": TELEGRAM, "key_hex": KEY}) + "\nnonsense\n")
    gateway = run(sources=[{"kind": "lines", "path": str(lines)}])
    gateway.start()
    wait_for((tmp_path / "agent" / "outbox.db").exists)
    time.sleep(1)
    assert gateway.stop() == 0

    alone = gateway.start("drain", "--timeout", "1")
    assert alone.wait(PATIENCE_S) == 75

    cloud = Cloud(broker)
    together = gateway.start("drain", "--timeout", "20")
    assert together.wait(PATIENCE_S) == 0
    cloud.stop()
    assert [row.payload.hex().upper() for row in cloud.of(RowKind.WMBUS)] == [TELEGRAM]
    assert len(cloud.of(RowKind.REPORT)) == 3  # the start, the bad line, the end of the file


@pytest.mark.parametrize("broker", ["nats"], indirect=True)
def test_a_refused_subscription_stops_the_agent_with_a_clear_error(
    run: Callable[..., Gateway],
) -> None:
    gateway = run(user="sur", sources=[])

    assert gateway.start().wait(PATIENCE_S) == 77

    (said,) = gateway.events("subscription_refused")
    assert "aquacis/1/gateway/norte/down" in said["reason"]
    assert "'sur'" in said["reason"]


@pytest.mark.parametrize("broker", ["nats"], indirect=True)
def test_a_source_that_may_not_be_read_is_reported_and_the_agent_goes_on(
    run: Callable[..., Gateway], cloud: Cloud
) -> None:
    gateway = run(sources=[{"kind": "chirpstack", "application": APPLICATIONS["sur"]}])
    gateway.start()

    wait_for(lambda: len(cloud.of(RowKind.REPORT)) >= 1)

    said = cbor2.loads(cloud.of(RowKind.REPORT)[0].payload)
    assert said["kind"] == "source_down"
    assert APPLICATIONS["sur"] in said["reason"]
    assert gateway.stop() == 0


def test_a_wrong_password_is_said_and_tried_again_until_stopped(
    run: Callable[..., Gateway],
) -> None:
    gateway = run(password="not-the-one", sources=[])
    gateway.start()

    wait_for(lambda: len(gateway.events("connection_refused")) >= 1)

    assert gateway.events("connection_refused")[0]["user"] == "norte"
    assert gateway.stop() == 0
    assert "not-the-one" not in gateway.log.read_text()
