"""Opening an outbox whatever state its file is in: the agent starts in any case.

A file that is damaged is put aside (renamed into `quarantine/`), what still reads of it goes into
a new file under the same numbers, what does not is declared lost, and the cloud is told. A file
of an older version is copied into the present one. On a full disk this waits, and says so: an
agent that gave up would only be started again.

What counts as damage: SQLite's own quick check, checksums over every row, page and small table,
and commits that the journal holds and SQLite cannot reach. All of it stops after `CHECK_S`, since
a gigabyte on a slow card takes minutes; what was not looked at is checked when it is read.
"""

from __future__ import annotations

import errno
import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import cbor2

from decoders.uplink import RowKind
from edge_agent import outbox_gone, outbox_progress
from edge_agent.outbox import Draft, Outbox, OutboxUnusable
from edge_agent.outbox_copy import Copied, copied, discard, moved
from edge_agent.outbox_file import (
    LEAST_FREE_BYTES,
    PAGE_BYTES,
    SCHEMA,
    SCHEMA_VERSION,
    Connection,
    Limit,
    fitting,
    free_bytes,
    lacks_room,
)
from edge_agent.outbox_pages import SELECT, page_of
from edge_agent.outbox_quarantine import (
    NOTE,
    QUARANTINE,
    bound,
    drop,
    drop_leftover,
    drop_others,
    put_aside,
    unfinished,
)
from edge_agent.outbox_rows import RowDamaged, seal, unpack_row
from edge_agent.outbox_source import NO_STREAM, Source
from edge_agent.outbox_wal import TORN_COMMITS, applied, hidden_commits

CHECK_S: Final = 10.0
LOOKS: Final = 5  # at a journal that may be written to meanwhile
STEPS_PER_LOOK: Final = 50_000  # of SQLite's machine between two looks at the clock
FULL_WAIT_S: Final = 5.0
LEAST_ROOM_BYTES: Final = 512 << 10  # for a rescue that holds what is newest; with less it waits
SUSPECT: Final = "outbox.suspect"
NEWEST_VERSION: Final = 99  # beyond it, a number of the file's head is no version

Log = Callable[..., None]


class Damaged(Exception):
    """The file is not what was written to it."""


def opened(
    path: Path,
    *,
    new_stream: Callable[[], bytes],
    now_us: int,
    limit: Limit,
    log: Log,
    ticks_us: Callable[[], int] | None = None,
    wait: Callable[[float], object] = time.sleep,
) -> Outbox:
    """Return the outbox at `path`, new, upgraded or salvaged. Raises OutboxUnusable, OSError."""
    limit = fitting(limit, path.parent)
    while True:
        try:
            hidden = hidden_commits(path)  # before SQLite tidies the journal up
            head = _put_right(
                path, hidden, new_stream=new_stream, now_us=now_us, limit=limit, log=log
            )
            outbox = Outbox(
                path, new_stream=new_stream, now_us=now_us, limit=limit, ticks_us=ticks_us
            )
            if head is not None:
                outbox.opened_head = head  # the cloud cannot have our report
            if hidden == TORN_COMMITS:
                log("commit_cut_short", head=outbox.head)
                outbox.append([_report({"kind": "commit_cut_short"}, now_us)], {})
            return outbox
        except (sqlite3.OperationalError, OSError) as error:
            if not lacks_room(path.parent, error):
                raise
            log("commit_failed", reason=str(error), path=str(path.parent))
            wait(FULL_WAIT_S)


def suspect(path: Path, reason: str) -> None:
    """Note that a file proved damaged in use, so that the next start looks at all of it."""
    with suppress(OSError):
        path.with_name(SUSPECT).write_text(reason[:200], "utf-8")


def damage(
    path: Path, *, budget_s: float | None = CHECK_S, hidden: int | None = None
) -> str | None:
    """Return what is wrong with a file, None when nothing is found in the time given.

    `budget_s` None: however long it takes. `hidden`: the journal's commits that SQLite will not
    see, where that is known already. Raises sqlite3.OperationalError, OSError for what is
    the disk's or the system's fault; OutboxUnusable for a sound file of a newer agent.
    """
    if hidden is None:
        hidden = _hidden_for_good(path)
    if hidden > TORN_COMMITS:
        return f"journal: {hidden} commits cannot be read"
    until_s = None if budget_s is None else time.monotonic() + budget_s
    address = f"{path.resolve().as_uri()}?mode=ro"  # or closing it would tidy the journal away
    connection = sqlite3.connect(address, uri=True, isolation_level=None)
    try:
        return _damage_in(connection, until_s)
    except sqlite3.OperationalError as error:
        if _is_systems(error):
            raise
        return str(error)
    except (sqlite3.DatabaseError, Damaged, RowDamaged, TypeError, ValueError) as error:
        return str(error)
    finally:
        connection.close()


