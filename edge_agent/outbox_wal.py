"""What SQLite's journal holds, as far as SQLite will not say.

A frame whose checksum fails ends the journal for SQLite: it drops that frame and all behind it
without a word, which is right for a write that the power cut short, and loses commits in silence
where a bit flipped. The two differ: each of our commits is synced before the next one begins, so
behind a write that was cut short there is at most one commit; behind a flipped bit there are more.

Source: sqlite.org/fileformat2.html, §4 (the write-ahead log).
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from decoders.value import value
from edge_agent.outbox_file import PAGE_BYTES

HEADER: Final = struct.Struct(">8I")
FRAME: Final = struct.Struct(">6I")
WORDS: Final = {
    ">": struct.Struct(f">{PAGE_BYTES // 4}I"),
    "<": struct.Struct(f"<{PAGE_BYTES // 4}I"),
}
MAGIC: Final = 0x377F0682  # its last bit: checksums are of big-endian words
TORN_COMMITS: Final = 1  # that a power cut can leave behind a bad frame

Sum = tuple[int, int]


@value
class Frame:
    """One page in the journal. `pages` != 0: a commit ends with it. `holds`: its checksum does."""

    number: int
    pages: int
    salts: tuple[int, int]
    page: bytes
    holds: bool


def hidden_commits(path: Path) -> int:
    """Return how many commits of a database's journal SQLite will not see.

    One may be what the power cut short, which nobody was told of, or a damaged one.
    """
    journal = journal_of(path)
    if not journal.exists():
        return 0
    with journal.open("rb") as file:
        head = file.read(HEADER.size)
        if len(head) < HEADER.size or not any(head):
            return 0  # never written: the power went before the first commit
        if not _head_holds(head):
            return TORN_COMMITS + sum(1 for frame in _frames(file, None) if frame.pages)
        hidden, good = 0, True
        salts = HEADER.unpack(head)[4:6]
        for frame in _frames(file, head):
            good = good and frame.holds
            hidden += bool(not good and frame.salts == salts and frame.pages)
    return hidden


def applied(path: Path, to: Path) -> None:
    """Copy a database with its journal's pages in their places, those of damaged frames, too.

    A later frame of the same page makes a flipped one good; else our own checksums find it. Where
    at most one commit is hidden, only what SQLite sees is taken. `to` may be `path` itself: its
    journal goes then, once the pages are on the disk; before that it can be done again.
    """
    if to != path:
        shutil.copyfile(path, to)
    if not journal_of(path).exists():
        return
    takes_all = hidden_commits(path) > TORN_COMMITS
    with journal_of(path).open("rb") as file, to.open("r+b") as out:
        head = file.read(HEADER.size)
        held = len(head) == HEADER.size and _head_holds(head)
        salts = HEADER.unpack(head)[4:6] if held else None
        waiting: list[Frame] = []
        for frame in _frames(file, head if held else None):
            salts = salts or frame.salts
            if not (frame.holds or takes_all):
                break
            if frame.salts == salts:
                waiting.append(frame)
            if frame.pages and frame.salts == salts:
                for one in waiting:
                    if 0 < one.number <= frame.pages or one.holds:
                        out.seek((one.number - 1) * PAGE_BYTES)
                        out.write(one.page)
                waiting.clear()
        out.flush()
        os.fsync(out.fileno())
    journal_of(to).unlink(missing_ok=True)


def journal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _head_holds(head: bytes) -> bool:
    magic, _, page_bytes, *_, first, second = HEADER.unpack(head)
    if magic & ~1 != MAGIC or page_bytes != PAGE_BYTES:
        return False
    return _summed((0, 0), struct.unpack(f"{_order(magic)}6I", head[:24])) == (first, second)


def _frames(file: BinaryIO, head: bytes | None) -> Iterator[Frame]:
    """Return the whole frames from here on; `head` None: without judging them."""
    order, running, salts = "<", (0, 0), (0, 0)
    if head is not None:
        magic, _, _, _, *its_salts, first, second = HEADER.unpack(head)
        order, running, salts = _order(magic), (first, second), (its_salts[0], its_salts[1])
    while True:
        said, page = file.read(FRAME.size), file.read(PAGE_BYTES)
        if len(page) < PAGE_BYTES:
            return
        number, pages, one, two, first, second = FRAME.unpack(said)
        holds = False
        if head is not None:
            running = _summed(running, struct.unpack(f"{order}2I", said[:8]))
            running = _summed(running, WORDS[order].unpack(page))
            holds = running == (first, second) and (one, two) == salts
        yield Frame(number=number, pages=pages, salts=(one, two), page=page, holds=holds)


def _order(magic: int) -> str:
    return ">" if magic & 1 else "<"


def _summed(running: Sum, words: tuple[int, ...]) -> Sum:
    one, two = running
    for i in range(0, len(words), 2):
        one = (one + words[i] + two) & 0xFFFFFFFF
        two = (two + words[i + 1] + one) & 0xFFFFFFFF
    return one, two
