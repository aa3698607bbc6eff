"""Where a clone keeps its state, and in which folders it refuses to."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud.kernel.postgres_errors import StateOpen, StateUnusable, WrongOwner
from cloud.kernel.state import prepare, state_folder


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AQUACIS_STATE", raising=False)


def test_an_ordinary_user_s_state_is_in_the_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert state_folder(tmp_path) == tmp_path / ".aquacis"


def test_root_s_state_is_where_an_ordinary_user_can_walk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    one, other = state_folder(tmp_path / "one"), state_folder(tmp_path / "other")

    assert one.parent == other.parent == Path("/var/tmp")
    assert one != other
    assert one == state_folder(tmp_path / "one")


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQUACIS_STATE", str(tmp_path / "elsewhere"))

    assert state_folder(tmp_path) == tmp_path / "elsewhere"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0, 0o022, 0o077])
def _umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("_umask")
def test_a_new_folder_is_closed_to_others_and_root_s_can_be_walked_through(tmp_path: Path) -> None:
    state = tmp_path / "above" / "state"

    prepare(state)
    prepare(state)

    expected = 0o711 if os.geteuid() == 0 else 0o700
    assert (mode(state), mode(state.parent)) == (expected, expected)


@pytest.mark.parametrize("open_to", [0o020, 0o002, 0o1777])
def test_a_folder_that_others_may_write_in_is_refused(tmp_path: Path, open_to: int) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o700 | open_to)

    with pytest.raises(StateOpen, match="chmod go-w") as refusal:
        prepare(state)

    assert (refusal.value.code, mode(state)) == ("estado-abierto", 0o700 | open_to)
    assert f"chmod go-w {state}" in refusal.value.spanish


def test_a_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)

    with pytest.raises(WrongOwner, match=f"belongs to uid {uid}"):
        prepare(tmp_path)


def test_a_link_that_another_user_laid_is_refused_wherever_it_leads(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a link away")
    ours, state = tmp_path / "ours", tmp_path / "state"
    ours.mkdir(mode=0o700)
    state.symlink_to(ours)
    prepare(state)  # our own link

    os.chown(state, 65534, 65534, follow_symlinks=False)

    with pytest.raises(WrongOwner, match="belongs to uid 65534"):
        prepare(state)


@pytest.mark.parametrize("below", ["", "state"])
def test_a_file_in_the_folder_s_place_is_refused(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.touch(0o600)

    with pytest.raises(StateUnusable, match="Not a directory") as refusal:
        prepare(file / below)

    assert "Elija otra con AQUACIS_STATE" in refusal.value.spanish


def test_a_folder_kept_from_before_stays_as_it_is(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o755)

    prepare(state)

    assert mode(state) == 0o755
