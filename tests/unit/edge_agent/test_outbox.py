"""The outbox on its own: numbers, limits, what is gone and what is declared."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from decoders.uplink import MAX_LOST_RANGES, Gap, LossKind, Lost, Row, RowFlag, RowKind
from edge_agent.outbox import ROW_OVERHEAD_BYTES, Draft, Limit, Outbox, OutboxUnusable
from edge_agent.outbox_rows import Keep, keep_of, numbered

STREAM, OTHER = b"s" * 16, b"t" * 16
ROW_BYTES = ROW_OVERHEAD_BYTES + 4
KINDS: dict[int, dict[str, Any]] = {
    0: {"kind": RowKind.ANOMALY},
    1: {"flags": int(RowFlag.UNDECODABLE)},
    2: {},
    3: {},
}


def open_outbox(path: Path, **given: Any) -> Outbox:
    return Outbox(path / "outbox.db", new_stream=lambda: STREAM, now_us=99, **given)


def drafts(first: int, last: int) -> list[Draft]:
    """Rows whose heard_at and payload are their own number."""
    return [
        Draft(heard_at=n, kind=RowKind.WMBUS, payload=b"%04d" % n) for n in range(first, last + 1)
    ]


def some(number: int, **given: Any) -> Draft:
    """A row whose last digit says what it is: 0 an alert, 1 undecodable, 2 and 3 sub-hourly."""
    usual: dict[str, Any] = {"kind": RowKind.WMBUS, "payload": b"%04d" % number}
    kind = KINDS.get(number % 10, {"flags": int(RowFlag.FIRST_OF_HOUR)})
    return Draft(heard_at=number, **{**usual, **kind, **given})


def a_row(number: int) -> Row:
    return numbered(some(number), number)


def seqs(outbox: Outbox, first: int = 1, **given: int) -> list[int]:
    asked = {"rows": 10_000, "max_bytes": 1 << 30, **given}
    return [row.seq for row in outbox.read(first, **asked)]


def test_rows_come_back_as_they_were_and_numbered_without_gaps(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    full = Draft(
        heard_at=-5,
        kind=RowKind.LORAWAN,
        payload=b"\x00\xff",
        flags=int(RowFlag.INFO_CHANGE),
        radio=0xFFEEDDCCBBAA9988,
        session=0xFFFFFFFF,
        counter=0xFFFFFFFE,
        port=255,
        rssi=-120,
        snr=-80,
    )

    outbox.append([full], {})
    outbox.append(drafts(2, 3), {})

    first, *_ = outbox.read(1, rows=10, max_bytes=1000)
    assert (first.seq, first.radio, first.session, first.counter) == (
        *(1, 0xFFEEDDCCBBAA9988, 0xFFFFFFFF, 0xFFFFFFFE),
    )
    assert (first.heard_at, first.flags, first.rssi, first.snr) == (-5, 8, -120, -80)
    assert seqs(outbox) == [1, 2, 3]
    assert (outbox.head, outbox.head_at, outbox.pending, outbox.held) == (3, 3, 3, 3)


def test_a_second_start_goes_on_where_the_first_stopped(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    outbox.append(drafts(1, 5), {"m/a": b"1", "m/b": b"2"})
    outbox.acknowledge(3, [(2, "crc")])
    outbox.forget(["m/b"])
    outbox.close()

    again = Outbox(tmp_path / "outbox.db", new_stream=lambda: OTHER, now_us=200)

    assert (again.stream, again.started_at) == (STREAM, 99)
    assert (again.head, again.acked, again.held) == (5, 3, 5)
    assert dict(again.checkpoints()) == {"m/a": b"1"}
    assert again.rejected() == {"crc": 1}
    assert again.integrity() == "ok"


def test_reading_stops_at_a_messages_size_but_gives_at_least_one_row(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    outbox.append(drafts(1, 10), {})

    assert seqs(outbox, max_bytes=3 * ROW_BYTES) == [1, 2, 3]
    assert seqs(outbox, 4, max_bytes=1) == [4]
    assert seqs(outbox, 9, rows=5) == [9, 10]
    assert seqs(outbox, 11) == []


def test_acknowledged_rows_stay_until_their_space_is_needed(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, limit=Limit(rows=100, page_rows=8))
    outbox.append(drafts(1, 100), {})
    outbox.acknowledge(100)
    assert seqs(outbox)[0] == 1

    shed = outbox.append(drafts(101, 110), {})

    assert shed is None, "nothing that was not acknowledged had to go"
    assert seqs(outbox) == list(range(17, 111)), "two blocks of eight made room for ten"
    assert outbox.first == 17
    assert outbox.lost_from(111) == ()
    assert outbox.lost_from(5) == (Lost(first=5, last=16, from_at=1, to_at=16),)


def test_what_is_not_acknowledged_goes_by_kind_each_kind_oldest_first(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, limit=Limit(rows=40, page_rows=10))
    outbox.append([some(n) for n in range(1, 41)], {})

    shed = [outbox.append([some(n)], {}) for n in range(41, 121)]

    by_kind = {keep: [n for n in seqs(outbox) if keep_of(a_row(n)) == keep] for keep in Keep}
    assert by_kind[Keep.OWN] == [n for n in range(1, 121) if n % 10 == 0], "none of these"
    hourly = by_kind[Keep.HOURLY]
    assert hourly[-1] == 119
    assert min(by_kind[Keep.UNDECODABLE] + by_kind[Keep.SUB_HOURLY]) > 100, "all but the newest"
    counted = {
        kind: sum(each.kinds.get(kind, 0) for each in shed if each) for kind in Keep.__members__
    }
    assert {kind.upper(): count for kind, count in outbox.lost.items()} == {
        kind: sum(each.kinds.get(kind.lower(), 0) for each in shed if each) for kind in counted
    } | {"CORRUPT": 0}
    assert outbox.held + sum(outbox.lost.values()) == 120


def test_every_number_is_held_or_declared_with_its_kind(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, limit=Limit(rows=60, page_rows=10))
    for n in range(1, 301):
        outbox.append([some(n)], {})
        if n == 55:
            outbox.acknowledge(25)

    told: dict[int, LossKind] = {}
    first = 1
    while first <= 300:
        rows = outbox.read(first, rows=7, max_bytes=1 << 20)
        for gap in outbox.gaps(first, rows):
            told |= dict.fromkeys(range(gap.first, gap.last + 1), gap.kind)
            assert gap.from_at <= gap.first
            assert gap.last <= gap.to_at + 20, "bounds of its block"
        first = rows[-1].seq + 1

    held = set(seqs(outbox))
    assert set(told) | held == set(range(26, 301)) | held
    assert not set(told) & held
    shed = Counter(kind.name.lower() for kind in told.values())
    assert {kind: count for kind, count in outbox.lost.items() if count} == shed


def test_a_hello_declares_what_is_gone_up_to_the_next_row_held(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, limit=Limit(rows=10, page_rows=4))
    outbox.append(drafts(1, 40), {})

    (gap,) = outbox.gaps(1, ())

    assert (gap.first, gap.last) == (1, outbox.first - 1)
    assert outbox.gaps(outbox.first, outbox.read(outbox.first, rows=3, max_bytes=1 << 20))


def test_real_bytes_on_the_disk_stay_below_the_limit(tmp_path: Path) -> None:
    limit = Limit(bytes=1 << 20, page_rows=256)
    outbox = open_outbox(tmp_path, limit=limit)
    noise = random.Random(3)
    biggest = 0
    for n in range(120):
        rows = [some(n * 300 + i, payload=noise.randbytes(40)) for i in range(300)]
        outbox.append(rows, {f"m/{n % 50}": noise.randbytes(300)})
        files = [tmp_path / name for name in ("outbox.db", "outbox.db-wal")]
        biggest = max(biggest, sum(file.stat().st_size for file in files))

    assert biggest <= limit.bytes
    assert outbox.held > 9_000
    assert outbox.size <= limit.bytes
    assert outbox.integrity() == "ok"
    assert outbox.lost["undecodable"] > 0


def test_acknowledged_rows_go_by_age_in_time_worked_whatever_clocks_say(tmp_path: Path) -> None:
    ticks = [0]
    day = 86_400_000_000
    limit = Limit(days=9, page_rows=4)
    outbox = open_outbox(tmp_path, limit=limit, ticks_us=lambda: ticks[0])
    for n in range(1, 21):
        outbox.append([Draft(heard_at=n * 365 * day, kind=RowKind.LORAWAN, payload=b"x")], {})
        ticks[0] += day
        outbox.acknowledge(max(0, n - 2))
    assert outbox.first in range(5, 9)
    outbox.close()

    again = open_outbox(tmp_path, limit=limit, ticks_us=lambda: 0)
    again.append(drafts(21, 24), {})
    assert again.first == outbox.first, "the days that it has worked are not counted twice"


def test_rows_that_nobody_has_acknowledged_never_go_by_age(tmp_path: Path) -> None:
    ticks = [0]
    outbox = open_outbox(tmp_path, limit=Limit(days=1, page_rows=4), ticks_us=lambda: ticks[0])
    for n in range(1, 21):
        outbox.append(drafts(n, n), {})
        ticks[0] += 86_400_000_000

    assert seqs(outbox) == list(range(1, 21))


def test_a_group_larger_than_the_outbox_keeps_its_newest_row(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, limit=Limit(bytes=1))

    outbox.append(drafts(1, 50), {})

    assert seqs(outbox) == [50]


def test_what_is_gone_fits_in_one_message_however_long_it_goes_on(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, limit=Limit(rows=10, page_rows=2))
    for n in range(1, 300):
        outbox.append([some(n)], {})
        if n % 3 == 0:
            outbox.acknowledge(n - 1)

    ranges = outbox.lost_from(1)

    assert len(ranges) <= MAX_LOST_RANGES
    assert all(r.from_at <= r.first and r.last <= r.to_at for r in ranges)
    assert not set(seqs(outbox)) & {n for r in ranges for n in range(r.first, r.last + 1)}


def test_the_oldest_records_of_what_is_gone_are_joined_but_stay_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.outbox_gone.RECORDS_MAX", 5)
    outbox = open_outbox(tmp_path, limit=Limit(rows=60, page_rows=6))
    for n in range(1, 400):
        outbox.append([some(n)], {})

    assert outbox._db.execute("SELECT count(*) FROM gone").fetchone()[0] <= 6  # type: ignore[attr-defined]
    gaps = [
        seq
        for row in outbox.read(1, rows=1000, max_bytes=1 << 20)
        for gap in outbox.gaps(row.seq, [row])
        for seq in range(gap.first, gap.last + 1)
    ]
    assert sorted({*gaps, *seqs(outbox)}) == list(range(1, 400))


def test_alerts_are_found_without_what_lies_between(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, limit=Limit(page_rows=10))
    outbox.append([some(n) for n in range(1, 56)], {})

    found = outbox.alerts(10, rows=4, max_bytes=1 << 20)

    assert [row.seq for row in found] == [20, 30, 40, 50]
    assert {row.kind for row in found} == {RowKind.ANOMALY}
    assert [row.seq for row in outbox.alerts(10, rows=2, max_bytes=1 << 20)] == [20, 30]


def test_a_row_that_was_given_up_is_kept_but_not_sent(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    outbox.append(drafts(1, 5), {})

    outbox.give_up(3, "malformed")

    assert seqs(outbox) == [1, 2, 4, 5]
    assert outbox.lost_from(2) == (Lost(first=3, last=3, from_at=3, to_at=3),)
    (gap,) = outbox.gaps(1, outbox.read(1, rows=9, max_bytes=1 << 20))
    assert gap == Gap(first=3, count=1, kind=LossKind.REFUSED, from_at=3, to_at=3)
    assert outbox.held == 5


def test_the_numbers_start_anew_when_the_file_was_put_back_from_an_old_copy(
    tmp_path: Path,
) -> None:
    outbox = open_outbox(tmp_path, limit=Limit(rows=10, page_rows=2))
    outbox.append(drafts(1, 15), {"m/a": b"1"})
    outbox.acknowledge(12)
    held = seqs(outbox)

    outbox.restart_stream(OTHER, now_us=500)

    assert (outbox.stream, outbox.started_at, outbox.acked) == (OTHER, 500, 0)
    assert seqs(outbox) == list(range(1, len(held) + 1))
    assert outbox.head == len(held)
    assert [row.payload for row in outbox.read(1, rows=1, max_bytes=1)] == [b"%04d" % held[0]]
    assert outbox.lost_from(1) == ()
    assert dict(outbox.checkpoints()) == {"m/a": b"1"}


def test_a_commit_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    outbox.append(drafts(1, 2), {"m/a": b"1"})
    not_bytes: Any = {"m/a": None}

    with pytest.raises(sqlite3.IntegrityError):
        outbox.append(drafts(3, 4), not_bytes)

    assert (outbox.head, seqs(outbox)) == (2, [1, 2])
    outbox.append(drafts(3, 3), {})
    assert seqs(outbox) == [1, 2, 3]


def test_the_newest_refused_rows_are_remembered_not_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.outbox.REJECTED_KEPT", 2)
    outbox = open_outbox(tmp_path)
    outbox.append(drafts(1, 5), {})

    outbox.acknowledge(5, [(seq, "crc") for seq in range(1, 6)])

    assert outbox.rejected() == {"crc": 2}


def test_a_row_refused_ahead_of_its_turn_drops_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_agent.outbox.REJECTED_KEPT", 3)
    outbox = open_outbox(tmp_path)
    outbox.append(drafts(1, 9), {})

    outbox.acknowledge(2, [(1, "crc"), (9, "wrong_key")])

    assert outbox.rejected() == {"crc": 1, "wrong_key": 1}


def test_refused_rows_of_a_stream_that_began_anew_go_by_the_files_numbers(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    outbox.append(drafts(1, 4), {})
    outbox.acknowledge(4)
    outbox.connection.execute("DELETE FROM fresh WHERE seq <= 3")
    outbox.close()
    outbox = open_outbox(tmp_path)
    outbox.restart_stream(b"n" * 16, now_us=1)
    assert outbox.head == 1

    outbox.acknowledge(1, [(1, "crc")])

    assert list(outbox.connection.execute("SELECT seq FROM rejected")) == [(4,)]


def test_a_file_that_is_no_outbox_of_ours_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "outbox.db") as other:
        other.execute("CREATE TABLE theirs (a)")

    with pytest.raises(OutboxUnusable):
        open_outbox(tmp_path)


def test_a_disk_that_is_full_is_an_error_and_not_a_loss(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    outbox.append(drafts(1, 1), {})
    connection: Any = outbox._db
    connection.execute("PRAGMA max_page_count=20")

    noise = [random.Random(n).randbytes(1000) for n in range(100)]
    rows = [Draft(heard_at=1, kind=RowKind.REPORT, payload=payload) for payload in noise]

    with pytest.raises(sqlite3.OperationalError):
        outbox.append(rows, {})
    connection.execute("PRAGMA max_page_count=100000")
    outbox.append(drafts(2, 2), {})

    assert seqs(outbox) == [1, 2]
