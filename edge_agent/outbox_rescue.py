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
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import cbor2

from decoders.uplink import RowKind
from edge_agent import outbox_gone, outbox_progress
from edge_agent.outbox import Draft, Outbox, OutboxUnusable
from edge_agent.outbox_copy import Copied, copied, moved, siblings, synced
from edge_agent.outbox_file import (
    PAGE_BYTES,
    SCHEMA,
    SCHEMA_VERSION,
    Connection,
    Limit,
    fitting,
    free_bytes,
    is_full,
)
from edge_agent.outbox_pages import SELECT, page_of
from edge_agent.outbox_rows import RowDamaged, seal, unpack_row
from edge_agent.outbox_source import NO_STREAM, Source
from edge_agent.outbox_wal import TORN_COMMITS, applied, hidden_commits

CHECK_S: Final = 10.0
STEPS_PER_LOOK: Final = 50_000  # of SQLite's machine between two looks at the clock
FULL_WAIT_S: Final = 5.0
LEAST_FREE_BYTES: Final = 256 << 10
QUARANTINE: Final = "quarantine"
QUARANTINED_MAX: Final = 3  # files; fewer when together they would be larger than the outbox may be
SUSPECT: Final = "outbox.suspect"
NOTE: Final = "what-happened.json"
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
            _put_right(path, hidden, new_stream=new_stream, now_us=now_us, limit=limit, log=log)
            outbox = Outbox(
                path, new_stream=new_stream, now_us=now_us, limit=limit, ticks_us=ticks_us
            )
            if hidden == TORN_COMMITS:
                log("commit_cut_short", head=outbox.head)
                outbox.append([_report({"kind": "commit_cut_short"}, now_us)], {})
            return outbox
        except (sqlite3.OperationalError, OSError) as error:
            if not _no_room(path.parent, error):
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
    hidden = hidden_commits(path) if hidden is None else hidden
    if hidden > TORN_COMMITS:
        return f"journal: {hidden} commits cannot be read"
    until_s = None if budget_s is None else time.monotonic() + budget_s
    connection = sqlite3.connect(str(path), isolation_level=None)
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


def _put_right(
    path: Path, hidden: int, *, new_stream: Callable[[], bytes], now_us: int, limit: Limit, log: Log
) -> None:
    """Leave a sound file of this version at `path`, or none."""
    aside = _unfinished(path)
    reason = "the rescue of this file was interrupted"
    if aside is None:
        if not path.exists() or not path.stat().st_size:
            return
        mark = path.with_name(SUSPECT)
        found = damage(path, budget_s=None if mark.exists() else CHECK_S, hidden=hidden)
        if found is None and mark.exists():
            found = mark.read_text("utf-8", "replace")
        if found is None:
            _upgrade(path, new_stream=new_stream, now_us=now_us, limit=limit, log=log)
            return
        reason = found
        aside = _put_aside(path, now_us=now_us)
    _salvage(aside, path, reason=reason, new_stream=new_stream, now_us=now_us, limit=limit, log=log)
    path.with_name(SUSPECT).unlink(missing_ok=True)
    _bound(path.parent / QUARANTINE, limit.bytes, log)


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
        done = copied(source, path, limit=limit, new_stream=new_stream, now_us=now_us)
    finally:
        source.close()
    moved(done.made, path)
    log("outbox_upgraded", path=str(path), rows=done.rows)


def _put_aside(path: Path, *, now_us: int) -> Path:
    """Rename a file and what SQLite keeps beside it; return its new place."""
    folder = path.parent / QUARANTINE
    folder.mkdir(mode=0o700, exist_ok=True)
    number = 1 + max((int(each.name.split("-")[0]) for each in _aside(folder)), default=0)
    here = folder / f"{number:06d}-{now_us}"
    here.mkdir(mode=0o700)
    for sibling in siblings(path):
        if sibling.exists() and not sibling.name.endswith("-shm"):
            os.replace(sibling, here / sibling.name)
    os.replace(path, here / path.name)
    for each in (here, folder, path.parent):
        synced(each)
    return here / path.name


def _unfinished(path: Path) -> Path | None:
    """Return a file put aside whose rescue a power cut interrupted."""
    kept = _aside(path.parent / QUARANTINE)
    if not kept or path.exists() or (kept[-1] / NOTE).exists():
        return None
    aside = kept[-1] / path.name
    return aside if aside.exists() else None


def _salvage(
    aside: Path,
    path: Path,
    *,
    reason: str,
    new_stream: Callable[[], bytes],
    now_us: int,
    limit: Limit,
    log: Log,
) -> None:
    said: dict[str, object] = {"kind": "quarantined", "reason": reason[:200]}

    def report(done: Copied) -> Draft:
        said.update(rows=done.rows, lost=done.missing)
        return _report(said, now_us)

    patched = path.with_name(f"{path.name}.patched")
    try:
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
        done = copied(
            source, path, limit=limit, new_stream=new_stream, now_us=now_us, report=report
        )
        source.close()
    finally:
        for left in (patched, *siblings(patched), aside.with_name(f"{aside.name}-shm")):
            left.unlink(missing_ok=True)
    moved(done.made, path)
    (aside.parent / NOTE).write_text(json.dumps({**said, "at_us": now_us}) + "\n", "utf-8")
    log("outbox_quarantined", file=str(aside), **{k: v for k, v in said.items() if k != "kind"})


def _report(said: dict[str, object], now_us: int) -> Draft:
    return Draft(heard_at=now_us, kind=RowKind.REPORT, payload=cbor2.dumps(said))


def _put_first_page(path: Path, limit: Limit) -> None:
    """Give a file the first page, the list of tables, of a new one.

    Every outbox is made by the same statements, so its tables begin on the same pages.
    """
    whole = path.with_name(f"{path.name}.empty")
    Outbox(whole, new_stream=lambda: bytes(16), now_us=0, limit=limit).close()
    first = whole.read_bytes()[:PAGE_BYTES]
    whole.unlink()
    pages = path.stat().st_size // PAGE_BYTES
    with path.open("r+b") as file:
        # sqlite.org/fileformat2.html §1.3: pages of the file at 28, free list at 32 and 36
        file.write(first[:28] + pages.to_bytes(4, "big") + bytes(8) + first[40:])


def _bound(folder: Path, most_bytes: int, log: Log) -> None:
    """Keep the newest of what was put aside; the rest goes, and that is said."""
    kept = _aside(folder)
    size = 0
    for number, each in enumerate(reversed(kept)):
        size += sum(file.stat().st_size for file in each.iterdir())
        if number and (number >= QUARANTINED_MAX or size > most_bytes):
            shutil.rmtree(each)
            log("quarantine_dropped", folder=str(each))


def _aside(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(each for each in folder.iterdir() if each.name[:6].isdigit())


def _no_room(folder: Path, error: Exception) -> bool:
    if is_full(error) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return True
    if isinstance(error, OutboxUnusable):
        return False
    return free_bytes(folder) < LEAST_FREE_BYTES


def _is_systems(error: Exception) -> bool:
    """Say whether SQLite speaks of the system around it, and not of the file's contents."""
    words = ("disk is full", "disk I/O", "unable to open", "locked", "readonly", "out of memory")
    return any(word in str(error) for word in words)
