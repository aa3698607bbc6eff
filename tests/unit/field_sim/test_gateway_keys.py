"""The sandbox's gateways hold keys as those on masts do: sealed, by the agent's own command."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from field_sim import gateway_keys
from field_sim.gateway_keys import KeysNotSealed, private_key_in, seal

METER, KEY = "KAW-53885758", bytes(range(16)).hex()


def settings(folder: Path, **changed: object) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "config.json"
    said = {
        "gateway": folder.name,
        "broker": "mqtt://127.0.0.1:1",
        "env": "production",
        "state": str(folder),
        "keys": str(folder / "keys.sealed"),
        "private_key": str(private_key_in(folder)),
    }
    path.write_text(json.dumps(said | changed))
    return path


def test_a_private_key_is_made_once_and_is_its_owners(tmp_path: Path) -> None:
    first = private_key_in(tmp_path).read_bytes()

    assert private_key_in(tmp_path).read_bytes() == first
    assert stat.S_IMODE((tmp_path / "gateway.key").stat().st_mode) == 0o600


def test_every_gateways_keys_are_sealed_and_no_file_holds_one_in_the_clear(tmp_path: Path) -> None:
    north, south = settings(tmp_path / "norte"), settings(tmp_path / "sur")

    seal({north: {METER: KEY}, south: {}})
    seal({north: {METER: KEY[::-1]}, south: {}})  # another city in the same folder

    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert KEY not in path.read_text("latin-1")
    assert (tmp_path / "norte" / "keys.sealed").stat().st_size > (
        tmp_path / "sur" / "keys.sealed"
    ).stat().st_size


def test_keys_that_the_agent_refuses_are_said(tmp_path: Path) -> None:
    with pytest.raises(KeysNotSealed, match="keys_malformed") as refused:
        seal({settings(tmp_path / "norte"): {"nobody": KEY}})

    assert KEY not in str(refused.value)
    assert gateway_keys.SEALING_S > 0
