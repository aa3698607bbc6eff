"""Content-addressed bytes: photographs, PDFs, raw batches, large events."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

from cloud.kernel import private_files


class BlobMissing(LookupError):
    """Nothing is stored under this address."""

    def __init__(self, address: str) -> None:
        super().__init__(f"no blob {address}")
        self.address = address


class BlobDamaged(ValueError):
    """What is stored under this address is not what was put there."""

    def __init__(self, address: str) -> None:
        super().__init__(f"blob {address}: its bytes have another SHA-256")
        self.address = address


class BlobStore(Protocol):
    """The port: a blob's address is the SHA-256 of its bytes, in hex; it never changes."""

    def put(self, data: bytes) -> str:
        """Store bytes durably and return their address; storing them again is a no-op."""

    def get(self, address: str) -> bytes:
        """Return the bytes; raises `BlobMissing` or `BlobDamaged`."""

    def exists(self, address: str) -> bool:
        """Say whether bytes are stored under this address."""


def address_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class FolderBlobs:
    """Blobs as files `ab/cd/<address>` in a folder; a crash leaves the whole blob or none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, data: bytes) -> str:
        address = address_of(data)
        path = self._path(address)
        if self._holds(path, len(data)):
            return address
        self._make(path.parent)
        private_files.write(path, data)
        return address

    def get(self, address: str) -> bytes:
        try:
            data = self._path(address).read_bytes()
        except FileNotFoundError:
            raise BlobMissing(address) from None
        if address_of(data) != address:
            raise BlobDamaged(address)
        return data

    def exists(self, address: str) -> bool:
        return self._path(address).exists()

    def _holds(self, path: Path, size: int) -> bool:
        """Say whether the file is there whole; one that is not is written again."""
        try:
            return path.stat().st_size == size
        except FileNotFoundError:
            return False

    def _path(self, address: str) -> Path:
        if len(address) != 64 or not set(address) <= set("0123456789abcdef"):
            raise BlobMissing(address)  # also keeps "../" out of the path
        return self._folder / address[:2] / address[2:4] / address

    def _make(self, folder: Path) -> None:
        """Create a folder and its parents so that they survive a power cut."""
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        for each in reversed(missing):
            each.mkdir(mode=0o700, exist_ok=True)
            private_files.sync_folder(each.parent)
