"""Unknown compact layouts: found by 32 check bits, believed when a second telegram agrees."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.drivers.kamstrup_water import KAMSTRUP_WATER
from decoders.formats import Formats
from decoders.wmbus import search
from decoders.wmbus.compact import compacted
from decoders.wmbus.records import Record, shapes_of
from decoders.wmbus.search import LayoutSearch, candidates

BC6B = bytes.fromhex("02FF2004134413426C523B615B51678101E7FF0F06FF1B")
# A declared layout that another order made, so that no search in this one finds it
OTHER_ORDER = {"04FF234413523B06FF1B426C61675167023B04138101E7FF0F"}


def damaged(frame: bytes) -> bytes:
    return frame[:-1] + bytes((frame[-1] ^ 1,))


def frame_of(layout: bytes, seed: int) -> bytes:
    chance = random.Random(seed)
    return compacted(
        tuple(Record(shape, chance.randbytes(shape.size or 0), 0) for shape in shapes_of(layout))
    )


@pytest.mark.parametrize("layout", sorted(set(KAMSTRUP_WATER.layouts) - OTHER_ORDER))
def test_a_layout_in_the_usual_order_is_found(layout: str) -> None:
    assert bytes.fromhex(layout) in candidates(frame_of(bytes.fromhex(layout), seed=1))


def test_a_found_layout_is_believed_only_after_a_second_telegram_with_other_data() -> None:
    formats = Formats()
    searching = LayoutSearch(formats)
    first, second = frame_of(BC6B, seed=1), frame_of(BC6B, seed=2)

    assert not searching.offer(first)
    assert not searching.offer(first)
    assert formats.layouts(0xBC6B) == ()
    assert searching.offer(second)
    assert formats.layouts(0xBC6B) == (BC6B,)


def test_a_second_telegram_that_does_not_agree_teaches_nothing() -> None:
    formats = Formats()
    searching = LayoutSearch(formats)

    searching.offer(frame_of(BC6B, seed=1))

    assert not searching.offer(damaged(frame_of(BC6B, seed=2)))
    assert len(formats) == 0


def test_a_damaged_first_telegram_does_not_spoil_the_search() -> None:
    formats = Formats()
    searching = LayoutSearch(formats)

    offered = [damaged(frame_of(BC6B, seed=1)), frame_of(BC6B, seed=2), frame_of(BC6B, seed=3)]

    assert [searching.offer(frame) for frame in offered] == [None, None, BC6B]


def test_a_damaged_telegram_in_between_does_not_make_the_first_prove_itself() -> None:
    formats = Formats()
    searching = LayoutSearch(formats)
    first = frame_of(BC6B, seed=1)

    offered = [first, damaged(frame_of(BC6B, seed=2)), first, first]

    assert [searching.offer(frame) for frame in offered] == [None] * 4
    assert searching.offer(frame_of(BC6B, seed=3)) == BC6B


def test_a_layout_that_is_not_plausible_costs_a_few_searches_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[bytes] = []

    def nothing(encoded: bytes) -> tuple[bytes, ...]:
        searched.append(encoded)
        return ()

    monkeypatch.setattr(search, "candidates", nothing)
    searching = LayoutSearch(Formats())

    for seed in range(20):
        searching.offer(frame_of(BC6B, seed=seed))

    assert len(searched) == search.MAX_SEARCHES


def test_noting_a_telegram_leaves_the_search_for_later() -> None:
    formats = Formats()
    searching = LayoutSearch(formats)

    assert searching.note(frame_of(BC6B, seed=1)) is None
    assert searching.note(frame_of(BC6B, seed=2)) is None
    assert len(searching) == 1
    searching.search_one()

    assert len(searching) == 0
    assert searching.note(frame_of(BC6B, seed=2)) == BC6B


def test_what_is_no_compact_frame_is_not_searched() -> None:
    assert not LayoutSearch(Formats()).offer(b"\x01\x02\x03\x04")


def test_of_too_many_signatures_the_oldest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_PENDING", 1)
    formats = Formats()
    searching = LayoutSearch(formats)
    searching.note(b"\x01\x02\x03\x04\x05")

    searching.note(frame_of(BC6B, seed=1))

    assert len(searching) == 1
    searching.search_one()
    assert searching.note(frame_of(BC6B, seed=2)) == BC6B


@pytest.mark.parametrize("seed", range(30))
def test_noise_fits_no_layout(seed: int) -> None:
    chance = random.Random(seed)

    assert candidates(chance.randbytes(chance.randint(5, 60))) == ()


@given(
    rows=st.tuples(*(st.sampled_from(row) for row in (*search.FIRST_HALF, *search.SECOND_HALF))),
    seed=st.integers(0, 1 << 32),
)
def test_every_plausible_layout_is_found(rows: tuple[str, ...], seed: int) -> None:
    layout = bytes.fromhex("".join(rows))

    assert layout in candidates(frame_of(layout, seed))
