"""What a gateway's private key says, read from its PEM file, to derive other keys from.

The file is the one of the gateway's mutual-TLS certificate. Its *canonical bytes* do not depend on
how the file was written (PKCS#8, PKCS#1, SEC1, with or without the public key or a certificate):

    EC                "EC" 00 · the curve's object identifier (its DER content) · the private scalar
    RSA               "RSA" 00 · the greater prime · the lesser prime
    Ed25519, Ed448    "Ed" 00 · the algorithm's object identifier · the private seed

What follows the 00 stands behind its length in 4 bytes; numbers are big-endian without leading
zeros. From these bytes HKDF-SHA256 (RFC 5869) makes keys. An encrypted key is refused: nobody
stands at a mast to type its passphrase.
Sources: RFC 5208 (PKCS#8), RFC 8017 A.1.2 (PKCS#1), RFC 5915 (SEC1's form), RFC 8410 (Edwards).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MAX_FILE_BYTES: Final = 64 * 1024  # a key of 16,384 bits with its chain of certificates fits
NAME_BYTES: Final = 8

_PEM: Final = re.compile(
    r"-----BEGIN ((?:[A-Z0-9]+ )*PRIVATE KEY)-----\s*(.*?)-----END \1-----", re.DOTALL
)
_INTEGER, _OCTETS, _OBJECT, _SEQUENCE, _PARAMETERS = 0x02, 0x04, 0x06, 0x30, 0xA0
_RSA: Final = bytes.fromhex("2a864886f70d010101")
_EC: Final = bytes.fromhex("2a8648ce3d0201")
_EDWARDS: Final = (bytes.fromhex("2b6570"), bytes.fromhex("2b6571"))


class PrivateKeyUnusable(Exception):
    """The private key file cannot be read or trusted; says why, and nothing of what is in it."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


class PrivateKey:
    """A private key's canonical bytes. Shows its name and nothing else."""

    __slots__ = ("_canonical", "name")

    def __init__(self, canonical: bytes) -> None:
        self._canonical = canonical
        # Says which private key this is, to a person who has both; leads back to nothing.
        self.name: Final = self.derived(b"aquacis-edge private key name", NAME_BYTES).hex()

    def derived(self, purpose: bytes, size: int, *, salt: bytes = b"") -> bytes:
        """Return `size` bytes for one purpose: HKDF-SHA256 of the canonical bytes."""
        return hkdf_sha256(self._canonical, salt=salt, info=purpose, size=size)

    def __repr__(self) -> str:
        return f"PrivateKey({self.name})"


