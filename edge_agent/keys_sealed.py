"""The sealed key file: AES-256-GCM under keys that only a gateway's own private key gives.

The first line is a header in JSON, ASCII, that hides nothing; what follows is ciphertext and tag:

    {"aquacis_keys": 1, "gateway": "norte", "bytes": …, "nonce": …, "slots":
        [{"private_key": name, "salt": …, "nonce": …, "wrapped": …}]}

The content is sealed under a random key, new at every writing, and the whole header is
authenticated with it. Each slot holds that random key, sealed under

    HKDF-SHA256(the private key's canonical bytes, salt: the slot's, info: "aquacis-edge keys 1 ID")

so the file of one gateway opens with its private key and for its id alone. Two slots stand in it
while a private key is being replaced: then it opens with the old one and with the new one, and the
power may fail at any moment in between. What the header names (`PrivateKey.name`) leads to no key.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from decoders import aes_gcm
from decoders.aes_gcm import NotAuthentic
from decoders.value import value
from edge_agent import keys_content
from edge_agent.keys import GatewayKeys, Given, KeyFileUnusable
from edge_agent.private_key import PrivateKey

FORMAT: Final = 1
MAGIC: Final = b'{"aquacis_keys":'
MAX_FILE_BYTES: Final = 32 * 1024 * 1024  # 100,000 meters with four versions each
MAX_HEADER_BYTES: Final = 4096
MAX_SLOTS: Final = 2
SALT_BYTES: Final = 16
OURS_ALONE: Final = 0o600

Random = Callable[[int], bytes]


@value
class Sealed:
    """A sealed file's header and ciphertext, as read. `beside`: the header's very bytes."""

    gateway: str
    slots: tuple[dict[str, str], ...]
    nonce: bytes
    beside: bytes
    ciphertext: bytes

    @property
    def private_keys(self) -> tuple[str, ...]:
        """Names of the private keys that open it."""
        return tuple(slot["private_key"] for slot in self.slots)


def is_sealed(path: Path) -> bool:
    """Say whether a file begins as a sealed one does. Raises KeyFileUnusable."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise KeyFileUnusable("keys_unreadable", f"{path}: {error.strerror}") from None


def sealed(
    given: Given, *, gateway: str, private_keys: Sequence[PrivateKey], random: Random = os.urandom
) -> bytes:
    """Return the bytes of a file that opens with any of one or two private keys."""
    assert 0 < len(private_keys) <= MAX_SLOTS
    content_key, nonce = random(aes_gcm.KEY_BYTES), random(aes_gcm.NONCE_BYTES)
    content = keys_content.content_of(given)
    header = {
        "aquacis_keys": FORMAT,
        "gateway": gateway,
        "bytes": len(content) + aes_gcm.TAG_BYTES,
        "nonce": nonce.hex(),
        "slots": [_slot(key, gateway, content_key, random) for key in private_keys],
    }
    beside = json.dumps(header, separators=(",", ":")).encode("ascii") + b"\n"
    return beside + aes_gcm.seal(content_key, nonce, content, beside=beside)


def read_sealed(path: Path) -> Sealed:
    """Read a file without opening it. Raises KeyFileUnusable."""
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise KeyFileUnusable("keys_exposed", f"{path}: others can read it; chmod 600")
            whole = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise KeyFileUnusable("keys_unreadable", f"{path}: {error.strerror}") from None
    return sealed_in(whole, str(path))


def sealed_in(whole: bytes, where: str) -> Sealed:
    """Return the parts of a file's bytes. Raises KeyFileUnusable."""
    if len(whole) > MAX_FILE_BYTES:
        raise KeyFileUnusable("keys_too_many", f"{where}: more than {MAX_FILE_BYTES} bytes")
    if not whole.startswith(MAGIC):
        raise KeyFileUnusable("keys_not_sealed", f"{where}: this is no sealed key file")
    end = whole.find(b"\n", 0, MAX_HEADER_BYTES) + 1
    if not end:
        raise KeyFileUnusable("keys_truncated", f"{where}: it ends within its header")
    try:
        return _parted(json.loads(whole[:end]), whole[:end], whole[end:], where)
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError):
        raise KeyFileUnusable("keys_tampered", f"{where}: its header is none of ours") from None


def opened(file: Sealed, *, gateway: str, private_key: PrivateKey) -> Given:
    """Return all that a file holds. Raises KeyFileUnusable."""
    content = unsealed(file, gateway=gateway, private_key=private_key)
    with _tampering():
        return keys_content.given_in(content)


def held_by(
    file: Sealed, *, gateway: str, private_key: PrivateKey, only: frozenset[str] | None
) -> GatewayKeys:
    """Return what an agent holds whose setting `meters` is `only`. Raises KeyFileUnusable."""
    content = unsealed(file, gateway=gateway, private_key=private_key)
    with _tampering():
        return keys_content.held_in(content, only=only)


