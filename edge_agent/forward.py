"""The link to the cloud: batches out on `…/up`, acks in on `…/down`, over paho.

What to send and when is `protocol`'s business; here it becomes messages. Only the cloud's own ack
counts: both common brokers PUBACK a publish that their rules then drop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from decoders.uplink import Batch, UplinkError, decode_ack, encode_batch, pack_rows
from decoders.value import value
from edge_agent.clock import Clock
from edge_agent.inputs import AckReceived, Connected, Disconnected
from edge_agent.mqtt import Broker, SubscriptionRefused, refused
from edge_agent.outbox import Outbox
from edge_agent.protocol import Publish
from edge_agent.sources.port import Inbox

BATCH_BYTES: Final = 900_000  # of rows; below every broker's 1 MiB with the header
CAPABILITIES: Final = ("wmbus", "lorawan", "leaks.continuous", "leaks.burst", "profile.lean")
HEALTH_ENTRIES: Final = 60  # the codec takes 64


def topic_up(gateway: str) -> str:
    return f"aquacis/1/gateway/{gateway}/up"


def topic_down(gateway: str) -> str:
    return f"aquacis/1/gateway/{gateway}/down"


@value
class Echo:
    """The newest ack: the cloud's clock in it, and our ticks when it came."""

    cloud_at: int = 0
    ticks_us: int = 0


def batch_of(
    outbox: Outbox,
    asked: Publish,
    *,
    gateway: str,
    agent: str,
    clock: Clock,
    echo: Echo,
    health: Mapping[str, int],
    traceparent: str,
) -> Batch:
    """Read the asked rows (maybe fewer: a message has a size) into a message."""
    rows = outbox.read(asked.first, rows=asked.rows, max_bytes=BATCH_BYTES) if asked.rows else ()
    return Batch(
        gateway=gateway,
        stream=outbox.stream,
        rows=pack_rows(rows),
        sent_at=clock.now_us(),
        started_at=outbox.started_at,
        agent=agent,
        capabilities=CAPABILITIES,
        echo_cloud_at=echo.cloud_at,
        echo_age_us=max(0, clock.ticks_us() - echo.ticks_us) if echo.cloud_at else 0,
        head=outbox.head,
        head_at=outbox.head_at,
        acked=outbox.acked,
        lost=outbox.lost_from(outbox.acked + 1),
        health=dict(list(health.items())[:HEALTH_ENTRIES]),
        traceparent=traceparent,
    )


class CloudLink:
    """The MQTT connection to the cloud. Puts AckReceived, Connected, Disconnected in the inbox."""

    def __init__(
        self,
        *,
        broker: Broker,
        gateway: str,
        inbox: Inbox,
        clock: Clock,
        log: Callable[..., None],
    ) -> None:
        self._clock = clock
        self._broker = broker
        self._up, self._down = topic_up(gateway), topic_down(gateway)
        self._inbox = inbox
        self._log = log
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"aquacis-edge-{gateway}",
            clean_session=True,  # acks of an earlier connection say nothing that hello does not
            protocol=MQTTProtocolVersion.MQTTv311,
        )
        broker.prepare(self._client)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    def start(self) -> None:
        self._client.connect_async(self._broker.host, self._broker.port, self._broker.keepalive_s)
        self._client.loop_start()

    def publish(self, batch: Batch) -> None:
        """Hand a message over. Whether it arrived, only an ack will tell."""
        self._client.publish(self._up, encode_batch(batch), qos=1)

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self, client: mqtt.Client, _data: object, _flags: object, code: ReasonCode, _p: object
    ) -> None:
        if code.is_failure:
            self._log(
                "connection_refused",
                broker=self._broker.address,
                user=self._broker.user,
                reason=str(code),
                hint="check this gateway's user and password at the broker",
            )
            return
        client.subscribe(self._down, qos=1)

    def _on_connect_fail(self, _client: mqtt.Client, _data: object) -> None:
        self._log("broker_unreachable", broker=self._broker.address)

    def _on_subscribe(
        self, _client: mqtt.Client, _data: object, _mid: int, codes: list[ReasonCode], _p: object
    ) -> None:
        if any(refused(code) for code in codes):
            self._inbox.put_now(
                SubscriptionRefused(
                    topic=self._down, user=self._broker.user, address=self._broker.address
                )
            )
            return
        self._inbox.put_now(Connected())

    def _on_disconnect(
        self, _client: mqtt.Client, _data: object, _flags: object, code: ReasonCode, _p: object
    ) -> None:
        self._inbox.put_now(Disconnected(reason=str(code)))

    def _on_message(self, _client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        try:
            self._inbox.put_now(
                AckReceived(ack=decode_ack(bytes(message.payload)), at=self._clock.now_us())
            )
        except UplinkError as error:
            self._log("ack_unreadable", code=error.code, detail=error.detail)
