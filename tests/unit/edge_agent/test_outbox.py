"""The outbox on its own: numbers, limits, what is gone and what is declared."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from decoders.uplink import MAX_LOST_RANGES, Lost, RowFlag, RowKind
from edge_agent.outbox import ROW_OVERHEAD_BYTES, Draft, Limit, Outbox, OutboxUnusable, Shed

STREAM, OTHER = b"s" * 16, b"t" * 16
ROW_BYTES = ROW_OVERHEAD_BYTES + 4


def open_outbox(path: Path, **given: Any) -> Outbox:
    return Outbox(path / "outbox.db", new_stream=lambda: STREAM, now_us=99, **given)


def drafts(first: int, last: int) -> list[Draft]:
    """Rows whose heard_at and payload are their own number."""
    return [
        Draft(heard_at=n, kind=RowKind.WMBUS, payload=b"%04d" % n) for n in range(first, last + 1)
    ]


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
    assert (again.head, again.acked, again.size) == (5, 3, 5 * ROW_BYTES)
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
    outbox = open_outbox(tmp_path, limit=Limit(rows=100))
    outbox.append(drafts(1, 100), {})
    outbox.acknowledge(100)
    assert seqs(outbox)[0] == 1

    shed = outbox.append(drafts(101, 110), {})

    assert shed is None, "nothing that was not acknowledged had to go"
    assert seqs(outbox) == list(range(outbox.first, 111))
    assert 11 <= outbox.first <= 13
    assert outbox.lost_from(111) == ()
    assert outbox.lost_from(5) == (
        Lost(first=5, last=outbox.first - 1, from_at=1, to_at=outbox.first - 1),
    )


def test_a_full_outbox_sheds_the_oldest_and_declares_them(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, limit=Limit(bytes=100 * ROW_BYTES))
    outbox.append(drafts(1, 100), {})
    outbox.acknowledge(3)

    shed = outbox.append(drafts(101, 120), {})

    gone = outbox.first - 1
    assert shed == Shed(rows=gone - 3, from_at=4, to_at=gone)
    assert outbox.size == outbox.held * ROW_BYTES <= 100 * ROW_BYTES
    assert outbox.lost_from(4) == (Lost(first=4, last=gone, from_at=4, to_at=gone),)


def test_a_group_larger_than_the_outbox_keeps_its_newest_row(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, limit=Limit(bytes=1))

    outbox.append(drafts(1, 50), {})

    assert seqs(outbox) == [50]


def test_what_is_gone_fits_in_one_message_however_long_it_goes_on(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path, limit=Limit(rows=10))
    for n in range(1, 300):
        outbox.append(drafts(n, n), {})
        if n % 3 == 0:
            outbox.acknowledge(n - 1)

    ranges = outbox.lost_from(1)

    assert len(ranges) <= MAX_LOST_RANGES
    assert [r.first for r in ranges] == [1, *(r.last + 1 for r in ranges[:-1])]
    assert ranges[-1].last == outbox.first - 1
    assert all(r.from_at <= r.first and r.last <= r.to_at for r in ranges)


def test_a_row_that_was_given_up_is_kept_but_not_sent(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    outbox.append(drafts(1, 5), {})

    outbox.give_up(3, "malformed")

    assert seqs(outbox) == [1, 2, 4, 5]
    assert outbox.lost_from(2) == (Lost(first=3, last=3, from_at=3, to_at=3),)
    assert outbox.held == 5


def test_the_numbers_start_anew_when_the_file_was_put_back_from_an_old_copy(
    tmp_path: Path,
) -> None:
    outbox = open_outbox(tmp_path, limit=Limit(rows=10))
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


def test_a_file_that_is_no_outbox_of_ours_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "outbox.db") as other:
        other.execute("CREATE TABLE theirs (a)")

    with pytest.raises(OutboxUnusable):
        open_outbox(tmp_path)


def test_a_disk_that_is_full_is_an_error_and_not_a_loss(tmp_path: Path) -> None:
    outbox = open_outbox(tmp_path)
    outbox.append(drafts(1, 1), {})
    connection: Any = outbox._db
    connection.execute("PRAGMA max_page_count=12")

    with pytest.raises(sqlite3.OperationalError):
        outbox.append([Draft(heard_at=1, kind=RowKind.REPORT, payload=bytes(100_000))], {})
    connection.execute("PRAGMA max_page_count=100000")
    outbox.append(drafts(2, 2), {})

    assert seqs(outbox) == [1, 2]
