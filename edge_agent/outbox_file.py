"""The outbox's file: its tables, its connection, how much of the disk it may take.

    stream      one row: the stream's name, how far it has got, what was given up so far
    twin        the stream's name once more, on another page of the disk
    fresh       the newest rows, one by one
    page        older rows, packed; id = 8 · first number of its block + Keep; a block's one to
                four pages lie between the same numbers, so blocks follow each other
    gone        which rows are gone, and why; id = 8 · first number + LossKind; `bits` bit i says
                that row first + i is, empty = all of first … last
    given_up    rows that the cloud cannot read: kept, not sent
    rejected    the newest rows that the cloud took as dead letters
    damaged     bytes whose checksum differs, for who comes looking
    checkpoint  the rules' memory

Whatever SQLite would let flip unseen is sealed: `seal` columns are CRC-32 over the others.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

from decoders.value import value

SCHEMA_VERSION: Final = 2  # a new one must change a table, too: a bit may flip in the number
PAGE_BYTES: Final = 4096
JOURNAL_BYTES: Final = 4 << 20  # one transaction of 500 meters' memory is 2 MiB of pages
COMMIT_BYTES: Final = 128 << 10
LEAST_BYTES: Final = 8 << 20  # the memory of 4,000 meters takes half of it
LEAST_FREE_BYTES: Final = 256 << 10  # of a disk; below, whatever fails does so for want of space
CHECKPOINT_SHARE: Final = 4  # the journal begins anew after 1 MiB, where nobody reads it

SCHEMA: Final = """
CREATE TABLE stream (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1), id BLOB NOT NULL,
    started_at INTEGER NOT NULL, base INTEGER NOT NULL, head INTEGER NOT NULL,
    head_at INTEGER NOT NULL, acked INTEGER NOT NULL, lived_us INTEGER NOT NULL,
    shed_undecodable INTEGER NOT NULL, shed_sub_hourly INTEGER NOT NULL,
    shed_hourly INTEGER NOT NULL, shed_own INTEGER NOT NULL, corrupt INTEGER NOT NULL,
    seal INTEGER NOT NULL);
CREATE TABLE twin (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1), id BLOB NOT NULL,
    started_at INTEGER NOT NULL, base INTEGER NOT NULL, seal INTEGER NOT NULL);
