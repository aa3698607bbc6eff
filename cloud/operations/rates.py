"""How fast a growing number grows, from the times somebody looked at it."""

from __future__ import annotations

import threading
from collections import deque

REMEMBERED = 64  # looks; a page looks every two seconds
SHORTEST_S = 4.0  # below it one batch more or less would be the whole rate
LONGEST_S = 20.0


class Rates:
    """Remembers totals by name. Safe in threads; two processes each have their own memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looks: dict[object, deque[tuple[float, int]]] = {}

    def of(self, name: object, total: int, *, now_s: float) -> float | None:
        """Return the growth of `total` per second; None until it was looked at for long enough.

        now_s   of a monotonic clock
        """
        with self._lock:
            looks = self._looks.setdefault(name, deque(maxlen=REMEMBERED))
            looks.append((now_s, total))
            while len(looks) > 2 and now_s - looks[0][0] > LONGEST_S:
                looks.popleft()
            since_s, before = looks[0]
            if now_s - since_s < SHORTEST_S or total < before:
                return None
            return (total - before) / (now_s - since_s)
