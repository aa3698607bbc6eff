"""The outbox through kill -9 and power cuts: what was committed is there, whole groups or nothing.

The power cuts run the outbox's own SQL on apsw over a disk of ours that forgets, tears and
reorders every write that was not synced. SQLite needs no shared memory there because one
connection holds the file exclusively.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import apsw
import pytest

from decoders.uplink import RowKind
from edge_agent.outbox import Connection, Draft, Limit, Outbox

ROOT = Path(__file__).parents[2]
SECTOR_BYTES = 512
STREAM = bytes(range(16))


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

    def cut(self, chance: random.Random) -> None:
        """Lose power: of each unsynced write some sectors arrive, in no order, or none."""
        left = bytearray(self.durable)
        for offset, data in self.unsynced:
            if not data:
                if chance.random() < 0.5:
                    del left[offset:]
                continue
            for start in range(0, len(data), SECTOR_BYTES):
                if chance.random() < 0.5:
                    piece = data[start : start + SECTOR_BYTES]
                    if len(left) < offset + start:
                        left.extend(bytes(offset + start - len(left)))
                    left[offset + start : offset + start + len(piece)] = piece
        self.cached, self.durable, self.unsynced = left, bytes(left), []


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

    def cut(self, chance: random.Random) -> None:
        for medium in self.files.values():
            medium.cut(chance)
        self.operations_left = 1 << 62
        self.is_off = False


class DiskVfs(apsw.VFS):
    """SQLite's way to `Disk`."""

    def __init__(self, name: str, disk: Disk) -> None:
        self.disk = disk
        super().__init__(name, base="", maxpathname=0)

    def xOpen(  # type: ignore[override]  # apsw asks for the methods, not for its own class
        self, name: Any, flags: list[int]
    ) -> DiskFile:
        path = name if isinstance(name, str) else name.filename()
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

    def execute(self, sql: str, bindings: Any = ()) -> Any:
        return self._connection.execute(sql.replace("=FULL", "=OFF"), bindings)


class Machine:
    """A gateway whose power is cut again and again."""

    def __init__(self, seed: int, *, syncs: bool = True) -> None:
        self.syncs = syncs
        self.chance = random.Random(seed)
        self.disk = Disk()
        self.vfs = DiskVfs(f"power-{seed}-{syncs}", self.disk)
        self.name = f"power-{seed}-{syncs}"
        self.told: list[bytes] = []  # payloads whose commit returned
        self.maybe: list[bytes] = []  # the group in flight when the power went
        self.acked = 0

    def connect(self, _path: Path) -> Connection:
        connection = apsw.Connection("outbox.db", vfs=self.name)
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        return connection if self.syncs else Hasty(connection)

    def open(self) -> Outbox:
        return Outbox(
            Path("outbox.db"),
            new_stream=lambda: STREAM,
            now_us=1,
            limit=Limit(rows=400),
            connect=self.connect,
        )

    def survive(self, cuts: int) -> None:
        for _ in range(cuts):
            self.live()
            self.examine()

    def live(self) -> None:
        """Work until the power goes."""
        self.disk.operations_left = self.chance.randrange(1, 120)
        try:
            outbox = self.open()
            while True:
                self.work(outbox)
        except (apsw.IOError, apsw.CantOpenError):
            assert self.disk.operations_left < 0
            self.disk.is_off = True

    def work(self, outbox: Outbox) -> None:
        """Commit a group; sometimes be acknowledged."""
        count = self.chance.randrange(1, 40)
        self.maybe = [b"%d" % (len(self.told) + i) * 20 for i in range(count)]
        drafts = [Draft(heard_at=1, kind=RowKind.WMBUS, payload=p) for p in self.maybe]
        outbox.append(drafts, {"m/x": self.maybe[-1]})
        self.told += self.maybe
        self.maybe = []
        if self.chance.random() < 0.3:
            upto = self.chance.randrange(outbox.acked, outbox.head + 1)
            outbox.acknowledge(upto)
            self.acked = upto

    def examine(self) -> None:
        """After the power is back: the file is sound and holds whole groups, none told missing."""
        self.disk.cut(self.chance)
        outbox = self.open()
        assert outbox.integrity() == "ok"
        if outbox.head == len(self.told) + len(self.maybe):
            self.told += self.maybe
        self.maybe = []
        assert outbox.head == len(self.told)
        held = outbox.read(1, rows=10_000, max_bytes=1 << 30)
        assert [row.payload for row in held] == self.told[outbox.first - 1 :]
        if self.told:
            assert dict(outbox.checkpoints())["m/x"] == self.told[-1]
        assert outbox.acked >= self.acked
        outbox.close()


@pytest.mark.parametrize("seed", range(4))
def test_a_power_cut_takes_nothing_that_was_committed(seed: int) -> None:
    machine = Machine(seed)
    machine.survive(150)

    assert len(machine.told) > 1000


def test_this_disk_does_take_what_was_not_synced() -> None:
    """Otherwise the test above would prove nothing."""
    machine = Machine(99, syncs=False)

    with pytest.raises((AssertionError, apsw.Error)):
        machine.survive(150)


WRITER = """
import sys
from pathlib import Path
from decoders.uplink import RowKind
from edge_agent.outbox import Draft, Outbox
outbox = Outbox(Path(sys.argv[1]), new_stream=lambda: bytes(16), now_us=1)
while True:
    drafts = [Draft(heard_at=1, kind=RowKind.WMBUS, payload=b"%d" % (outbox.head + 1 + i))
              for i in range(7)]
    outbox.append(drafts, {"m/x": b"%d" % (outbox.head + 7)})
    print(outbox.head, flush=True)
"""


def test_kill_9_takes_nothing_that_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    chance = random.Random(7)
    told = 0
    for _ in range(15):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as writer:
            assert writer.stdout is not None
            told = max(told, int(writer.stdout.readline()))
            time.sleep(chance.random() * 0.1)
            writer.send_signal(signal.SIGKILL)
            said = [int(line) for line in writer.stdout.read().splitlines() if line]
            told = max([told, *said[:-1]])  # the last line may be cut off

        outbox = Outbox(path, new_stream=lambda: STREAM, now_us=1)
        assert outbox.head >= told
        assert outbox.head % 7 == 0
        held = outbox.read(1, rows=1_000_000, max_bytes=1 << 30)
        assert [row.payload for row in held] == [b"%d" % n for n in range(1, outbox.head + 1)]
        assert dict(outbox.checkpoints())["m/x"] == b"%d" % outbox.head
        outbox.close()
