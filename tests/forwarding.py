"""A broker, an agent's process, and lines for it: what tests of the way to the cloud share."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from decoders.uplink import RowKind
from edge_agent.outbox import Draft, Outbox
from field_sim.broker import Broker
from field_sim.soak.one_agent import OneAgent
from field_sim.supervisor import start

PATIENCE_S = 20.0


def wait_for(what: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def reachable(folder: Path) -> Path:
    """Open pytest's private folders, so that a broker that left root finds its files."""
    for parent in (folder, *folder.parents):
        if parent.owner() == "root" and parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    return folder


@contextmanager
def running(broker: Broker, log: Path) -> Iterator[None]:
    """Run a broker until the block ends."""
    process = start(broker.command, run_as=broker.run_as, log=log)
    try:
        wait_for(lambda: _listens(broker.port) and process.poll() is None)
        yield
    finally:
        process.terminate()
        process.wait(20)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class AgentProcess(OneAgent):
    """One agent's process after another, of the gateway that these tests know."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, **{"gateway": "gw-a", "pace": {"linger_s": 0.05}} | settings)

    def fill(self, rows: int, *, bytes_each: int = 60, alert_each: int = 0) -> None:
        """Put rows into the outbox before there is an agent; 0: no alerts among them."""
        self.state.mkdir(parents=True, exist_ok=True)
        outbox = Outbox(self.outbox, new_stream=lambda: os.urandom(16), now_us=1)
        for first in range(0, rows, 5000):
            numbers = range(first, min(rows, first + 5000))
            outbox.append([_draft(n, bytes_each, alert_each) for n in numbers], {})
        outbox.close()


def _draft(number: int, size: int, alert_each: int) -> Draft:
    is_alert = alert_each and number % alert_each == alert_each - 1
    kind = RowKind.ANOMALY if is_alert else RowKind.WMBUS
    return Draft(
        heard_at=1_000_000 + number, kind=kind, payload=number.to_bytes(4, "big") * (size // 4)
    )