def unsealed(file: Sealed, *, gateway: str, private_key: PrivateKey) -> bytes:
    """Open a file that was read. Raises KeyFileUnusable."""
    if file.gateway != gateway:
        raise KeyFileUnusable(
            "keys_other_gateway",
            f"the key file is of gateway {file.gateway}, and this one is {gateway}",
        )
    slot = next((s for s in file.slots if s["private_key"] == private_key.name), None)
    if slot is None:
        raise KeyFileUnusable(
            "keys_other_private_key",
            f"the key file opens with private key {' or '.join(file.private_keys)}, and this "
            f"gateway's is {private_key.name}",
        )
    with _tampering():
        wrapping = _wrapping_key(private_key, gateway, bytes.fromhex(slot["salt"]))
        nonce, wrapped = bytes.fromhex(slot["nonce"]), base64.b64decode(slot["wrapped"])
        content_key = aes_gcm.unseal(wrapping, nonce, wrapped, beside=_purpose(gateway))
        return aes_gcm.unseal(content_key, file.nonce, file.ciphertext, beside=file.beside)


@contextmanager
def _tampering() -> Iterator[None]:
    """Say so where something does not fit. Raises KeyFileUnusable."""
    try:
        yield
    except (NotAuthentic, ValueError, KeyError, TypeError, AttributeError, struct.error):
        raise KeyFileUnusable(
            "keys_tampered", "the key file was changed after it was sealed, or is damaged"
        ) from None


def write_sealed(path: Path, whole: bytes) -> None:
    """Put `whole` in the place of `path`: at any power cut there is the old file or the new one.

    Run as root it leaves the file to whom the old one, or else the folder, belongs. Raises OSError.
    """
    for left in path.parent.glob(f".{path.name}.*.new"):
        left.unlink()  # of a writing that the power cut short; `alone` keeps others out
    beside = path.parent / f".{path.name}.{os.urandom(4).hex()}.new"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OURS_ALONE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if os.geteuid() == 0:
                owner = (path if path.exists() else path.parent).stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(whole)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other writers of the same folder out meanwhile. Raises KeyFileUnusable."""
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise KeyFileUnusable("keys_unreadable", f"{path.parent}: {error.strerror}") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _purpose(gateway: str) -> bytes:
    return f"aquacis-edge keys {FORMAT} {gateway}".encode("ascii")


def _wrapping_key(private_key: PrivateKey, gateway: str, salt: bytes) -> bytes:
    return private_key.derived(_purpose(gateway), aes_gcm.KEY_BYTES, salt=salt)


def _slot(
    private_key: PrivateKey, gateway: str, content_key: bytes, random: Random
) -> dict[str, str]:
    salt, nonce = random(SALT_BYTES), random(aes_gcm.NONCE_BYTES)
    wrapping = _wrapping_key(private_key, gateway, salt)
    wrapped = aes_gcm.seal(wrapping, nonce, content_key, beside=_purpose(gateway))
    return {
        "private_key": private_key.name,
        "salt": salt.hex(),
        "nonce": nonce.hex(),
        "wrapped": base64.b64encode(wrapped).decode("ascii"),
    }


def _parted(header: dict[str, Any], beside: bytes, rest: bytes, where: str) -> Sealed:
    """Return what a header says, with what follows it. Raises KeyFileUnusable, ValueError, …"""
    if header["aquacis_keys"] != FORMAT:
        raise KeyFileUnusable(
            "keys_version",
            f"{where}: format {header['aquacis_keys']!r}, and this agent reads {FORMAT}",
        )
    if len(rest) < int(header["bytes"]):
        raise KeyFileUnusable(
            "keys_truncated", f"{where}: {len(rest)} of {int(header['bytes'])} bytes are there"
        )
    nonce, slots = bytes.fromhex(header["nonce"]), header["slots"]
    if len(rest) > int(header["bytes"]) or len(nonce) != aes_gcm.NONCE_BYTES:
        raise ValueError("another length")
    if not 0 < len(slots) <= MAX_SLOTS or any(_wrong(slot) for slot in slots):
        raise ValueError("other slots")
    return Sealed(
        gateway=str(header["gateway"]),
        slots=tuple(slots),
        nonce=nonce,
        beside=beside,
        ciphertext=rest,
    )


def _wrong(slot: dict[str, str]) -> bool:
    return (
        set(slot) != {"private_key", "salt", "nonce", "wrapped"}
        or any(not isinstance(said, str) for said in slot.values())
        or len(bytes.fromhex(slot["nonce"])) != aes_gcm.NONCE_BYTES
    )
