"""Each vendor's package, unpacked and run: it starts the agent, not as root, and stops it."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent import VERSION
from release.packages import FILES, KERLINK_ARCHITECTURES

PATIENCE_S = 30.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOBODY = "nobody"
SCRIPTS = [path for path in sorted(FILES.iterdir()) if path.read_text().startswith("#!")]


def until(holds: Callable[[], Any], *, what: str) -> Any:
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        found = holds()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not within {PATIENCE_S:.0f} s: {what}")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def unpacked(archive: bytes, folder: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        # What we packed ourselves is taken as it is; before 3.11.4 there was no other way.
        packed.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
        packed.extractall(folder)
        return {entry.name.removeprefix("./"): entry for entry in packed.getmembers()}


class App:
    """An unpacked app, as app-manager would call it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.status = folder / "status.json"
        self.environment = {
            "PATH": PATH,
            "APP_DIR": str(folder),
            "CONFIG_DIR": str(folder / "config"),
            "AGENT_RUN": str(folder / "run"),
            "AGENT_USER": NOBODY,
            "AGENT_AGAIN_S": "1",
        }

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.folder / "Start"), *arguments],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
            timeout=PATIENCE_S * 2,
        )

    def pid(self) -> int:
        """The agent's own pid, once it says that it runs; 0 before."""
        try:
            said = json.loads(self.status.read_text())
        except (OSError, ValueError):
            return 0
        assert len(said["AppInfo"]) <= 160
        return said["pid"] if alive(said["pid"] or -1) else 0

    def configure(self) -> None:
        settings = {
            "gateway": "mast-7",
            "broker": "mqtt://127.0.0.1:9",
            "state": str(self.folder / "state"),
            "sources": [],
        }
        (self.folder / "config" / "gateway.json").write_text(json.dumps(settings))


@pytest.fixture
def app(built: Path, state: Path) -> Iterator[App]:
    """The MultiTech app in a folder that another user can walk into."""
    if shutil.which("start-stop-daemon", path=PATH) is None:
        pytest.skip("start-stop-daemon is not on this machine; on Debian: dpkg has it")
    if shutil.which("python3", path=PATH) is None or not python_is_recent():
        pytest.skip("no Python 3.10 with sqlite3 that every user of this machine may run")
    archive = (built / f"aquacis-edge-{VERSION}-multitech.tar.gz").read_bytes()
    folder = state / "app"
    unpacked(archive, folder)
    folder.chmod(0o711)
    found = App(folder)
    yield found
    found.call("stop")


def python_is_recent() -> bool:
    asked = "import sqlite3, ssl, sys; sys.exit(sys.version_info < (3, 10))"
    ran = subprocess.run(["python3", "-c", asked], check=False, env={"PATH": PATH})
    return ran.returncode == 0


def uid_of(pid: int) -> int:
    """The user that a process runs as; the owner of its /proc folder is root once it is sealed."""
    said = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^Uid:\t(\d+)", said, re.MULTILINE)
    assert found
    return int(found[1])


def test_app_manager_starts_restarts_and_stops_the_agent_which_is_not_root(app: App) -> None:
    app.configure()

    assert app.call("start").returncode == 0
    first = until(app.pid, what="the agent says its pid")
    assert app.call("start").stdout == "aquacis-edge: runs already\n"
    assert app.call("status").returncode == 0
    if os.geteuid() == 0:
        assert uid_of(first) != 0
    assert (app.folder / "state" / "outbox.db").exists()

    assert app.call("restart").returncode == 0
    second = until(app.pid, what="another agent says its pid")
    assert second != first
    assert not alive(first)

    assert app.call("stop").returncode == 0
    assert not alive(second)
    assert app.call("status").returncode == 1
    assert json.loads(app.status.read_text())["AppInfo"] == "stopped"


def test_an_agent_that_dies_is_started_again(app: App) -> None:
    app.configure()
    app.call("start")
    first = until(app.pid, what="the agent says its pid")

    os.kill(first, signal.SIGKILL)

    second = until(lambda: app.pid() if app.pid() != first else 0, what="a new agent")
    assert second != first
    assert app.call("reload").returncode == 0


def test_without_settings_it_says_so_where_app_manager_shows_it(app: App) -> None:
    assert app.call("start").returncode == 78

    said = json.loads(app.status.read_text())
    assert said["pid"] == 0
    assert "no settings" in said["AppInfo"]


