"""`up`: one command starts everything, stops everything, and forgets nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from field_sim import up as command
from field_sim.sandbox import UpFailed
from tests.scenario.sandboxes import STOP_S, Up, eventually, home, is_alive, sandbox

pytestmark = [
    pytest.mark.xdist_group("up"),
    pytest.mark.timeout(600),
    pytest.mark.real_part("mosquitto"),
]
SMALL = ("--meters", "24", "--history", "30", "--speed", "60")
# by the seconds that history, its end and a full simulated hour take on a busy machine
LIVE_S, ALERT_S = 120.0, 150.0


@pytest.fixture
def state() -> Iterator[Path]:
    with home() as folder:
        yield folder


def history(state: Path) -> object:
    return json.loads((state / "city.json").read_text())["history"]


def test_one_command_brings_the_city_to_life_and_the_next_start_goes_on(state: Path) -> None:
    with sandbox(state, *SMALL) as up:
        url = up.ready()
        for path in ("/readyz", "/openapi.json", "/healthz"):
            assert httpx.get(url + path).status_code == 200
        children = up.children()
        eventually(lambda: history(state) is None, LIVE_S)
        eventually(lambda: {"burst", "continuous_flow"} <= open_alerts(up), ALERT_S)
        readings = sum(len(up.aquacis("readings", m["name"])) for m in up.aquacis("meters"))
        stopped_at = up.stop()
    users = (state / "users.json").read_text()
    clock = json.loads((state / "clock.json").read_text())

    assert stopped_at == 0
    assert not [name for name, pid in children.items() if is_alive(pid)]
    assert not is_alive(postmaster(state))
    assert (state / "users.json").stat().st_mode & 0o777 == 0o600
    with sandbox(state, *SMALL) as again:
        assert again.ready() == url
        resumed = json.loads((state / "clock.json").read_text())
        assert 0 <= resumed["sim_us"] - clock["sim_us"] < 30 * 60 * 60_000_000
        assert sum(len(again.aquacis("readings", m["name"])) for m in again.aquacis("meters")) >= (
            readings
        )
    assert (state / "users.json").read_text() == users


def open_alerts(up: Up) -> set[str]:
    return {alert["kind"] for alert in up.aquacis("alerts", "--state", "open")}


def postmaster(state: Path) -> int:
    path = state / "postgres" / "data" / "postmaster.pid"
    return int(path.read_text().split()[0]) if path.exists() else -1


def test_after_a_kill_nothing_is_left_and_the_next_start_goes_on(state: Path) -> None:
    with sandbox(state, *SMALL) as up:
        url = up.ready()
        children, server = up.children(), postmaster(state)
        up.process.kill()
        up.process.wait()
        eventually(lambda: not any(is_alive(pid) for pid in children.values()), STOP_S)
        eventually(lambda: not is_alive(server), STOP_S)
    stopped_us = json.loads((state / "clock.json").read_text())["sim_us"]

    with sandbox(state, *SMALL) as again:
        assert again.ready() == url
        assert json.loads((state / "clock.json").read_text())["sim_us"] >= stopped_us


def test_a_process_that_dies_is_started_again_and_that_is_said(state: Path) -> None:
    with sandbox(state, *SMALL) as up:
        url = up.ready()
        killed = up.children()["serve"]
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: "process_died" in up.text, 30)
        eventually(lambda: up.children().get("serve") not in {killed, None}, 30)
        eventually(lambda: answers(url), 60)

        assert up.stop(signal.SIGINT) == 0


def answers(url: str) -> bool:
    try:
        return httpx.get(url + "/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def test_two_clones_run_side_by_side_and_one_state_only_once(state: Path) -> None:
    with home() as other, sandbox(state, *SMALL) as first, sandbox(other, *SMALL) as second:
        assert first.ready() != second.ready()

        with sandbox(state) as twice:
            assert twice.process.wait(30) == 1
            eventually(lambda: "already_running" in twice.text, 5)


def test_a_taken_port_and_an_unreadable_file_are_said_in_spanish_with_a_code(state: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        with sandbox(state, "--port", port) as up:
            assert up.process.wait(60) == 1
            eventually(lambda: "port_taken" in up.text, 5)
            assert f"el puerto {port} ya está en uso" in up.text
    with sandbox(state, "--input", str(state / "none.jsonl")) as up:
        assert up.process.wait(60) == 1
        eventually(lambda: "input_unreadable" in up.text, 5)


def test_no_free_disk_is_said(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "ROOM_BYTES", 1 << 60)
    monkeypatch.setenv("AQUACIS_STATE", str(state))
    with pytest.raises(UpFailed, match="libere espacio") as failed:
        command.require_room(state)
    assert failed.value.code == "disk_full"
