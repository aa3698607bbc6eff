"""How the city reaches the agents: ChirpStack events through the broker, lines through a FIFO."""

from __future__ import annotations

import errno
import os
import select
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from decoders.uplink import UplinkError, decode_batch
from field_sim.broker import CITY, LOOPBACK

QOS = 1
BROKER_WINDOW = 500  # events the broker has not confirmed yet
AGENT_WINDOW = 3_000  # events an agent has not taken yet: bounds the broker's queue
RETRY_S = 1.0
POLL_S = 0.01
IDLE_S = 20.0  # an agent that speaks and takes nothing for so long has nothing waiting


class AgentsHealth:
    """How many frames each agent has taken, as its own messages to the cloud tell.

    An agent counts `heard` from its start; after a restart it counts from zero again, and counts
    again what the broker hands it a second time.
    """

    def __init__(self, gateways: Sequence[str]) -> None:
        self._index = {gateway: number for number, gateway in enumerate(gateways)}
        self._last = [-1] * len(gateways)
        self._taken = [0] * len(gateways)
        self._moved_s = [time.monotonic()] * len(gateways)
        self._spoke_s = [time.monotonic()] * len(gateways)

    def hear(self, message: bytes) -> None:
        """Take a message of an agent; one that cannot be read is the cloud's to judge."""
        try:
            batch = decode_batch(message)
        except UplinkError:
            return
        number = self._index.get(batch.gateway)
        heard = (batch.health or {}).get("heard", 0)
        if number is None or not isinstance(heard, int):
            return
        last = self._last[number]
        self._spoke_s[number] = time.monotonic()
        if heard != last:
            self._moved_s[number] = self._spoke_s[number]
        if last >= 0:  # what was heard before we began to listen is not ours
            self._taken[number] += heard - last if heard >= last else heard
        self._last[number] = heard

    def knows(self, gateway: int) -> bool:
        """Say whether the agent has spoken yet."""
        return self._last[gateway] >= 0

    def taken(self, gateway: int) -> int:
        return self._taken[gateway]

    def idle_s(self, gateway: int) -> float:
        """Return seconds between its last news of a frame and its last word."""
        return self._spoke_s[gateway] - self._moved_s[gateway]


class ChirpStacks:
    """The MQTT connection on which the city's ChirpStacks publish. Waits rather than floods."""

    def __init__(self, port: int, password: str, gateways: Sequence[str]) -> None:
        self.health = AgentsHealth(gateways)
        self._published = [0] * len(gateways)
        self.published_count = self.confirmed_count = 0
        self._lock = threading.Condition()
        self.connected = threading.Event()
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="city", clean_session=False)
        client.username_pw_set(CITY, password)
        client.max_inflight_messages_set(BROKER_WINDOW)
        client.max_queued_messages_set(0)
        client.reconnect_delay_set(1, 5)
        client.on_connect = self._on_connect
        client.on_disconnect = lambda *_: self.connected.clear()
        client.on_publish = self._on_publish
        client.on_message = lambda _c, _u, message: self.health.hear(bytes(message.payload))
        client.connect_async(LOOPBACK, port, keepalive=30)
        client.loop_start()
        self._client = client

    def _on_connect(
        self, client: mqtt.Client, _data: object, _flags: object, reason: ReasonCode, _p: object
    ) -> None:
        if not reason.is_failure:
            client.subscribe("aquacis/1/gateway/+/up", qos=0)
            self.connected.set()

    def _on_publish(self, *_: object) -> None:
        with self._lock:
            self.confirmed_count += 1
            self._lock.notify()

    @property
    def unconfirmed(self) -> int:
        return self.published_count - self.confirmed_count

    def publish(self, gateway: int, topic: str, payload: bytes) -> None:
        with self._lock:
            while self.unconfirmed >= BROKER_WINDOW:
                self._lock.wait(RETRY_S)
            self.published_count += 1
        self._client.publish(topic, payload, qos=QOS)
        self._published[gateway] += 1

    def count(self, gateway: int) -> None:
        """Count a frame that went to the gateway's agent another way."""
        self._published[gateway] += 1

    def behind(self, gateway: int) -> int:
        """Return how many events the gateway's agent still has to take.

        An agent that was killed may have taken some that it never told of: when it speaks and
        has taken nothing for long, there is nothing left for it.
        """
        if self.health.idle_s(gateway) > IDLE_S:
            self._published[gateway] = self.health.taken(gateway)
        return self._published[gateway] - self.health.taken(gateway)

    def confirmed(self, timeout_s: float) -> bool:
        """Wait until the broker has confirmed everything; say whether it has."""
        deadline = time.monotonic() + timeout_s
        with self._lock:
            while self.unconfirmed > 0 and time.monotonic() < deadline:
                self._lock.wait(0.1)
            return self.unconfirmed == 0

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Lines:
    """A FIFO that an agent reads as its wM-Bus receiver's output.

    Held open for reading and writing, so that neither side's restart is an end of file for the
    other. A radio does not wait: what a dead agent's FIFO cannot take is lost, and counted.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            os.mkfifo(path, 0o600)
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self.lost = 0

    def write(self, line: bytes, *, patience_s: float = 0.0) -> None:
        """Hand over one line, whole (it is shorter than PIPE_BUF) or not at all."""
        assert len(line) < select.PIPE_BUF
        deadline = time.monotonic() + patience_s
        while True:
            try:
                os.write(self._descriptor, line)
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise
                if time.monotonic() >= deadline:
                    self.lost += 1
                    return
                time.sleep(POLL_S)
            else:
                return

    def close(self) -> None:
        os.close(self._descriptor)
