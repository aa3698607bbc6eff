"""What both MQTT links have in common: where the broker is, and what its refusals mean."""

from __future__ import annotations

import ssl
from dataclasses import field
from typing import Final
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.reasoncodes import ReasonCode

from decoders.value import value

KEEPALIVE_S: Final = 30
KEEPALIVE_MIN_S: Final = 2  # half of it must be some turns of the client's loop
KEEPALIVE_MAX_S: Final = 3600  # what MQTT can say is 65,535
RECONNECT_MAX_S: Final = 30
VERSIONS: Final = ("auto", "3.1.1", "5")
REFUSED: Final = 0x80  # SUBACK return codes from here on are refusals
MQTT_PORT: Final = 1883
MQTTS_PORT: Final = 8883
BROKER_EXPECTED: Final = (
    "broker: mqtt://host:port or mqtts://host:port is expected; "
    "user and password are settings of their own"
)


@value
class Broker:
    """Where and as whom to connect.

    TLS verifies the server against `ca_file`, else against the system's authorities; `cert_file`
    and `key_file` are what we prove ourselves with (mutual TLS). All are PEM.
    version   MQTT "3.1.1" or "5", or "auto": 5 where the broker has it
    """

    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)
    tls: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    version: str = "auto"
    keepalive_s: int = KEEPALIVE_S

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def prepare(self, client: mqtt.Client) -> None:
        """Set credentials, TLS and reconnection of a client that is not connected yet."""
        if self.user and (self.password or not self.cert_file):  # else the certificate says who
            client.username_pw_set(self.user, self.password)
        if self.tls:
            client.tls_set_context(self.context())
        client.reconnect_delay_set(min_delay=1, max_delay=RECONNECT_MAX_S)

    def context(self) -> ssl.SSLContext:
        """Read the certificates, anew for each connection: they are renewed under our feet.

        Raises CertificateUnusable.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file, password=_no_passphrase)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            files = ", ".join(f for f in (self.ca_file, self.cert_file, self.key_file) if f)
            raise CertificateUnusable(f"{files or 'the system authorities'}: {error}") from None
        return context


class CertificateUnusable(ValueError):
    """A certificate or key file is missing, unreadable, or not what it should be."""


def _no_passphrase() -> str:
    """Nobody types one on a mast; without this, OpenSSL would ask the terminal."""
    raise ValueError("a key with a passphrase cannot be used")


def broker_at(
    url: str,
    *,
    user: str = "",
    password: str = "",
    ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
    version: str = "auto",
    keepalive_s: int = KEEPALIVE_S,
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
    if cert_file and not tls:
        raise ValueError("broker: with a cert_file, mqtts:// is expected")
    if key_file and not cert_file:
        raise ValueError("key_file: a cert_file is expected beside it")
    if version not in VERSIONS:
        raise ValueError(f"mqtt: {version!r} is none of {', '.join(VERSIONS)}")
    if not KEEPALIVE_MIN_S <= keepalive_s <= KEEPALIVE_MAX_S:
        raise ValueError(f"keepalive_s: {KEEPALIVE_MIN_S} … {KEEPALIVE_MAX_S} are possible")
    return Broker(
        host=parts.hostname,
        port=port or (MQTTS_PORT if tls else MQTT_PORT),
        user=parts.username or user,
        password=parts.password or password,
        tls=tls,
        ca_file=ca_file,
        cert_file=cert_file,
        key_file=key_file,
        version=version,
        keepalive_s=keepalive_s,
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
