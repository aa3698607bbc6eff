"""Once a night the agent lets the scan look back over weeks; what it says becomes one input."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge_agent import scan
from edge_agent.clock import Clock
from edge_agent.sources.port import Inbox

NIGHT_HOUR_UTC: Final = 10  # four in the morning in Mexico City: the night is over
LOOKS_EVERY_S: Final = 60.0
NIGHTS_FILE: Final = "nights.cbor"
HOUR_US: Final = 3_600_000_000
DAY_H: Final = 24


class NightlyScan:
    """A source of one input a night. It reads the agent's checkpoints, and changes none."""

    def __init__(
        self, *, outbox: Path, inbox: Inbox, clock: Clock, log: Callable[..., None]
    ) -> None:
        self.name = "scan"
        self._outbox = outbox
        self._inbox = inbox
        self._clock = clock
        self._log = log
        self._stop = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name="scan", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def settle(self, tokens: list[object]) -> None:
        """Nothing is waited for: the next night tells the same again."""

    def stop(self) -> None:
        """End the child, too: nobody waits for its answer any more."""
        self._stop.set()
        if self._child is not None:
            self._child.kill()

    def _begun(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        if self._stop.is_set():
            child.kill()

    def _run(self) -> None:
        done = night_of(self._clock.now_us())
        while not self._stop.wait(LOOKS_EVERY_S):
            night = night_of(self._clock.now_us())
            if night != done:
                done = night
                self.look()

    def look(self) -> None:
        """Scan now. A scan that fails is logged, and tried again the next night."""
        try:
            nights = self._outbox.with_name(NIGHTS_FILE)
            said = scan.in_child(self._outbox, nights, begun=self._begun)
        except scan.ScanFailed as error:
            if not self._stop.is_set():
                self._log("scan_failed", reason=str(error))
            return
        self._log("scanned", found=len(said.found), unavailable=said.unavailable)
        self._inbox.put(said)


def night_of(now_us: int) -> int:
    """Return the number of the night that ended last."""
    return (now_us // HOUR_US - NIGHT_HOUR_UTC) // DAY_H
