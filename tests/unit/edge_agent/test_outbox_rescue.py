"""An outbox opens whatever state its file is in: old, damaged, half rescued, on a full disk."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest

from decoders.uplink import Ack, LossKind, RowFlag, RowKind
from edge_agent import outbox_rescue, protocol, wiring
from edge_agent.outbox import Draft, Outbox, OutboxUnusable
from edge_agent.outbox_file import PAGE_BYTES, Limit
from edge_agent.outbox_quarantine import NOTE, QUARANTINE
from edge_agent.outbox_rescue import damage, opened
from tests.outboxes import OLD_SCHEMA

STREAM, OTHER = b"s" * 16, b"t" * 16
SMALL = Limit(page_rows=50)
Said = list[tuple[str, dict[str, Any]]]


def open_it(path: Path, said: Said | None = None, **given: Any) -> Outbox:
    log = [] if said is None else said
    usual: dict[str, Any] = {
        "new_stream": lambda: OTHER,
        "now_us": 7000,
        "limit": SMALL,
        "log": lambda event, **more: log.append((event, more)),
    }
    return opened(path, **{**usual, **given})


def filled(path: Path, rows: int = 300, *, acked: int = 100) -> list[bytes]:
    """Make a closed outbox of rows whose heard_at is their number; return their payloads."""
    outbox = Outbox(path, new_stream=lambda: STREAM, now_us=0, limit=SMALL)
    payloads = [b"payload %05d" % n for n in range(1, rows + 1)]
    for begin in range(0, rows, 10):
        drafts = [
            Draft(heard_at=begin + i + 1, kind=RowKind.WMBUS, payload=p, flags=int(flag_of(i)))
            for i, p in enumerate(payloads[begin : begin + 10])
        ]
        outbox.append(drafts, {"m/a": b"%d" % begin, "f/b": b"layout"})
    outbox.acknowledge(acked, [(3, "crc")])
    outbox.give_up(rows - 1, "malformed")
    outbox.close()
    return payloads


def flag_of(number: int) -> RowFlag:
    return RowFlag.FIRST_OF_HOUR if number % 2 else RowFlag(0)


def held(outbox: Outbox) -> dict[int, bytes]:
    rows = outbox.read(1, rows=10_000, max_bytes=1 << 30)
    return {row.seq: row.payload for row in rows if row.kind == RowKind.WMBUS}


def declared(outbox: Outbox) -> dict[int, LossKind]:
    first = outbox.acked + 1
    gaps = outbox.gaps(first, outbox.read(first, rows=10_000, max_bytes=1 << 30))
    return {seq: gap.kind for gap in gaps for seq in range(gap.first, gap.last + 1)}


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)


def pages_with(path: Path, words: bytes) -> list[int]:
    content = path.read_bytes()
    return [
        at for at in range(0, len(content), PAGE_BYTES) if words in content[at : at + PAGE_BYTES]
    ]


def report_of(outbox: Outbox) -> dict[str, Any]:
    rows = outbox.read(1, rows=10_000, max_bytes=1 << 30)
    [said] = [cbor2.loads(row.payload) for row in rows if row.kind == RowKind.REPORT]
    return dict(said)


def test_a_sound_file_is_opened_as_it_is(tmp_path: Path) -> None:
    payloads = filled(tmp_path / "outbox.db")

    outbox = open_it(tmp_path / "outbox.db")

    assert list(held(outbox).values()) == [p for n, p in enumerate(payloads, 1) if n != 299]
    assert not (tmp_path / QUARANTINE).exists()


def test_a_file_of_version_1_keeps_its_rows_numbers_acks_and_memory(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with sqlite3.connect(path) as old:
        old.execute("PRAGMA journal_mode=WAL")
        old.executescript(OLD_SCHEMA)
        old.execute("INSERT INTO stream VALUES (1, ?, 5, 3000, 3000, 1200, 99)", (STREAM,))
        for seq in range(101, 3001):
            columns = (seq, seq, 2, 64, -1, 7, seq, 4, -90, 20, b"%d" % seq)
            old.execute("INSERT INTO row VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", columns)
        old.execute("INSERT INTO gone VALUES (1, 100, 1, 100, 1)")
        old.execute("INSERT INTO given_up VALUES (2000, 'malformed')")
        old.execute("INSERT INTO rejected VALUES (30, 'crc')")
        old.execute("INSERT INTO checkpoint VALUES ('m/a', ?)", (b"memory",))
        old.execute("PRAGMA user_version=1")
    old.close()
    said: Said = []

    outbox = open_it(path, said)

    assert [event for event, _ in said] == ["outbox_upgraded"]
    assert (outbox.stream, outbox.started_at) == (STREAM, 5)
    assert (outbox.head, outbox.acked, outbox.first, outbox.held) == (3000, 1200, 101, 2900)
    row, *_ = outbox.read(101, rows=1, max_bytes=1000)
    assert (row.seq, row.radio, row.session, row.counter) == (101, (1 << 64) - 1, 7, 101)
    assert (row.flags, row.port, row.rssi, row.snr, row.payload) == (64, 4, -90, 20, b"101")
    assert declared(outbox) == {2000: LossKind.REFUSED}
    assert [(lost.first, lost.last) for lost in outbox.lost_from(1)] == [(1, 100), (2000, 2000)]
    assert dict(outbox.checkpoints()) == {"m/a": b"memory"}
    assert outbox.rejected() == {"crc": 1}
    assert outbox.append([Draft(heard_at=1, kind=RowKind.WMBUS, payload=b"next")], {}) is None
    assert outbox.head == 3001


def test_a_flipped_payload_is_put_aside_declared_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    payloads = filled(path)
    content = path.read_bytes()
    flip(path, content.index(b"payload 00290"))
    before = path.read_bytes()
    said: Said = []

    outbox = open_it(path, said)

    now = held(outbox)
    assert set(range(1, 301)) - now.keys() == {290, 299}
    assert all(now[seq] == payloads[seq - 1] for seq in now)
    assert declared(outbox) == {290: LossKind.CORRUPT, 299: LossKind.REFUSED}
    assert (outbox.stream, outbox.acked, outbox.lost["corrupt"]) == (STREAM, 100, 1)
    assert dict(outbox.checkpoints()) == {"m/a": b"290", "f/b": b"layout"}
    [aside] = (tmp_path / QUARANTINE).glob("*/outbox.db")
    assert aside.read_bytes() == before, "as it was found"
    report = report_of(outbox)
    assert (report["kind"], report["rows"], report["lost"]) == ("quarantined", 299, 1)
    assert (outbox.head, outbox.opened_head) == (301, 300)
    assert [event for event, _ in said] == ["outbox_quarantined"]


def test_a_flipped_page_costs_its_rows_and_says_when_they_were_heard(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    payloads = filled(path)
    with sqlite3.connect(path) as reading:
        sql = "SELECT id, first, last, rows FROM page WHERE first > 150 ORDER BY id LIMIT 1"
        number, first, last, rows = reading.execute(sql).fetchone()
        (body,) = reading.execute("SELECT body FROM page WHERE id = ?", (number,)).fetchone()
    reading.close()
    flip(path, path.read_bytes().index(body[-40:]) + 9)

    outbox = open_it(path)

    gone = {seq for seq, kind in declared(outbox).items() if kind == LossKind.CORRUPT}
    assert len(gone) == rows
    assert min(gone) == first
    assert max(gone) == last
    assert all(payload == payloads[seq - 1] for seq, payload in held(outbox).items())
    for gap in outbox.gaps(101, outbox.read(101, rows=10_000, max_bytes=1 << 30)):
        assert gap.from_at <= gap.first
        assert gap.last <= gap.to_at + 1


def test_a_file_without_its_first_page_is_salvaged_whole(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    payloads = filled(path)
    content = bytearray(path.read_bytes())
    content[:PAGE_BYTES] = os.urandom(PAGE_BYTES)
    path.write_bytes(content)

    outbox = open_it(path)

    assert list(held(outbox).values()) == [p for n, p in enumerate(payloads, 1) if n != 299]
    assert (outbox.stream, outbox.acked, outbox.lost["corrupt"]) == (STREAM, 100, 0)
    assert sorted(file.name for file in tmp_path.iterdir() if file.name.startswith("outbox")) == [
        *("outbox.db", "outbox.db-shm", "outbox.db-wal")
    ]


def test_a_stream_whose_row_is_damaged_keeps_its_name_by_its_twin(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    payloads = filled(path)
    for page in pages_with(path, STREAM)[:1]:
        flip(path, path.read_bytes().index(STREAM, page) + len(STREAM) + 2)

    outbox = open_it(path)

    assert (outbox.stream, outbox.acked, outbox.head) == (STREAM, 0, 301), "and a report"
    assert len(held(outbox)) == len(payloads) - 1


def test_what_is_no_outbox_at_all_is_put_aside_and_the_agent_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with sqlite3.connect(path) as theirs:
        theirs.execute("CREATE TABLE theirs (a)")
    theirs.close()

    outbox = open_it(path)

    assert (outbox.stream, outbox.head) == (OTHER, 1)
    assert "version 0" in report_of(outbox)["reason"]


def test_a_file_of_a_newer_agent_is_left_alone(tmp_path: Path) -> None:
    """After a package was rolled back: its rows are intact, and the newer agent reads them."""
    path = tmp_path / "outbox.db"
    filled(path)
    with sqlite3.connect(path) as newer:
        newer.execute("ALTER TABLE page RENAME TO leaf")
        newer.execute("PRAGMA user_version=3")
    newer.close()
    before = path.read_bytes()

    with pytest.raises(OutboxUnusable, match="version 3") as refused:
        open_it(path)

    assert "drain" in str(refused.value)
    assert path.read_bytes() == before
    assert not (tmp_path / QUARANTINE).exists()


def test_a_flipped_version_is_no_newer_agents(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    payloads = filled(path)
    content = bytearray(path.read_bytes())
    content[63] ^= 0x08  # sqlite.org/fileformat2.html §1.3: user_version is at 60
    path.write_bytes(content)

    outbox = open_it(path)

    assert "version 10" in report_of(outbox)["reason"]
    assert len(held(outbox)) == len(payloads) - 1
    assert outbox.lost["corrupt"] == 0


def journalled(path: Path) -> tuple[Path, list[bytes]]:
    """Return a file as kill -9 leaves it, with commits in its journal alone."""
    made = path.with_name("made.db")
    filled(made, 100, acked=10)
    outbox = Outbox(made, new_stream=lambda: STREAM, now_us=0, limit=SMALL)
    for n in range(101, 111):
        outbox.append([Draft(heard_at=n, kind=RowKind.WMBUS, payload=b"late %d" % n)], {})
    shutil.copy(made, path)
    journal = path.with_name(f"{path.name}-wal")
    shutil.copy(f"{made}-wal", journal)
    outbox.close()
    return journal, [b"late %d" % n for n in range(101, 111)]


def test_commits_behind_a_flipped_bit_of_the_journal_are_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    journal, late = journalled(path)
    flip(journal, journal.read_bytes().index(b"late 103") + 1)

    outbox = open_it(path)

    assert "journal" in report_of(outbox)["reason"]
    now = held(outbox)
    assert [now.get(seq) for seq in range(101, 111)] == late, "a later page holds it too"
    assert outbox.stream == STREAM


@pytest.mark.parametrize("place", [2, 9, 17, 25])
def test_a_flipped_head_of_the_journal_is_found(tmp_path: Path, place: int) -> None:
    path = tmp_path / "outbox.db"
    journal, late = journalled(path)
    flip(journal, place)

    outbox = open_it(path)

    now = held(outbox)
    assert [now.get(seq) for seq in range(101, 111)] == late


def test_a_last_commit_that_was_cut_short_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    journal, late = journalled(path)
    journal.write_bytes(journal.read_bytes()[:-100])

    outbox = open_it(path)

    assert not (tmp_path / QUARANTINE).exists()
    assert [held(outbox).get(seq) for seq in range(101, 110)] == late[:9]
    assert outbox.head == 109


def test_a_last_commit_that_is_damaged_is_told_though_the_power_may_have_cut_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "outbox.db"
    journal, _ = journalled(path)
    flip(journal, journal.read_bytes().index(b"late 110") + 1)

    outbox = open_it(path)

    assert not (tmp_path / QUARANTINE).exists()
    assert report_of(outbox) == {"kind": "commit_cut_short"}
    assert outbox.head == 110, "nine rows and the report"
    assert outbox.opened_head == 109, "the cloud may have the row whose number the report got"
    ack = Ack(stream=STREAM, upto=110, credit=100, cloud_at=1)
    _, effects = protocol.acknowledged(
        wiring.link_of(outbox), ack, now_s=0.0, pace=protocol.Pace(), chance=0.5
    )
    assert effects == (protocol.RestartStream(),)


def test_looking_for_damage_leaves_the_journal_as_it_is(tmp_path: Path) -> None:
    """`inspect` beside an agent that is not running: its next start must still find the cut."""
    path = tmp_path / "outbox.db"
    journal, _ = journalled(path)
    flip(journal, journal.read_bytes().index(b"late 110") + 1)
    before = path.read_bytes(), journal.read_bytes()

    assert damage(path, budget_s=None) is None

    assert (path.read_bytes(), journal.read_bytes()) == before
    assert report_of(open_it(path)) == {"kind": "commit_cut_short"}


def test_a_journal_that_begins_anew_while_it_is_read_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`inspect` beside a busy agent: it reads the journal's old head and its new frames."""
    path = tmp_path / "outbox.db"
    filled(path)
    looks = iter([5, 3, 0])
    monkeypatch.setattr(outbox_rescue, "hidden_commits", lambda _: next(looks))

    assert damage(path, budget_s=None) is None

    monkeypatch.setattr(outbox_rescue, "hidden_commits", lambda _: 2)
    assert damage(path, budget_s=None) == "journal: 2 commits cannot be read"


