"""The part of `selftest` that needs a broker: does it take us, by TLS, as this gateway?

Connects as the agent does and subscribes to this gateway's own topic; the cloud hears nothing of
it, for a message on `…/up` would be the beginning of a stream. With `echo` a message goes out and
must come back unchanged: on a broker whose rules allow that topic, as a test's does.
"""

from __future__ import annotations

import argparse
import os
import queue
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from edge_agent.config import read_config
from edge_agent.forward import topic_down
from edge_agent.mqtt import Broker, broker_at, refused

TIMEOUT_S: Final = 30.0  # an ARM926 needs seconds for a TLS handshake
ECHO_BYTES: Final = 65_536
SOMEBODY: Final = "selftest"  # the gateway's id where nobody says it

Event = tuple[str, object]


class BrokerRefused(Exception):
    """The broker was not reached, or does not let this gateway in; says where it ended."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Let `selftest` be told of a broker."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--config", metavar="FILE", help="also try the broker of these settings")
    which.add_argument("--broker", metavar="URL", help="also try this one: mqtts://host[:port]")
    parser.add_argument("--gateway", default=SOMEBODY, metavar="ID", help="as whom, with --broker")
    parser.add_argument("--user", default="", help="default: the gateway's id")
    parser.add_argument("--password-file", metavar="FILE", help="its first line is the password")
    parser.add_argument("--ca-file", metavar="PEM", help="default: the system's authorities")
    parser.add_argument(
        "--cert-file", metavar="PEM", help="this gateway's certificate (mutual TLS)"
    )
    parser.add_argument("--key-file", metavar="PEM", help="its private key")
    parser.add_argument("--echo", metavar="TOPIC", help="send a message there and get it back")


def asked_for(given: argparse.Namespace) -> Callable[[], str] | None:
    """Return the check that the options ask for, if any. Raises ConfigError, OSError, ValueError.

    The check raises BrokerRefused.
    """
    if given.config:
        settings = read_config(Path(given.config))
        broker, gateway = settings.broker, settings.gateway
    elif given.broker:
        secret = given.password_file
        gateway = given.gateway
        broker = broker_at(
            given.broker,
            user=given.user or gateway,
            password=Path(secret).read_text("utf-8").split("\n")[0] if secret else "",
            ca_file=given.ca_file,
            cert_file=given.cert_file,
            key_file=given.key_file,
        )
    else:
        return None
    return lambda: check_broker(broker, gateway=gateway, echo=given.echo)


def check_broker(
    broker: Broker, *, gateway: str, echo: str | None = None, timeout_s: float = TIMEOUT_S
) -> str:
    """Connect and subscribe; return how, e.g. "TLSv1.3 TLS_AES_256_GCM_SHA384".

    echo   a topic to send a message to and get it back from
    Raises BrokerRefused.
    """
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    until_s = time.monotonic() + timeout_s
    client = _client(broker, gateway, events)
    try:
        client.connect_async(broker.host, broker.port, broker.keepalive_s)
        client.loop_start()
        _expect(events, "connected", until_s, f"no connection to {broker.address}")
        how = _secured(client)
        topic = echo or topic_down(gateway)
        client.subscribe(topic, qos=1)
        _expect(events, "subscribed", until_s, f"no answer to our subscription to {topic}")
        if echo:
            sent = os.urandom(ECHO_BYTES)
            client.publish(echo, sent, qos=1)
            got = _expect(events, "message", until_s, "our message did not come back")
            if got != sent:
                raise BrokerRefused("our message came back changed")
        return how
    except (OSError, ValueError) as error:
        raise BrokerRefused(f"{broker.address}: {error}") from None
    finally:
        client.disconnect()
        client.loop_stop()


def _client(broker: Broker, gateway: str, events: queue.SimpleQueue[Event]) -> mqtt.Client:
    """Return a client that tells `events` what happens to it."""
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2,
        client_id=f"aquacis-edge-{gateway}-selftest",  # not the running agent's: that would end
        protocol=MQTTProtocolVersion.MQTTv311,
    )
    broker.prepare(client)

    def on_connect(_c: mqtt.Client, _d: object, _f: object, code: ReasonCode, _p: object) -> None:
        said = f"{broker.address} refused user {broker.user!r}: {code}"
        events.put(("refused", said) if code.is_failure else ("connected", ""))

    def on_connect_fail(_c: mqtt.Client, _d: object) -> None:
        events.put(("unreachable", f"{broker.address}: {_why_not(broker)}"))

    def on_disconnect(
        _c: mqtt.Client, _d: object, _f: object, code: ReasonCode, _p: object
    ) -> None:
        if code.is_failure:
            events.put(("unreachable", f"{broker.address}: {_why_not(broker)}"))

    def on_subscribe(
        _c: mqtt.Client, _d: object, _m: int, codes: list[ReasonCode], _p: object
    ) -> None:
        forbidden = any(refused(code) for code in codes)
        said = f"{broker.address} refused user {broker.user!r} the subscription: its access rules"
        events.put(("refused", said) if forbidden else ("subscribed", ""))

    def on_message(_c: mqtt.Client, _d: object, message: mqtt.MQTTMessage) -> None:
        events.put(("message", bytes(message.payload)))

    client.on_connect, client.on_connect_fail = on_connect, on_connect_fail
    client.on_disconnect = on_disconnect
    client.on_subscribe, client.on_message = on_subscribe, on_message
    return client


def _why_not(broker: Broker) -> str:
    """Try again by hand, because paho does not say why a connection failed."""
    try:
        with socket.create_connection((broker.host, broker.port), timeout=5) as plain:
            if not broker.tls:
                return "the connection was not taken"
            with broker.context().wrap_socket(plain, server_hostname=broker.host) as secured:
                # TLS 1.3 refuses a certificate only after the handshake: the alert comes now
                secured.recv(1)
                return "the broker ended the connection at once"
    except (OSError, ValueError) as error:
        return str(error)


def _secured(client: mqtt.Client) -> str:
    sock = client.socket()
    if not isinstance(sock, ssl.SSLSocket):
        return "without TLS"
    cipher = sock.cipher()
    return f"{sock.version()} {cipher[0] if cipher else ''}".strip()


def _expect(
    events: queue.SimpleQueue[Event], wanted: str, until_s: float, otherwise: str
) -> object:
    while True:
        try:
            kind, said = events.get(timeout=max(0.0, until_s - time.monotonic()))
        except queue.Empty:
            raise BrokerRefused(f"{otherwise} within the time") from None
        if kind == wanted:
            return said
        if kind in {"refused", "unreachable"}:
            raise BrokerRefused(str(said))
