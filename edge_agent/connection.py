"""One MQTT connection that is made again whenever it ends: keep-alive, backoff, version.

A thread makes a client, lets it run until the connection is gone, waits, and makes the next one.
Nothing is kept from one to the other: what was under way is the outbox's to send again.

A connection through which nothing comes any more, although no end of it was ever heard (half-open:
a NAT forgot it, a cable is out), is given up one keep-alive after the last byte. The client asks
for a sign of life after half of that; by itself paho asks after the whole and waits for another.
`loop_read` and `loop_misc` are the public parts of its loop that this hooks into. While a long
message goes out slowly, the broker has nothing to say, and our question waits behind the message;
so what its end of TCP acknowledges of it counts as life, too.

MQTT 5 is tried first where the settings leave it open. A broker without it says so, or closes.
"""

from __future__ import annotations

import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from fcntl import ioctl
from typing import Final, Protocol

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.mqtt import Broker, refused

FIRST_WAIT_S: Final = 1.0  # doubled with every attempt that did not lead to a working connection
LONGEST_WAIT_S: Final = 15.0  # a line that is up for half a minute at a time must be used
CONNACK_S: Final = 10.0  # for the broker's answer to CONNECT
STUCK_S: Final = 60.0  # a loop that did not turn for so long has died: make a new client
WATCH_S: Final = 0.5
STOP_S: Final = 5.0  # for the farewell; a dead connection would hold us up for ever
MOVING_BYTES: Final = 1_024  # on their way; of fewer (a PINGREQ) the broker's machine says nothing
NO_SUCH_VERSION: Final = 0x84  # CONNACK of MQTT 5; paho gives it for the 0x01 of 3.1.1, too


class Listener(Protocol):
    """What is told of the connection, in the client's own thread: return soon."""

    def stands(self, version: str, *, most_packet: int = 0) -> None:
        """Connected, and the subscription was granted. The version is "3.1.1" or "5".

        most_packet   the longest packet that the broker takes, bytes; 0 = it does not say
        """

    def ended(self, reason: str) -> None:
        """The connection is gone, or was never made."""

    def message(self, payload: bytes) -> None:
        """A message of the subscription."""

    def delivered(self, mid: int, *, refused: bool) -> None:
        """The broker has a message; `refused`: and says (MQTT 5 alone) that we may not."""

    def subscription_refused(self) -> None:
        """The broker does not let us read the topic."""


