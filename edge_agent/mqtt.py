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
    """Read `mqtt://host[:port]` or `mqtts://…`. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in {"mqtt", "mqtts"} or not parts.hostname:
        raise ValueError(f"broker {url!r}: mqtt://host:port or mqtts://host:port is expected")
    tls = parts.scheme == "mqtts"
    return Broker(
        host=parts.hostname,
        port=parts.port or (MQTTS_PORT if tls else MQTT_PORT),
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
