"""The store-and-forward file: one SQLite database that survives kill -9 and power cuts.

A row exists once its transaction committed (`journal_mode=WAL`, `synchronous=FULL`); only then
may a source be told that it was heard. Rows are numbered without gaps from 1 within a `stream`,
sixteen random bytes made with the file. The rules' memory is checkpointed in the transaction of
the rows it led to, so a restart forgets no 23-hour run.

Acknowledged rows stay until their space is needed: a cloud restored from a backup can ask for
them again. When database and journal reach their limit, or the disk is full, the oldest
acknowledged rows go first; then unacknowledged ones, by kind: undecodable, sub-hourly, hourly
last, of each kind the oldest. What is gone is remembered row by row (`outbox_gone`) and declared
with its kind to whoever asks for it.

The connection comes from a factory, because the power-cut tests run this same SQL on apsw.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final

from decoders.uplink import MAX_GAPS, STREAM_BYTES, Gap, LossKind, Lost, Row
from edge_agent import outbox_progress
from edge_agent.outbox_file import (
    SCHEMA,
    SCHEMA_VERSION,
    Connect,
    Connection,
    Limit,
    OutboxUnusable,
    Transaction,
    connect_sqlite,
    disk_bytes,
    free_bytes,
    is_full,
    one,
    prepare,
    used_bytes,
)
from edge_agent.outbox_gone import Gone, Record, gaps_between, ranges
from edge_agent.outbox_pages import Pages
from edge_agent.outbox_progress import LOST_KINDS, Progress
from edge_agent.outbox_room import Room, Shed, give_up_page
from edge_agent.outbox_rows import Draft, numbered, seal

__all__ = ["Connection", "Draft", "Limit", "Outbox", "OutboxUnusable", "Shed"]

ROW_OVERHEAD_BYTES: Final = 64  # of a row in a message, beside its payload
REJECTED_KEPT: Final = 1000  # newest refused rows, for `inspect`
ROOM_ATTEMPTS: Final = 64  # pages given up for one commit on a full disk
DAY_US: Final = 86_400_000_000

TRIM_REJECTED: Final = (
    "DELETE FROM rejected WHERE seq NOT IN (SELECT seq FROM rejected ORDER BY seq DESC LIMIT ?)"
)
UPSERT_CHECKPOINT: Final = "INSERT OR REPLACE INTO checkpoint VALUES (?, ?, ?)"


class StillFull(sqlite3.OperationalError):
    """Making room did not help: other programs fill the disk as fast."""


class Outbox:
    """The one writer of an outbox file. Not thread-safe: the shell's loop owns it.

    Numbers in the file go on when the stream begins anew; `_base` is what the stream's are less.
    """

    def __init__(
        self,
        path: Path,
        *,
        new_stream: Callable[[], bytes],
        now_us: int,
        limit: Limit | None = None,
        connect: Connect = connect_sqlite,
        ticks_us: Callable[[], int] | None = None,
    ) -> None:
        """Open or make the file. `ticks_us` counts how long the agent runs. Raises OutboxUnusable.

        An older version's file is not read here: see `outbox_rescue.opened`.
        """
        self._limit = limit or Limit()
        self._path = path
        self._ticks_us = ticks_us or (lambda: 0)
        self._used = 0
        self._room = Room()  # given up for commits that failed nevertheless
        self.connection = self._db = connect(path)
        try:
            prepare(self._db, self._limit)
            self._make(new_stream, now_us)
            self._gone = Gone(self._db)
            self._pages = Pages(self._db, self._gone, page_rows=self._limit.page_rows)
            self._load()
        except BaseException:
            self._db.close()
            raise
        self.opened_head = self.head

    opened_head: int  # when the file was opened, without what its rescue had to say
    first: int  # the oldest number held, head + 1 when none is

    def _make(self, new_stream: Callable[[], bytes], now_us: int) -> None:
        version = one(self._db, "PRAGMA user_version")[0]
        if version == SCHEMA_VERSION:
            return
        if version != 0 or one(self._db, "SELECT count(*) FROM sqlite_master")[0]:
            raise OutboxUnusable(f"outbox version {version}, this agent writes {SCHEMA_VERSION}")
        made = Progress(stream=new_stream(), started_at=now_us)
        assert len(made.stream) == STREAM_BYTES
        with Transaction(self._db):
            for statement in SCHEMA.split(";"):
                if statement.strip():
                    self._db.execute(statement)
            outbox_progress.write(self._db, made)
            outbox_progress.write_twin(self._db, made)
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _load(self) -> None:
        """Read how far the file has got: at the start, and after what was rolled back."""
        self._opened_us = self._ticks_us()
        self._at = outbox_progress.read(self._db)
        self._given_up: dict[int, int] = dict(
            self._db.execute("SELECT seq, heard_at FROM given_up")
        )
        self._gone.forget_cache()
        self._pages.load()
        self._find_first()

    def _find_first(self) -> None:
        first = self._pages.first
        self.first = (self._at.head + 1 if first is None else first) - self._at.base

    @property
    def stream(self) -> bytes:
        return self._at.stream

    @property
    def started_at(self) -> int:
        return self._at.started_at

    @property
    def head(self) -> int:
        """The highest number committed."""
        return self._at.head - self._at.base

    @property
    def head_at(self) -> int:
        return self._at.head_at

    @property
    def acked(self) -> int:
        return self._at.acked - self._at.base

    @property
    def held(self) -> int:
        """Rows in the file, acknowledged or not."""
        return self._pages.rows

    @property
    def pending(self) -> int:
        """Numbers that nobody has acknowledged yet, of rows that are gone too."""
        return self._at.head - self._at.acked

    @property
    def size(self) -> int:
        """Bytes on the disk, of database and journal."""
        return disk_bytes(self._db, self._path)

    @property
    def lost(self) -> Mapping[str, int]:
        """Rows given up unacknowledged since the file was made, by kind, and rows damaged."""
        return dict(zip(LOST_KINDS, self._at.lost, strict=True))

    def append(self, drafts: Sequence[Draft], checkpoints: Mapping[str, bytes]) -> Shed | None:
        """Commit rows and the rules' memory as one; return what had to be given up for them.

        When this returns, the rows are on the disk. On a full disk older rows make room, in the
        stated order. Raises sqlite3.OperationalError (or apsw's kin) when nothing helps; then
        nothing of it happened but rows that were given up, which the next call reports.
        """
        head = self._at.head
        rows = [numbered(draft, head + 1 + i) for i, draft in enumerate(drafts)]
        given = [(name, state, seal(name, state)) for name, state in checkpoints.items()]
        for _ in range(ROOM_ATTEMPTS):
            try:
                self._commit(rows, given)
                break
            except Exception as error:
                self._load()
                if not is_full(error) or not self._made_room():
                    raise
        else:
            raise StillFull(f"{ROOM_ATTEMPTS} pages given up, and the disk is still full")
        shed, self._room = self._room.shed, Room()
        return shed

    def _commit(self, rows: Sequence[Row], checkpoints: Sequence[tuple[str, bytes, int]]) -> None:
        room, at = self._room.copy(), self._at
        self._used = used_bytes(self._db)
        with Transaction(self._db):
            if rows:
                self._pages.add(rows)
                at = replace(at, head=rows[-1].seq, head_at=rows[-1].heard_at)
            if checkpoints:
                self._db.executemany(UPSERT_CHECKPOINT, checkpoints)
            self._make_room(room)
            at = self._written(at, room.since(self._room))
        self._at, self._room = at, room
        self._find_first()

    def _make_room(self, room: Room) -> None:
        """Pack what is old; give up what is too much. Inside the caller's transaction."""
        lived_us, most = self._lived(), self._limit.database_bytes
        if free_bytes(self._path.parent) < self._limit.journal_bytes:
            most = min(most, self._used)  # others fill the disk: no more than there is already
        fresh = self._pages.fresh
        self._pages.pack(lived_us=lived_us)
        if self._pages.fresh != fresh:
            self._drop_old(lived_us - round(self._limit.days * DAY_US))
        while self._pages.rows > self._limit.rows or used_bytes(self._db) > most:
            if not self._give_up_page(room) and not self._pages.pack_early(lived_us=lived_us):
                break

    def _give_up_page(self, room: Room) -> bool:
        return give_up_page(self._pages, self._gone, room, acked=self._at.acked)

    def _drop_old(self, before_us: int) -> None:
        """Give up acknowledged pages that are older than the profile keeps them."""
        while True:
            page = self._pages.oldest_acked(self._at.acked)
            if page is None or page.lived_us >= before_us:
                return
            self._pages.drop(page, acked=self._at.acked)

    def _made_room(self) -> bool:
        """Give up one page for good, on a disk that is full; say whether that worked."""
        room = self._room.copy()
        try:
            with Transaction(self._db):
                found = self._give_up_page(room)
                at = self._written(self._at, room.since(self._room))
        except Exception as error:
            self._load()
            if not is_full(error):
                raise
            return False
        self._at, self._room = at, room
        return found

    def _lived(self) -> int:
        """Return µs that agents have worked on this file; what a clock was set to is not in it."""
        return self._at.lived_us + max(0, self._ticks_us() - self._opened_us)

    def _written(self, at: Progress, lost: Mapping[str, int]) -> Progress:
        """Write how far the file has got, in the caller's transaction; return it."""
        lost = {**lost, "corrupt": self._pages.found_damaged}
        written = replace(at, lived_us=self._lived(), lost=at.with_lost(lost))
        outbox_progress.write(self._db, written)
        self._pages.found_damaged = 0
        self._opened_us = self._ticks_us()
        return written

    def acknowledge(self, upto: int, rejected: Sequence[tuple[int, str]] = ()) -> None:
        """Remember that the cloud holds everything up to `upto`; may go back when it asks to."""
        assert 0 <= upto <= self.head
        try:
            with Transaction(self._db):
                at = self._written(replace(self._at, acked=upto + self._at.base), {})
                if rejected:
                    moved = [(seq + self._at.base, code) for seq, code in rejected]
                    self._db.executemany("INSERT OR REPLACE INTO rejected VALUES (?, ?)", moved)
                    self._db.execute(TRIM_REJECTED, (REJECTED_KEPT,))
        except BaseException:
            self._load()
            raise
        self._at = at

    def read(self, first: int, *, rows: int, max_bytes: int) -> tuple[Row, ...]:
        """Return up to `rows` rows from `first` on, at least one, together below `max_bytes`."""
        return self._fitting(self._sendable(first + self._at.base), rows, max_bytes)

    def alerts(self, after: int, *, rows: int, max_bytes: int) -> tuple[Row, ...]:
        """Return the oldest anomalies behind row `after`, found without reading all of the file."""
        return self._fitting(self._pages.alerts(after + 1 + self._at.base), rows, max_bytes)

    def _fitting(self, rows: Iterator[Row], most: int, max_bytes: int) -> tuple[Row, ...]:
        taken: list[Row] = []
        size = 0
        for row in rows:
            size += len(row.payload) + ROW_OVERHEAD_BYTES
            if len(taken) == most or (taken and size > max_bytes):
                break
            taken.append(self._moved(row))
        return tuple(taken)

    def gaps(self, first: int, rows: Sequence[Row]) -> tuple[Gap, ...]:
        """Return what is gone around `rows`, read from `first` on: back to the row before them,
        and, when there are none, on to the next row held. At most MAX_GAPS.
        """
        begin = first + self._at.base
        if max(self._gone.last, *self._given_up, 0) < begin - 1:
            return ()
        before = max(self._before(begin), self._at.acked)
        held = [row.seq + self._at.base for row in rows]
        end = held[-1:] or [row.seq - 1 for row in islice(self._sendable(begin), 1)]
        upto = end[0] if end else self._at.head
        records = self._records(before + 1, upto)
        found = gaps_between(held, records, after=before, upto=upto, most=MAX_GAPS)
        return tuple(replace(gap, first=gap.first - self._at.base) for gap in found)

    def lost_from(self, first: int) -> tuple[Lost, ...]:
        """Return the first ranges that are gone of the rows from `first` on, without their kinds.

        For a cloud that does not know `gaps` yet.
        """
        base = self._at.base
        lost = ranges(self._records(first + base, self._at.head), first=first + base)
        return tuple(replace(each, first=each.first - base, last=each.last - base) for each in lost)

    def give_up(self, seq: int, code: str) -> None:
        """Declare a row lost that the cloud cannot read; it stays here with its code."""
        local = seq + self._at.base
        heard_at = next((row.heard_at for row in self._pages.read(local)), 0)
        row = (local, code, heard_at)
        with Transaction(self._db):
            self._db.execute(
                "INSERT OR REPLACE INTO given_up VALUES (?, ?, ?, ?)", (*row, seal(*row))
            )
        self._given_up[local] = heard_at

    def checkpoints(self) -> Iterator[tuple[str, bytes]]:
        """Return the rules' memory, by name; what was damaged is not in it."""
        for name, state, sealed in list(self._db.execute("SELECT * FROM checkpoint")):
            if sealed == seal(name, state):
                yield name, state

    def forget(self, names: Iterable[str]) -> None:
        """Drop checkpoints, of meters that are not heard any more."""
        with Transaction(self._db):
            self._db.executemany("DELETE FROM checkpoint WHERE name = ?", [(n,) for n in names])

    def integrity(self) -> str:
        """Return "ok", or what SQLite finds wrong with the file."""
        return "; ".join(str(found) for (found,) in self._db.execute("PRAGMA integrity_check"))

    def rejected(self) -> dict[str, int]:
        """Return how many of the newest refused rows carry each code."""
        counted = self._db.execute("SELECT code, count(*) FROM rejected GROUP BY code")
        return {str(code): int(count) for code, count in counted}

    def restart_stream(self, stream: bytes, *, now_us: int) -> None:
        """Number the rows anew in another stream, as if they had never been sent.

        For a file that was put back from an old copy: its next numbers are taken already, by
        rows that the cloud holds, so under the old stream they would count as duplicates.
        """
        base = self.first - 1 + self._at.base
        with Transaction(self._db):
            self._db.execute("DELETE FROM rejected")
            self._db.execute("DELETE FROM given_up")
            self._gone.drop_before(base + 1)
            now = replace(self._at, stream=stream, started_at=now_us, base=base, acked=base)
            outbox_progress.write(self._db, now)
            outbox_progress.write_twin(self._db, now)
        self._load()

    def close(self) -> None:
        self._db.close()

    def _sendable(self, first: int) -> Iterator[Row]:
        for row in self._pages.read(first):
            if row.seq not in self._given_up:
                yield row

    def _before(self, seq: int) -> int:
        """Return the highest number below `seq` that the cloud can have had; 0 = none."""
        before = self._pages.before(seq)
        while before in self._given_up:
            before = self._pages.before(before)
        return before

    def _records(self, first: int, last: int) -> list[Record]:
        records = self._gone.overlapping(first, last)
        for seq, heard_at in self._given_up.items():
            if first <= seq <= last:
                at = {"from_at": heard_at, "to_at": heard_at}
                records.append(Record(first=seq, last=seq, kind=LossKind.REFUSED, rows=1, **at))
        return sorted(records, key=lambda record: record.first)

    def _moved(self, row: Row) -> Row:
        return replace(row, seq=row.seq - self._at.base) if self._at.base else row
