"""A new outbox file out of what another one still says: the same stream, the same numbers.

What should be there and is not is declared lost, row by row, with the time it was heard in. The
file is made beside its place and moved there when it is complete and on the disk: a power cut
leaves the old state or the new one.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from decoders.uplink import LossKind, Row
from decoders.value import value
from edge_agent import outbox_progress
from edge_agent.outbox import Draft, Outbox
from edge_agent.outbox_file import (
    Connection,
    Limit,
    Transaction,
    connect_sqlite,
    lacks_room,
    prepare,
    used_bytes,
)
from edge_agent.outbox_gone import Gone, Record
from edge_agent.outbox_pages import Pages
from edge_agent.outbox_progress import Progress
from edge_agent.outbox_room import Room, give_up_page
from edge_agent.outbox_rows import seal
from edge_agent.outbox_source import NO_STREAM, Source

ROWS_AT_ONCE: Final = 250  # what they take for a moment must fit in little room
MEMORIES_AT_ONCE: Final = 64
PIECEWISE: Final = 1 << 16  # longer stretches are looked at as a whole


@value
class Copied:
    """A new file, complete and closed, still beside its place: see `moved`.

    rows      in it
    head      the highest number of its stream, before a report
    missing   declared lost, of those that were not acknowledged before
    shed      given up, of those, because the limit has no room for them
    memories  of the rules, left out for the same reason
    """

    made: Path
    rows: int
    head: int
    missing: int
    shed: int = 0
    memories: int = 0


@dataclass
class Seen:
    """The stretches of numbers that were copied: first, last, heard_at of both, µs."""

    runs: list[tuple[int, int, int, int]] = field(default_factory=list)
    rows: int = 0

    def add(self, row: Row) -> None:
        self.rows += 1
        if self.runs and self.runs[-1][1] + 1 == row.seq:
            first, _, from_at, _ = self.runs[-1]
            self.runs[-1] = (first, row.seq, from_at, row.heard_at)
        else:
            self.runs.append((row.seq, row.seq, row.heard_at, row.heard_at))


def copied(
    source: Source,
    path: Path,
    *,
    limit: Limit,
    new_stream: Callable[[], bytes],
    now_us: int,
    report: Callable[[Copied], Draft] | None = None,
) -> Copied:
    """Put what `source` says into a file beside `path`, as far as the limit has room for it.

    Raises sqlite3.OperationalError, OSError, with ENOSPC for a full disk; nothing is left then.
    """
    made = path.with_name(f"{path.name}.new")
    discard(made)
    try:
        return _copied(
            source, made, limit=limit, new_stream=new_stream, now_us=now_us, report=report
        )
    except (sqlite3.OperationalError, OSError) as error:
        is_full = lacks_room(path.parent, error)
        discard(made)
        if is_full:
            raise OSError(errno.ENOSPC, str(error)) from error
        raise


def _copied(
    source: Source,
    made: Path,
    *,
    limit: Limit,
    new_stream: Callable[[], bytes],
    now_us: int,
    report: Callable[[Copied], Draft] | None,
) -> Copied:
    at = source.progress()
    if at.stream == NO_STREAM:
        at = replace(at, stream=new_stream(), started_at=now_us)
    Outbox(made, new_stream=lambda: at.stream, now_us=at.started_at, limit=limit).close()
    connection = connect_sqlite(made)
    try:
        prepare(connection, limit)
        connection.execute("PRAGMA synchronous=OFF")  # it counts once `moved` has synced all of it
        result = _filled(connection, source, at, limit, made)
    finally:
        connection.close()
    if report is not None:
        outbox = Outbox(made, new_stream=new_stream, now_us=now_us, limit=limit)
        with closing(outbox):
            outbox.append([report(result)], {})
    return result


def discard(path: Path) -> None:
    for left in (path, *siblings(path)):
        left.unlink(missing_ok=True)


def siblings(path: Path) -> tuple[Path, ...]:
    """Return the files that SQLite keeps beside a database."""
    return tuple(path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal"))


def moved(made: Path, path: Path) -> None:
    """Put a complete, closed database in its place, for good."""
    for left in siblings(path):
        left.unlink(missing_ok=True)  # of a database that was there before: not this one's
    with made.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(made, path)
    synced(path.parent)


def synced(folder: Path) -> None:
    """Make the names in a folder last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems cannot; they lose names then, not rows
            os.fsync(handle)
    finally:
        os.close(handle)