def test_a_rescue_that_was_cut_short_is_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "outbox.db"
    filled(path)
    flip(path, path.read_bytes().index(b"payload 00290"))

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(outbox_rescue, "moved", cut)
    with pytest.raises(KeyboardInterrupt):
        open_it(path)
    assert not path.exists()
    monkeypatch.undo()

    outbox = open_it(path)

    assert len(held(outbox)) == 298
    [note] = (tmp_path / QUARANTINE).glob(f"*/{NOTE}")
    assert json.loads(note.read_text())["lost"] == 1


def test_only_the_newest_damaged_files_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    said: Said = []
    for _ in range(5):
        path.write_bytes(b"rubbish" * 1000)
        open_it(path, said).close()

    kept = sorted(each.name[:6] for each in (tmp_path / QUARANTINE).iterdir())
    assert kept == ["000003", "000004", "000005"]
    assert [event for event, _ in said].count("quarantine_dropped") == 2


def test_the_check_at_the_start_takes_no_longer_than_it_may(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    filled(path, 2000)
    flip(path, path.read_bytes().index(b"payload 01990"))

    assert damage(path, budget_s=None) is not None
    assert damage(path) is not None


def test_a_file_that_proved_damaged_in_use_is_put_aside_at_the_next_start(tmp_path: Path) -> None:
    """Whatever the checks say: an agent that stops again and again helps nobody."""
    path = tmp_path / "outbox.db"
    filled(path)
    outbox_rescue.suspect(path, "database disk image is malformed")

    outbox = open_it(path)

    assert report_of(outbox)["reason"] == "database disk image is malformed"
    assert len(held(outbox)) == 299
    outbox.close()
    open_it(path).close()
    assert len(list((tmp_path / QUARANTINE).iterdir())) == 1, "once"


def test_what_flips_while_the_agent_runs_is_set_aside_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    payloads = filled(path)
    outbox = open_it(path)
    with sqlite3.connect(path) as other:
        (body,) = other.execute("SELECT body FROM fresh WHERE seq = 295").fetchone()
        other.execute("UPDATE fresh SET body = ? WHERE seq = 295", (body[:-1] + b"?",))
        other.execute("UPDATE page SET to_at = to_at + 1 WHERE id = (SELECT max(id) FROM page)")
        (first, last, rows) = other.execute(
            "SELECT first, last, rows FROM page WHERE id = (SELECT max(id) FROM page)"
        ).fetchone()
    other.close()

    now = held(outbox)

    assert all(payload == payloads[seq - 1] for seq, payload in now.items())
    corrupt = [seq for seq, kind in declared(outbox).items() if kind == LossKind.CORRUPT]
    assert 295 in corrupt
    assert len(corrupt) == rows + 1
    assert {first, last} <= set(corrupt)
    outbox.acknowledge(101)
    assert outbox.lost["corrupt"] == rows + 1
    assert outbox.integrity() == "ok"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("a small file system can be mounted as root only")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False
    )
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_costs_what_the_policy_says_and_nothing_more(small_disk: Path) -> None:
    outbox = open_it(small_disk / "outbox.db", limit=Limit(page_rows=50))
    told = 0
    shed: dict[str, int] = {}
    for _ in range(200):
        rows = [
            Draft(
                heard_at=told + i,
                kind=RowKind.WMBUS,
                payload=os.urandom(200),
                flags=int(flag_of(i)),
            )
            for i in range(25)
        ]
        given_up = outbox.append(rows, {})
        told += len(rows)
        for kind, count in (given_up.kinds if given_up else {}).items():
            shed[kind] = shed.get(kind, 0) + count

    assert outbox.head == told, "it goes on taking rows in"
    assert outbox.held + sum(outbox.lost.values()) == told
    assert {kind: count for kind, count in outbox.lost.items() if count} == shed
    assert shed["sub_hourly"] > 0
    assert outbox.integrity() == "ok"
    outbox.close()


