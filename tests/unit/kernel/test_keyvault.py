"""The key vault: what is wrapped opens only here, only for its use, also after a rotation."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.kernel.keyvault import FileKeyVault, UnwrapRefused, Wrapped

METER_KEY = bytes(range(16))
USE = b"metering.meter_keys:17:1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "kek.json"


def test_what_was_wrapped_is_unwrapped(path: Path) -> None:
    vault = FileKeyVault(path)

    wrapped = vault.wrap(METER_KEY, USE)

    assert METER_KEY not in wrapped.sealed
    assert vault.unwrap(wrapped, USE) == METER_KEY
    assert FileKeyVault(path).unwrap(wrapped, USE) == METER_KEY  # another process


def test_the_same_key_never_looks_the_same_twice(path: Path) -> None:
    vault = FileKeyVault(path)

    assert vault.wrap(METER_KEY, USE).sealed != vault.wrap(METER_KEY, USE).sealed


def test_a_wrapped_key_does_not_open_in_another_row(path: Path) -> None:
    vault = FileKeyVault(path)

    with pytest.raises(UnwrapRefused, match="another use"):
        vault.unwrap(vault.wrap(METER_KEY, USE), b"metering.meter_keys:18:1")


@given(position=st.integers(min_value=0, max_value=43), bit=st.integers(min_value=0, max_value=7))
def test_no_changed_bit_goes_unnoticed(
    position: int, bit: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    vault = FileKeyVault(tmp_path_factory.getbasetemp() / "shared" / "kek.json")
    wrapped = vault.wrap(METER_KEY, USE)
    changed = bytearray(wrapped.sealed)
    changed[position] ^= 1 << bit

    with pytest.raises(UnwrapRefused):
        vault.unwrap(replace(wrapped, sealed=bytes(changed)), USE)


@pytest.mark.parametrize("length", [0, 11, 12, 27])
def test_a_cut_off_one_is_refused(path: Path, length: int) -> None:
    vault = FileKeyVault(path)
    wrapped = vault.wrap(METER_KEY, USE)

    with pytest.raises(UnwrapRefused):
        vault.unwrap(replace(wrapped, sealed=wrapped.sealed[:length]), USE)


def test_after_a_rotation_old_keys_open_and_new_ones_use_the_new_version(path: Path) -> None:
    vault = FileKeyVault(path)
    before = vault.wrap(METER_KEY, USE)

    assert vault.rotate() == 2

    after = vault.wrap(METER_KEY, USE)
    assert (before.kek_version, after.kek_version) == (1, 2)
    assert vault.unwrap(before, USE) == vault.unwrap(after, USE) == METER_KEY


def test_rewrapping_moves_a_key_to_the_newest_version_once(path: Path) -> None:
    vault = FileKeyVault(path)
    before = vault.wrap(METER_KEY, USE)
    vault.rotate()

    moved = vault.rewrap(before, USE)

    assert moved.kek_version == 2
    assert vault.unwrap(moved, USE) == METER_KEY
    assert vault.rewrap(moved, USE) is moved


def test_a_process_that_did_not_rotate_notices_that_another_did(path: Path) -> None:
    reader, rotator = FileKeyVault(path), FileKeyVault(path)
    rotator.rotate()

    assert reader.unwrap(rotator.wrap(METER_KEY, USE), USE) == METER_KEY


def test_a_relabelled_version_is_refused(path: Path) -> None:
    vault = FileKeyVault(path)
    wrapped = vault.wrap(METER_KEY, USE)
    vault.rotate()

    with pytest.raises(UnwrapRefused):
        vault.unwrap(replace(wrapped, kek_version=2), USE)
    with pytest.raises(UnwrapRefused, match="not in this vault"):
        vault.unwrap(replace(wrapped, kek_version=9), USE)


def test_another_vault_opens_nothing(path: Path, tmp_path: Path) -> None:
    wrapped = FileKeyVault(path).wrap(METER_KEY, USE)

    with pytest.raises(UnwrapRefused, match="not in this vault"):
        FileKeyVault(tmp_path / "other" / "kek.json").unwrap(wrapped, USE)


def test_a_refusal_tells_no_bytes(path: Path) -> None:
    vault = FileKeyVault(path)
    wrapped = vault.wrap(METER_KEY, USE)

    with pytest.raises(UnwrapRefused) as refused:
        vault.unwrap(wrapped, b"other")

    assert wrapped.sealed.hex() not in str(refused.value)


def test_one_column_holds_a_wrapped_key(path: Path) -> None:
    wrapped = FileKeyVault(path).wrap(METER_KEY, USE)

    assert Wrapped.from_bytes(wrapped.to_bytes()) == wrapped
    assert Wrapped.from_bytes(memoryview(wrapped.to_bytes())) == wrapped  # type: ignore[arg-type]  # what the driver gives


@pytest.mark.parametrize("raw", [b"", b"\x01", b"\x02" + bytes(40)])
def test_bytes_that_are_no_wrapped_key_are_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="not a wrapped key"):
        Wrapped.from_bytes(raw)


def test_the_file_is_its_owners_alone(path: Path) -> None:
    FileKeyVault(path).rotate()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o644)
    with pytest.raises(PermissionError, match="chmod 600"):
        FileKeyVault(path)


def test_production_does_not_invent_a_key_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileKeyVault(tmp_path / "missing.json", create=False)


def test_two_first_starts_make_one_key(path: Path) -> None:
    with ThreadPoolExecutor(8) as starts:
        vaults = list(starts.map(lambda _: FileKeyVault(path), range(8)))

    wrapped = vaults[0].wrap(METER_KEY, USE)
    assert all(vault.unwrap(wrapped, USE) == METER_KEY for vault in vaults)


def test_rotations_at_once_lose_no_version(path: Path) -> None:
    FileKeyVault(path)
    with ThreadPoolExecutor(8) as rotations:
        versions = list(rotations.map(lambda _: FileKeyVault(path).rotate(), range(8)))

    assert sorted(versions) == list(range(2, 10))
    assert len(json.loads(path.read_text())["versions"]) == 9