def _filled(
    connection: Connection, source: Source, at: Progress, limit: Limit, made: Path
) -> Copied:
    gone = Gone(connection)
    pages = Pages(connection, gone, page_rows=limit.page_rows)
    seen, room = Seen(), Room()
    with Transaction(connection):
        memories = _write_small_tables(connection, source, limit.database_bytes // 2)
    given_up = dict(source.given_up())
    given_up_at: dict[int, int] = {}
    for chunk in _chunks(source.rows()):
        with Transaction(connection):
            pages.add(chunk)
            pages.pack(lived_us=at.lived_us)
            while used_bytes(connection) > limit.database_bytes:
                fits = give_up_page(pages, gone, room, acked=at.acked)
                if not fits and not pages.pack_early(lived_us=at.lived_us):
                    break
        for row in chunk:
            seen.add(row)
            if row.seq in given_up:
                given_up_at[row.seq] = row.heard_at
    if seen.runs:
        at = replace(at, head=max(at.head, seen.runs[-1][1]))
        at = replace(at, head_at=seen.runs[-1][3] if seen.runs[-1][1] == at.head else at.head_at)
    with Transaction(connection):
        for record in source.records():
            if record.last <= at.head:
                gone.put(record)
        missing = _declare_missing(gone, seen, at)
        corrupt = missing if source.version != 1 else 0
        for seq, at_us in given_up_at.items():
            columns = (seq, given_up[seq], at_us)
            sql = "INSERT INTO given_up VALUES (?, ?, ?, ?)"
            connection.execute(sql, (*columns, seal(*columns)))
        at = replace(at, lost=at.with_lost({**room.kinds, "corrupt": corrupt}))
        outbox_progress.write(connection, at)
        outbox_progress.write_twin(connection, at)
    return Copied(
        made=made,
        rows=pages.rows,
        head=at.head - at.base,
        missing=missing,
        shed=room.rows,
        memories=memories,
    )


def _declare_missing(gone: Gone, seen: Seen, at: Progress) -> int:
    """Record what is neither here nor known to be gone; return how many of it were not acked."""
    begin, from_at, missing = at.acked + 1, at.started_at, 0
    if seen.runs:
        begin = min(begin, seen.runs[0][0])
    for first, last, first_at, last_at in [*seen.runs, (at.head + 1, at.head, at.head_at, 0)]:
        bounds = {"from_at": min(from_at, first_at), "to_at": max(from_at, first_at)}
        for run in _unknown(gone, begin, first - 1):
            record = Record(
                first=run[0],
                last=run[1],
                kind=LossKind.CORRUPT,
                rows=run[1] - run[0] + 1,
                **bounds,
            )
            gone.put(record)
            missing += record.within(at.acked + 1, at.head)
        begin, from_at = last + 1, last_at
    return missing


def _unknown(gone: Gone, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Return what no record speaks of, of first … last, as stretches."""
    records = gone.overlapping(first, last)
    known = sorted(run for record in records for run in record.runs())
    at = first
    for begin, end in known:
        if begin > at:
            yield at, min(begin - 1, last)
        at = max(at, end + 1)
    if at <= last:
        yield at, last


def _write_small_tables(connection: Connection, source: Source, most_bytes: int) -> int:
    """Copy what is small, the rules' memory up to `most_bytes`; return how much of it was not."""
    rejected = source.rejected()
    connection.executemany("INSERT OR REPLACE INTO rejected VALUES (?, ?)", rejected)
    memory = [(name, state, seal(name, state)) for name, state in source.checkpoints().items()]
    for begin in range(0, len(memory), MEMORIES_AT_ONCE):
        if used_bytes(connection) > most_bytes:
            return len(memory) - begin
        connection.executemany(
            "INSERT OR REPLACE INTO checkpoint VALUES (?, ?, ?)",
            memory[begin : begin + MEMORIES_AT_ONCE],
        )
    return 0


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    chunk: list[Row] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == ROWS_AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
