"""The rows themselves: the newest one by one, older ones in pages by kind.

A block is about a thousand rows in order. It becomes one page for each kind of row in it, so that
one kind can be given up without a hole in any page, and blocks follow each other without overlap.
Numbers here are the file's own; `outbox` turns them into the stream's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from decoders.uplink import LossKind, Row, RowKind
from decoders.value import value
from edge_agent.outbox_file import Connection, one
from edge_agent.outbox_gone import Gone
from edge_agent.outbox_rows import (
    Keep,
    RowDamaged,
    keep_of,
    pack_page,
    pack_row,
    seal,
    unpack_page,
    unpack_row,
)

KINDS: Final = 8  # an id is 8 · first number of the block + Keep
BLOCK_SPAN: Final = 1 << 16  # numbers of a block: a salvaged file has holes
DAMAGED_KEPT: Final = 16
LOSS_OF: Final = {
    Keep.UNDECODABLE: LossKind.UNDECODABLE,
    Keep.SUB_HOURLY: LossKind.SUB_HOURLY,
    Keep.HOURLY: LossKind.HOURLY,
    Keep.OWN: LossKind.OWN,
}

SELECT: Final = "SELECT id, keep, first, last, rows, from_at, to_at, lived_us, seal FROM page "
TRIM_DAMAGED: Final = (
    "DELETE FROM damaged WHERE id NOT IN (SELECT id FROM damaged ORDER BY seq DESC LIMIT ?)"
)


@value
class Page:
    """What is known of a page without reading it."""

    id: int
    keep: Keep
    first: int
    last: int
    rows: int
    from_at: int
    to_at: int
    lived_us: int
    seal: int

    @property
    def block(self) -> int:
        return self.id // KINDS


class Pages:
    """The tables `fresh` and `page`, inside their owner's transactions."""

    def __init__(self, connection: Connection, gone: Gone, *, page_rows: int) -> None:
        self._db = connection
        self._gone = gone
        self._page_rows = page_rows
        self.rows = self.fresh = self.found_damaged = 0
        self._unpacked: tuple[int, list[Row]] | None = (
            None  # the block read last: messages are short
        )

    def load(self) -> None:
        """Count what is there: at the start, and after a transaction that was rolled back."""
        self._unpacked = None
        self.fresh = one(self._db, "SELECT count(*) FROM fresh")[0]
        self.rows = self.fresh + one(self._db, "SELECT coalesce(sum(rows), 0) FROM page")[0]

    @property
    def first(self) -> int | None:
        """The oldest number held."""
        (number,) = one(self._db, "SELECT min(id) FROM page")
        if number is not None:
            block = number // KINDS
            sql = "SELECT min(first) FROM page WHERE id BETWEEN ? AND ?"
            return int(one(self._db, sql, (block * KINDS, block * KINDS + KINDS - 1))[0])
        (seq,) = one(self._db, "SELECT min(seq) FROM fresh")
        return None if seq is None else int(seq)

    def add(self, rows: Sequence[Row]) -> None:
        packed = [(row.seq, pack_row(row)) for row in rows]
        self._db.executemany("INSERT INTO fresh VALUES (?, ?)", packed)
        self.fresh += len(rows)
        self.rows += len(rows)

    def pack(self, *, lived_us: int) -> None:
        """Turn rows into pages while there are more than two blocks of them."""
        while self.fresh >= 2 * self._page_rows:
            self._pack_block(self._page_rows, lived_us)

    def pack_early(self, *, lived_us: int) -> bool:
        """Pack half of the newest rows, never the last one; say whether there was one to pack."""
        count = min(self._page_rows, self.fresh // 2)
        if count:
            self._pack_block(count, lived_us)
        return bool(count)

    def read(self, first: int) -> Iterator[Row]:
        """Return the rows from `first` on, in order. Damaged ones are set aside as it goes."""
        number = one(self._db, "SELECT max(id) FROM page WHERE id < ?", ((first + 1) * KINDS,))[0]
        block = None if number is None else number // KINDS
        if block is None:
            block = self._next_block(0)
        while block is not None:
            for row in self._block(block):
                if row.seq >= first:
                    yield row
            block = self._next_block(block + 1)
        sql = "SELECT seq, body FROM fresh WHERE seq >= ? ORDER BY seq LIMIT ?"
        while True:
            packed = list(self._db.execute(sql, (first, self._page_rows)))
            for seq, body in packed:
                try:
                    row = unpack_row(seq, body)
                except RowDamaged:
                    self._set_row_aside(seq)
                    continue
                yield row
            if not packed:
                return
            first = packed[-1][0] + 1

    def alerts(self, first: int) -> Iterator[Row]:
        """Return the anomalies from `first` on, in order, without reading what lies between."""
        sql = SELECT + "WHERE keep = ? AND last >= ? ORDER BY id"
        for page in map(page_of, list(self._db.execute(sql, (int(Keep.OWN), first)))):
            try:
                rows = self._page_rows_of(page)
            except RowDamaged:
                self._set_page_aside(page)
                continue
            yield from (r for r in rows if r.seq >= first and r.kind == RowKind.ANOMALY)
        sql = "SELECT seq, body FROM fresh WHERE seq >= ? AND substr(body, 5, 1) = ? ORDER BY seq"
        for seq, body in list(self._db.execute(sql, (first, bytes((RowKind.ANOMALY,))))):
            with suppress(RowDamaged):  # set aside when it is its turn
                yield unpack_row(seq, body)

    def before(self, seq: int) -> int:
        """Return the highest number held below `seq`, 0 when there is none."""
        (found,) = one(self._db, "SELECT max(seq) FROM fresh WHERE seq < ?", (seq,))
        if found is not None:
            return int(found)
        end = seq * KINDS
        while True:
            (number,) = one(self._db, "SELECT max(id) FROM page WHERE id < ?", (end,))
            if number is None:
                return 0
            held = [row.seq for row in self._block(number // KINDS) if row.seq < seq]
            if held:
                return held[-1]
            end = number // KINDS * KINDS

    def oldest_acked(self, acked: int) -> Page | None:
        """Return a page whose rows are all acknowledged, where the oldest one is so."""
        page = self._one_page("ORDER BY id LIMIT 1", ())
        return page if page is not None and page.last <= acked else None

    def oldest_to_shed(self) -> Page | None:
        """Return the oldest page of the kind that goes first."""
        for keep in Keep:
            page = self._one_page("WHERE keep = ? ORDER BY id LIMIT 1", (int(keep),))
            if page is not None:
                return page
        return None

    def drop(self, page: Page, *, acked: int) -> int:
        """Give a page up; return how many of its rows were not acknowledged."""
        try:
            seqs = [row.seq for row in self._page_rows_of(page)]
        except RowDamaged:
            self._set_page_aside(page)
            return 0
        self._delete(page)
        bounds = {"from_at": page.from_at, "to_at": page.to_at}
        known = [seq for seq in seqs if seq <= acked]
        self._gone.add(known, LossKind.ACKED, **bounds)
        self._gone.add(seqs[len(known) :], LOSS_OF[page.keep], **bounds)
        return len(seqs) - len(known)

    def _pack_block(self, count: int, lived_us: int) -> None:
        sql = "SELECT seq, body FROM fresh ORDER BY seq LIMIT ?"
        packed = list(self._db.execute(sql, (count,)))
        block = packed[0][0]
        kept: dict[Keep, list[Row]] = {}
        last = block
        for seq, body in packed:
            if seq - block >= BLOCK_SPAN:
                break
            last = seq
            try:
                row = unpack_row(seq, body)
            except RowDamaged:
                self._set_row_aside(seq)
                continue
            kept.setdefault(keep_of(row), []).append(row)
        self._db.execute("DELETE FROM fresh WHERE seq <= ?", (last,))
        for keep, rows in kept.items():
            self.fresh -= len(rows)
            self._insert(block, keep, rows, lived_us)

    def _insert(self, block: int, keep: Keep, rows: Sequence[Row], lived_us: int) -> None:
        heard = [row.heard_at for row in rows]
        body = pack_page(rows)
        about = (
            block * KINDS + keep,
            *(int(keep), rows[0].seq, rows[-1].seq, len(rows), min(heard), max(heard), lived_us),
        )
        self._db.execute(
            "INSERT INTO page VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*about, seal(*about, body), body),
        )

    def _block(self, block: int) -> list[Row]:
        """Return the rows of a block that can be read; the rest is set aside."""
        if self._unpacked is not None and self._unpacked[0] == block:
            return self._unpacked[1]
        sql = SELECT + "WHERE id BETWEEN ? AND ? ORDER BY id"
        pages = list(self._db.execute(sql, (block * KINDS, block * KINDS + KINDS - 1)))
        rows: list[Row] = []
        for page in map(page_of, pages):
            try:
                rows += self._page_rows_of(page)
            except RowDamaged:
                self._set_page_aside(page)
        rows.sort(key=lambda row: row.seq)
        self._unpacked = block, rows
        return rows

    def _page_rows_of(self, page: Page) -> tuple[Row, ...]:
        for (body,) in self._db.execute("SELECT body FROM page WHERE id = ?", (page.id,)):
            return rows_of(page, body)
        return ()  # set aside just now, with another page of its block

    def _next_block(self, block: int) -> int | None:
        (number,) = one(self._db, "SELECT min(id) FROM page WHERE id >= ?", (block * KINDS,))
        return None if number is None else int(number) // KINDS

    def _one_page(self, where: str, bindings: Sequence[Any]) -> Page | None:
        for row in self._db.execute(SELECT + where, bindings):
            return page_of(row)
        return None

    def _delete(self, page: Page) -> None:
        self._db.execute("DELETE FROM page WHERE id = ?", (page.id,))
        self.rows -= page.rows
        self._unpacked = None

    def _set_page_aside(self, page: Page) -> None:
        """Take a page whose bytes changed out of the way, and declare what was in it."""
        with _Savepoint(self._db):
            self._keep_damaged("SELECT id, first, body FROM page WHERE id = ?", page.id)
            self._db.execute("DELETE FROM page WHERE id = ?", (page.id,))
            held = {row.seq for row in self._block(page.block)}
            end = self._end_of(page.block)
            records = self._gone.overlapping(page.block, end - 1)
            seqs = [
                seq
                for seq in range(page.block, end)
                if seq not in held and not any(record.within(seq, seq) for record in records)
            ]
            self._gone.add(seqs, LossKind.CORRUPT, from_at=page.from_at, to_at=page.to_at)
        self.found_damaged += len(seqs)
        self.load()

    def _end_of(self, block: int) -> int:
        """Return the first number after a block."""
        following = self._next_block(block + 1)
        if following is None:
            (following,) = one(self._db, "SELECT min(seq) FROM fresh")
        return one(self._db, "SELECT head + 1 FROM stream")[0] if following is None else following

    def _set_row_aside(self, seq: int) -> None:
        started_at, head_at = one(self._db, "SELECT started_at, head_at FROM stream")
        bounds = {"from_at": min(started_at, head_at), "to_at": max(started_at, head_at)}
        with _Savepoint(self._db):
            self._keep_damaged("SELECT seq, seq, body FROM fresh WHERE seq = ?", seq)
            self._db.execute("DELETE FROM fresh WHERE seq = ?", (seq,))
            self._gone.add([seq], LossKind.CORRUPT, **bounds)
        self.found_damaged += 1
        self.fresh -= 1
        self.rows -= 1

    def _keep_damaged(self, select: str, number: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO damaged " + select, (number,))
        self._db.execute(TRIM_DAMAGED, (DAMAGED_KEPT,))


class _Savepoint:
    """All or nothing, inside a transaction or outside."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def __enter__(self) -> None:
        self._db.execute("SAVEPOINT aside")

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None:
            self._db.execute("ROLLBACK TO aside")
        self._db.execute("RELEASE aside")


def rows_of(page: Page, body: bytes) -> tuple[Row, ...]:
    """Return a page's rows. Raises RowDamaged."""
    about = (page.id, int(page.keep), page.first, page.last, page.rows)
    if page.seal != seal(*about, page.from_at, page.to_at, page.lived_us, body):
        raise RowDamaged(f"page {page.id}: its checksum differs")
    return unpack_page(body, page.rows)


def page_of(row: Sequence[Any]) -> Page:
    number, keep, first, last, rows, from_at, to_at, lived_us, sealed = row
    return Page(
        id=number,
        keep=Keep(keep) if keep in tuple(Keep) else Keep.HOURLY,
        first=first,
        last=last,
        rows=rows,
        from_at=from_at,
        to_at=to_at,
        lived_us=lived_us,
        seal=sealed,
    )