def _hidden_for_good(path: Path) -> int:
    """Return how many commits SQLite will not see, where an agent may be writing meanwhile.

    A journal that begins anew while it is read looks damaged; one that is, looks so each time.
    """
    hidden = hidden_commits(path)
    for _ in range(LOOKS - 1):
        if hidden <= TORN_COMMITS:
            break
        hidden = hidden_commits(path)
    return hidden


def _put_right(
    path: Path, hidden: int, *, new_stream: Callable[[], bytes], now_us: int, limit: Limit, log: Log
) -> int | None:
    """Leave a sound file of this version at `path`, or none.

    Returns the head of a salvaged file before the report of it, None where none was salvaged.
    """
    drop_leftover(path, log)
    aside = unfinished(path)
    reason = "the rescue of this file was interrupted"
    if aside is None:
        if not path.exists() or not path.stat().st_size:
            return None
        mark = path.with_name(SUSPECT)
        found = damage(path, budget_s=None if mark.exists() else CHECK_S, hidden=hidden)
        if found is None and mark.exists():
            found = mark.read_text("utf-8", "replace")
        if found is None:
            _upgrade(path, new_stream=new_stream, now_us=now_us, limit=limit, log=log)
            return None
        reason = found
        aside = put_aside(path, now_us=now_us)
    head = _salvage(
        aside, path, reason=reason, new_stream=new_stream, now_us=now_us, limit=limit, log=log
    )
    path.with_name(SUSPECT).unlink(missing_ok=True)
    bound(path.parent / QUARANTINE, limit.bytes, log)
    return head


def damage_in(connection: Connection) -> str | None:
    """Return which of our own checksums differs in an open file, however long that takes."""
    try:
        _check_small_tables(connection)
        _check_rows(connection, lambda: False)
    except (Damaged, RowDamaged) as error:
        return str(error)
    return None


def _damage_in(connection: sqlite3.Connection, until_s: float | None) -> str | None:
    def is_late() -> bool:
        return until_s is not None and time.monotonic() > until_s

    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if version == 0 and not tables:
        return None  # made, but never written to
    if version not in (1, SCHEMA_VERSION):
        found = f"outbox version {version}, this agent writes {SCHEMA_VERSION}"
        if SCHEMA_VERSION < version <= NEWEST_VERSION and _is_of_other_tables(connection):
            raise OutboxUnusable(f"{found}: upgrade it again; before a rollback, `drain`")
        return found
    connection.set_progress_handler(lambda: int(is_late()), STEPS_PER_LOOK)
    try:
        found = "; ".join(str(said) for (said,) in connection.execute("PRAGMA quick_check(5)"))
        if found != "ok":
            return found
    except sqlite3.OperationalError as error:
        if "interrupt" not in str(error):
            raise
    connection.set_progress_handler(None, 0)
    if version == SCHEMA_VERSION:
        _check_small_tables(connection)
        _check_rows(connection, is_late)
    return None


def _is_of_other_tables(connection: sqlite3.Connection) -> bool:
    """Say whether a sound file has tables of its own: no flipped bit in the version alone."""
    if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        return False
    ours = {" ".join(made.split()) for made in SCHEMA.split(";")} - {""}
    made = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {" ".join(sql.split()) for (sql,) in made} != ours


def _check_small_tables(connection: Connection) -> None:
    """Raises Damaged."""
    sealed = {
        "stream": outbox_progress.SELECT,
        "twin": "SELECT id, started_at, base, seal FROM twin",
        "gone": outbox_gone.SELECT,
        "given_up": "SELECT seq, code, heard_at, seal FROM given_up",
        "checkpoint": "SELECT name, state, seal FROM checkpoint",
    }
    for table, select in sealed.items():
        rows = 0
        for row in connection.execute(select):
            rows += 1
            if row[-1] != seal(*row[:-1]):
                raise Damaged(f"{table}: a checksum differs")
        if not rows and table in ("stream", "twin"):
            raise Damaged(f"{table}: empty")


def _check_rows(connection: Connection, is_late: Callable[[], bool]) -> None:
    """Raises RowDamaged."""
    for seq, body in connection.execute("SELECT seq, body FROM fresh"):
        unpack_row(seq, body)
    bodies = connection.execute(SELECT.replace(" FROM", ", body FROM") + "ORDER BY id DESC")
    for *about, body in bodies:
        page = page_of(about)
        if page.seal != seal(*about[:-1], body):
            raise RowDamaged(f"page {page.id}: its checksum differs")
        if is_late():
            return