def test_without_a_python_that_can_run_it_it_says_so(app: App) -> None:
    app.configure()
    folder = app.folder / "bin"
    folder.mkdir()
    for name in ("sh", "id", "dirname", "cat", "tr", "grep", "rm", "mkdir", "ln"):
        (folder / name).symlink_to(shutil.which(name, path=PATH) or "")
    app.environment["PATH"] = str(folder)

    assert app.call("start").returncode == 69
    assert "no Python 3.10" in json.loads(app.status.read_text())["AppInfo"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root could run it as root")
def test_root_needs_a_user_to_run_it_as(app: App) -> None:
    app.configure()
    app.environment["AGENT_USER"] = "nobody-of-that-name"

    assert app.call("start").returncode == 77


def test_a_number_left_by_an_earlier_life_stops_nobody(app: App) -> None:
    (app.folder / "run").mkdir()
    (app.folder / "run" / "aquacis-edge.pid").write_text(f"{os.getpid()}\n")

    assert app.call("stop").returncode == 0
    assert app.call("status").returncode == 1
    assert app.call("sideways").returncode == 2


def test_the_multitech_app_has_what_app_manager_wants(built: Path, tmp_path: Path) -> None:
    archive = (built / f"aquacis-edge-{VERSION}-multitech.tar.gz").read_bytes()

    held = unpacked(archive, tmp_path)

    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["AppName"] == "aquacis-edge"
    assert manifest["AppVersion"] == VERSION
    assert json.loads((tmp_path / "status.json").read_text())["pid"] == 0
    assert {"Install", "Start", "aquacis-edge.pyz"} <= set(held)
    assert all(held[name].mode == 0o755 for name in ("Install", "Start", "control.sh"))
    assert {entry.mtime for entry in held.values()} == {0}


def members(package: bytes) -> dict[str, bytes]:
    """Read an ar archive (ar(5)) without our own writer."""
    assert package.startswith(b"!<arch>\n")
    at, found = 8, {}
    while at < len(package):
        name, size = package[at : at + 16].decode().strip(), int(package[at + 48 : at + 58])
        assert package[at + 58 : at + 60] == b"`\n"
        found[name] = package[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    return found


@pytest.mark.parametrize("architecture", KERLINK_ARCHITECTURES)
def test_the_kerlink_package_is_one_that_opkg_reads(
    built: Path, tmp_path: Path, architecture: str
) -> None:
    path = built / f"aquacis-edge_{VERSION}-r1_{architecture}.ipk"
    held = members(path.read_bytes())

    assert list(held) == ["debian-binary", "control.tar.gz", "data.tar.gz"]
    assert held["debian-binary"] == b"2.0\n"
    scripts = unpacked(held["control.tar.gz"], tmp_path / "control")
    said = dict(
        line.split(": ", 1) for line in (tmp_path / "control" / "control").read_text().splitlines()
    )
    assert said["Package"] == "aquacis-edge"
    assert said["Version"] == f"{VERSION}-r1"
    assert said["Architecture"] == architecture
    assert {"Maintainer", "Section", "Priority", "Description", "Source"} <= set(said)
    assert scripts["postinst"].mode == scripts["prerm"].mode == 0o755
    files = unpacked(held["data.tar.gz"], tmp_path / "data")
    outside = [n for n in files if n not in {".", "user"} and not n.startswith("user/aquacis-edge")]
    assert outside == []
    assert files["user/aquacis-edge/init.sh"].mode == 0o755
    assert int(said["Installed-Size"]) > 1_000
    if shutil.which("dpkg-deb"):
        ran = subprocess.run(
            ["dpkg-deb", "--info", str(path)], capture_output=True, check=False, text=True
        )
        assert ran.returncode == 0, ran.stderr


def test_the_kerlink_init_script_runs_the_agent_too(
    built: Path, state: Path, app: App, tmp_path: Path
) -> None:
    held = members((built / f"aquacis-edge_{VERSION}-r1_klkgw.ipk").read_bytes())
    unpacked(held["data.tar.gz"], tmp_path)
    home = state / "user"
    shutil.copytree(tmp_path / "user" / "aquacis-edge", home)
    app.configure()
    settings = (app.folder / "config" / "gateway.json").read_text()
    (home / "config" / "gateway.json").write_text(settings.replace(str(app.folder), str(home)))
    home.chmod(0o711)
    environment = {
        "PATH": PATH,
        "AGENT_HOME": str(home),
        "AGENT_CONFIG": str(home / "config" / "gateway.json"),
        "AGENT_STATE": str(home / "state"),
        "AGENT_RUN": str(home / "run"),
        "AGENT_USER": NOBODY,
    }

    def call(what: str) -> int:
        command = ["sh", str(home / "init.sh"), what]
        return subprocess.run(command, check=False, env=environment).returncode

    assert call("start") == 0
    try:
        until((home / "state" / "outbox.db").exists, what="the agent opens its outbox")
        assert call("status") == 0
    finally:
        assert call("stop") == 0
    assert call("status") == 1


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_is_plain_shell(script: Path) -> None:
    text = script.read_text()
    assert text.startswith("#!/bin/sh\n")
    for shell in filter(None, (shutil.which("dash"), shutil.which("busybox"), "/bin/sh")):
        command = [shell, "sh", "-n"] if shell.endswith("busybox") else [shell, "-n"]
        ran = subprocess.run([*command, str(script)], capture_output=True, check=False, text=True)
        assert ran.returncode == 0, ran.stderr
    assert not re.search(r"\[\[|function |<\(|\blocal\b", text), "not every gateway has bash"


def test_the_unit_is_one_that_systemd_takes_and_gives_away_nothing(
    built: Path, tmp_path: Path
) -> None:
    held = unpacked((built / f"aquacis-edge-{VERSION}-systemd.tar.gz").read_bytes(), tmp_path)
    unit = tmp_path / "etc" / "systemd" / "system" / "aquacis-edge.service"
    text = unit.read_text()

    assert {"opt/aquacis-edge/aquacis-edge.pyz", "usr/lib/sysusers.d/aquacis-edge.conf"} <= set(
        held
    )
    for setting in (
        "User=aquacis-edge",
        "StateDirectory=aquacis-edge",
        "Restart=always",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
        "WatchdogSec=5min",
        "Type=notify",
        "LimitCORE=0",
    ):
        assert f"\n{setting}\n" in text
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine: the unit's text was checked only")
    ran = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        check=False,
        text=True,
    )
    about_it = [line for line in ran.stderr.splitlines() if "aquacis-edge" in line]
    assert about_it == []
