"""`soak power`: the outbox's own SQL on a disk of ours whose power goes, ten thousand times.

SQLite runs through apsw on files that forget, tear (at 512 bytes) and reorder every write that was
not synced. It needs no shared memory there because one connection holds the file exclusively.
After each cut: the file is sound, it holds whole groups, and every row whose commit had returned
is there, or declared given up with its kind.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import apsw

from decoders.uplink import LossKind, RowFlag, RowKind
from edge_agent.outbox import Connection, Draft, Limit, Outbox
from edge_agent.outbox_rescue import damage_in
from field_sim.soak.truth import Verdict

SECTOR_BYTES: Final = 512
STREAM: Final = bytes(range(16))
CUTS: Final = 10_000
CUTS_OF_ONE: Final = 100  # cuts that one file lives through; then a new one begins
WRITES_BETWEEN: Final = 120  # at most, writes and syncs from one cut to the next
ROWS: Final = 200  # then rows must make room
FLAGS: Final = (RowFlag.FIRST_OF_HOUR, RowFlag(0), RowFlag.UNDECODABLE)


def run(folder: Path, *, n: int, seed: int) -> Verdict:
    """Cut the power n times. `folder` is not used: this disk is in memory."""
    del folder
    verdict = Verdict()
    total: Counter[str] = Counter()
    for number in range(-(-n // CUTS_OF_ONE)):
        machine = Machine(seed * 1_000_003 + number)
        cuts = min(CUTS_OF_ONE, n - number * CUTS_OF_ONE)
        machine.survive(cuts)
        total += machine.counts
        print(f"{number * CUTS_OF_ONE + cuts:,} of {n:,} cuts", file=sys.stderr)
    verdict.counts |= {
        "power cuts": total["cuts"],
        "of them while a file was made or opened": total["opening"],
        "groups committed": total["groups"],
        "rows whose commit had returned": total["told"],
        "of them given up for newer ones": total["shed"],
        "groups in flight that arrived whole": total["whole"],
    }
    verdict.must_be_some["sectors lost though written"] = total["torn"]
    verdict.must_be_some["losses of a disk that only says it syncs"] = without_sync(seed)
    verdict.must_be_zero["rows told but neither there nor declared"] = total["lost"]
    verdict.must_be_zero["rows changed"] = total["changed"]
    verdict.must_be_zero["files not sound"] = total["unsound"]
    return verdict


def without_sync(seed: int) -> int:
    """Return what the same cuts cost where syncs do nothing; were it 0, all would mean nothing."""
    machine = Machine(seed, syncs=False)
    try:
        machine.survive(CUTS_OF_ONE)
    except (apsw.Error, AssertionError):
        return 1 + machine.counts["lost"]
    return machine.counts["lost"] + machine.counts["unsound"]


class Medium:
    """One file on the disk: what survives a power cut, and what is only in caches."""

    def __init__(self) -> None:
        self.cached = bytearray()
        self.durable = b""
        self.unsynced: list[tuple[int, bytes]] = []

    def write(self, data: bytes, offset: int) -> None:
        if len(self.cached) < offset:
            self.cached.extend(bytes(offset - len(self.cached)))
        self.cached[offset : offset + len(data)] = data
        self.unsynced.append((offset, bytes(data)))

    def truncate(self, size: int) -> None:
        del self.cached[size:]
        self.unsynced.append((size, b""))

    def sync(self) -> None:
        self.durable = bytes(self.cached)
        self.unsynced = []

    def cut(self, chance: random.Random) -> int:
        """Lose power: of each unsynced write some sectors arrive, in no order, or none.

        Returns how many sectors did not.
        """
        torn = 0
        left = bytearray(self.durable)
        for offset, data in self.unsynced:
            if not data:
                if chance.random() < 0.5:
                    del left[offset:]
                continue
            for start in range(0, len(data), SECTOR_BYTES):
                if chance.random() >= 0.5:
                    torn += 1
                else:
                    piece = data[start : start + SECTOR_BYTES]
                    if len(left) < offset + start:
                        left.extend(bytes(offset + start - len(left)))
                    left[offset + start : offset + start + len(piece)] = piece
        self.cached, self.durable, self.unsynced = left, bytes(left), []
        return torn


class Disk:
    """All files, and the moment when the power goes."""

    def __init__(self) -> None:
        self.files: dict[str, Medium] = {}
        self.operations_left = 1 << 62
        self.is_off = False

    def spend(self) -> bool:
        """Count one write or sync; fail from the power cut on. False: the machine is off."""
        self.operations_left -= 1
        if self.operations_left < 0 and not self.is_off:
            raise apsw.IOError("the power is gone")
        return not self.is_off

    def cut(self, chance: random.Random) -> int:
        torn = sum(medium.cut(chance) for medium in self.files.values())
        self.operations_left = 1 << 62
        self.is_off = False
        return torn


class DiskVfs(apsw.VFS):
    """SQLite's way to `Disk`."""

    def __init__(self, name: str, disk: Disk) -> None:
        self.disk = disk
        super().__init__(name, base="", maxpathname=0)

    def xOpen(  # type: ignore[override]  # apsw asks for the methods, not for its own class
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> DiskFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        flags[1] = flags[0]
        return DiskFile(self.disk, path)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        if self.disk.spend():
            self.disk.files.pop(filename, None)

    def xAccess(self, pathname: str, flags: int) -> bool:
        return pathname in self.disk.files

    def xFullPathname(self, name: str) -> str:
        return name


class DiskFile:
    """One open file. Names and meaning of the methods are SQLite's."""

    def __init__(self, disk: Disk, path: str) -> None:
        self.disk = disk
        self.medium = disk.files.setdefault(path, Medium())

    def xRead(self, amount: int, offset: int) -> bytes:
        return bytes(self.medium.cached[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        if self.disk.spend():
            self.medium.write(data, offset)

    def xTruncate(self, size: int) -> None:
        if self.disk.spend():
            self.medium.truncate(size)

    def xSync(self, flags: int) -> None:
        if self.disk.spend():
            self.medium.sync()

    def xFileSize(self) -> int:
        return len(self.medium.cached)

    def xSectorSize(self) -> int:
        return SECTOR_BYTES

    def xDeviceCharacteristics(self) -> int:
        return 0  # promises nothing: no atomic, no ordered, no safe append

    def xFileControl(self, op: int, pointer: int) -> bool:
        return False

    def xLock(self, level: int) -> None:
        """One connection at a time: nothing to lock."""

    def xUnlock(self, level: int) -> None:
        """See xLock."""

    def xCheckReservedLock(self) -> bool:
        return False

    def xClose(self) -> None:
        """Nothing is cached here."""


class Hasty:
    """A connection that is told to sync and does not."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.executemany = connection.executemany
        self.close = connection.close

    def execute(self, sql: str, bindings: Sequence[Any] = ()) -> Iterable[Any]:
        return self._connection.execute(sql.replace("=FULL", "=OFF"), bindings)


class Machine:
    """A gateway whose power is cut again and again."""

    def __init__(self, seed: int, *, syncs: bool = True) -> None:
        self.syncs = syncs
        self.chance = random.Random(seed)
        self.disk = Disk()
        self.name = f"power-{seed}-{syncs}"
        self.vfs = DiskVfs(self.name, self.disk)
        self.told: list[bytes] = []  # payloads whose commit returned
        self.maybe: list[bytes] = []  # the group in flight when the power went
        self.acked = 0
        self.counts: Counter[str] = Counter()

    def connect(self, _path: Path) -> Connection:
        connection = apsw.Connection("outbox.db", vfs=self.name)
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        return connection if self.syncs else Hasty(connection)

    def open(self) -> Outbox:
        return Outbox(
            Path("outbox.db"),
            new_stream=lambda: STREAM,
            now_us=1,
            limit=Limit(rows=ROWS, page_rows=32),
            connect=self.connect,
        )

    def survive(self, cuts: int) -> None:
        for _ in range(cuts):
            self.live()
            self.counts["cuts"] += 1
            self.examine()
        self.counts["told"] = len(self.told)

    def live(self) -> None:
        """Work until the power goes."""
        self.disk.operations_left = self.chance.randrange(1, WRITES_BETWEEN)
        opening = 1
        try:
            outbox = self.open()
            opening = 0
            while True:
                self.work(outbox)
        except (apsw.IOError, apsw.CantOpenError):
            assert self.disk.operations_left < 0
            self.disk.is_off = True
        self.counts["opening"] += opening

    def work(self, outbox: Outbox) -> None:
        """Commit a group; sometimes be acknowledged, sometimes give a row up."""
        count = self.chance.randrange(1, 40)
        before = len(self.told)
        self.maybe = [b"%d" % (before + i) * 20 for i in range(count)]
        outbox.append([draft(before + i + 1, p) for i, p in enumerate(self.maybe)], self.memory())
        self.told += self.maybe
        self.maybe = []
        self.counts["groups"] += 1
        if self.chance.random() < 0.3:
            upto = self.chance.randrange(outbox.acked, outbox.head + 1)
            outbox.acknowledge(upto)
            self.acked = upto
        elif self.chance.random() < 0.05 and outbox.acked < outbox.head:
            outbox.give_up(outbox.head, "malformed")

    def memory(self) -> dict[str, bytes]:
        return {"m/x": self.maybe[-1]}

    def examine(self) -> None:
        """After the power is back: see what the file holds."""
        self.counts["torn"] += self.disk.cut(self.chance)
        outbox = self.open()
        if outbox.integrity() != "ok" or damage_in(outbox.connection) is not None:
            self.counts["unsound"] += 1
        if self.maybe and outbox.head == len(self.told) + len(self.maybe):
            self.told += self.maybe
            self.counts["whole"] += 1
        self.maybe = []
        if outbox.head != len(self.told):
            self.counts["lost"] += abs(outbox.head - len(self.told))
        held = {row.seq: row.payload for row in outbox.read(1, rows=1 << 20, max_bytes=1 << 30)}
        declared = self.declared(outbox)
        self.counts["shed"] = sum(outbox.lost.values())
        for seq, payload in enumerate(self.told, start=1):
            if seq in held:
                self.counts["changed"] += held[seq] != payload
            elif seq not in declared and seq > outbox.acked:
                self.counts["lost"] += 1
        if self.told and dict(outbox.checkpoints()).get("m/x") != self.told[-1]:
            self.counts["lost"] += 1
        if outbox.acked < self.acked:
            self.counts["unsound"] += 1
        outbox.close()

    def declared(self, outbox: Outbox) -> set[int]:
        """Return the rows that the outbox would tell the cloud to be gone, of a known kind."""
        told: set[int] = set()
        first = outbox.acked + 1
        while first <= outbox.head:
            rows = outbox.read(first, rows=300, max_bytes=1 << 20)
            for gap in outbox.gaps(first, rows):
                if gap.kind not in (LossKind.MIXED, LossKind.CORRUPT):
                    told.update(range(gap.first, gap.last + 1))
            first = rows[-1].seq + 1 if rows else outbox.head + 1
        return told


def draft(number: int, payload: bytes) -> Draft:
    return Draft(
        heard_at=number, kind=RowKind.WMBUS, payload=payload, flags=int(FLAGS[number % len(FLAGS)])
    )
