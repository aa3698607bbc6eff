"""A broker as in production: it speaks TLS alone, and a client's certificate says who it is.

The name in the certificate is the gateway's id, the MQTT user and the only topic it may publish on.
mosquitto takes it with `use_identity_as_username` and one `pattern` for every gateway; the NATS
server with `verify_and_map`, by the DNS name in the certificate, and one user block a gateway.
The guide docs/guides/gateway-forwarding.md shows the same settings; tests hold them to this file.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from decoders.value import value
from field_sim import broker
from field_sim.broker import CLOUD, LOOPBACK, MAX_INFLIGHT, MAX_PACKET_BYTES, Broker, Kind
from field_sim.texts import replace_text

VALID: Final = datetime.timedelta(days=2)
EARLIER: Final = datetime.timedelta(days=1)
ACL: Final = """\
pattern write aquacis/1/gateway/%u/up
pattern read aquacis/1/gateway/%u/down
user cloud
topic read aquacis/1/gateway/+/up
topic write aquacis/1/gateway/+/down
"""


@value
class Identity:
    """PEM files that prove a name."""

    name: str
    cert_file: Path
    key_file: Path


class Authority:
    """A certificate authority of our own, its files in one folder that others may read."""

    def __init__(self, folder: Path, *, now: datetime.datetime) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._now = now
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named("AquaCIS test authority")
        self.ca_file = folder / "ca.pem"
        certificate = (
            self._draft(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, expired: bool = False) -> Identity:
        """Make a key and a certificate for `name`, which is also its DNS name."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address(LOOPBACK))]
        certificate = (
            self._draft(_named(name), key.public_key(), expired=expired)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        made = Identity(
            name=name,
            cert_file=self._folder / f"{name}.pem",
            key_file=self._folder / f"{name}.key",
        )
        made.cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        made.key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return made

    def _draft(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, expired: bool = False
    ) -> x509.CertificateBuilder:
        until = self._now - datetime.timedelta(hours=1) if expired else self._now + VALID
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - EARLIER)
            .not_valid_after(until)
        )


def prepare(folder: Path, authority: Authority, gateways: Sequence[str], *, kind: Kind) -> Broker:
    """Write a broker's files and say how to start it. Raises broker.BrokerFailed."""
    found, program = broker.find(kind)
    data = folder / found
    data.mkdir(parents=True, exist_ok=True)
    server = authority.issue("localhost")
    port = broker.free_port()
    write = _write_mosquitto if found == "mosquitto" else _write_nats
    settings = write(data, authority, server, gateways, port)
    run_as = broker.service_user(found, folder)
    if run_as is not None:
        for path in (data, *data.rglob("*"), server.key_file):
            os.chown(path, *run_as)
    return Broker(
        kind=found, port=port, command=(program, "-c", str(settings)), run_as=run_as, passwords={}
    )


def _write_mosquitto(
    data: Path, authority: Authority, server: Identity, _gateways: Sequence[str], port: int
) -> Path:
    replace_text(data / "acl", ACL)
    lines = [
        f"listener {port} {LOOPBACK}",
        f"cafile {authority.ca_file}",
        f"certfile {server.cert_file}",
        f"keyfile {server.key_file}",
        "require_certificate true",
        "use_identity_as_username true",
        "allow_anonymous false",
        f"acl_file {data / 'acl'}",
        f"max_inflight_messages {MAX_INFLIGHT}",
        f"max_packet_size {MAX_PACKET_BYTES}",
        "log_dest stderr",
    ]
    replace_text(data / "mosquitto.conf", "\n".join(lines) + "\n")
    return data / "mosquitto.conf"


def _write_nats(
    data: Path, authority: Authority, server: Identity, gateways: Sequence[str], port: int
) -> Path:
    def user(name: str, publish: str, read: str) -> dict[str, object]:
        return {
            "user": name,
            "permissions": {"publish": {"allow": [publish]}, "subscribe": {"allow": [read]}},
        }

    users = [
        user(name, f"aquacis.1.gateway.{name}.up", f"aquacis.1.gateway.{name}.down")
        for name in gateways
    ]
    users.append(user(CLOUD, "aquacis.1.gateway.*.down", "aquacis.1.gateway.*.up"))
    told = {
        "server_name": "aquacis",
        "listen": f"{LOOPBACK}:-1",
        "max_payload": MAX_PACKET_BYTES,
        "jetstream": {"store_dir": str(data / "store")},
        "mqtt": {
            "listen": f"{LOOPBACK}:{port}",
            "ack_wait": "30s",
            "max_ack_pending": MAX_INFLIGHT,
            "tls": {
                "cert_file": str(server.cert_file),
                "key_file": str(server.key_file),
                "ca_file": str(authority.ca_file),
                "verify_and_map": True,
            },
        },
        "authorization": {"users": users},
    }
    (data / "store").mkdir(mode=0o700, exist_ok=True)
    replace_text(data / "nats.conf", json.dumps(told, indent=1))
    return data / "nats.conf"


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
