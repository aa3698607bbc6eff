"""A ChirpStack v4 on or near this gateway: uplinks from its JSON events over MQTT.

QoS 1 in a persistent session, and the PUBACK goes out by hand once the uplink is on our disk: what
we had not stored is delivered again. ChirpStack itself must publish with `qos = 1`; its default 0
is not kept for absent clients. The broker's limit of unacknowledged messages should not be below
a commit's worth (mosquitto: `max_inflight_messages 0`).
Shapes: ChirpStack v4 integration events, as captured from 4.20.0.
"""

from __future__ import annotations

import base64
import binascii
import json
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from decoders.uplink import MAX_PAYLOAD_BYTES, NO_RSSI, NO_SNR, RowFlag, RowKind
from decoders.value import value
from edge_agent.inputs import BadInput, Heard, SourceChanged
from edge_agent.instants import BadInstant, micros
from edge_agent.mqtt import Broker, SubscriptionRefused, refused
from edge_agent.sources.port import Inbox

MAX_EVENT_BYTES: Final = 262_144  # an uplink heard by a hundred gateways is a tenth of it
QUARTER_DB: Final = 4
U32: Final = 0xFFFFFFFF


class BadEvent(Exception):
    """An event that is no uplink. code: malformed | oversized."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


@value
class _Delivery:
    """Which message of which connection to acknowledge: numbers start anew with each."""

    connection: int
    mid: int


def heard_in(event: bytes, *, gateway_eui: str | None, token: object = None) -> Heard | None:
    """Read an `up` event; None when it carries no application payload. Raises BadEvent.

    gateway_eui   our own radio: its level is taken; else the best receiver's
    """
    if len(event) > MAX_EVENT_BYTES:
        raise BadEvent("oversized", f"{len(event)} bytes, at most {MAX_EVENT_BYTES} are read")
    try:
        said = json.loads(event)
    except (ValueError, RecursionError) as error:
        raise BadEvent("malformed", f"JSON: {error}") from None
    try:
        return _heard(said, gateway_eui, token)
    except BadEvent:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise BadEvent("malformed", f"{type(error).__name__}: {error}") from None


def _heard(said: Mapping[str, Any], gateway_eui: str | None, token: object) -> Heard | None:
    port = said.get("fPort", 0)
    encoded = said.get("data") or ""
    if not encoded or not port:
        return None  # MAC commands only: the network server's business
    payload = base64.b64decode(encoded, validate=True)
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise BadEvent("oversized", f"data: {len(payload)} bytes")
    eui = said["deviceInfo"]["devEui"]
    counter, session = said.get("fCnt", 0), int(said.get("devAddr") or "0", 16)
    if len(eui) != 16 or not 0 <= counter <= U32 or not 0 < port <= 255 or session > U32:
        raise BadEvent("malformed", f"devEui {eui!r}, fCnt {counter!r}, fPort {port!r}")
    try:
        heard_at = micros(said["time"])
    except BadInstant as error:
        raise BadEvent("malformed", f"time: {error}") from None
    rssi, snr = _level(said.get("rxInfo") or (), gateway_eui)
    return Heard(
        kind=RowKind.LORAWAN,
        frame=payload,
        heard_at=heard_at,
        flags=int(RowFlag.NETWORK_CHECKED),
        radio=int(eui, 16),
        session=session,
        counter=counter,
        port=port,
        rssi=rssi,
        snr=snr,
        token=token,
    )


def _level(receivers: Iterable[Mapping[str, Any]], gateway_eui: str | None) -> tuple[int, int]:
    """Return dBm and quarter dB of our own radio, else of the receiver that heard it best.

    ChirpStack lists receivers in no order, and leaves out values that are zero.
    """
    best: Mapping[str, Any] | None = None
    for receiver in receivers:
        if gateway_eui is not None and receiver.get("gatewayId") == gateway_eui:
            best = receiver
            break
        if best is None or receiver.get("rssi", 0) > best.get("rssi", 0):
            best = receiver
    if best is None:
        return NO_RSSI, NO_SNR
    snr = round(best.get("snr", 0) * QUARTER_DB)
    return max(-32767, min(32767, int(best.get("rssi", 0)))), max(-127, min(127, snr))


class ChirpStackSource:
    """A subscription to the uplinks of one application ("+" = of all)."""

    def __init__(
        self,
        *,
        name: str,
        broker: Broker,
        client_id: str,
        application: str,
        inbox: Inbox,
        gateway_eui: str | None = None,
    ) -> None:
        self.name = name
        self.topic = f"application/{application}/device/+/event/up"
        self._broker = broker
        self._inbox = inbox
        self._gateway_eui = gateway_eui
        self._connection = 0
        self._lock = threading.Lock()
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=False,
            protocol=MQTTProtocolVersion.MQTTv311,
            manual_ack=True,
        )
        broker.prepare(self._client)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    def start(self) -> None:
        self._client.connect_async(self._broker.host, self._broker.port, self._broker.keepalive_s)
        self._client.loop_start()

    def settle(self, tokens: list[object]) -> None:
        """Acknowledge messages to the broker, unless they came over an earlier connection."""
        for token in tokens:
            if isinstance(token, _Delivery) and token.connection == self._connection:
                self._client.ack(token.mid, 1)

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self, client: mqtt.Client, _data: object, _flags: object, code: ReasonCode, _p: object
    ) -> None:
        with self._lock:
            self._connection += 1
        if code.is_failure:
            reason = f"{self._broker.address} refused {self._broker.user!r}: {code}"
            self._say("source_down", reason)
            return
        client.subscribe(self.topic, qos=1)

    def _on_subscribe(
        self, client: mqtt.Client, _data: object, _mid: int, codes: list[ReasonCode], _p: object
    ) -> None:
        if any(refused(code) for code in codes):
            self._inbox.put_now(
                SubscriptionRefused(
                    topic=self.topic, user=self._broker.user, address=self._broker.address
                )
            )
            return
        self._say("source_up", self.topic)

    def _on_disconnect(
        self, _client: mqtt.Client, _data: object, _flags: object, code: ReasonCode, _p: object
    ) -> None:
        with self._lock:
            self._connection += 1
        self._say("source_down", str(code))

    def _on_message(self, client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        token = _Delivery(connection=self._connection, mid=message.mid) if message.qos else None
        event = bytes(message.payload)
        try:
            frame = heard_in(event, gateway_eui=self._gateway_eui, token=token)
        except BadEvent as bad:
            self._inbox.put(
                BadInput(
                    source=self.name,
                    code=bad.code,
                    detail=bad.detail,
                    given=event[:1024],
                    token=token,
                )
            )
            return
        if frame is not None:
            self._inbox.put(frame)
        elif message.qos:
            client.ack(message.mid, message.qos)

    def _say(self, kind: str, reason: str) -> None:
        self._inbox.put_now(SourceChanged(source=self.name, kind=kind, reason=reason))
