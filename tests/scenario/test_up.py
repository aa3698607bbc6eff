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
from tests.scenario.sandboxes import START_S, STOP_S, Up, eventually, home, is_alive, sandbox

pytestmark = [
    pytest.mark.xdist_group("up"),
    pytest.mark.timeout(600),
]
SMALL = ("--meters", "24", "--history", "30", "--speed", "600")
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
        eventually(lambda: history(state) is None, LIVE_S)
        eventually(lambda: {"burst", "continuous_flow"} <= open_alerts(up), ALERT_S, pause_s=2.0)
        children, readings = up.children(), stored(up)
        stopped = up.stop(signal.SIGINT)
    users = (state / "users.json").read_text()
    clock = json.loads((state / "clock.json").read_text())

    assert stopped == 0
    assert not [name for name, pid in children.items() if is_alive(pid)]
    assert not is_alive(postmaster(state))
    assert (state / "users.json").stat().st_mode & 0o777 == 0o600
    with home() as other, sandbox(state, *SMALL) as again, sandbox(other, *SMALL) as beside:
        assert again.ready() != beside.ready()
        resumed = json.loads((state / "clock.json").read_text())
        assert resumed["speed"] == 600
        assert resumed["sim_us"] >= clock["sim_us"]
        assert stored(again) >= readings
    assert (state / "users.json").read_text() == users


def open_alerts(up: Up) -> set[str]:
    return {alert["kind"] for alert in up.aquacis("alerts", "--state", "open")}


def stored(up: Up) -> int:
    return len(up.aquacis("readings", up.aquacis("meters")[0]["name"]))


def postmaster(state: Path) -> int:
    path = state / "postgres" / "data" / "postmaster.pid"
    return int(path.read_text().split()[0]) if path.exists() else -1


def test_it_mends_what_dies_and_leaves_nothing_when_it_is_killed_itself(state: Path) -> None:
    with sandbox(state, *SMALL) as up:
        url = up.ready()
        with sandbox(state) as twice:
            eventually(lambda: "already_running" in twice.text, START_S)
            assert twice.process.wait(STOP_S) == 1
        killed = up.children()["serve"]
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: "process_died" in up.text, STOP_S)
        eventually(lambda: up.children().get("serve") not in {killed, None}, STOP_S)
        eventually(lambda: answers(url), START_S)
        children, server = up.children(), postmaster(state)
        up.process.kill()
        up.process.wait()
        eventually(lambda: not any(is_alive(pid) for pid in children.values()), STOP_S)
        eventually(lambda: not is_alive(server), STOP_S)
    stopped_us = json.loads((state / "clock.json").read_text())["sim_us"]

    with sandbox(state, *SMALL) as again:
        again.ready()
        assert json.loads((state / "clock.json").read_text())["sim_us"] >= stopped_us


def answers(url: str) -> bool:
    try:
        return httpx.get(url + "/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def test_it_runs_on_nats_gives_no_secret_away_and_ends_with_its_database(state: Path) -> None:
    short = ("--meters", "12", "--history", "3")
    with sandbox(state, *short, AQUACIS_BROKER="nats", AQUACIS_BROKER_PASSWORD="yours") as up:
        up.ready()
        eventually(lambda: history(state) is None, LIVE_S)
        eventually(lambda: up.aquacis("readings", up.aquacis("meters")[0]["name"]), LIVE_S)
        assert (state / "broker" / "nats").is_dir()
        assert not (state / "broker" / "mosquitto").exists()
        told = {name: environment(pid) for name, pid in up.children().items()}
        cloud = json.loads((state / "broker" / "passwords.json").read_text())["cloud"]
        assert told["intake"]["AQUACIS_BROKER_PASSWORD"] == cloud
        for name in ("broker", "city", "agent-gw-centro"):
            assert "AQUACIS_BROKER_PASSWORD" not in told[name]
            assert cloud not in told[name].values()
        assert open_to_others(state) == []

        killed: set[int] = set()
        eventually(lambda: is_over(up, killed), START_S)
        assert up.process.wait(STOP_S) == 1
        eventually(lambda: "[postgres-fallo]" in up.text, 5)


def environment(pid: int) -> dict[str, str]:
    told = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(variable.split("=", 1) for variable in told if variable)


def open_to_others(state: Path) -> list[str]:
    """Name what others could read or enter here, but for the servers' folders, closed inside."""
    entries = [path for path in state.iterdir() if path.name not in {"broker", "postgres"}]
    return [path.name for path in entries if path.stat().st_mode & 0o077]


def is_over(up: Up, killed: set[int]) -> bool:
    """Kill the database's server whenever there is a new one; say whether `up` has ended."""
    pid = postmaster(up.state)
    if pid > 0 and pid not in killed and is_alive(pid):
        killed.add(pid)
        os.kill(pid, signal.SIGKILL)
    return up.process.poll() is not None


def test_a_taken_port_and_an_unreadable_file_are_said_in_spanish_with_a_code(state: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        with sandbox(state, "--port", port) as up:
            assert up.process.wait(STOP_S) == 1
            eventually(lambda: "port_taken" in up.text, 5)
            assert f"el puerto {port} ya está en uso" in up.text
    with sandbox(state, "--input", str(state / "none.jsonl")) as up:
        assert up.process.wait(STOP_S) == 1
        eventually(lambda: "input_unreadable" in up.text, 5)


def test_no_free_disk_is_said(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "ROOM_BYTES", 1 << 60)
    monkeypatch.setenv("AQUACIS_STATE", str(state))
    with pytest.raises(UpFailed, match="libere espacio") as failed:
        command.require_room(state)
    assert failed.value.code == "disk_full"
