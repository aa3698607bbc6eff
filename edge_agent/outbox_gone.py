"""Which rows the outbox does not hold any more, and why: what the cloud is told of them.

Rows are given up by kind, so what is gone lies between what is left. A record says it row by row:
numbers first … last, one bit each, or all of them. The oldest records are joined when there are
too many; the rows stay exact, their kind becomes MIXED where two kinds meet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from decoders.uplink import MAX_LOST_RANGES, Gap, LossKind, Lost
from decoders.value import value
from edge_agent.outbox_file import Connection, one
from edge_agent.outbox_rows import seal

RECORDS_MAX: Final = 4096  # about four million rows; one bit for each
KINDS: Final = 8  # an id is 8 · first + kind
RUNS_LOOKED_AT: Final = 1024  # to find the first 64 ranges

INSERT: Final = "INSERT INTO gone VALUES (?, ?, ?, ?, ?, ?, ?)"
INSERT_NEW: Final = INSERT.replace("INSERT", "INSERT OR IGNORE")
SELECT: Final = "SELECT id, last, rows, from_at, to_at, bits, seal FROM gone "


@value
class Record:
    """Rows that are gone for one reason. `bits` None: all of first … last. Times in µs."""

    first: int
    last: int
    kind: LossKind
    rows: int
    from_at: int
    to_at: int
    bits: int | None = None

    def within(self, first: int, last: int) -> int:
        """Return how many of its rows lie in first … last."""
        begin, end = max(first, self.first), min(last, self.last)
        if end < begin:
            return 0
        if self.bits is None:
            return end - begin + 1
        return bin((self.bits >> begin - self.first) & (1 << end - begin + 1) - 1).count("1")

    def runs(self) -> Iterator[tuple[int, int]]:
        """Return its rows as ranges, first and last inclusive."""
        if self.bits is None:
            yield self.first, self.last
            return
        for run in re.finditer("1+", bin(self.bits)[:1:-1]):
            yield self.first + run.start(), self.first + run.end() - 1


class Gone:
    """The table `gone`, inside its owner's transactions."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection
        self._last: int | None = None

    @property
    def last(self) -> int:
        """The highest number that is gone, 0 when none is."""
        if self._last is None:
            self._last = int(one(self._db, "SELECT coalesce(max(last), 0) FROM gone")[0])
        return self._last

    def forget_cache(self) -> None:
        """After a transaction that was rolled back."""
        self._last = None

    def add(self, seqs: Sequence[int], kind: LossKind, *, from_at: int, to_at: int) -> None:
        """Record rows as gone. `seqs` rise."""
        if not seqs:
            return
        first, last = seqs[0], seqs[-1]
        bits = None
        if last - first + 1 != len(seqs):
            flags = bytearray(b"0" * (last - first + 1))
            for seq in seqs:
                flags[last - seq] = 49
            bits = int(flags, 2)
        record = Record(
            first=first,
            last=last,
            kind=kind,
            rows=len(seqs),
            from_at=from_at,
            to_at=to_at,
            bits=bits,
        )
        before = self._before(record) if bits is None and kind == LossKind.ACKED else None
        if before is not None and before.bits is None and before.last == first - 1:
            self._delete(before)
            record = _joined(before, record)
        self._insert(record)
        self._last = max(self.last, last)

    def put(self, record: Record) -> None:
        """Record what another file says is gone, where nothing here says the same number is."""
        self._insert(record, INSERT_NEW)
        self._last = max(self.last, record.last)

    def limit(self) -> None:
        """Join the oldest records while there are too many."""
        over = int(one(self._db, "SELECT count(*) FROM gone")[0]) - RECORDS_MAX
        if over <= 0:
            return
        records = self._read(SELECT + "ORDER BY id LIMIT ?", (over + 1,))
        joined, *others = records
        self._delete(joined)
        for record in others:
            self._delete(record)
            joined = _joined(joined, record)
        self._insert(joined)

    def overlapping(self, first: int, last: int) -> list[Record]:
        """Return the records with rows in first … last, oldest first."""
        if last < first or self.last < first:
            return []
        sql = SELECT + "WHERE last >= ? AND id < ? ORDER BY id"
        return self._read(sql, (first, (last + 1) * KINDS))

    def drop_before(self, first: int) -> None:
        """Forget records that end before `first`."""
        self._db.execute("DELETE FROM gone WHERE last < ?", (first,))
        self._last = None

    def count(self, first: int, last: int) -> int:
        return sum(record.within(first, last) for record in self.overlapping(first, last))

    def _before(self, record: Record) -> Record | None:
        sql = SELECT + "WHERE id < ? AND id % 8 = ? ORDER BY id DESC LIMIT 1"
        found = self._read(sql, (record.first * KINDS, int(record.kind)))
        return found[0] if found else None

    def _insert(self, record: Record, sql: str = INSERT) -> None:
        packed = b""
        if record.bits is not None:
            packed = record.bits.to_bytes((record.bits.bit_length() + 7) // 8, "little")
        row = (
            record.first * KINDS + record.kind,
            *(record.last, record.rows, record.from_at, record.to_at, packed),
        )
        self._db.execute(sql, (*row, seal(*row)))

    def _delete(self, record: Record) -> None:
        number = record.first * KINDS + record.kind
        self._db.execute("DELETE FROM gone WHERE id = ?", (number,))

    def _read(self, sql: str, bindings: Sequence[Any]) -> list[Record]:
        return [record_of(row) for row in self._db.execute(sql, bindings)]


def record_of(row: Sequence[Any]) -> Record:
    """Return a row of the table as a record."""
    number, last, rows, from_at, to_at, packed, _ = row
    return Record(
        first=number // KINDS,
        last=last,
        kind=LossKind(number % KINDS),
        rows=rows,
        from_at=from_at,
        to_at=to_at,
        bits=int.from_bytes(packed, "little") if packed else None,
    )


def gaps_between(
    held: Iterable[int], records: Sequence[Record], *, after: int, upto: int, most: int
) -> list[Gap]:
    """Return what is missing of after+1 … upto beside the `held` numbers, at most `most` runs.

    Which of several kinds in one gap had which number is not told apart: how many of each is.
    """
    gaps: list[Gap] = []
    waiting = list(records)
    active: list[Record] = []
    before = after
    for seq in (*held, upto + 1):
        if seq > before + 1:
            while waiting and waiting[0].first < seq:
                active.append(waiting.pop(0))
            active = [record for record in active if record.last > before]
            gaps += _gap(before + 1, seq - 1, active)
            if len(gaps) > most:
                return gaps[:most]
        before = seq
    return gaps


def ranges(records: Iterable[Record], *, first: int) -> tuple[Lost, ...]:
    """Return the first MAX_LOST_RANGES ranges from `first` on."""
    runs: list[tuple[int, int, int, int]] = []
    for record in records:
        for begin, end in record.runs():
            if end >= first:
                runs.append((max(first, begin), end, record.from_at, record.to_at))
        if len(runs) > RUNS_LOOKED_AT:
            break
    joined: list[tuple[int, int, int, int]] = []
    for run in sorted(runs):
        if joined and run[0] == joined[-1][1] + 1:
            old = joined[-1]
            joined[-1] = (old[0], run[1], min(old[2], run[2]), max(old[3], run[3]))
        elif len(joined) == MAX_LOST_RANGES:
            break
        else:
            joined.append(run)
    return tuple(
        Lost(first=begin, last=end, from_at=from_at, to_at=to_at)
        for begin, end, from_at, to_at in joined
    )


def _gap(first: int, last: int, records: Sequence[Record]) -> list[Gap]:
    found: list[Gap] = []
    at = first
    for record in records:
        count = min(record.within(first, last), last - at + 1)
        if not count:
            continue
        now = Gap(
            first=at, count=count, kind=record.kind, from_at=record.from_at, to_at=record.to_at
        )
        at += count
        old = found[-1] if found else None
        if old is not None and old.kind == now.kind:
            found[-1] = Gap(
                first=old.first,
                count=old.count + count,
                kind=old.kind,
                from_at=min(old.from_at, now.from_at),
                to_at=max(old.to_at, now.to_at),
            )
        else:
            found.append(now)
    if at <= last:  # nobody remembers these: still said, never silent
        found.append(Gap(first=at, count=last - at + 1, kind=LossKind.MIXED, from_at=0, to_at=0))
    return found


def _joined(old: Record, new: Record) -> Record:
    first, last = min(old.first, new.first), max(old.last, new.last)
    rows = old.rows + new.rows
    bits = None
    if rows != last - first + 1:
        bits = _bits(old) << old.first - first | _bits(new) << new.first - first
    return Record(
        first=first,
        last=last,
        kind=old.kind if old.kind == new.kind else LossKind.MIXED,
        rows=rows,
        from_at=min(old.from_at, new.from_at),
        to_at=max(old.to_at, new.to_at),
        bits=bits,
    )


def _bits(record: Record) -> int:
    return (1 << record.last - record.first + 1) - 1 if record.bits is None else record.bits
