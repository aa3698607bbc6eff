"""Rows ahead of their turn: taken once, passed over in order, never declared lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cloud.metering import early, edge_protocol
from cloud.metering.model import Int64s, Stream
from decoders.uplink import Gap, LossKind, Lost

STREAM = Stream(gateway_key=1, stream=bytes(16), upto=0, head=0, head_at=None, started_at=0)


def seqs(*numbers: int) -> Int64s:
    return np.array(numbers, np.int64)


def test_rows_ahead_are_taken_and_upto_stays() -> None:
    taking = edge_protocol.take_early(stream=STREAM, seqs=seqs(7, 100, 101), acked=0)

    assert (taking.rows, taking.upto, taking.took) == (3, 0, 101)
    assert taking.early == ((7, 7), (100, 101))
    assert taking.resend_from is None


def test_the_same_rows_ahead_again_are_answered_and_not_taken() -> None:
    stream = replace(STREAM, early=((7, 7), (100, 101)))

    taking = edge_protocol.take_early(stream=stream, seqs=seqs(7, 100, 101, 102), acked=0)

    assert taking.skip == {0, 1, 2}
    assert (taking.rows, taking.took) == (1, 102)
    assert taking.early == ((7, 7), (100, 102))


def test_the_numbers_a_gateway_has_used_are_those_it_told_of_or_sent() -> None:
    told = replace(STREAM, upto=5, head=20)

    assert early.seen(told) == 20
    assert early.seen(replace(told, early=((7, 9), (30, 31)))) == 31


def test_in_order_they_are_passed_over() -> None:
    stream = replace(STREAM, early=((2, 2), (4, 4), (9, 9)))

    taking = edge_protocol.take(stream=stream, seqs=seqs(1, 2, 3), lost=(), acked=0)

    assert (taking.begin, taking.end, taking.skip, taking.rows) == (0, 3, frozenset({1}), 2)
    assert taking.upto == 4
    assert taking.early == ((9, 9),)


def test_upto_goes_over_rows_that_a_batch_leaves_out_because_they_came_early() -> None:
    stream = replace(STREAM, early=((2, 3),))

    taking = edge_protocol.take(stream=stream, seqs=seqs(1, 4, 5), lost=(), acked=0)

    assert (taking.end, taking.upto, taking.resend_from) == (3, 5, None)


def test_a_declared_loss_never_covers_what_came_early() -> None:
    stream = replace(STREAM, early=((3, 4),))
    gone = Lost(first=1, last=6, from_at=0, to_at=9)

    taking = edge_protocol.take(stream=stream, seqs=seqs(7), lost=(gone,), acked=0)

    assert [(loss.first_seq, loss.last_seq) for loss in taking.losses] == [(1, 2), (5, 6)]
    assert taking.upto == 7


def test_an_exact_gap_does_not_cover_it_either() -> None:
    stream = replace(STREAM, early=((3, 4),))
    gap = Gap(first=1, count=6, kind=LossKind.HOURLY, from_at=0, to_at=9)

    taking = edge_protocol.take(stream=stream, seqs=seqs(7), lost=(), acked=0, gaps=(gap,))

    assert sum(loss.rows or 0 for loss in taking.losses) == 4
    assert taking.upto == 7


def test_after_many_alerts_there_is_still_room_for_what_is_heard_meanwhile() -> None:
    stream, taken = replace(STREAM, head=200_000), 0
    for first in range(10, 20_000, 2560):
        alerts = seqs(*range(first, first + 2560, 10))
        room = early.room_for(stream)
        taking = edge_protocol.take_early(stream=stream, seqs=alerts[:room], acked=0)
        stream, taken = replace(stream, early=taking.early), taken + taking.rows

    assert taken == early.MOST_RANGES - early.FOR_LIVE

    for first in range(100_000, 110_000, early.EARLY_ROWS):
        assert early.room_for(stream) == early.EARLY_ROWS
        live = seqs(*range(first, first + early.EARLY_ROWS))
        taking = edge_protocol.take_early(stream=stream, seqs=live, acked=0)
        assert taking.rows == early.EARLY_ROWS
        stream = replace(stream, early=taking.early)


def test_nothing_is_taken_ahead_while_too_many_ranges_are_open() -> None:
    many = tuple((3 * i, 3 * i) for i in range(1, early.MOST_RANGES + 1))
    stream = replace(STREAM, early=many)

    taking = edge_protocol.take_early(stream=stream, seqs=seqs(100_000), acked=0)

    assert early.room_for(stream) == 0
    assert (taking.rows, taking.took, taking.early) == (0, None, many)


@given(
    st.lists(st.sets(st.integers(1, 60), min_size=1, max_size=8), max_size=6),
    st.lists(st.integers(1, 20), min_size=1),
)
def test_every_row_is_taken_once_however_early_and_ordered_messages_mix(
    ahead: list[set[int]], steps: list[int]
) -> None:
    stream, taken = STREAM, list[int]()
    pending = list(ahead)
    while stream.upto < 60:
        step = steps[len(taken) % len(steps)]
        turns = [np.arange(stream.upto + 1, min(60, stream.upto + step) + 1)]
        if pending:
            turns.insert(len(taken) % 2, seqs(*sorted(pending.pop())))
        for turn, numbers in enumerate(turns):
            is_early = len(turns) == 2 and turn == len(taken) % 2
            if len(turns) == 1 or not is_early:
                taking = edge_protocol.take(stream=stream, seqs=numbers, lost=(), acked=0)
            else:
                taking = edge_protocol.take_early(stream=stream, seqs=numbers, acked=0)
            rows = [i for i in range(taking.begin, taking.end) if i not in taking.skip]
            assert len(rows) == taking.rows
            taken += numbers[rows].tolist()
            stream = replace(stream, upto=taking.upto, early=taking.early)

    assert sorted(taken) == list(range(1, 61))
    assert stream.early == ()
