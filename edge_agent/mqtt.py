"""What both MQTT links have in common: where the broker is, and what its refusals mean."""

from __future__ import annotations

import ssl
from typing import Final
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.reasoncodes import ReasonCode

from decoders.value import value

KEEPALIVE_S: Final = 30
RECONNECT_MAX_S: Final = 30
REFUSED: Final = 0x80  # SUBACK return codes from here on are refusals
MQTT_PORT: Final = 1883
MQTTS_PORT: Final = 8883
BROKER_EXPECTED: Final = (
    "broker: mqtt://host:port or mqtts://host:port is expected; "
    "user and password are settings of their own"
)


@value
class Broker:
    """Where and as whom to connect. TLS verifies the server against `ca_file` or the system's."""

    host: str
    port: int
    user: str = ""
    password: str = ""
    tls: bool = False
    ca_file: str | None = None
    keepalive_s: int = KEEPALIVE_S

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def prepare(self, client: mqtt.Client) -> None:
        """Set credentials, TLS and reconnection of a client that is not connected yet."""
        if self.user:
            client.username_pw_set(self.user, self.password)
        if self.tls:
            client.tls_set_context(ssl.create_default_context(cafile=self.ca_file))
        client.reconnect_delay_set(min_delay=1, max_delay=RECONNECT_MAX_S)


def broker_at(
    url: str, *, user: str = "", password: str = "", ca_file: str | None = None
) -> Broker:
    """Read `mqtt://host[:port]` or `mqtts://…`. Raises ValueError, which quotes nothing of `url`.

    A password with one of / ? # in it would be cut there, and its rest taken for a host or a port
    that logs may name; so what stands behind the host is refused.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(BROKER_EXPECTED) from None
    behind = (parts.path.strip("/"), parts.query, parts.fragment)
    if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname or any(behind):
        raise ValueError(BROKER_EXPECTED)
    tls = parts.scheme == "mqtts"
    return Broker(
        host=parts.hostname,
        port=port or (MQTTS_PORT if tls else MQTT_PORT),
        user=parts.username or user,
        password=parts.password or password,
        tls=tls,
        ca_file=ca_file,
    )


def refused(code: ReasonCode) -> bool:
    """Say whether one SUBACK return code is a refusal: there is no other sign of it."""
    return int(code.value) >= REFUSED


@value
class SubscriptionRefused:
    """The broker does not let us read a topic that we cannot work without."""

    topic: str
    user: str
    address: str

    def __str__(self) -> str:
        return (
            f"the broker {self.address} refused user {self.user!r} the subscription to "
            f"{self.topic}: check its access rules and this gateway's id"
        )
