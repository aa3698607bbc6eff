"""The agent's log, with a reader that dies, hangs, or comes back."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from edge_agent import log_lines
from edge_agent.log_lines import LogLines


class Reader:
    """The end of the pipe that whoever reads the log has."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._end = os.fdopen(descriptor, "rb", buffering=0)

    def die(self) -> None:
        self._end.close()

    def lines(self) -> list[dict[str, Any]]:
        """Take what is in the pipe; a line that is not whole is no line."""
        taken = b"".join(iter(lambda: self._end.read(65_536) or b"", b""))
        return [json.loads(line) for line in taken.splitlines() if line.endswith(b"}")]


@contextmanager
def read() -> Iterator[Reader]:
    """Put a pipe in the place of stderr. No fixture: capturing sets stderr anew before a test."""
    reading, writing = os.pipe()
    reads = Reader(reading)
    with pytest.MonkeyPatch.context() as patch, suppress(OSError), os.fdopen(writing, "w") as err:
        patch.setattr(log_lines, "WAIT_S", 0.1)
        patch.setattr(sys, "stderr", err)
        yield reads
    reads.die()


def test_a_line_says_when_and_what() -> None:
    with read() as reader:
        log_lines.log("health", rows=3, where="Querétaro", odd="\udcff")

        (line,) = reader.lines()
        assert (line["event"], line["rows"], line["where"]) == ("health", 3, "Querétaro")
        assert line["at_us"] > 0


def test_a_reader_that_dies_ends_nothing() -> None:
    with read() as reader:
        log = LogLines()
        reader.die()

        log("health")
        log("health")

        assert log.dropped == 2


def test_a_reader_that_hangs_holds_nobody_up_and_learns_what_it_missed() -> None:
    with read() as reader:
        log = LogLines()
        began_s = time.monotonic()
        for number in range(2000):
            log("health", number=number, pad="x" * 300)
        took_s = time.monotonic() - began_s
        dropped = log.dropped
        before = reader.lines()

        log("health", number=2000)

        (after,) = reader.lines()
        assert took_s < 5
        assert [line["number"] for line in before] == list(range(2000 - dropped))
        assert (after["number"], after["dropped_before"]) == (2000, dropped)
        assert log.dropped == 0


def test_lines_of_many_threads_do_not_mix() -> None:
    with read() as reader:
        log = LogLines()
        threads = [
            threading.Thread(target=log, args=(f"from_{n}",), kwargs={"pad": "y" * 3000})
            for n in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(line["event"] for line in reader.lines()) == sorted(
            f"from_{n}" for n in range(12)
        )


def test_a_closed_stderr_ends_nothing() -> None:
    with read():
        sys.stderr.close()

        LogLines()("health")


def test_a_full_disk_under_the_log_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stderr", full)
        log = LogLines()
        log("health")

    assert log.dropped == 1
