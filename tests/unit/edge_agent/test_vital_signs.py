"""What a supervisor hears: systemd by its socket, app-manager by a file."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path

from edge_agent.vital_signs import MOST_CHARACTERS, VitalSigns, in_words

HEALTH = {"meters": 4000, "heard": 9, "outbox_pending": 12, "resident_kib": 36_000}


def test_systemd_hears_that_the_loop_turns_goes_on_turning_and_stops(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(5)
        signs = VitalSigns(environment={"NOTIFY_SOCKET": address})

        signs.heard("starting", {})
        signs.heard("health", HEALTH)
        signs.heard("commit_failed", {"reason": "disk full"})
        signs.heard("stopped", {})

        said = [systemd.recv(1000).decode().split("\n")[0] for _ in range(3)]
    assert said == ["READY=1", "WATCHDOG=1", "STOPPING=1"]


def test_an_abstract_socket_is_found_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("")  # Linux chooses an abstract name
        systemd.settimeout(5)
        name = systemd.getsockname()[1:].decode()

        VitalSigns(environment={"NOTIFY_SOCKET": f"@{name}"}).heard("health", HEALTH)

        assert systemd.recv(1000).startswith(b"READY=1\nSTATUS=4000 meters")


def test_app_manager_reads_pid_and_state_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    signs = VitalSigns(status_file=path, environment={}, pid=77)
    logged: list[str] = []
    log = signs.watching(lambda event, **_: logged.append(event))

    log("health", **HEALTH)

    assert json.loads(path.read_text()) == {
        "pid": 77,
        "AppInfo": "4000 meters, 9 frames heard, 12 rows wait for the cloud, 35 MiB",
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    log("stopped")
    assert json.loads(path.read_text())["AppInfo"] == "stopped"
    assert logged == ["health", "stopped"]
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]


def test_the_state_is_never_longer_than_app_manager_shows() -> None:
    assert len(in_words("commit_failed", {"reason": "x" * 500})) == MOST_CHARACTERS


def test_a_supervisor_that_has_gone_and_a_folder_that_is_not_there_stop_nothing(
    tmp_path: Path,
) -> None:
    signs = VitalSigns(
        status_file=tmp_path / "gone" / "status.json",
        environment={"NOTIFY_SOCKET": str(tmp_path / "nobody")},
    )

    signs.heard("health", HEALTH)
