"""Where a clone keeps its state."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloud.kernel.state import state_folder


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