class Connection:
    """Keeps one subscription alive. `draw` returns numbers in [0, 1): gateways must not chime."""

    def __init__(
        self,
        *,
        broker: Broker,
        client_id: str,
        topic: str,
        listener: Listener,
        draw: Callable[[], float],
        log: Callable[..., None],
    ) -> None:
        self._broker = broker
        self._client_id = client_id
        self._topic = topic
        self._listener = listener
        self._draw = draw
        self._log = log
        self._version = MQTTProtocolVersion.MQTTv5
        if broker.version == "3.1.1":
            self._version = MQTTProtocolVersion.MQTTv311
        self._client: Client | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cloud-link", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def publish(self, topic: str, payload: bytes) -> int | None:
        """Hand a message over to a connection that stands; return its number, None = there is none.

        The number is what `delivered` will tell.
        """
        client = self._client
        if client is None or client.useless or not client.is_connected():
            return None
        return client.publish(topic, payload, qos=1).mid

    def give_up(self, why: str) -> None:
        """End this connection, which is of no use (`why`: the event in the log), for another."""
        client = self._client
        if client is not None:
            client.useless = why

    @property
    def moved_s(self) -> float:
        """Return when the other end last took bytes of a message (monotonic); long ago: never."""
        client = self._client
        return client.moved_s if client is not None else float("-inf")

    def stop(self) -> None:
        """Say good-bye and end, within STOP_S."""
        self._stopping.set()
        client = self._client
        if client is not None:
            client.disconnect()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def _run(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            client = self._made()
            worked = self._lived(client) if client is not None else False
            self._client = None
            attempt = 0 if worked else attempt + 1
            if client is not None and client.try_other_version and self._falls_back():
                continue
            self._stopping.wait(wait_s(attempt, self._draw()))

    def _made(self) -> Client | None:
        """Return a client whose CONNECT is on its way, or None."""
        try:
            client = Client(self._broker, self._client_id, self._version)
            client.on_connect = self._on_connect
            client.on_disconnect = self._on_disconnect
            client.on_subscribe = self._on_subscribe
            client.on_publish = self._on_publish
            client.on_message = lambda _c, _d, said: self._listener.message(bytes(said.payload))
            client.begin()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            self._log(
                "broker_unreachable",
                broker=self._broker.address,
                reason=str(error),
                **({"hint": TLS_HINT} if isinstance(error, ssl.SSLError) else {}),
            )
            return None
        self._client = client
        client.loop_start()
        return client

    def _lived(self, client: Client) -> bool:
        """Wait for the end of a connection; say whether it ever worked."""
        while not client.over.wait(WATCH_S):
            if self._stopping.is_set():
                client.over.wait(STOP_S)
                break
            now_s = time.monotonic()
            if not client.answered and now_s - client.begun_s >= CONNACK_S:
                self._log("broker_mute", broker=self._broker.address)
                break
            if client.useless:
                self._log(client.useless, broker=self._broker.address)
                break
            if client.answered and now_s - client.heard_s >= self._broker.keepalive_s:
                self._log("line_dead", broker=self._broker.address)
                break
            if now_s - client.turned_s >= STUCK_S:
                self._log("client_stuck", broker=self._broker.address)
                client.over.set()
                self._listener.ended("stuck")
                return client.worked  # its thread cannot be waited for
        if not client.over.is_set():
            client.over.set()
            self._listener.ended("given up")
        client.end()
        return client.worked

    def _falls_back(self) -> bool:
        """Take the other version for the next attempt, where the settings leave it open."""
        if self._broker.version != "auto":
            return False
        was_5 = self._version == MQTTProtocolVersion.MQTTv5
        other = MQTTProtocolVersion.MQTTv311 if was_5 else MQTTProtocolVersion.MQTTv5
        self._version = other
        return was_5

    def _on_connect(
        self,
        client: mqtt.Client,
        _data: object,
        _flags: object,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        assert isinstance(client, Client)
        client.answered = True
        client.most_packet = int(getattr(properties, "MaximumPacketSize", 0))
        if not code.is_failure:
            client.subscribe(self._topic, qos=1)
            return
        if code.value == NO_SUCH_VERSION and self._broker.version == "auto":
            client.try_other_version = True
            self._log("mqtt_5_refused", broker=self._broker.address)
            return
        self._log(
            "connection_refused",
            broker=self._broker.address,
            user=self._broker.user,
            reason=str(code),
            hint="check this gateway's user and password or certificate at the broker",
        )

    def _on_subscribe(
        self, client: mqtt.Client, _data: object, _mid: int, codes: list[ReasonCode], _p: object
    ) -> None:
        assert isinstance(client, Client)
        client.worked = True
        if any(refused(code) for code in codes):
            self._listener.subscription_refused()
            return
        version = "5" if client.is_5 else "3.1.1"
        self._listener.stands(version, most_packet=client.most_packet)

    def _on_publish(
        self, _client: mqtt.Client, _data: object, mid: int, code: ReasonCode, _p: object
    ) -> None:
        self._listener.delivered(mid, refused=code.is_failure)

    def _on_disconnect(
        self, client: mqtt.Client, _data: object, _flags: object, code: ReasonCode, _p: object
    ) -> None:
        assert isinstance(client, Client)
        if not client.answered:
            client.try_other_version = True  # some brokers close where they do not understand
            self._log("broker_closed", broker=self._broker.address, reason=str(code), hint=CLOSED)
        if not client.over.is_set():
            client.over.set()
            self._listener.ended(str(code))


TLS_HINT: Final = (
    "a certificate is refused: is this gateway's clock right, are cert_file, key_file and ca_file "
    "those of this broker, and not expired?"
)
CLOSED: Final = (
    "it closed before it answered: does it know this gateway's certificate and this MQTT version?"
)


def wait_s(attempt: int, chance: float) -> float:
    """Return the pause before an attempt: half of it is drawn, or a hundred gateways would chime.

    attempt   how many in a row did not lead to a working connection; 0 after one that did
    """
    longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(attempt, 16))
    return longest * (0.5 + 0.5 * chance)


class Client(mqtt.Client):
    """One connection's client: clean session, asks for a sign of life in time."""

    def __init__(self, broker: Broker, client_id: str, version: MQTTProtocolVersion) -> None:
        """Read the certificates. Raises mqtt.CertificateUnusable."""
        self.is_5 = version == MQTTProtocolVersion.MQTTv5
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            # acks of an earlier connection say nothing that hello does not
            clean_session=None if self.is_5 else True,
            protocol=version,
            reconnect_on_failure=False,
        )
        broker.prepare(self)
        self._at = broker
        self.over = threading.Event()
        self.answered = self.worked = self.try_other_version = False
        self.most_packet = 0  # bytes; 0: the broker did not say
        self.useless = ""  # why it is to be given up
        self.moved_s = float("-inf")  # when the other end last took bytes of a message
        self._sent = self._taken = self._on_the_way = 0  # bytes
        self.begun_s = self.turned_s = self.heard_s = self.asked_s = time.monotonic()

    def begin(self) -> None:
        """Connect and send CONNECT. Raises OSError."""
        self.begun_s = self.turned_s = self.heard_s = self.asked_s = time.monotonic()
        at = self._at
        if self.is_5:
            self.connect(at.host, at.port, at.keepalive_s, clean_start=True)
        else:
            self.connect(at.host, at.port, at.keepalive_s)

    def end(self) -> None:
        """End its thread and close what is left of it."""
        left = self.socket()
        if isinstance(left, socket.socket):
            with suppress(OSError):
                left.shutdown(socket.SHUT_RDWR)  # wakes the thread, which closes it
        self.loop_stop()
        left = self.socket()
        if left is not None:
            left.close()

    def loop_read(self, max_packets: int = 1) -> MQTTErrorCode:
        self.heard_s = time.monotonic()
        return super().loop_read(max_packets)

    def loop_misc(self) -> MQTTErrorCode:
        now_s = self.turned_s = time.monotonic()
        if self._moves():
            self.moved_s = self.heard_s = now_s
            with self._msgtime_mutex:
                self._last_bytes_received = now_s  # for paho's own watch
        if self.is_connected() and now_s - max(self.heard_s, self.asked_s) >= self.keepalive / 2:
            self.asked_s = now_s
            self._send_pingreq()  # paho has no public way to ask
        return super().loop_misc()

    def _sock_send(self, buf: bytes | bytearray) -> int:
        sent = super()._sock_send(buf)
        self._sent += sent
        return sent

    def _moves(self) -> bool:
        """Say whether the other end's TCP took some of a message since this was asked before.

        Only real bytes move it: a broker that hangs stops it as soon as its machine's buffer is
        full or our few messages are out, and an acknowledged question alone is no sign of life.
        """
        at = self.socket()
        if at is None:
            return False
        try:
            (on_the_way,) = struct.unpack("i", ioctl(at.fileno(), termios.TIOCOUTQ, bytes(4)))
        except (OSError, ValueError):  # it was closed meanwhile
            return False
        taken = self._sent - on_the_way  # with TLS somewhat less than it says, never rising alone
        moves = taken > self._taken and self._on_the_way >= MOVING_BYTES
        self._taken, self._on_the_way = taken, on_the_way
        return moves
