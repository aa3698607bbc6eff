"""Uplinks that a network server publishes over MQTT, whoever made it.

QoS 1 in a persistent session, and the PUBACK goes out by hand once the uplink is on our disk: what
we had not stored is delivered again. The broker's limit of unacknowledged messages should not be
below a commit's worth (mosquitto: `max_inflight_messages 0`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from decoders.value import value
from edge_agent.inputs import Heard
from edge_agent.mqtt import Broker, refused
from edge_agent.sources.supervisor import Hearing, SourceDied
from edge_agent.sources.uplinks import BadEvent

GRANT_S: Final = 30.0  # for CONNACK and SUBACK; a broker that says nothing is as good as gone
LOOK_S: Final = 0.2  # how soon a stop is noticed


class Read(Protocol):
    """Reads one network server's events."""

    def __call__(self, event: bytes, *, token: object) -> Heard | None:
        """Return the frame, or None where no application payload is in it. Raises BadEvent."""


@value
class _Delivery:
    """Which message of which connection to acknowledge: numbers start anew with each."""

    session: _Session
    mid: int


class MqttFeed:
    """A subscription to the uplinks of one network server."""

    def __init__(
        self, *, broker: Broker, client_id: str, topics: tuple[str, ...], read: Read
    ) -> None:
        self.where = f"{', '.join(topics)} at {broker.address}"
        self._broker = broker
        self._client_id = client_id
        self._topics = topics
        self._read = read
        self._session: _Session | None = None

    def run(self, hearing: Hearing) -> None:
        session = _Session(
            hearing,
            broker=self._broker,
            client_id=self._client_id,
            topics=self._topics,
            read=self._read,
            where=self.where,
        )
        self._session = session
        try:
            session.last()
        finally:
            self._session = None
            session.close()

    def settle(self, tokens: list[object]) -> None:
        """Acknowledge messages to the broker, unless they came over an earlier connection."""
        session = self._session
        for token in tokens:
            if isinstance(token, _Delivery) and token.session is session:
                token.session.acknowledge(token.mid)


class _Session:
    """One connection, from its beginning to its end. It is never used again."""

    def __init__(
        self,
        hearing: Hearing,
        *,
        broker: Broker,
        client_id: str,
        topics: tuple[str, ...],
        read: Read,
        where: str,
    ) -> None:
        self._broker = broker
        self._topics = topics
        self._read = read
        self._hearing = hearing
        self._where = where
        self._granted = threading.Event()
        self._ended = threading.Event()
        self._reason = ""
        self._client = _Client(client_id, self._end)
        broker.prepare(self._client)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    def last(self) -> None:
        """Connect, and return when the source is to stop. Raises SourceDied.

        Paho notices a half-open connection two keep-alives after the last byte, hence the half.
        """
        broker = self._broker
        try:
            self._client.connect(broker.host, broker.port, max(1, broker.keepalive_s // 2))
        except OSError as error:
            raise SourceDied(f"{broker.address}: {error.strerror or error}") from error
        self._client.loop_start()
        waited_s = 0.0
        stopping = self._hearing.stopping
        while not stopping.is_set() and not self._ended.wait(LOOK_S):
            waited_s += LOOK_S
            if waited_s >= GRANT_S and not self._granted.is_set():
                self._end(f"{broker.address} did not grant the subscription in {GRANT_S:.0f} s")
        if not stopping.is_set():
            raise SourceDied(self._reason)

    def acknowledge(self, mid: int) -> None:
        self._client.ack(mid, 1)

    def close(self) -> None:
        self._client.disconnect()
        with suppress(AttributeError):  # paho looks at its thread twice; it may end in between
            self._client.loop_stop()

    def _end(self, reason: str) -> None:
        """Note why it ends; the first reason is the cause, the rest follow from it."""
        self._reason = self._reason or reason
        self._ended.set()

    def _on_connect(
        self, client: mqtt.Client, _data: object, _flags: object, code: ReasonCode, _p: object
    ) -> None:
        if code.is_failure:
            self._end(f"{self._broker.address} refused {self._broker.user!r}: {code}")
            return
        client.subscribe([(topic, 1) for topic in self._topics])

    def _on_subscribe(
        self, _client: mqtt.Client, _data: object, _mid: int, codes: list[ReasonCode], _p: object
    ) -> None:
        denied = [t for t, code in zip(self._topics, codes, strict=False) if refused(code)]
        if denied:
            self._end(
                f"{self._broker.address} refused user {self._broker.user!r} the subscription to "
                f"{', '.join(denied)}: check its access rules"
            )
            return
        self._granted.set()
        self._hearing.up(self._where)

    def _on_disconnect(
        self, _client: mqtt.Client, _data: object, _flags: object, code: ReasonCode, _p: object
    ) -> None:
        self._end(f"{self._broker.address}: {code}")

    def _on_message(self, client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        try:
            self._take(client, message)
        except Exception as error:  # paho's thread would end without a word
            self._end(f"{type(error).__name__}: {error}")

    def _take(self, client: mqtt.Client, message: mqtt.MQTTMessage) -> None:
        token = _Delivery(session=self, mid=message.mid) if message.qos else None
        event = bytes(message.payload)
        try:
            frame = self._read(event, token=token)
        except BadEvent as bad:
            self._hearing.put_bad(bad.code, bad.detail, event, token)
            return
        if frame is not None:
            self._hearing.put(frame)
        elif message.qos:
            client.ack(message.mid, message.qos)


class _Client(mqtt.Client):
    """Paho's client, whose thread says so when it ends, also by what it cannot parse."""

    def __init__(self, client_id: str, ended: Callable[[str], None]) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=False,
            protocol=MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
            reconnect_on_failure=False,  # the supervisor's business
        )
        self._ended = ended

    def loop_forever(
        self, timeout: float = 1.0, retry_first_connection: bool = False
    ) -> MQTTErrorCode:
        try:
            return super().loop_forever(timeout, retry_first_connection)
        except Exception as error:  # of paho's own: a broker that does not speak MQTT
            self._ended(f"{type(error).__name__}: {error}")
            return MQTTErrorCode.MQTT_ERR_PROTOCOL
        finally:
            self._ended("the connection ended")
