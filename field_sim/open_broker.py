"""A broker as it stands on a gateway: on the loopback, without users, and mortal."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from field_sim import broker as brokers

PATIENCE_S = 75.0  # the NATS server offers an unacknowledged message again after 30 s
MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
max_inflight_messages 0
max_queued_messages 0
user {user}
"""
NATS = """\
listen: "127.0.0.1:{other}"
server_name: gateway
jetstream: {{ store_dir: "{folder}/nats" }}
mqtt: {{ host: "127.0.0.1", port: {port}, ack_wait: "2s", max_ack_pending: 1000 }}
"""


class OpenBroker:
    """mosquitto or the NATS server; started, killed and started again on the same port."""

    def __init__(self, folder: Path, kind: brokers.Kind | None) -> None:
        self.port = brokers.free_port()
        self.url = f"mqtt://127.0.0.1:{self.port}"
        folder.mkdir(parents=True)
        found, self._program = brokers.find(kind)
        template = MOSQUITTO if found == "mosquitto" else NATS
        self._settings = folder / "settings"
        self._settings.write_text(
            template.format(port=self.port, other=brokers.free_port(), folder=folder, user="nobody")
        )
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "-c", str(self._settings)], stdout=log, stderr=log
            )
        end = time.monotonic() + PATIENCE_S
        while brokers.port_is_free(self.port) and time.monotonic() < end:
            time.sleep(0.05)
        with Publisher(self):  # it is ready when one can sign in
            pass

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = None


class Publisher:
    """A client that publishes with QoS 1 and waits until the broker has it."""

    def __init__(self, broker: OpenBroker) -> None:
        connected = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(min_delay=1, max_delay=1)
        self._client.on_connect = lambda *_: connected.set()
        self._client.connect_async("127.0.0.1", broker.port)
        self._client.loop_start()
        if not connected.wait(PATIENCE_S):
            raise brokers.BrokerFailed("broker_dead", f"{broker.url} did not let us in")

    def publish(self, topic: str, event: bytes) -> None:
        self._client.publish(topic, event, qos=1).wait_for_publish(PATIENCE_S)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()