CREATE TABLE fresh (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE page (
    id INTEGER PRIMARY KEY, keep INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    rows INTEGER NOT NULL, from_at INTEGER NOT NULL, to_at INTEGER NOT NULL,
    lived_us INTEGER NOT NULL, seal INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX page_by_keep ON page (keep);
CREATE TABLE gone (
    id INTEGER PRIMARY KEY, last INTEGER NOT NULL, rows INTEGER NOT NULL,
    from_at INTEGER NOT NULL, to_at INTEGER NOT NULL, bits BLOB NOT NULL, seal INTEGER NOT NULL);
CREATE TABLE given_up (
    seq INTEGER PRIMARY KEY, code TEXT NOT NULL, heard_at INTEGER NOT NULL, seal INTEGER NOT NULL);
CREATE TABLE rejected (seq INTEGER PRIMARY KEY, code TEXT NOT NULL);
CREATE TABLE damaged (id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE checkpoint (
    name TEXT PRIMARY KEY, state BLOB NOT NULL, seal INTEGER NOT NULL) WITHOUT ROWID;
"""


class Connection(Protocol):
    """What `sqlite3.Connection` (autocommit) and `apsw.Connection` have in common."""

    def execute(self, sql: str, bindings: Sequence[Any] = ..., /) -> Iterable[Any]: ...

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> object: ...

    def close(self) -> None: ...


Connect = Callable[[Path], Connection]


class OutboxUnusable(Exception):
    """The file is no outbox of ours, or of a newer version."""


@value
class Limit:
    """How much of the disk the outbox may take; the newest row always fits.

    bytes      of the database and its journal together
    days       how long acknowledged rows stay, in time that the agent has run: no clock that
               somebody sets can empty the outbox, and no row goes by age before it is acknowledged
    rows       a bound on their number, for tests
    page_rows  rows of a block: what is packed, and given up, together
    """

    bytes: int = 1 << 30
    days: float = 30.0
    rows: int = 1 << 40
    page_rows: int = 1024

    @property
    def database_bytes(self) -> int:
        """What is left beside the journal, and for what one commit adds before others go."""
        return self.bytes - self.journal_bytes - max(COMMIT_BYTES, self.bytes // 64)

    @property
    def journal_bytes(self) -> int:
        return min(JOURNAL_BYTES, self.bytes // 4)


CACHE_KIB: Final = 512  # SQLite's own 2,000 are resident, and hit no more often

PROFILES: Final[Mapping[str, Limit]] = {
    "full": Limit(bytes=1 << 30, days=30.0),
    "lean": Limit(bytes=64 << 20, days=9.0),
}


def fitting(limit: Limit, folder: Path) -> Limit:
    """Return a limit that lets a damaged file and its rescue lie side by side on the disk."""
    try:
        there = os.statvfs(folder)
    except OSError:
        return limit
    return replace(limit, bytes=min(limit.bytes, there.f_blocks * there.f_frsize * 9 // 20))


def free_bytes(folder: Path) -> int:
    """Return what is left on the disk, plenty where nobody can say."""
    try:
        there = os.statvfs(folder)
    except OSError:
        return 1 << 62
    return there.f_bavail * there.f_frsize


def connect_sqlite(path: Path) -> Connection:
    """Open `path` so that a returned COMMIT means: on the disk."""
    return sqlite3.connect(str(path), isolation_level=None, check_same_thread=False)


def prepare(connection: Connection, limit: Limit) -> None:
    """Set what a connection must have before its first transaction."""
    checkpoint_pages = max(8, limit.journal_bytes // PAGE_BYTES // CHECKPOINT_SHARE)
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    connection.execute(f"PRAGMA wal_autocheckpoint={checkpoint_pages}")
    # The journal keeps its place on the disk, so that a full disk still lets rows make room.
    connection.execute(f"PRAGMA journal_size_limit={limit.journal_bytes}")


def is_full(error: Exception) -> bool:
    """Say whether SQLite failed for want of space on the disk."""
    return "disk is full" in str(error) or "FullError" in type(error).__name__


def lacks_room(folder: Path, error: Exception) -> bool:
    """Say whether something failed for want of space, whatever words SQLite found for it."""
    if is_full(error) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return True
    return free_bytes(folder) < LEAST_FREE_BYTES


def used_bytes(connection: Connection) -> int:
    """Return the bytes of pages that hold something, inside a transaction too."""
    pages = one(connection, "PRAGMA page_count")[0]
    free = one(connection, "PRAGMA freelist_count")[0]
    return int(pages - free) * PAGE_BYTES


def disk_bytes(connection: Connection, path: Path) -> int:
    """Return the real size of database and journal."""
    size = int(one(connection, "PRAGMA page_count")[0]) * PAGE_BYTES
    with suppress(OSError):
        size += os.stat(f"{path}-wal").st_size
    return size


def one(connection: Connection, sql: str, bindings: Sequence[Any] = ()) -> tuple[Any, ...]:
    """Return the first row of an answer that has one."""
    row: tuple[Any, ...] = next(iter(connection.execute(sql, bindings)))
    return row


class Transaction:
    """BEGIN IMMEDIATE … COMMIT, or ROLLBACK when anything raises, the COMMIT included."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None:
            try:
                self._db.execute("COMMIT")
                return
            except BaseException:
                self._roll_back()
                raise
        self._roll_back()

    def _roll_back(self) -> None:
        with suppress(Exception):  # SQLite may have rolled back by itself already (full disk)
            self._db.execute("ROLLBACK")
