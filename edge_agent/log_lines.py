"""The log: one JSON line an event on stderr. Whoever reads it can neither end nor stop the agent.

Under an init script stderr is a pipe to `logger`, and that may die or hang: a line that nobody
takes within a moment is dropped and counted, and the next that is taken says how many were.
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
import time
from typing import Final

from edge_agent.clock import SystemClock

WAIT_S: Final = 0.5  # for a reader that is behind; not again before it has caught up
PIECE_BYTES: Final = 512  # POSIX's least PIPE_BUF: a pipe that is ready takes so much at once


class LogLines:
    """Writes lines to a file that may be a pipe. For all threads."""

    def __init__(self) -> None:
        self.dropped = 0
        self._torn = False
        self._one_at_a_time = threading.Lock()

    def __call__(self, event: str, **said: object) -> None:
        """Write one line to stderr, or count it as dropped. Raises nothing."""
        line = {"at_us": SystemClock().now_us(), "event": event, **said}
        if not self._one_at_a_time.acquire(timeout=2 * WAIT_S):
            self.dropped += 1
            return
        try:
            if self.dropped:
                line["dropped_before"] = self.dropped
            text = json.dumps(line, ensure_ascii=False, default=str) + "\n"
            if self._written(text.encode("utf-8", "backslashreplace")):
                self.dropped = 0
            else:
                self.dropped += 1
        finally:
            self._one_at_a_time.release()

    def _written(self, line: bytes) -> bool:
        try:
            out = sys.stderr
            descriptor = out.fileno()
        except (OSError, ValueError, AttributeError):  # closed, or no file: a test's
            return _printed(line)
        try:
            out.flush()
            return self._written_to(descriptor, line)
        except (OSError, ValueError):  # nobody reads it any more, or its disk is full
            return False

    def _written_to(self, descriptor: int, line: bytes) -> bool:
        ready = select.poll()
        ready.register(descriptor, select.POLLOUT)
        until_s = time.monotonic() + (0.0 if self.dropped else WAIT_S)
        rest = b"\n" + line if self._torn else line
        while rest:
            left_s = max(0.0, until_s - time.monotonic())
            if not ready.poll(left_s * 1000):
                return False
            rest = rest[os.write(descriptor, rest[:PIECE_BYTES]) :]
            self._torn = bool(rest)
        return True


def _printed(line: bytes) -> bool:
    try:
        print(line.decode(), end="", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        return False
    return True


log: Final = LogLines()