def hkdf_sha256(secret: bytes, *, salt: bytes, info: bytes, size: int) -> bytes:
    """Return `size` bytes derived from `secret` (RFC 5869)."""
    assert 0 < size <= 255 * 32
    extracted = hmac.digest(salt or bytes(32), secret, "sha256")
    made, block = b"", b""
    for number in range(1, -(-size // 32) + 1):
        block = hmac.digest(extracted, block + info + bytes([number]), hashlib.sha256)
        made += block
    return made[:size]


def read_private_key(path: Path) -> PrivateKey:
    """Read a PEM file. Raises PrivateKeyUnusable."""
    try:
        mode = path.stat().st_mode
        with path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1).decode("latin-1")
    except OSError as error:
        raise PrivateKeyUnusable("private_key_unreadable", f"{path}: {error.strerror}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise PrivateKeyUnusable("private_key_exposed", f"{path}: others can read it; chmod 600")
    try:
        return private_key_of(text)
    except PrivateKeyUnusable as error:
        raise PrivateKeyUnusable(error.code, f"{path}: {_without(error)}") from None


def private_key_of(pem: str) -> PrivateKey:
    """Return the first private key of a PEM text. Raises PrivateKeyUnusable."""
    found = _PEM.search(pem)
    if found is None:
        raise PrivateKeyUnusable("private_key_absent", "there is no private key in PEM in it")
    kind, body = found[1], found[2]
    if kind.startswith("ENCRYPTED ") or "Proc-Type: 4,ENCRYPTED" in body:
        raise PrivateKeyUnusable(
            "private_key_encrypted", "it asks for a passphrase, which no gateway can be asked for"
        )
    try:
        der = base64.b64decode("".join(body.split()), validate=True)
        return PrivateKey(_canonical(kind, der))
    except (ValueError, IndexError):
        raise PrivateKeyUnusable(
            "private_key_malformed",
            f"its {kind} is neither EC nor RSA nor Ed25519 as standards say",
        ) from None


def _without(error: PrivateKeyUnusable) -> str:
    return str(error).removeprefix(f"{error.code}: ")


def _canonical(kind: str, der: bytes) -> bytes:
    """Return the canonical bytes of the module docstring. Raises ValueError or IndexError."""
    fields = list(_fields(_only(der, _SEQUENCE)))
    if kind == "RSA PRIVATE KEY":
        return _rsa(fields)
    if kind == "EC PRIVATE KEY":
        return _ec(fields, curve=None)
    if kind != "PRIVATE KEY":
        raise ValueError(kind)
    _version, (tag, algorithm), (inner, private), *_ = fields
    if tag != _SEQUENCE or inner != _OCTETS:
        raise ValueError("not PKCS#8")
    (named, identifier), *parameters = _fields(algorithm)
    if named != _OBJECT:
        raise ValueError("not PKCS#8")
    if identifier == _RSA:
        return _rsa(list(_fields(_only(private, _SEQUENCE))))
    if identifier == _EC:
        return _ec(list(_fields(_only(private, _SEQUENCE))), curve=parameters[0])
    if identifier in _EDWARDS:
        return _framed(b"Ed", identifier, _only(private, _OCTETS))
    raise ValueError("another algorithm")


def _rsa(fields: list[tuple[int, bytes]]) -> bytes:
    """version, n, e, d, p, q, …: the primes alone say all, and d is written in two ways."""
    if len(fields) < 9 or any(tag != _INTEGER for tag, _ in fields[:9]):
        raise ValueError("not PKCS#1")
    modulus, first, second = (int.from_bytes(fields[i][1], "big") for i in (1, 4, 5))
    if first * second != modulus or min(first, second) < 2:
        raise ValueError("its primes do not make its modulus")
    return _framed(b"RSA", _number(max(first, second)), _number(min(first, second)))


def _ec(fields: list[tuple[int, bytes]], *, curve: tuple[int, bytes] | None) -> bytes:
    """version, scalar, [0] curve, [1] public key: the curve stands here or in PKCS#8's head."""
    if fields[1][0] != _OCTETS:
        raise ValueError("not SEC1")
    for tag, content in fields[2:]:
        if tag == _PARAMETERS:
            curve = next(_fields(content), None)
    if curve is None or curve[0] != _OBJECT:
        raise ValueError("a curve without a name")
    scalar = int.from_bytes(fields[1][1], "big")
    if scalar == 0:
        raise ValueError("no scalar")
    return _framed(b"EC", curve[1], _number(scalar))


def _framed(kind: bytes, first: bytes, second: bytes) -> bytes:
    sized = [len(part).to_bytes(4, "big") + part for part in (first, second)]
    return kind + b"\0" + b"".join(sized)


def _number(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _only(der: bytes, tag: int) -> bytes:
    """Return the content of the one field that `der` is."""
    fields = list(_fields(der))
    if len(fields) != 1 or fields[0][0] != tag:
        raise ValueError("another field is expected")
    return fields[0][1]


def _fields(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (tag, content) of each DER field. Raises ValueError or IndexError."""
    at = 0
    while at < len(der):
        tag, size = der[at], der[at + 1]
        at += 2
        if size & 0x80:
            count = size & 0x7F
            size = int.from_bytes(der[at : at + count], "big")
            at += count
        if at + size > len(der):
            raise ValueError("a field is cut")
        yield tag, der[at : at + size]
        at += size
