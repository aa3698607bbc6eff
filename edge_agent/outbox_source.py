"""An outbox file read as far as it reads: one that is damaged, or one of an older version.

Each row is looked up on its own, so that a bad page of the disk costs what is on it and no more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from decoders.uplink import LossKind, Row, RowFlag, RowKind
from edge_agent import outbox_gone, outbox_pages, outbox_progress
from edge_agent.outbox_file import SCHEMA_VERSION
from edge_agent.outbox_gone import Record, record_of
from edge_agent.outbox_pages import page_of, rows_of
from edge_agent.outbox_progress import Progress
from edge_agent.outbox_rows import RowDamaged, seal, unpack_row

Key = tuple[int, bytes]

FAULTS: Final = (sqlite3.Error, RowDamaged, TypeError, ValueError, OverflowError, IndexError)
FIRST_STEP: Final = 1
STEPS_MAX: Final = 64  # doublings over a stretch that cannot be read
NO_STREAM: Final = b""
LAST_KEY: Final = 1 << 62
WALKS: Final = {
    "row": ("SELECT min(seq) FROM row WHERE seq >= ?", "SELECT max(seq) FROM row WHERE seq <= ?"),
    "page": ("SELECT min(id) FROM page WHERE id >= ?", "SELECT max(id) FROM page WHERE id <= ?"),
    "gone": ("SELECT min(id) FROM gone WHERE id >= ?", "SELECT max(id) FROM gone WHERE id <= ?"),
    "fresh": (
        "SELECT min(seq) FROM fresh WHERE seq >= ?",
        "SELECT max(seq) FROM fresh WHERE seq <= ?",
    ),
}


class Source:
    """One file. Every method returns what it can, and raises nothing for what is damaged.

    Opened for reading alone, so that a file that was put aside stays as it was found.
    """

    def __init__(self, path: Path, *, may_write: bool = False) -> None:
        mode = "rw" if may_write else "ro"
        address = f"{path.resolve().as_uri()}?mode={mode}"
        self._db = sqlite3.connect(address, uri=True, isolation_level=None)
        with suppress(*FAULTS):
            self._db.execute("PRAGMA cell_size_check=ON")  # sqlite.org: check before use
        version = self._all("PRAGMA user_version")
        self.version = version[0][0] if version else SCHEMA_VERSION

    def close(self) -> None:
        self._db.close()

    def finish_journal(self) -> None:
        """Bring the journal into the file. Raises sqlite3.OperationalError."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def progress(self) -> Progress:
        """Return how far the file had got; `stream` is empty where nobody can say its name."""
        if self.version == 1:
            for row in self._all("SELECT id, started_at, head, head_at, acked FROM stream"):
                stream, started_at, head, head_at, acked = row
                return Progress(
                    stream=stream, started_at=started_at, head=head, head_at=head_at, acked=acked
                )
        for row in self._all(outbox_progress.SELECT):
            if row[-1] == seal(*row[:-1]):
                return outbox_progress.progress_of(row)
        for row in self._all("SELECT id, started_at, base, seal FROM twin"):
            stream, started_at, base, sealed = row
            if sealed == seal(stream, started_at, base):
                return Progress(
                    stream=stream, started_at=started_at, base=base, head=base, acked=base
                )
        return Progress(stream=NO_STREAM, started_at=0)

    def rows(self) -> Iterator[Row]:
        """Return every row that reads and whose checksum holds, in order."""
        if self.version == 1:
            for seq in self._keys("row"):
                for columns in self._all("SELECT * FROM row WHERE seq = ?", (seq,)):
                    with suppress(*FAULTS):
                        yield _old_row(columns)
            return
        last = 0
        block: list[Row] = []
        number = 0
        for key in self._keys("page"):
            if key // outbox_pages.KINDS != number:
                yield from sorted(block, key=lambda row: row.seq)
                block, number = [], key // outbox_pages.KINDS
            block += self._page(key)
            last = max(last, *(row.seq for row in block), 0)
        yield from sorted(block, key=lambda row: row.seq)
        for seq in self._keys("fresh"):
            for (body,) in self._all("SELECT body FROM fresh WHERE seq = ?", (seq,)):
                if seq > last:
                    with suppress(*FAULTS):
                        yield unpack_row(seq, body)

    def records(self) -> list[Record]:
        """Return what the file says is gone."""
        records: list[Record] = []
        if self.version == 1:
            for first, last, from_at, to_at, acked in self._all("SELECT * FROM gone"):
                records.append(
                    Record(
                        first=first,
                        last=last,
                        kind=LossKind.ACKED if acked else LossKind.MIXED,
                        rows=last - first + 1,
                        from_at=from_at,
                        to_at=to_at,
                    )
                )
            return records
        for key in self._keys("gone"):
            for row in self._all(outbox_gone.SELECT + "WHERE id = ?", (key,)):
                with suppress(*FAULTS):
                    if row[-1] == seal(*row[:-1]):
                        records.append(record_of(row))
        return records

    def given_up(self) -> list[tuple[int, str]]:
        """Return rows that the cloud could not read."""
        if self.version == 1:
            return [(seq, code) for seq, code in self._all("SELECT seq, code FROM given_up")]
        rows = self._all("SELECT seq, code, heard_at, seal FROM given_up")
        return [(seq, code) for seq, code, at, sealed in rows if sealed == seal(seq, code, at)]

    def rejected(self) -> list[tuple[Any, ...]]:
        return self._all("SELECT seq, code FROM rejected")

    def checkpoints(self) -> dict[str, bytes]:
        """Return the rules' memory; what is damaged of it is not in it."""
        if self.version == 1:
            return dict(self._all("SELECT name, state FROM checkpoint"))
        rows = self._all("SELECT name, state, seal FROM checkpoint")
        return {name: state for name, state, sealed in rows if sealed == seal(name, state)}

    def _page(self, key: int) -> Sequence[Row]:
        for about in self._all(outbox_pages.SELECT + "WHERE id = ?", (key,)):
            for (body,) in self._all("SELECT body FROM page WHERE id = ?", (key,)):
                with suppress(*FAULTS):
                    return rows_of(page_of(about), body)
        return ()

    def _keys(self, table: str) -> list[int]:
        """Return the keys of a table that can be reached, from either end."""
        up, down = WALKS[table]
        return sorted({*self._walk(up, 0, 1), *self._walk(down, LAST_KEY, -1)})

    def _walk(self, sql: str, at: int, way: int) -> Iterator[int]:
        step = FIRST_STEP
        failed = 0
        while failed < STEPS_MAX and 0 <= at <= LAST_KEY:
            try:
                (found,) = self._db.execute(sql, (at,)).fetchone()
                if found is None:
                    return
                if (found - at) * way < 0:
                    raise sqlite3.DatabaseError(f"key {found} out of order")
                at, step, failed = found + way, FIRST_STEP, 0
            except FAULTS:
                failed += 1
                at += way * step
                step *= 2
                continue
            yield found

    def _all(self, sql: str, bindings: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of an answer up to where it fails."""
        rows: list[tuple[Any, ...]] = []
        with suppress(*FAULTS):
            for row in self._db.execute(sql, bindings):
                rows.append(row)
        return rows


def _old_row(columns: Sequence[Any]) -> Row:
    """Read a row of version 1."""
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
