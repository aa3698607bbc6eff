"""Running `up` as people do, in a folder of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
START_S = 150.0  # on a machine busy with other tests
STOP_S = 90.0
URL = re.compile(r"http://\S+?/(?=\s)")


class Up:
    """One `up` process and what it says."""

    def __init__(self, state: Path, *arguments: str, **environment: str) -> None:
        self.state = state
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "field_sim.up", *arguments],
            cwd=ROOT,
            env={**os.environ, "AQUACIS_STATE": str(state), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        self.said.extend(iter(self.process.stdout.readline, ""))

    @property
    def text(self) -> str:
        return "".join(self.said)

    def ready(self) -> str:
        """Wait until it is up; return its URL without the final slash."""
        eventually(lambda: URL.search(self.text) or self.process.poll() is not None, START_S)
        found = URL.search(self.text)
        assert found, self.text
        return found[0].rstrip("/")

    def children(self) -> dict[str, int]:
        """Return {name: pid} of the processes it supervises."""
        written = json.loads((self.state / "processes.json").read_text())
        return {name: pid for name, (pid, _) in written.items()}

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.process.wait(STOP_S)
        self._listener.join(5)
        return self.process.returncode

    def aquacis(self, *arguments: str) -> Any:
        """Run the platform's own command beside it; return its JSON answer."""
        done = subprocess.run(
            [sys.executable, "-m", "cloud", "--json", *arguments],
            cwd=ROOT,
            env={**os.environ, "AQUACIS_STATE": str(self.state)},  # the rest it finds there
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@contextmanager
def sandbox(state: Path, *arguments: str, **environment: str) -> Iterator[Up]:
    up = Up(state, *arguments, **environment)
    try:
        yield up
    finally:
        if up.process.poll() is None:
            up.stop()


@contextmanager
def home() -> Iterator[Path]:
    """Make a state folder on a real disk that PostgreSQL's and the broker's users can enter."""
    with tempfile.TemporaryDirectory(prefix="aquacis-up-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


def eventually(met: Callable[[], object], timeout_s: float, *, pause_s: float = 0.1) -> None:
    deadline = time.monotonic() + timeout_s
    while not met():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(pause_s)


def is_alive(pid: int) -> bool:
    """Say whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