def test_a_disk_that_others_fill_stops_the_outbox_until_it_is_freed(small_disk: Path) -> None:
    path = small_disk / "outbox.db"
    outbox = open_it(path)
    outbox.append([Draft(heard_at=1, kind=RowKind.WMBUS, payload=b"first")], {})
    fill(small_disk / "theirs")

    big = [Draft(heard_at=2, kind=RowKind.REPORT, payload=os.urandom(1000))] * 200
    with pytest.raises(sqlite3.OperationalError, match="full"):
        outbox.append(big, {})
    assert list(held(outbox).values()) == [b"first"], "still there, and nothing else was told"

    (small_disk / "theirs").unlink()
    outbox.append(big, {})
    assert outbox.head == 201
    outbox.close()


def test_an_agent_that_starts_on_a_full_disk_waits_for_it(small_disk: Path) -> None:
    fill(small_disk / "theirs")
    waits: list[float] = []
    said: Said = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            (small_disk / "theirs").unlink()

    outbox = open_it(small_disk / "outbox.db", said, wait=wait)

    assert [event for event, _ in said] == ["commit_failed"] * 3, "a sign of life each time"
    assert len(waits) == 3
    outbox.append([Draft(heard_at=1, kind=RowKind.WMBUS, payload=b"x")], {})
    outbox.close()


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
