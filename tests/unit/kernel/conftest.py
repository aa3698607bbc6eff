"""Programs for tests to kill."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud.kernel import postgres
from cloud.kernel.postgres_disk import Reserve
from decoders.value import value

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = Path(__file__).with_name("keep_server.py")
NOBODY = 65534
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
TINY = Reserve(ballast_bytes=1 << 20, low_water_bytes=1 << 20, start_bytes=1 << 20)

Pipes = dict[str, Any]  # arguments of Popen


@value
class Keeping:
    """A running `keep_server.py`, and what it said."""

    process: subprocess.Popen[str]

    def said(self) -> dict[str, Any]:
        """Return its one line; waits for it."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        told: dict[str, Any] = json.loads(line)
        return told

    def kill(self) -> None:
        """End it as a power cut would: nothing of its own runs any more."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


Keep = Callable[..., Keeping]


@pytest.fixture
def keep() -> Iterator[Keep]:
    """Start `keep_server.py STATE …`, as user `uid` if given; ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(state: Path, *arguments: str, uid: int | None = None) -> Keeping:
        command = [str(PROGRAM), str(state), *arguments]
        pipes: Pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = (
            subprocess.Popen([sys.executable, *command], cwd=ROOT, **pipes)
            if uid is None
            else subprocess.Popen([_open_python(), *command], **pipes, **_as_user(uid))
        )
        started.append(process)
        return Keeping(process=process)

    yield start
    for process in started:
        process.communicate()  # closes its input: it stops the server and ends


@pytest.fixture
def nobody() -> int:
    """An ordinary user for root to be; skips where there is none to be had."""
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    if not _open_python():
        pytest.skip("this clone, or every Python here, is closed to the user nobody")
    return NOBODY


@functools.cache
def _open_python() -> str:
    """Return an interpreter that an ordinary user may run with our packages; "" if none."""
    for python in (sys.executable, shutil.which(f"python{VERSION}", path=os.defpath)):
        try:
            command = [python or "", "-c", "import cloud.kernel.postgres"]
            if subprocess.run(command, **_as_user(NOBODY), check=False).returncode == 0:
                return command[0]
        except PermissionError:
            continue
    return ""


def _as_user(uid: int) -> Pipes:
    environment = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PATH": os.defpath,
    }
    return {"user": uid, "group": uid, "extra_groups": [], "cwd": "/", "env": environment}


@pytest.fixture(scope="session")
def _filled(session_state: Path) -> Path:
    with postgres.ensure(session_state / "filled", reserve=TINY):
        return session_state / "filled"


@pytest.fixture
def filled_state(state: Path, _filled: Path) -> Path:
    """A state folder whose server ran and was stopped: a copy, which saves making one."""
    subprocess.run(["cp", "-a", f"{_filled}/postgres", str(state)], check=True)
    return state