def _upgrade(
    path: Path, *, new_stream: Callable[[], bytes], now_us: int, limit: Limit, log: Log
) -> None:
    """Copy a file of version 1 into one of the present version."""
    source = Source(path, may_write=True)
    try:
        if source.version != 1:
            return
        source.finish_journal()  # or moving the new file would part it from the old one's

        def copy(most: Limit, tight: bool) -> Copied:
            return copied(source, path, limit=most, new_stream=new_stream, now_us=now_us)

        done, _ = _in_the_room(copy, path, None, limit=limit, log=log)
    finally:
        source.close()
    moved(done.made, path)
    log("outbox_upgraded", path=str(path), rows=done.rows, shed=done.shed)


def _in_the_room(
    copy: Callable[[Limit, bool], Copied], path: Path, aside: Path | None, *, limit: Limit, log: Log
) -> tuple[Copied, bool]:
    """Make a copy on a disk that may have no room for it; say whether only a smaller one fitted.

    Older damaged files go first; then rows, in the stated order, as many as do not fit.
    Raises sqlite3.OperationalError, OSError.
    """

    def tried(most: Limit, tight: bool) -> Copied | None:
        try:
            return copy(most, tight)
        except (sqlite3.OperationalError, OSError) as error:
            if not lacks_room(path.parent, error):
                raise
            return None

    needed = min(limit.bytes, (aside or path).stat().st_size) + limit.journal_bytes
    if free_bytes(path.parent) < needed:
        drop_others(path, aside, log)
    done = tried(limit, False)
    if done is None and drop_others(path, aside, log):
        done = tried(limit, False)
    if done is not None:
        return done, False
    room = (free_bytes(path.parent) - LEAST_FREE_BYTES) * 3 // 4  # a commit writes before it frees
    while room >= LEAST_ROOM_BYTES:
        log("rescue_lacks_room", bytes=room)
        done = tried(replace(limit, bytes=min(limit.bytes, room)), True)
        if done is not None:
            return done, True
        room //= 2
    raise OSError(errno.ENOSPC, f"a rescue takes {LEAST_ROOM_BYTES} bytes at least")


def _salvage(
    aside: Path,
    path: Path,
    *,
    reason: str,
    new_stream: Callable[[], bytes],
    now_us: int,
    limit: Limit,
    log: Log,
) -> int:
    said: dict[str, object] = {"kind": "quarantined", "reason": reason[:200]}

    def report(done: Copied) -> Draft:
        said.update(rows=done.rows, lost=done.missing)
        if done.shed or done.memories:
            said.update(shed=done.shed, memories=done.memories)
        return _report(said, now_us)

    def copy(most: Limit, tight: bool) -> Copied:
        patched = aside if tight else path.with_name(f"{path.name}.patched")
        try:
            with closing(_readable(aside, patched, most)) as source:
                return copied(
                    source, path, limit=most, new_stream=new_stream, now_us=now_us, report=report
                )
        finally:
            aside.with_name(f"{aside.name}-shm").unlink(missing_ok=True)
            if not tight:
                discard(patched)

    done, tight = _in_the_room(copy, path, aside, limit=limit, log=log)
    moved(done.made, path)
    if tight:  # the outbox needs the room
        drop(aside.parent, log)
    else:
        (aside.parent / NOTE).write_text(json.dumps({**said, "at_us": now_us}) + "\n", "utf-8")
    log("outbox_quarantined", file=str(aside), **{k: v for k, v in said.items() if k != "kind"})
    return done.head


def _readable(aside: Path, patched: Path, limit: Limit) -> Source:
    """Open a damaged file, or where SQLite needs help, a mended copy of it (or itself, mended)."""
    if hidden_commits(aside) > TORN_COMMITS:
        applied(aside, patched)
        source = Source(patched)
    else:
        source = Source(aside)
    if source.progress().stream == NO_STREAM:
        source.close()
        applied(aside, patched)
        _put_first_page(patched, limit)
        source = Source(patched)
    return source


def _report(said: dict[str, object], now_us: int) -> Draft:
    return Draft(heard_at=now_us, kind=RowKind.REPORT, payload=cbor2.dumps(said))


def _put_first_page(path: Path, limit: Limit) -> None:
    """Give a file the first page, the list of tables, of a new one.

    Every outbox is made by the same statements, so its tables begin on the same pages.
    """
    whole = path.with_name(f"{path.name}.empty")
    discard(whole)
    Outbox(whole, new_stream=lambda: bytes(16), now_us=0, limit=limit).close()
    first = whole.read_bytes()[:PAGE_BYTES]
    whole.unlink()
    pages = path.stat().st_size // PAGE_BYTES
    with path.open("r+b") as file:
        # sqlite.org/fileformat2.html §1.3: pages of the file at 28, free list at 32 and 36
        file.write(first[:28] + pages.to_bytes(4, "big") + bytes(8) + first[40:])


def _is_systems(error: Exception) -> bool:
    """Say whether SQLite speaks of the system around it, and not of the file's contents."""
    words = ("disk is full", "disk I/O", "unable to open", "locked", "readonly", "out of memory")
    return any(word in str(error) for word in words)
