"""What control.sh gives away as root, and what becomes of a log whose reader dies."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from release.packages import FILES

PATIENCE_S = 20.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOBODY = pwd.getpwnam("nobody").pw_uid
AGENT = """\
import os, pathlib, signal, sys, time
(pathlib.Path(__file__).parent.parent / "state" / "pid").write_text(str(os.getpid()))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
for number in range(10_000):
    print("line", number, file=sys.stderr, flush=True)
    time.sleep(0.05)
"""

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away"),
    pytest.mark.skipif(
        shutil.which("start-stop-daemon", path=PATH) is None,
        reason="start-stop-daemon is not on this machine; on Debian: dpkg has it",
    ),
    pytest.mark.skipif(
        shutil.which("python3", path=PATH) is None,
        reason="no Python that every user of this machine may run",
    ),
]


class Gateway:
    """Folders as an init script sets them, and an agent that does nothing but log."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        (self.home / "config").mkdir(parents=True)
        shutil.copy(FILES / "control.sh", self.home)
        (self.home / "aquacis-edge.pyz").write_text(AGENT)
        self.config = self.home / "config" / "gateway.json"
        self.config.write_text("{}")
        self.environment = {
            "PATH": PATH,
            "AGENT_HOME": str(self.home),
            "AGENT_CONFIG": str(self.config),
            "AGENT_STATE": str(folder / "state"),
            "AGENT_RUN": str(folder / "run"),
            "AGENT_USER": "nobody",
            "AGENT_AGAIN_S": "1",
        }

    def call(self, what: str) -> int:
        command = ["sh", str(self.home / "control.sh"), what]
        return subprocess.run(command, check=False, env=self.environment, timeout=60).returncode


@pytest.fixture
def gateway(state: Path) -> Iterator[Gateway]:
    """In a folder that another user can walk into."""
    found = Gateway(state)
    yield found
    found.call("stop")


def until(holds: Callable[[], Any], what: str) -> Any:
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        found = holds()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {PATIENCE_S:.0f} s: {what}")


def owner(path: Path) -> int:
    return path.lstat().st_uid


def test_its_own_folders_are_the_agents_and_so_are_its_settings(gateway: Gateway) -> None:
    key = gateway.home / "config" / "cerro.key"
    key.write_text("private")
    key.chmod(0o600)

    assert gateway.call("start") == 0
    assert gateway.call("stop") == 0
    assert gateway.call("start") == 0  # theirs already

    for path in (gateway.folder / "state", gateway.folder / "run", gateway.config, key):
        assert owner(path) == NOBODY
    assert owner(gateway.home) == 0


def test_of_a_folder_that_others_use_the_settings_alone_are_given(gateway: Gateway) -> None:
    etc = gateway.folder / "etc"
    etc.mkdir()
    (etc / "shadow").write_text("root's")
    (etc / "aquacis-edge.json").write_text("{}")
    gateway.environment["AGENT_CONFIG"] = str(etc / "aquacis-edge.json")

    assert gateway.call("start") == 0

    assert owner(etc / "aquacis-edge.json") == NOBODY
    assert (owner(etc), owner(etc / "shadow")) == (0, 0)


@pytest.mark.parametrize("name", ["AGENT_STATE", "AGENT_RUN"])
def test_a_folder_that_holds_something_of_others_is_refused(gateway: Gateway, name: str) -> None:
    var = gateway.folder / "var"
    var.mkdir()
    (var / "mail").write_text("root's")
    gateway.environment[name] = str(var)

    assert gateway.call("start") == 73

    assert (owner(var), owner(var / "mail")) == (0, 0)


def test_a_link_that_the_agents_user_put_beside_its_settings_gives_nothing_away(
    gateway: Gateway,
) -> None:
    secret = gateway.folder / "shadow"
    secret.write_text("root's")
    (gateway.home / "config" / "soft").symlink_to(secret)
    (gateway.home / "config" / "hard").hardlink_to(secret)

    assert gateway.call("start") == 0

    assert owner(secret) == 0


def test_a_reason_is_not_written_where_a_link_of_the_agents_user_leads(gateway: Gateway) -> None:
    secret, run = gateway.folder / "shadow", gateway.folder / "run"
    secret.write_text("root's")
    run.mkdir()
    (run / "status.json").symlink_to(secret)
    status = gateway.folder / "status.json"
    status.symlink_to(run / "status.json")
    gateway.environment["AGENT_STATUS"] = str(status)
    gateway.config.unlink()

    assert gateway.call("start") == 78

    assert secret.read_text() == "root's"
    assert "no settings" in status.read_text()


def test_a_logger_that_dies_is_started_again_and_the_agent_goes_on(gateway: Gateway) -> None:
    """This one reads three lines and dies, as often as it is started."""
    tools, taken = gateway.folder / "bin", gateway.folder / "taken"
    tools.mkdir()
    taken.touch()
    taken.chmod(0o666)
    logger = tools / "logger"
    logger.write_text(f"#!/bin/sh\nfor n in 1 2 3; do read -r line; echo $line >>{taken}; done\n")
    logger.chmod(0o755)
    gateway.environment["PATH"] = f"{tools}:{PATH}"

    assert gateway.call("start") == 0
    pid = gateway.folder / "state" / "pid"
    agent = int(until(lambda: pid.exists() and pid.read_text(), "the agent runs"))
    until(lambda: taken.read_text().count("line") >= 7, "three loggers have read")
    os.kill(agent, 0)
    os.kill(agent, signal.SIGKILL)
    until(lambda: taken.read_text().count("line 0\n") >= 2, "another agent's lines are read, too")
    assert gateway.call("stop") == 0
    until(lambda: not running(gateway), "nobody waits for the log of an agent that is gone")


def running(gateway: Gateway) -> list[str]:
    """What still runs out of the gateway's folders."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [line for line in found if str(gateway.folder) in line]
