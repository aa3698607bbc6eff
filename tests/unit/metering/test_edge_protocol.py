"""What is taken of a message, and what is answered: every case of decision 5."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cloud.metering.edge_protocol import loss_by_new_stream, take
from cloud.metering.model import Stream
from decoders.uplink import Gap, LossKind, Lost

STREAM = Stream(
    gateway_key=1, stream=b"s" * 16, upto=10, head=10, head_at=None, started_at=0, last_heard_at=777
)


def seqs(*numbers: int) -> np.typing.NDArray[np.int64]:
    return np.array(numbers, np.int64)


def test_rows_that_follow_are_taken() -> None:
    taking = take(stream=STREAM, seqs=seqs(11, 12, 13), lost=(), acked=10)

    assert (taking.begin, taking.end, taking.upto, taking.resend_from) == (0, 3, 13, None)


def test_a_duplicate_is_acknowledged_again_and_nothing_is_taken() -> None:
    taking = take(stream=STREAM, seqs=seqs(5, 6), lost=(), acked=4)

    assert (taking.begin, taking.end, taking.upto, taking.resend_from) == (2, 2, 10, None)


def test_of_an_overlapping_message_only_the_new_rows_are_taken() -> None:
    taking = take(stream=STREAM, seqs=seqs(9, 10, 11), lost=(), acked=8)

    assert (taking.begin, taking.end, taking.upto) == (2, 3, 11)


def test_a_gap_takes_nothing_and_asks_for_what_is_missing() -> None:
    taking = take(stream=STREAM, seqs=seqs(15, 16), lost=(), acked=10)

    assert (taking.begin, taking.end, taking.upto, taking.resend_from) == (0, 0, 10, 11)


def test_a_gap_inside_a_message_takes_the_rows_before_it() -> None:
    taking = take(stream=STREAM, seqs=seqs(11, 12, 20), lost=(), acked=10)

    assert (taking.begin, taking.end, taking.upto, taking.resend_from) == (0, 2, 12, 13)


def test_a_gap_that_is_declared_lost_is_passed_and_reported_with_its_bounds() -> None:
    lost = Lost(first=8, last=14, from_at=100, to_at=200)
    taking = take(stream=STREAM, seqs=seqs(15, 16), lost=[lost], acked=10)

    assert (taking.begin, taking.end, taking.upto, taking.resend_from) == (0, 2, 16, None)
    [loss] = taking.losses
    assert (loss.first_seq, loss.last_seq, loss.from_at, loss.to_at) == (11, 14, 100, 200)
    assert loss.certain


def test_gaps_by_kind_are_passed_and_one_loss_of_each_kind_names_every_row() -> None:
    """Rows 11, 14 and 17 came; sub-hourly and undecodable ones between them were given up."""
    gaps = [
        Gap(first=12, count=1, kind=LossKind.SUB_HOURLY, from_at=5, to_at=7),
        Gap(first=13, count=1, kind=LossKind.UNDECODABLE, from_at=5, to_at=8),
        Gap(first=15, count=2, kind=LossKind.SUB_HOURLY, from_at=6, to_at=9),
    ]

    taking = take(stream=STREAM, seqs=seqs(11, 14, 17), lost=(), gaps=gaps, acked=10)

    assert (taking.begin, taking.end, taking.upto, taking.resend_from) == (0, 3, 17, None)
    fine, bad = taking.losses
    assert (fine.kind, fine.runs, fine.rows) == ("sub_hourly", ((12, 12), (15, 16)), 3)
    assert (fine.first_seq, fine.last_seq, fine.from_at, fine.to_at) == (12, 16, 5, 9)
    assert (bad.kind, bad.runs, bad.rows) == ("undecodable", ((13, 13),), 1)


def test_gaps_below_what_is_taken_over_and_rows_that_are_there_are_no_losses() -> None:
    gaps = [
        Gap(first=8, count=5, kind=LossKind.ACKED, from_at=0, to_at=0),
        Gap(first=13, count=9, kind=LossKind.HOURLY, from_at=0, to_at=0),
    ]

    taking = take(stream=STREAM, seqs=seqs(15), lost=(), gaps=gaps, acked=10)

    assert [(loss.kind, loss.runs) for loss in taking.losses] == [
        ("acked", ((11, 12),)),
        ("hourly", ((13, 14), (16, 21))),
    ]
    assert (taking.end, taking.upto) == (1, 21)


def test_a_row_that_is_there_is_not_lost_whatever_the_gateway_says() -> None:
    lost = Lost(first=11, last=20, from_at=0, to_at=0)
    taking = take(stream=STREAM, seqs=seqs(13), lost=[lost], acked=10)

    assert taking.upto == 20
    assert [(each.first_seq, each.last_seq) for each in taking.losses] == [(11, 12), (14, 20)]
    assert (taking.begin, taking.end) == (0, 1)


def test_a_hello_alone_may_declare_losses() -> None:
    lost = Lost(first=11, last=12, from_at=0, to_at=0)
    taking = take(stream=STREAM, seqs=seqs(), lost=[lost], acked=10)

    assert (taking.upto, taking.resend_from) == (12, None)


def test_a_loss_that_was_recorded_before_is_not_one_again() -> None:
    lost = Lost(first=2, last=10, from_at=0, to_at=0)

    assert take(stream=STREAM, seqs=seqs(11), lost=[lost], acked=10).losses == ()


def test_a_restored_cloud_asks_for_what_it_has_forgotten() -> None:
    assert take(stream=STREAM, seqs=seqs(), lost=(), acked=50).resend_from == 11


def test_a_stream_marked_by_the_restore_is_asked_whatever_its_gateway_says() -> None:
    marked = replace(STREAM, resend=True)

    assert take(stream=marked, seqs=seqs(), lost=(), acked=10).resend_from == 11
    assert take(stream=marked, seqs=seqs(11), lost=(), acked=10).resend_from is None


def test_a_gateway_that_sends_again_already_is_not_asked_once_more() -> None:
    assert take(stream=STREAM, seqs=seqs(11, 12), lost=(), acked=50).resend_from is None


def test_the_first_stream_of_a_gateway_lost_nothing() -> None:
    assert loss_by_new_stream(None, stream=b"n" * 16, started_at=5) is None


def test_rows_a_gateway_told_of_and_never_sent_are_lost_for_certain() -> None:
    before = replace(STREAM, head=25)
    loss = loss_by_new_stream(before, stream=b"n" * 16, started_at=900)

    assert loss is not None
    assert (loss.first_seq, loss.last_seq, loss.certain) == (11, 25, True)
    assert (loss.stream, loss.from_at, loss.to_at) == (STREAM.stream, 777, 900)


def test_even_when_all_it_told_of_came_the_possible_loss_is_reported() -> None:
    loss = loss_by_new_stream(STREAM, stream=b"n" * 16, started_at=900)

    assert loss is not None
    assert (loss.first_seq, loss.last_seq, loss.certain) == (11, None, False)


def test_nothing_is_lost_behind_the_newest_row_that_a_gateway_has() -> None:
    gap = Gap(first=11, count=(1 << 63) - 11, kind=LossKind.MIXED, from_at=0, to_at=0)
    lost = Lost(first=11, last=(1 << 64) - 1, from_at=0, to_at=0)

    for declared in ({"gaps": [gap], "lost": ()}, {"gaps": (), "lost": [lost]}):
        taking = take(stream=STREAM, seqs=seqs(), acked=10, head=20, **declared)
        assert (taking.upto, [each.last_seq for each in taking.losses]) == (20, [20])

    whatever = take(stream=STREAM, seqs=seqs(), lost=[lost], acked=10, head=(1 << 63) - 1)
    assert whatever.upto < 1 << 62, "a column must hold the next number, too"
