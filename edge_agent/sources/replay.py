"""Recorded lines, played again: at the pace they were heard at, faster, or as fast as they go.

The lines are those of `lines`. A line's own time is `heard_at` of a JSON line and the fourth field
of an rtl-wmbus line; a line without one follows the line before it at once. A line that was heard
before its predecessor, or with it, does not wait either: pace is kept, order is not mended. Where
a month and more lies between two lines a clock was set, or wrong: the pace begins anew there.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from edge_agent.clock import Clock
from edge_agent.instants import SECOND_US, BadInstant, micros
from edge_agent.sources.lines import LineCutter, put_line
from edge_agent.sources.supervisor import Hearing

READ_BYTES: Final = 65_536
RTL_WMBUS_TIME: Final = 3  # its place among the fields
LONGEST_GAP_US: Final = 31 * 86_400 * SECOND_US  # that anybody waits for


class ReplayFeed:
    """Reads a file, or standard input ("-"), once.

    speed       1 = as it was heard, 60 = an hour in a minute; None = as fast as possible
    rtl_zone_us by how much the local time of rtl-wmbus lines is ahead of UTC; None: these lines
                are heard when they are replayed, as they name no zone
    only        skip JSON lines that name another gateway
    """

    def __init__(
        self,
        *,
        path: str,
        clock: Clock,
        speed: float | None = 1.0,
        rtl_zone_us: int | None = None,
        only: str | None = None,
        stdin_fd: Callable[[], int] = sys.stdin.fileno,
    ) -> None:
        self.where = path
        self._clock = clock
        self._speed = speed
        self._zone_us = rtl_zone_us
        self._only = only
        self._stdin_fd = stdin_fd
        self._began: tuple[int, float] | None = None  # recorded µs, monotonic seconds
        self._before = 0  # when the line before was recorded

    def run(self, hearing: Hearing) -> None:
        descriptor = self._stdin_fd() if self.where == "-" else os.open(self.where, os.O_RDONLY)
        try:
            hearing.up(self.where)
            self._read(descriptor, hearing)
        finally:
            if self.where != "-":
                os.close(descriptor)

    def settle(self, tokens: list[object]) -> None:
        """Nothing to do: the recording is still there."""

    def _read(self, descriptor: int, hearing: Hearing) -> None:
        cutter = LineCutter()
        while piece := os.read(descriptor, READ_BYTES):
            for line in cutter.cut(piece):
                self._play(line, hearing)
                if hearing.stopping.is_set():
                    return
        for line in cutter.rest():
            self._play(line, hearing)

    def _play(self, line: bytes | None, hearing: Hearing) -> None:
        at, is_rtl = recorded_at(line) if line else (None, False)
        if at is not None and self._speed is not None:
            hearing.stopping.wait(self._wait_s(at, self._speed))
            if hearing.stopping.is_set():
                return
        now_us = self._clock.now_us()
        if at is not None and is_rtl and self._zone_us is not None:
            now_us = at - self._zone_us
        put_line(line, hearing, now_us=now_us, only=self._only)

    def _wait_s(self, at: int, speed: float) -> float:
        """Return how long the line must still wait for its turn."""
        now_s = time.monotonic()
        if self._began is None or abs(at - self._before) > LONGEST_GAP_US:
            self._began = (at, now_s)
        self._before = at
        began_us, began_s = self._began
        wait_s = began_s + (at - began_us) / SECOND_US / speed - now_s
        return min(max(0.0, wait_s), threading.TIMEOUT_MAX)


def recorded_at(line: bytes) -> tuple[int | None, bool]:
    """Return when a line was recorded, in µs, and whether that is an rtl-wmbus line's local time.

    A line that cannot be read has no time: it is refused where all lines are read.
    """
    text = line.decode("utf-8", "replace").strip()
    is_rtl = not text.startswith("{") and ";" in text
    try:
        if is_rtl:
            return micros(text.split(";")[RTL_WMBUS_TIME]), True
        if text.startswith("{"):
            said = json.loads(text)
            return (micros(said["heard_at"]) if said.get("heard_at") is not None else None), False
    except (ValueError, RecursionError, IndexError, BadInstant):
        pass
    return None, is_rtl
