"""Files of one owner: whole or not at all, and never through somebody's link."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.kernel import private_files


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "secret.json"


@pytest.fixture
def _open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("_open_umask")
def test_only_its_owner_may_read_it(file: Path) -> None:
    private_files.write(file, b"one")

    assert (file.read_bytes(), mode(file)) == (b"one", 0o600)


def test_a_file_for_others_is_theirs_to_read_whatever_the_umask(file: Path) -> None:
    before = os.umask(0o077)
    try:
        private_files.write(file, b"one", mode=0o644)
    finally:
        os.umask(before)

    assert mode(file) == 0o644


def test_it_is_replaced_whole_and_leaves_nothing_beside_it(file: Path) -> None:
    private_files.write(file, b"a long first text")
    private_files.write(file, b"two")

    assert file.read_bytes() == b"two"
    assert list(file.parent.iterdir()) == [file]


def test_a_write_that_fails_leaves_the_old_file_alone(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    private_files.write(file, b"old")
    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(OSError, match="No space left"):
        private_files.write(file, b"new")

    assert file.read_bytes() == b"old"
    assert list(file.parent.iterdir()) == [file]


def test_a_link_in_its_place_is_replaced_and_not_followed(file: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    file.symlink_to(victim)

    private_files.write(file, b"one")

    assert victim.read_bytes() == b"precious"
    assert not file.is_symlink()


def test_a_link_laid_under_the_scratch_name_is_refused(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    (tmp_path / ".secret.json.guessed").symlink_to(victim)

    with pytest.raises(FileExistsError):
        private_files.write(file, b"one")

    assert not victim.exists()
