"""One agent's process on a state folder of its own: started, killed, looked at, fed by a FIFO."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from field_sim import broker as brokers
from field_sim.broker import Broker
from field_sim.sandbox import ROOT
from field_sim.supervisor import start

GATEWAY: Final = "mast-7"
APPLICATION: Final = "5a0d61d2-3e4b-4c58-9b61-4a6b3ad3f1c7"
PATIENCE_S: Final = 30.0


class AgentStuck(Exception):
    """The agent did not end, or takes nothing more."""


@contextmanager
def a_broker(folder: Path, *, gateway: str = GATEWAY) -> Iterator[Broker]:
    """Run a real broker, mosquitto where there is one, until the block ends."""
    prepared = brokers.prepare(folder / "broker", {gateway: APPLICATION})
    process = start(prepared.command, run_as=prepared.run_as, log=folder / "broker.log")
    try:
        brokers.wait_ready(prepared, lambda: process.poll() is None)
        yield prepared
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


class OneAgent:
    """One process after another of `aquacis-edge`."""

    def __init__(self, folder: Path, **settings: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.state = folder / "state"
        self.outbox = self.state / "outbox.db"
        self.log = folder / "agent.log"
        self.log.touch()
        self.config = folder / "gateway.json"
        told = {"gateway": GATEWAY, "state": str(self.state), "sources": []}
        self.config.write_text(json.dumps(told | settings))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, command: str = "run", *more: str) -> subprocess.Popen[bytes]:
        words = ("-X", "faulthandler", "-m", "edge_agent", command, "--config", str(self.config))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *words, *more],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_ARENA_MAX": "1"},
            )
        return self.process

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return what it has logged under a name, oldest first."""
        lines = self.log.read_text().splitlines()
        said = [json.loads(line) for line in lines if line.startswith("{")]
        return [event for event in said if event["event"] == name]

    def resident_mib(self, field: str = "VmRSS") -> float:
        """Return the memory it has now; VmHWM: the most it had."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split(f"{field}:")[1].split()[0]) / 1024

    def disk_mib(self) -> float:
        """Return the size of the outbox with its journal."""
        return sum(path.stat().st_size for path in self.state.glob("outbox.db*")) / (1 << 20)

    def stop(self) -> int:
        """Ask it to stop; return its exit code. Raises AgentStuck, its stacks are in its log."""
        assert self.process is not None
        self.process.terminate()
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait(PATIENCE_S)
            raise AgentStuck(f"did not end in {PATIENCE_S:g} s; see {self.log}") from None

    def end(self) -> None:
        """Kill what is left."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Pipe:
    """A FIFO that an agent's source of kind "lines" reads; what an agent misses waits in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        # for reading too: it neither waits for a reader nor ends with one
        self._fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    def write(self, line: str, *, patience_s: float = PATIENCE_S) -> None:
        """Write one line, whole. Raises AgentStuck when nobody reads."""
        data = line.encode() + b"\n"
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            select.select([], [self._fifo], [], 0.5)
            try:
                os.write(self._fifo, data)  # below PIPE_BUF: all of it or none
            except BlockingIOError:
                continue
            return
        raise AgentStuck("nobody reads the FIFO of lines")

    def close(self) -> None:
        os.close(self._fifo)
