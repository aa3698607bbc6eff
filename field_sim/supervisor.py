"""Starting processes, keeping them running and ending them, none left behind.

A child gets its own process group, so that a Ctrl-C in the terminal reaches the supervisor alone
and the order of stopping is ours; the kernel ends it should the supervisor be killed; and its
pid is written down, so that the next start finds what even that left running.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from field_sim.broker import groups_of
from field_sim.texts import replace_text

PR_SET_PDEATHSIG = 1
STOP_TIMEOUT_S = 15.0  # then it is killed
BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.5, 30.0
STEADY_S = 60.0  # a child that lived so long has recovered: its back-off starts anew


def start(
    command: Sequence[str],
    *,
    log: Path,
    run_as: tuple[int, int] | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child of ours, its output appended to `log`. Raises OSError.

    Call it from the main thread: the kernel's parent is the thread that forks.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    uid, gid = (None, None) if run_as is None else run_as
    groups = None if uid is None else groups_of(uid)
    with log.open("ab") as stream:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env=None if environment is None else dict(environment),
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  one system call, no lock
            user=uid,
            group=gid,
            extra_groups=groups,
        )


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def wait_or_kill(
    process: subprocess.Popen[bytes],
    *,
    timeout_s: float = STOP_TIMEOUT_S,
    impatient: Callable[[], bool] = lambda: False,
) -> bool:
    """Wait for a child that was asked to end; end it once `impatient` or out of time.

    Return whether it obeyed.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and not impatient():
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        return True
    process.kill()
    process.wait()
    return False


def started_ticks(pid: int) -> int | None:
    """Return when process `pid` started, in the kernel's ticks; None when there is none."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    after_name = told.rpartition(")")[2].split()
    return None if after_name[0] == "Z" else int(after_name[19])


@dataclass
class Child:
    """One process of the sandbox: how to start it, and how it has been doing."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] | None = None
    run_as: tuple[int, int] | None = None
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    just_revived: bool = False
    _started: float = 0.0
    _backoff_s: float = BACKOFF_FIRST_S
    _not_before: float = field(default=0.0)

    def launch(self) -> None:
        self._started = time.monotonic()
        self.process = start(
            self.command, log=self.log, run_as=self.run_as, environment=self.environment
        )

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def revive(self) -> tuple[int, float] | None:
        """Start a dead child again when its time has come.

        Return (exit code, seconds until it will be started) the first time it is seen dead.
        """
        if self.process is None or self.process.poll() is None:
            return None
        now = time.monotonic()
        if self._not_before == 0.0:
            if now - self._started > STEADY_S:
                self._backoff_s = BACKOFF_FIRST_S
            self._not_before = now + self._backoff_s
            wait_s, self._backoff_s = self._backoff_s, min(self._backoff_s * 2, BACKOFF_MOST_S)
            return self.process.returncode, wait_s
        if now >= self._not_before:
            self._not_before = 0.0
            self.restarts += 1
            self.just_revived = True
            self.launch()
        return None


class Pids:
    """The file that names our running children, for the start after a kill."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, children: Sequence[Child]) -> None:
        pids = {
            child.name: [child.process.pid, started_ticks(child.process.pid)]
            for child in children
            if child.process is not None and child.process.poll() is None
        }
        replace_text(self.path, json.dumps(pids))

    def end_leftovers(self) -> list[str]:
        """End what an earlier, killed supervisor left running; return the names.

        A pid counts only with its start time: numbers are used again.
        """
        if not self.path.exists():
            return []
        ended = []
        for name, (pid, ticks) in json.loads(self.path.read_text()).items():
            if ticks is None or started_ticks(pid) != ticks:
                continue
            ended.append(name)
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_TIMEOUT_S
            while started_ticks(pid) == ticks and time.monotonic() < deadline:
                time.sleep(0.05)
            if started_ticks(pid) == ticks:
                os.kill(pid, signal.SIGKILL)
        self.path.unlink()
        return ended
