"""How far the agents have got, and what a full FIFO does."""

from __future__ import annotations

import os
import select
from pathlib import Path

from decoders.uplink import Batch, encode_batch, pack_rows
from field_sim.links import AgentsHealth, Lines


def message(gateway: str, heard: int | str) -> bytes:
    return encode_batch(
        Batch(
            gateway=gateway,
            stream=bytes(16),
            rows=pack_rows([]),
            sent_at=0,
            started_at=0,
            health={"heard": heard},
        )
    )


def test_frames_taken_are_counted_from_the_first_word_on() -> None:
    health = AgentsHealth(["a", "b"])
    assert not health.knows(0)

    for heard in (100, 130, 130, 190):
        health.hear(message("a", heard))

    assert health.knows(0)
    assert health.taken(0) == 90
    assert not health.knows(1)


def test_an_agent_that_started_again_counts_from_zero() -> None:
    health = AgentsHealth(["a"])
    for heard in (100, 130, 0, 20):
        health.hear(message("a", heard))

    assert health.taken(0) == 50


def test_strangers_and_nonsense_are_not_counted() -> None:
    health = AgentsHealth(["a"])

    health.hear(b"\xff\x00")
    health.hear(message("z", 5))
    health.hear(message("a", "many"))

    assert not health.knows(0)


def test_a_full_fifo_loses_lines_whole_and_counts_them(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "fifo")
    line = b"x" * 999 + b"\n"

    for _ in range(100):
        lines.write(line)

    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    read = b"".join(iter(lambda: os.read(reader, 4096) if lines_wait(reader) else b"", b""))
    assert lines.lost > 0
    assert len(read) == (100 - lines.lost) * 1000
    os.close(reader)
    lines.close()


def lines_wait(reader: int) -> bool:
    return bool(select.select([reader], [], [], 0)[0])


def test_a_fifo_outlives_both_sides(tmp_path: Path) -> None:
    first = Lines(tmp_path / "fifo")
    first.write(b"one\n")
    second = Lines(tmp_path / "fifo")
    first.close()
    second.write(b"two\n")

    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)

    assert os.read(reader, 100) == b"one\ntwo\n"
    os.close(reader)
    second.close()
