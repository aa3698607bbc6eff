"""Keys that encrypt keys: wrap, unwrap, versions, rotation.

The port is `KeyVault`. The default adapter keeps AES-256 keys in one file that only its owner
may read; an HSM (PKCS#11) is another adapter. What is wrapped is bound to its use by `aad`
(table, column, id), so a wrapped key copied to another row does not unwrap there.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import struct
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloud.kernel import private_files
from cloud.kernel.config import ConfigurationInvalid, Settings
from decoders.value import value

KEY_BYTES = 32
NONCE_BYTES = 12  # NIST SP 800-38D; random: fine below 2^32 wraps of one version
_HEAD = struct.Struct(">BBI")  # layout version, length of kek_id, kek_version
_LAYOUT = 1


class UnwrapRefused(Exception):
    """Not ours, not for this use, or tampered with. Says which key, never any bytes."""

    def __init__(self, wrapped: Wrapped, reason: str) -> None:
        super().__init__(
            f"key-encryption key {wrapped.kek_id} version {wrapped.kek_version}: {reason}"
        )
        self.kek_id = wrapped.kek_id
        self.kek_version = wrapped.kek_version


@value
class Wrapped:
    """A sealed secret and the name of what sealed it."""

    kek_id: str
    kek_version: int
    sealed: bytes  # nonce + ciphertext + tag

    def to_bytes(self) -> bytes:
        """Return one value for one `bytea` column."""
        name = self.kek_id.encode()
        return _HEAD.pack(_LAYOUT, len(name), self.kek_version) + name + self.sealed

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Read what `to_bytes` wrote. Raises ValueError for anything else."""
        raw = bytes(raw)
        if len(raw) < _HEAD.size or raw[0] != _LAYOUT:
            raise ValueError("not a wrapped key")
        _, length, version = _HEAD.unpack_from(raw)
        end = _HEAD.size + length
        return cls(kek_id=raw[_HEAD.size : end].decode(), kek_version=version, sealed=raw[end:])


class KeyVault(Protocol):
    """What the platform needs from whoever guards its keys."""

    def wrap(self, plain: bytes, aad: bytes) -> Wrapped:
        """Seal `plain` under the newest key version, for the use named by `aad`."""

    def unwrap(self, wrapped: Wrapped, aad: bytes) -> bytes:
        """Return the plain bytes. Raises `UnwrapRefused`."""

    def rewrap(self, wrapped: Wrapped, aad: bytes) -> Wrapped:
        """Return the same secret under the newest version (itself when it already is)."""

    def rotate(self) -> int:
        """Make a new key version the one that wraps; return its number. Old ones still unwrap."""

    @property
    def version(self) -> int:
        """The version that wraps now."""


class FileKeyVault:
    """`KeyVault` on one JSON file, mode 0600, replaced atomically.

    The file: {"kek_id": hex, "versions": {"1": base64, …}}. A second process that rotated is
    noticed when a version is not known here.
    """

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self._path = path
        if create:
            self._create_once()
        self._load()

    @property
    def version(self) -> int:
        return max(self._ciphers)

    def wrap(self, plain: bytes, aad: bytes) -> Wrapped:
        nonce = secrets.token_bytes(NONCE_BYTES)
        version = self.version
        sealed = nonce + self._ciphers[version].encrypt(nonce, plain, self._bound(version, aad))
        return Wrapped(kek_id=self._kek_id, kek_version=version, sealed=sealed)

    def unwrap(self, wrapped: Wrapped, aad: bytes) -> bytes:
        if wrapped.kek_id == self._kek_id and wrapped.kek_version not in self._ciphers:
            self._load()
        cipher = self._ciphers.get(wrapped.kek_version)
        if wrapped.kek_id != self._kek_id or cipher is None:
            raise UnwrapRefused(wrapped, "not in this vault")
        nonce, sealed = wrapped.sealed[:NONCE_BYTES], wrapped.sealed[NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, sealed, self._bound(wrapped.kek_version, aad))
        except (InvalidTag, ValueError):
            raise UnwrapRefused(wrapped, "tampered, or for another use") from None

    def rewrap(self, wrapped: Wrapped, aad: bytes) -> Wrapped:
        if wrapped.kek_id == self._kek_id and wrapped.kek_version == self.version:
            return wrapped
        return self.wrap(self.unwrap(wrapped, aad), aad)

    def rotate(self) -> int:
        with self._locked():
            held = self._read()
            version = max(map(int, held["versions"])) + 1
            held["versions"][str(version)] = _fresh_key()
            self._write(held)
        self._load()
        return version

    def _bound(self, version: int, aad: bytes) -> bytes:
        return f"aquacis/kek/{self._kek_id}/{version}/".encode() + aad

    def _create_once(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            if not self._path.exists():
                self._write({"kek_id": secrets.token_hex(4), "versions": {"1": _fresh_key()}})

    def _load(self) -> None:
        held = self._read()
        self._kek_id = str(held["kek_id"])
        self._ciphers = {int(v): AESGCM(b64decode(k)) for v, k in held["versions"].items()}

    def _read(self) -> dict[str, Any]:
        mode = self._path.stat().st_mode & 0o077
        if mode:
            raise PermissionError(f"{self._path}: others may read it; chmod 600")
        held: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
        return held

    def _write(self, held: dict[str, Any]) -> None:
        private_files.write(self._path, json.dumps(held).encode())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep two processes from creating or rotating at once."""
        lock = self._path.with_suffix(".lock")
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def open_vault(settings: Settings) -> KeyVault:
    """Open the vault the settings name; only the sandbox's own is made when it is not there.

    Raises `ConfigurationInvalid` when the file cannot be used.
    """
    path = settings.kek_file or settings.state / "keys" / "kek.json"
    try:
        return FileKeyVault(path, create=settings.kek_file is None)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationInvalid(
            [f"AQUACIS_KEK_FILE: {path} no se puede usar: {error}"]
        ) from error


def _fresh_key() -> str:
    return b64encode(secrets.token_bytes(KEY_BYTES)).decode()
