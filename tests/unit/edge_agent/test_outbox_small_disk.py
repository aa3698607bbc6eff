"""A damaged outbox on a disk that has no room for two of them: the agent starts all the same."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest

from decoders.uplink import LossKind, RowFlag, RowKind
from edge_agent import outbox_quarantine, outbox_rescue
from edge_agent.outbox import Draft, Outbox
from edge_agent.outbox_file import Limit, fitting, used_bytes
from edge_agent.outbox_quarantine import QUARANTINE
from tests.outboxes import old_file

STREAM = b"s" * 16
DISK_BYTES = 5 << 20
ACKED = 1000
Said = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 5 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("a small file system can be mounted as root only")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], check=False
    )
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def filled(path: Path, *, size: int) -> int:
    """Make an outbox of about so many bytes, three kinds of rows by turns; return its head."""
    made = path.parent.with_name("made.db")
    outbox = Outbox(made, new_stream=lambda: STREAM, now_us=0, limit=Limit(page_rows=200))
    flags = (RowFlag.FIRST_OF_HOUR, RowFlag(0), RowFlag.UNDECODABLE)
    while used_bytes(outbox.connection) < size:
        begin = outbox.head
        drafts = [
            Draft(
                heard_at=begin + i + 1,
                kind=RowKind.WMBUS,
                payload=b"%8d" % (begin + i + 1) + os.urandom(192),
                flags=int(flags[(begin + i) % 3]),
            )
            for i in range(600)
        ]
        outbox.append(drafts, {f"m/{begin}": os.urandom(300)})
    outbox.acknowledge(ACKED)
    head = outbox.head
    outbox.close()
    shutil.move(made, path)
    return head


def damaged(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(os.urandom(4096))


def never(seconds: float) -> None:
    raise AssertionError("waits for a disk that nobody but itself fills")


def open_it(path: Path, said: Said, **given: Any) -> Outbox:
    usual: dict[str, Any] = {
        "new_stream": lambda: b"t" * 16,
        "now_us": 1 << 40,
        "limit": Limit(bytes=64 << 20, page_rows=200),
        "log": lambda event, **more: said.append((event, more)),
        "wait": never,
    }
    return outbox_rescue.opened(path, **{**usual, **given})


def accounted(outbox: Outbox) -> Counter[LossKind]:
    """Check that each number up to the head is held as it was written, or declared lost."""
    held: set[int] = set()
    lost: Counter[LossKind] = Counter()
    first = ACKED + 1
    while first <= outbox.head:
        rows = outbox.read(first, rows=500, max_bytes=1 << 20)
        for gap in outbox.gaps(first, rows):
            lost[gap.kind] += gap.count
            held |= set(range(gap.first, gap.last + 1))
        for row in rows:
            assert row.kind == RowKind.REPORT or row.payload[:8] == b"%8d" % row.seq
            held.add(row.seq)
        first = max(held) + 1
    assert held == set(range(ACKED + 1, outbox.head + 1))
    return lost


def test_a_rescue_fits_beside_the_damaged_file(disk: Path) -> None:
    """The outbox takes less than half of a small disk; an older damaged file makes room."""
    path, said = disk / "outbox.db", Said()
    filled(path, size=fitting(Limit(), disk).bytes // 2)
    for _ in range(3):
        damaged(path)
        outbox = open_it(path, said)
        assert set(accounted(outbox)) <= {LossKind.CORRUPT}
        assert not any(count for kind, count in outbox.lost.items() if kind != "corrupt")
        outbox.close()

    assert [event for event, _ in said].count("outbox_quarantined") == 3
    assert len(list((disk / QUARANTINE).iterdir())) == 1


def test_what_does_not_fit_beside_the_damaged_file_goes_in_the_stated_order(disk: Path) -> None:
    path, said = disk / "outbox.db", Said()
    head = filled(path, size=DISK_BYTES * 7 // 10)
    damaged(path)

    outbox = open_it(path, said)

    lost = accounted(outbox)
    assert (outbox.stream, outbox.acked, outbox.head) == (STREAM, ACKED, head + 1)
    assert outbox.held > 1000
    assert lost[LossKind.HOURLY] < 0.9 * lost[LossKind.UNDECODABLE]
    assert lost[LossKind.HOURLY] < 0.9 * lost[LossKind.SUB_HOURLY]
    assert outbox.lost["undecodable"] == lost[LossKind.UNDECODABLE]
    *_, last = outbox.read(head + 1, rows=1, max_bytes=1000)
    report = cbor2.loads(last.payload)
    assert report["kind"] == "quarantined"
    shed = sum(count for kind, count in lost.items() if kind != LossKind.CORRUPT)
    assert 0 <= shed - report["shed"] < 200, "the report itself may take a page's place"
    assert dict(outbox.checkpoints()), "the rules' memory goes first into it"
    assert list((disk / QUARANTINE).iterdir()) == [], "the outbox needs the room"
    outbox.append([Draft(heard_at=1, kind=RowKind.WMBUS, payload=os.urandom(200))] * 600, {})
    assert outbox.integrity() == "ok"
    outbox.close()
    assert [event for event, _ in said if event != "quarantine_dropped"] == [
        *("rescue_lacks_room", "outbox_quarantined")
    ]


def test_a_file_without_its_first_page_is_mended_in_place_where_a_copy_has_no_room(
    disk: Path,
) -> None:
    path, said = disk / "outbox.db", Said()
    head = filled(path, size=DISK_BYTES * 7 // 10)
    with path.open("r+b") as file:
        file.write(os.urandom(4096))

    outbox = open_it(path, said)

    accounted(outbox)
    assert (outbox.stream, outbox.acked, outbox.head) == (STREAM, ACKED, head + 1)
    outbox.close()


def test_a_rescue_in_little_room_may_be_cut_short(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, said = disk / "outbox.db", Said()
    head = filled(path, size=DISK_BYTES * 7 // 10)
    damaged(path)
    for module, name in ((outbox_rescue, "moved"), (outbox_rescue, "drop")):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, cut)
            with pytest.raises(KeyboardInterrupt):
                open_it(path, said)

    outbox = open_it(path, said)

    accounted(outbox)
    assert (outbox.stream, outbox.head) == (STREAM, head + 1)
    assert list((disk / QUARANTINE).iterdir()) == []
    outbox.close()


def cut(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_disk_that_others_fill_is_waited_for_and_costs_no_row(disk: Path) -> None:
    path, said = disk / "outbox.db", Said()
    filled(path, size=1 << 20)
    damaged(path)
    theirs = disk / "theirs"
    left = shutil.disk_usage(disk).free - (600 << 10)
    theirs.write_bytes(bytes(left))
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            theirs.unlink()

    outbox = open_it(path, said, wait=wait)

    assert set(accounted(outbox)) <= {LossKind.CORRUPT}
    assert len(waits) == 2
    assert len(list((disk / QUARANTINE).iterdir())) == 1
    outbox.close()


def test_an_old_file_is_upgraded_where_two_have_no_room(disk: Path) -> None:
    path, said = disk / "outbox.db", Said()
    old_file(path, stream=STREAM, rows=16_500, acked=ACKED)
    assert path.stat().st_size > DISK_BYTES * 7 // 10

    outbox = open_it(path, said)

    accounted(outbox)
    assert (outbox.stream, outbox.head) == (STREAM, 16_500)
    assert outbox.held > 1000
    assert [event for event, _ in said] == ["rescue_lacks_room", "outbox_upgraded"]
    outbox.close()


def test_putting_aside_parts_no_file_from_its_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power goes between the two renames: what only the journal holds is still found."""
    path = tmp_path / "outbox.db"
    outbox = Outbox(path, new_stream=lambda: STREAM, now_us=0)
    outbox.append([Draft(heard_at=1, kind=RowKind.WMBUS, payload=b"in the journal")], {})
    for each in (path, path.with_name("outbox.db-wal")):
        shutil.copy(each, tmp_path / f"{each.name}.copy")
    outbox.close()
    for each in (path, path.with_name("outbox.db-wal")):
        shutil.move(tmp_path / f"{each.name}.copy", each)
    outbox_rescue.suspect(path, "malformed")
    with monkeypatch.context() as patched:
        patched.setattr(outbox_quarantine, "_follow", cut)
        with pytest.raises(KeyboardInterrupt):
            open_it(path, [])
    assert not path.exists()

    outbox = open_it(path, [])

    first, _ = outbox.read(1, rows=9, max_bytes=9000)
    assert first.payload == b"in the journal"
    outbox.close()
