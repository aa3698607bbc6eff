"""What the shell expects of a source, and the inbox that all sources share."""

from __future__ import annotations

import queue
import threading
from typing import Final, Protocol

from edge_agent.inputs import Input
from edge_agent.mqtt import SubscriptionRefused

MAX_WAITING: Final = 1000  # inputs, about 2 MB of uplinks; then the source waits
FULL_WAIT_S: Final = 0.005

Delivered = Input | SubscriptionRefused


class Inbox:
    """Inputs on their way to the loop. Full, it makes the putting source wait: backpressure."""

    def __init__(self, *, most: int = MAX_WAITING) -> None:
        self._queue: queue.SimpleQueue[Delivered] = queue.SimpleQueue()
        self._most = most
        self._closed = threading.Event()

    def put(self, given: Delivered) -> None:
        """Hand over one input; waits while the loop is behind, unless the inbox is closed."""
        while self._queue.qsize() >= self._most and not self._closed.is_set():
            self._closed.wait(FULL_WAIT_S)
        self._queue.put(given)

    def put_now(self, given: Delivered) -> None:
        """Hand over what may not wait: acks and connection changes, a handful at a time."""
        self._queue.put(given)

    def get(self, timeout_s: float) -> Delivered | None:
        """Return the next input, or None when there was none in time."""
        try:
            if timeout_s <= 0:
                return self._queue.get_nowait()
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def close(self) -> None:
        """Let waiting sources go: nobody takes their inputs any more."""
        self._closed.set()

    def __len__(self) -> int:
        return self._queue.qsize()


class Source(Protocol):
    """A place that frames come from."""

    name: str

    def start(self) -> None:
        """Begin to fill the inbox, in a thread of its own."""

    def settle(self, tokens: list[object]) -> None:
        """Take back the tokens of inputs that are on disk now."""

    def stop(self) -> None:
        """Stop, within about a second. What was not settled will be delivered again."""
