"""The store-and-forward file: one SQLite database that survives kill -9 and power cuts.

A row exists once its transaction committed (`journal_mode=WAL`, `synchronous=FULL`); only then
may a source be told that it was heard. Rows are numbered without gaps from 1 within a `stream`,
sixteen random bytes made with the file. The rules' memory is checkpointed in the transaction of
the rows it led to, so a restart forgets no 23-hour run.

Acknowledged rows stay until their space is needed: a cloud restored from a backup can ask for
them again. Rows leave strictly from the oldest end, acknowledged or not, so what is gone is a
prefix of the stream; it is remembered as at most `GONE_RANGES` ranges with their bounds in time
and declared `lost` to whoever asks for it.

The connection comes from a factory, because the power-cut tests run this same SQL on apsw.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

from decoders.uplink import (
    MAX_LOST_RANGES,
    NO_RSSI,
    NO_SNR,
    STREAM_BYTES,
    Lost,
    Row,
    RowFlag,
    RowKind,
)
from decoders.value import value

SCHEMA_VERSION: Final = 1
GONE_RANGES: Final = MAX_LOST_RANGES  # all of them fit in one message
ROW_OVERHEAD_BYTES: Final = 64  # of SQLite and the columns, measured: 50 to 60 beside the payload
TRIM_SHARE: Final = 64  # a full outbox drops a 64th at a time, not one row per insert
REJECTED_KEPT: Final = 1000  # newest refused rows, for `inspect`

SCHEMA: Final = """
CREATE TABLE row (
    seq INTEGER PRIMARY KEY, heard_at INTEGER NOT NULL, kind INTEGER NOT NULL,
    flags INTEGER NOT NULL, radio INTEGER NOT NULL, session INTEGER NOT NULL,
    counter INTEGER NOT NULL, port INTEGER NOT NULL, rssi INTEGER NOT NULL,
    snr INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE stream (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1), id BLOB NOT NULL,
    started_at INTEGER NOT NULL, head INTEGER NOT NULL, head_at INTEGER NOT NULL,
    acked INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE gone (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, from_at INTEGER NOT NULL,
    to_at INTEGER NOT NULL, acked INTEGER NOT NULL);
CREATE TABLE rejected (seq INTEGER PRIMARY KEY, code TEXT NOT NULL);
CREATE TABLE given_up (seq INTEGER PRIMARY KEY, code TEXT NOT NULL);
CREATE TABLE checkpoint (name TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID;
"""

SELECT_LOST: Final = (
    "SELECT first, last, from_at, to_at FROM gone WHERE last >= ? UNION ALL "
    "SELECT seq, seq, heard_at, heard_at FROM row JOIN given_up USING (seq) WHERE seq >= ? "
    "ORDER BY first LIMIT ?"
)
INSERT_ROW: Final = "INSERT INTO row VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
SELECT_ROWS: Final = (
    "SELECT * FROM row WHERE seq >= ? AND seq NOT IN (SELECT seq FROM given_up) "
    "ORDER BY seq LIMIT ?"
)
UPSERT_CHECKPOINT: Final = "INSERT OR REPLACE INTO checkpoint VALUES (?, ?)"


class Connection(Protocol):
    """What `sqlite3.Connection` (autocommit) and `apsw.Connection` have in common."""

    def execute(self, sql: str, bindings: Sequence[Any] = ..., /) -> Iterable[Any]: ...

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> object: ...

    def close(self) -> None: ...


Connect = Callable[[Path], Connection]


@value
class Draft:
    """A row that has no number yet. Fields and units as in `decoders.uplink.Row`."""

    heard_at: int
    kind: RowKind
    payload: bytes
    flags: int = 0
    radio: int = 0
    session: int = 0
    counter: int = 0
    port: int = 0
    rssi: int = NO_RSSI
    snr: int = NO_SNR


@value
class Limit:
    """How much the outbox may hold; at least one row always fits."""

    rows: int = 2_000_000
    bytes: int = 256 << 20  # payloads and an estimate of SQLite's own overhead


@value
class Shed:
    """Unacknowledged rows that were given up for newer ones. heard_at bounds in µs."""

    rows: int
    from_at: int
    to_at: int


class OutboxUnusable(Exception):
    """The file is no outbox of ours, or of a newer version."""


def connect_sqlite(path: Path) -> Connection:
    """Open `path` so that a returned COMMIT means: on the disk."""
    return sqlite3.connect(str(path), isolation_level=None, check_same_thread=False)


class Outbox:
    """The one writer of an outbox file. Not thread-safe: the shell's loop owns it."""

    def __init__(
        self,
        path: Path,
        *,
        new_stream: Callable[[], bytes],
        now_us: int,
        limit: Limit | None = None,
        connect: Connect = connect_sqlite,
    ) -> None:
        """Open or make the file. Raises OutboxUnusable."""
        self._limit = limit or Limit()
        self._db = connect(path)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._make(new_stream(), now_us)
        self._read_stream()

    def _make(self, stream: bytes, now_us: int) -> None:
        version = self._one("PRAGMA user_version")[0]
        if version == SCHEMA_VERSION:
            return
        if version != 0 or self._one("SELECT count(*) FROM sqlite_master")[0]:
            self._db.close()
            raise OutboxUnusable(f"outbox version {version}, this agent writes {SCHEMA_VERSION}")
        assert len(stream) == STREAM_BYTES
        with _Transaction(self._db):
            for statement in SCHEMA.split(";"):
                if statement.strip():
                    self._db.execute(statement)
            self._db.execute("INSERT INTO stream VALUES (1, ?, ?, 0, 0, 0, 0)", (stream, now_us))
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    stream: bytes
    started_at: int
    head: int
    head_at: int
    acked: int
    size: int
    first: int

    def _read_stream(self) -> None:
        self.stream, self.started_at, self.head, self.head_at, self.acked, self.size = self._one(
            "SELECT id, started_at, head, head_at, acked, bytes FROM stream"
        )
        first = self._one("SELECT min(seq) FROM row")[0]
        self.first = self.head + 1 if first is None else first

    @property
    def held(self) -> int:
        """Rows in the file, acknowledged or not."""
        return self.head - self.first + 1

    @property
    def pending(self) -> int:
        """Rows that nobody has acknowledged yet."""
        return self.head - self.acked

    def append(self, drafts: Sequence[Draft], checkpoints: Mapping[str, bytes]) -> Shed | None:
        """Commit rows and the rules' memory as one; return what had to be given up for them.

        When this returns, the rows are on the disk. Raises sqlite3.OperationalError (or apsw's
        kin) when they are not, e.g. for a full disk; then nothing of it happened.
        """
        seq, head_at, added = self.head, self.head_at, 0
        numbered = []
        for draft in drafts:
            seq += 1
            head_at = draft.heard_at
            added += len(draft.payload) + ROW_OVERHEAD_BYTES
            numbered.append(_columns(seq, draft))
        with _Transaction(self._db):
            if numbered:
                self._db.executemany(INSERT_ROW, numbered)
            if checkpoints:
                self._db.executemany(UPSERT_CHECKPOINT, checkpoints.items())
            trimmed = self._trimmed(seq, self.size + added)
            self._db.execute(
                "UPDATE stream SET head = ?, head_at = ?, bytes = ?", (seq, head_at, trimmed.size)
            )
        self.head, self.head_at = seq, head_at
        self.first, self.size = trimmed.first, trimmed.size
        return trimmed.shed

    def acknowledge(self, upto: int, rejected: Sequence[tuple[int, str]] = ()) -> None:
        """Remember that the cloud holds everything up to `upto`; may go back when it asks to."""
        assert 0 <= upto <= self.head
        with _Transaction(self._db):
            self._db.execute("UPDATE stream SET acked = ?", (upto,))
            if rejected:
                self._db.executemany("INSERT OR REPLACE INTO rejected VALUES (?, ?)", rejected)
                self._db.execute(
                    "DELETE FROM rejected WHERE seq <= (SELECT max(seq) FROM rejected) - ?",
                    (REJECTED_KEPT,),
                )
        self.acked = upto

    def read(self, first: int, *, rows: int, max_bytes: int) -> tuple[Row, ...]:
        """Return up to `rows` rows from `first` on, at least one, together below `max_bytes`."""
        taken: list[Row] = []
        size = 0
        for columns in self._db.execute(SELECT_ROWS, (first, rows)):
            row = _row(columns)
            size += len(row.payload) + ROW_OVERHEAD_BYTES
            if taken and size > max_bytes:
                break
            taken.append(row)
        return tuple(taken)

    def lost_from(self, first: int) -> tuple[Lost, ...]:
        """Return what is gone of the rows from `first` on, as the cloud should be told."""
        ranges = self._db.execute(SELECT_LOST, (first, first, MAX_LOST_RANGES))
        return tuple(
            Lost(first=max(first, begin), last=last, from_at=from_at, to_at=to_at)
            for begin, last, from_at, to_at in ranges
        )

    def give_up(self, seq: int, code: str) -> None:
        """Declare a row lost that the cloud cannot read; it stays here with its code."""
        with _Transaction(self._db):
            self._db.execute("INSERT OR REPLACE INTO given_up VALUES (?, ?)", (seq, code))

    def checkpoints(self) -> Iterator[tuple[str, bytes]]:
        """Return the rules' memory, by name."""
        yield from list(self._db.execute("SELECT name, state FROM checkpoint"))

    def forget(self, names: Iterable[str]) -> None:
        """Drop checkpoints, of meters that are not heard any more."""
        with _Transaction(self._db):
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
        shift = self.first - 1
        with _Transaction(self._db):
            self._db.execute("CREATE TEMP TABLE moved AS SELECT * FROM row")
            self._db.execute("DELETE FROM row")
            self._db.execute("UPDATE moved SET seq = seq - ?", (shift,))
            self._db.execute("INSERT INTO row SELECT * FROM moved ORDER BY seq")
            self._db.execute("DELETE FROM gone")
            self._db.execute("DELETE FROM rejected")
            self._db.execute("DELETE FROM given_up")
            self._db.execute(
                "UPDATE stream SET id = ?, started_at = ?, head = head - ?, acked = 0",
                (stream, now_us, shift),
            )
        self._db.execute("DROP TABLE moved")
        self._read_stream()

    def close(self) -> None:
        self._db.close()

    def _trimmed(self, head: int, size: int) -> _Trimmed:
        """Drop the oldest rows while there are too many; inside the caller's transaction."""
        first = self.first
        over = head - first + 1 > self._limit.rows or size > self._limit.bytes
        if not over or first >= head:
            return _Trimmed(first=first, size=size, shed=None)
        keep_rows = self._limit.rows - self._limit.rows // TRIM_SHARE
        keep_bytes = self._limit.bytes - self._limit.bytes // TRIM_SHARE
        cut = max(first, head - keep_rows + 1) if head - first + 1 > self._limit.rows else first
        freed = self._bytes_between(first, cut - 1)
        while size - freed > keep_bytes and cut < head:
            step = min(head - 1, cut + max(1, (head - cut) // TRIM_SHARE))
            freed += self._bytes_between(cut, step)
            cut = step + 1
        self._drop(first, min(cut - 1, self.acked), acked=1)
        shed = self._drop(max(first, self.acked + 1), cut - 1, acked=0)
        self._merge_gone()
        return _Trimmed(first=cut, size=size - freed, shed=shed)

    def _bytes_between(self, first: int, last: int) -> int:
        sql = "SELECT count(*), sum(length(payload)) FROM row WHERE seq BETWEEN ? AND ?"
        rows, payload = self._one(sql, (first, last))
        return int(rows) * ROW_OVERHEAD_BYTES + int(payload or 0)

    def _drop(self, first: int, last: int, *, acked: int) -> Shed | None:
        if last < first:
            return None
        bounds = "SELECT min(heard_at), max(heard_at) FROM row WHERE seq BETWEEN ? AND ?"
        from_at, to_at = self._one(bounds, (first, last))
        self._db.execute("DELETE FROM row WHERE seq BETWEEN ? AND ?", (first, last))
        self._db.execute("DELETE FROM given_up WHERE seq BETWEEN ? AND ?", (first, last))
        gone = (first, last, from_at, to_at, acked)
        self._db.execute("INSERT INTO gone VALUES (?, ?, ?, ?, ?)", gone)
        return None if acked else Shed(rows=last - first + 1, from_at=from_at, to_at=to_at)

    def _merge_gone(self) -> None:
        """Join the oldest ranges while there are more than one message can declare."""
        sql = "SELECT first, last, from_at, to_at, acked FROM gone ORDER BY first"
        ranges = list(self._db.execute(sql))
        while len(ranges) > GONE_RANGES:
            old, new = ranges[0], ranges[1]
            joined = (old[0], new[1], min(old[2], new[2]), max(old[3], new[3]), old[4] & new[4])
            ranges[:2] = [joined]
            self._db.execute("DELETE FROM gone WHERE first IN (?, ?)", (old[0], new[0]))
            self._db.execute("INSERT INTO gone VALUES (?, ?, ?, ?, ?)", joined)

    def _one(self, sql: str, bindings: Sequence[Any] = ()) -> tuple[Any, ...]:
        row: tuple[Any, ...] = next(iter(self._db.execute(sql, bindings)))
        return row


@value
class _Trimmed:
    first: int
    size: int
    shed: Shed | None


class _Transaction:
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


def _columns(seq: int, draft: Draft) -> tuple[Any, ...]:
    radio = draft.radio if draft.radio < 1 << 63 else draft.radio - (1 << 64)  # SQLite is signed
    return (
        *(seq, draft.heard_at, int(draft.kind), int(draft.flags), radio, draft.session),
        *(draft.counter, draft.port, draft.rssi, draft.snr, draft.payload),
    )


def _row(columns: Sequence[Any]) -> Row:
    seq, heard_at, kind, flags, radio, session, counter, port, rssi, snr, payload = columns
    return Row(
        seq=seq,
        heard_at=heard_at,
        kind=RowKind(kind),
        flags=RowFlag(flags),
        radio=radio & (1 << 64) - 1,
        session=session,
        counter=counter,
        port=port,
        rssi=rssi,
        snr=snr,
        payload=payload,
    )
