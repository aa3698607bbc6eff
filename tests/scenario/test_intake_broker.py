"""`aquacis intake` as a process of its own between a real broker and a real database."""

from __future__ import annotations

import json
import queue
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from cloud.kernel.db import Database
from decoders import uplink
from decoders.uplink import Ack
from field_sim import broker as brokers
from field_sim.broker import Broker
from field_sim.supervisor import start
from tests.heard import HOUR, NOON, Gateway, lorawan, readings, rows_of
from tests.intake_process import APPLICATIONS, intake_process
from tests.real_parts import BROKERS

ANSWER_S = 90.0


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest, state: Path) -> Iterator[Broker]:
    prepared = brokers.prepare(state / "broker", APPLICATIONS, kind=request.param)
    process = start(prepared.command, run_as=prepared.run_as, log=state / "broker.log")
    try:
        brokers.wait_ready(prepared, lambda: process.poll() is None)
        yield prepared
    finally:
        process.terminate()
        process.wait(10)


class Radio:
    """A gateway's client: publishes and hears answers, asking again until one comes."""

    def __init__(self, broker: Broker, gateway: Gateway) -> None:
        self.gateway = gateway
        self._heard: queue.Queue[bytes] = queue.Queue()
        subscribed: queue.Queue[bool] = queue.Queue()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=gateway.id)
        self._client.username_pw_set(gateway.id, broker.passwords[gateway.id])
        self._client.on_subscribe = lambda *_: subscribed.put(True)
        self._client.on_message = lambda _client, _data, message: self._heard.put(
            bytes(message.payload)
        )
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        self._client.subscribe(f"aquacis/1/gateway/{gateway.id}/down", qos=1)
        assert subscribed.get(timeout=ANSWER_S)

    def ask(self, message: Callable[[], bytes], wanted: Callable[[Ack], bool]) -> Ack:
        """Publish until the wanted answer comes: intake may still be starting, and answers to
        earlier copies may come first."""
        deadline = time.monotonic() + ANSWER_S
        while time.monotonic() < deadline:
            self._client.publish(f"aquacis/1/gateway/{self.gateway.id}/up", message(), qos=1)
            try:
                answer = self._heard.get(timeout=1.0)
            except queue.Empty:
                continue
            ack = self.gateway.hears(answer, at=NOON)
            if wanted(ack):
                return ack
        raise AssertionError(f"no answer within {ANSWER_S} s")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def test_a_message_is_answered_after_its_commit_and_survives_a_killed_intake(
    broker: Broker, database: Database, state: Path
) -> None:
    radio = Radio(broker, Gateway("cerro"))
    gateway = radio.gateway
    gateway.hear(*(lorawan(n, [5, 4], at=NOON) for n in range(3)))
    with intake_process(broker, database, state) as process:
        ack = radio.ask(gateway.message, lambda ack: ack.upto == 3)
        assert ack.stream == gateway.stream
        assert len(readings(database)) == 6
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    gateway.hear(lorawan(9, [7], at=NOON - HOUR))
    with intake_process(broker, database, state) as process:
        radio.ask(lambda: gateway.message(first=4), lambda ack: ack.upto == 4)
        metrics = json.loads((state / "intake.json").read_text())["metrics"]
        with urllib.request.urlopen(metrics, timeout=5) as page:
            figures = page.read().decode()
        assert "aquacis_readings_total 1.0" in figures.splitlines()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    radio.close()

    assert len(readings(database)) == 7
    assert rows_of(database, "SELECT count(*) FROM receptions") == [(4,)]


# mosquitto grants every subscription and delivers nothing, so it cannot show this
@pytest.mark.parametrize("broker", ["nats"], indirect=True)
def test_a_login_that_may_not_read_the_gateways_stops_with_a_clear_error(
    broker: Broker, database: Database, state: Path
) -> None:
    with intake_process(broker, database, state, user="cerro") as process:
        assert process.wait(90) == 77
    assert "subscription_refused" in (state / "intake.log").read_text()


def test_bytes_that_are_no_message_are_answered_so_that_the_gateway_sends_again(
    broker: Broker, database: Database, state: Path
) -> None:
    radio = Radio(broker, Gateway("centro"))
    with intake_process(broker, database, state):
        radio.ask(radio.gateway.message, lambda ack: ack.rejected == ())
        broken = uplink.encode_batch(radio.gateway.batch(()))[:-20]
        ack = radio.ask(lambda: broken, lambda ack: ack.rejected != ())
    radio.close()

    assert ack.rejected == ((0, "uplink_malformed"),)
    assert ack.resend_from == 1
