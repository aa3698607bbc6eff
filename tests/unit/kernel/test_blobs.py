"""The folder of blobs: the whole blob or none, under the SHA-256 of its bytes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.kernel.blobs import BlobDamaged, BlobMissing, FolderBlobs


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "blobs")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary())
def test_a_blob_comes_back_as_it_went(blobs: FolderBlobs, data: bytes) -> None:
    address = blobs.put(data)

    assert address == hashlib.sha256(data).hexdigest()
    assert blobs.exists(address)
    assert blobs.get(address) == data


def test_the_same_bytes_are_stored_once(blobs: FolderBlobs, tmp_path: Path) -> None:
    assert blobs.put(b"water") == blobs.put(b"water")

    assert len(files(tmp_path)) == 1


def test_a_blob_that_was_never_put_is_missing(blobs: FolderBlobs) -> None:
    address = hashlib.sha256(b"never").hexdigest()

    assert not blobs.exists(address)
    with pytest.raises(BlobMissing, match=address):
        blobs.get(address)


@pytest.mark.parametrize("address", ["", "../../etc/passwd", "a" * 63, "A" * 64, "g" * 64])
def test_an_address_cannot_lead_out_of_the_folder(blobs: FolderBlobs, address: str) -> None:
    with pytest.raises(BlobMissing):
        blobs.get(address)


def test_damaged_bytes_are_not_handed_out(blobs: FolderBlobs, tmp_path: Path) -> None:
    address = blobs.put(b"water")
    files(tmp_path)[0].write_bytes(b"wine")

    with pytest.raises(BlobDamaged, match=address):
        blobs.get(address)


def test_a_write_that_fails_leaves_nothing_behind(
    blobs: FolderBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        blobs.put(b"water")
    monkeypatch.undo()

    assert files(tmp_path) == []
    assert blobs.get(blobs.put(b"water")) == b"water"


def test_a_damaged_blob_is_put_right_by_storing_it_again(
    blobs: FolderBlobs, tmp_path: Path
) -> None:
    blobs.put(b"water")
    files(tmp_path)[0].write_bytes(b"wine")

    assert blobs.get(blobs.put(b"water")) == b"water"


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
