"""How much may be handed to the connection: what is under way, how fast it goes, what is too long.

A PUBACK says one thing only: that the way to the broker is free again. Few messages are under way
at a time, and they are as long as the line lets through in a moment; else a slow line would be
full of rows for minutes, keep-alives would wait behind them, and a connection that works would be
given up. A PUBACK that does not come at all, though every byte went out, would keep the way taken
for ever: then the connection is of no use.
"""

from __future__ import annotations

from typing import Final

BATCH_BYTES: Final = 900_000  # of rows; below every broker's 1 MiB with the header
FIRST_BYTES: Final = 16_384  # of rows in the first message of a connection: 10 s at 13 kbit/s
LEAST_BYTES: Final = 2_048
HEAD_BYTES: Final = 8_192  # of a message at most, beside its rows and what is gone between them
UNDER_WAY: Final = 2  # messages: one on the line, one behind it
QUICK_S: Final = 1.0  # delivered within this: twice as long a message next time
SLOW_SHARE: Final = 4  # of the keep-alive; slower than that: half as long
MISSING_S: Final = 10.0  # for a PUBACK once all bytes are out, and two keep-alives at least


class Line:
    """What is under way to the broker. Seconds are monotonic."""

    def __init__(self, *, keepalive_s: float) -> None:
        self.max_bytes = FIRST_BYTES
        self._most_bytes = BATCH_BYTES
        self._slow_s = keepalive_s / SLOW_SHARE
        self._missing_s = max(MISSING_S, 2 * keepalive_s)
        self._under_way: dict[int, tuple[float, int]] = {}  # message → handed over at, its rows

    @property
    def is_free(self) -> bool:
        return len(self._under_way) < UNDER_WAY

    def begins(self, *, most_packet: int = 0) -> None:
        """A new connection: what an earlier one had not delivered was too much for it.

        most_packet   the longest packet that the broker takes, bytes; 0 = it does not say
        """
        if self._under_way:
            self.max_bytes = max(LEAST_BYTES, self.max_bytes // 2)
        self._under_way.clear()
        self._most_bytes = rows_in(most_packet) if most_packet else BATCH_BYTES
        self.max_bytes = min(self.max_bytes, self._most_bytes)

    def handed(self, mid: int, *, rows: int, now_s: float) -> None:
        self._under_way[mid] = now_s, rows

    def delivered(self, mid: int, *, now_s: float) -> int:
        """Take a PUBACK; return the rows of its message, 0 for one of an earlier connection."""
        since_s, rows = self._under_way.pop(mid, (None, 0))
        if since_s is None or not rows:
            return 0
        if now_s - since_s <= QUICK_S:
            self.max_bytes = min(self._most_bytes, self.max_bytes * 2)
        elif now_s - since_s >= self._slow_s:
            self.max_bytes = max(LEAST_BYTES, self.max_bytes // 2)
        return rows

    def misses_puback(self, *, now_s: float, moved_s: float) -> bool:
        """Say whether a PUBACK is overdue. `moved_s`: when bytes of a message last went out."""
        oldest_s = min((since_s for since_s, _ in self._under_way.values()), default=now_s)
        return now_s - max(oldest_s, moved_s) >= self._missing_s


def rows_in(packet_bytes: int) -> int:
    """Return how many bytes of rows fit in a packet, with as many gaps between them as go along."""
    return min(BATCH_BYTES, max(LEAST_BYTES, (packet_bytes - HEAD_BYTES) * 2 // 3))


def gaps_beside(max_bytes: int, most: int) -> int:
    """Return how many gaps of 33 bytes a message with so many bytes of rows may declare: half as
    many bytes again.
    """
    return min(most, max(LEAST_BYTES, max_bytes) // 66)
