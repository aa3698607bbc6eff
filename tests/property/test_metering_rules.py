"""Precedence, clocks and the edge protocol hold for every input, not for the examples alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cloud.metering import rules
from cloud.metering.clock_offsets import (
    SAMPLES_MAX,
    TRUSTED_UNCERTAINTY_US,
    Sample,
    agreed,
    estimate,
    from_shared_frames,
    remember,
    sample,
)
from cloud.metering.edge_protocol import take
from cloud.metering.model import HOUR_US, ClockSource, Readings, Stream
from decoders.uplink import Lost
from tests.heard import NOON, SECOND

instants = st.integers(-10 * HOUR_US, 10 * HOUR_US)
Heard = tuple[int, int, int, int, ClockSource]
clocks = st.sampled_from(list(ClockSource))
heard = st.tuples(
    st.integers(1, 2),  # meter
    st.integers(0, 2),  # hour
    st.integers(0, 4),  # litres
    st.integers(0, 5),  # heard_at
    clocks,
)


def columns(rows: list[Heard]) -> Readings:
    table = np.array([(m, h, v, t, int(c)) for m, h, v, t, c in rows], np.int64).reshape(-1, 5)
    return Readings(
        meter_key=table[:, 0],
        register_at=table[:, 1],
        register_l=table[:, 2],
        heard_at=table[:, 3],
        row=np.arange(len(table), dtype=np.int32),
        clock=table[:, 4].astype(np.int16),
        quality=np.zeros(len(table), np.int16),
    )


def kept(readings: Readings) -> dict[tuple[int, int], int]:
    return {
        (int(m), int(at)): int(litres)
        for m, at, litres in zip(
            readings.meter_key, readings.register_at, readings.register_l, strict=True
        )
    }


@given(st.lists(heard, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_what_is_kept_does_not_depend_on_the_order(rows: list[Heard], random: Random) -> None:
    at_once = kept(rules.one_each(columns(rows)).readings)
    random.shuffle(rows)

    one_by_one: dict[tuple[int, int], Readings] = {}
    for row in rows:
        reading, key = columns([row]), (row[0], row[1])
        stored = one_by_one.get(key)
        if stored is None or rules.replaces(stored=stored, incoming=reading)[0]:
            one_by_one[key] = reading

    assert {key: int(r.register_l[0]) for key, r in one_by_one.items()} == at_once
    assert kept(rules.one_each(columns(rows)).readings) == at_once


@given(st.lists(heard, max_size=12))
def test_one_each_is_sorted_without_repeats_and_loses_no_key(rows: list[Heard]) -> None:
    result = rules.one_each(columns(rows)).readings
    keys = list(zip(result.meter_key.tolist(), result.register_at.tolist(), strict=True))

    assert all(earlier < later for earlier, later in pairwise(keys))
    assert set(keys) == {(row[0], row[1]) for row in rows}


@given(heard, heard)
def test_no_two_readings_take_each_others_place(one: Heard, other: Heard) -> None:
    a, b = columns([one]), columns([other])

    assert not (rules.replaces(stored=a, incoming=b) & rules.replaces(stored=b, incoming=a)).any()


@given(heard, heard)
def test_an_untrusted_clock_never_takes_the_place_of_a_better_one(one: Heard, other: Heard) -> None:
    untrusted = columns([(*one[:4], ClockSource.GATEWAY_UNTRUSTED)])
    stored = columns([other])
    if other[4] != ClockSource.GATEWAY_UNTRUSTED:
        assert not rules.replaces(stored=stored, incoming=untrusted).any()


@given(
    ahead=st.integers(-(10**12), 10**12),
    there=st.integers(0, 10**9),
    age=st.integers(0, 10**10),
    back=st.integers(0, 10**9),
)
def test_an_exchange_bounds_the_true_offset(ahead: int, there: int, age: int, back: int) -> None:
    cloud_at = NOON
    heard_at = cloud_at + there
    sent = heard_at + age
    found = sample(
        sent_at=sent + ahead, received_at=sent + back, echo_cloud_at=cloud_at, echo_age_us=age
    )

    assert found is not None
    assert abs(found.offset_us - ahead) <= found.uncertainty_us


@given(st.integers(), st.integers(), st.integers(max_value=0), st.integers())
def test_without_an_echo_nothing_is_known(sent: int, got: int, echo: int, age: int) -> None:
    assert sample(sent_at=sent, received_at=got, echo_cloud_at=echo, echo_age_us=age) is None


samples = st.lists(
    st.builds(Sample, offset_us=st.integers(-(10**9), 10**9), uncertainty_us=st.integers(1, 10**9)),
    max_size=40,
)


@given(samples)
def test_memory_is_bounded_and_the_tightest_sample_speaks(many: list[Sample]) -> None:
    held: tuple[Sample, ...] = ()
    for each in many:
        held = remember(held, each)
        assert each in held
        assert len(held) <= SAMPLES_MAX
    believed = estimate(held)
    if held:
        assert believed.uncertainty_us == min(each.uncertainty_us for each in held)
        assert believed.trusted == ((believed.uncertainty_us or 0) < TRUSTED_UNCERTAINTY_US)


@given(samples, st.integers(-(10**9), 10**9))
def test_a_clock_that_was_set_is_believed_at_once(before: list[Sample], jump: int) -> None:
    held: tuple[Sample, ...] = ()
    for each in before:
        held = remember(held, each)
    after = Sample(offset_us=10**13 + jump, uncertainty_us=SECOND)

    assert estimate(remember(held, after)).offset_us == after.offset_us


@given(st.lists(st.integers(-5 * SECOND, 5 * SECOND), min_size=3, max_size=30), st.integers())
def test_shared_frames_find_the_offset_of_a_gateway(noise: list[int], ahead: int) -> None:
    reference = estimate([Sample(offset_us=0, uncertainty_us=SECOND)])
    found = from_shared_frames([ahead + each for each in noise], reference=reference)

    assert found.trusted
    assert abs((found.offset_us or 0) - ahead) <= (found.uncertainty_us or 0)


@given(samples, samples)
def test_two_answers_that_exclude_each_other_are_both_doubted(
    mine: list[Sample], theirs: list[Sample]
) -> None:
    own, shared = estimate(mine), estimate(theirs)
    believed = agreed(own, shared)
    if own.trusted and shared.trusted:
        apart = abs((own.offset_us or 0) - (shared.offset_us or 0))
        bound = (own.uncertainty_us or 0) + (shared.uncertainty_us or 0)
        assert believed.trusted == (apart <= bound)
    elif own.trusted or shared.trusted:
        assert believed.trusted


ranges = st.tuples(st.integers(1, 40), st.integers(0, 10)).map(
    lambda given: Lost(first=given[0], last=given[0] + given[1], from_at=0, to_at=0)
)


@given(
    upto=st.integers(0, 20),
    numbers=st.sets(st.integers(1, 50), max_size=20),
    lost=st.lists(ranges, max_size=4),
    acked=st.integers(0, 60),
)
def test_upto_never_passes_a_row_that_is_neither_taken_nor_lost(
    upto: int, numbers: set[int], lost: list[Lost], acked: int
) -> None:
    seqs = np.array(sorted(numbers), np.int64)
    stream = Stream(gateway_key=1, stream=b"s" * 16, upto=upto, head=0, head_at=None, started_at=0)
    taking = take(stream=stream, seqs=seqs, lost=lost, acked=acked)

    taken = set(seqs[taking.begin : taking.end].tolist())
    gone = {n for loss in taking.losses for n in range(loss.first_seq, (loss.last_seq or 0) + 1)}
    assert taken | gone == set(range(upto + 1, taking.upto + 1))
    assert not taken & gone
    left = {n for n in numbers if n > taking.upto}
    assert bool(left) <= (taking.resend_from == taking.upto + 1)
    again = take(stream=replace(stream, upto=taking.upto), seqs=seqs, lost=lost, acked=taking.upto)
    assert (again.begin, again.losses, again.upto) == (again.end, (), taking.upto)
