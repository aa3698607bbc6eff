"""A real mosquitto on loopback that speaks TLS only, and only with those who have a certificate.

The certificate's name is the user, and the user may do nothing but `selftest/<name>`: as in
production, where a gateway's certificate is its identity.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from decoders.value import value
from release.arm.roots import CannotEmulate

GATEWAY: Final = "mast-7"
ECHO_TOPIC: Final = f"selftest/{GATEWAY}"
USUAL: Final = "/usr/sbin/mosquitto"
VALID: Final = datetime.timedelta(days=2)
EARLIER: Final = datetime.timedelta(days=1)  # a guest's clock is ours, but a day does not matter
READY_S: Final = 10.0


@value
class TlsBroker:
    """Where it listens, and the files that get one in."""

    url: str
    ca_file: Path
    cert_file: Path
    key_file: Path


@contextmanager
def tls_broker(folder: Path, *, now: datetime.datetime) -> Iterator[TlsBroker]:
    """Run it in `folder`. Raises CannotEmulate where mosquitto is not installed."""
    program = shutil.which("mosquitto") or USUAL
    if not os.access(program, os.X_OK):
        raise CannotEmulate("mosquitto is not installed; on Debian: apt-get install mosquitto")
    _issue(folder, now)
    port = _free_port()
    (folder / "acl").write_text("pattern readwrite selftest/%u\n")
    settings = (
        f"listener {port} 127.0.0.1\ncafile {folder}/ca.pem\ncertfile {folder}/localhost.pem\n"
        f"keyfile {folder}/localhost.key\nrequire_certificate true\n"
        f"use_identity_as_username true\nallow_anonymous false\nacl_file {folder}/acl\n"
    )
    if os.geteuid() == 0:
        settings += "user root\n"  # else it would leave root and could not read its own files
    (folder / "broker.conf").write_text(settings)
    with (folder / "broker.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-c", str(folder / "broker.conf")], stdout=log, stderr=log
        )
        try:
            _wait(port, process, folder / "broker.log")
            yield TlsBroker(
                url=f"mqtts://localhost:{port}",
                ca_file=folder / "ca.pem",
                cert_file=folder / f"{GATEWAY}.pem",
                key_file=folder / f"{GATEWAY}.key",
            )
        finally:
            process.terminate()
            process.wait(READY_S)


def _issue(folder: Path, now: datetime.datetime) -> None:
    """Write an authority's certificate, the broker's and the gateway's, as PEM."""
    authority = ec.generate_private_key(ec.SECP256R1())
    issuer = _named("aquacis selftest authority")
    root = _certificate(issuer, issuer, authority.public_key(), now).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    (folder / "ca.pem").write_bytes(
        root.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    for name in ("localhost", GATEWAY):
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        made = _certificate(_named(name), issuer, key.public_key(), now).add_extension(
            x509.SubjectAlternativeName(names), critical=False
        )
        signed = made.sign(authority, hashes.SHA256())
        (folder / f"{name}.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        private = folder / f"{name}.key"
        private.touch(0o600)
        private.write_bytes(secret)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + VALID)
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until_s = time.monotonic() + READY_S
    while time.monotonic() < until_s and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise CannotEmulate(f"mosquitto did not start: {log.read_text('utf-8', 'replace')[-300:]}")
