"""Unknown compact layouts: found by 32 check bits, believed when a second telegram agrees."""

from __future__ import annotations

import random

import pytest

from decoders.drivers.kamstrup_water import KAMSTRUP_WATER
from decoders.formats import Formats
from decoders.wmbus import search
from decoders.wmbus.compact import compacted
from decoders.wmbus.records import Record, shapes_of
from decoders.wmbus.search import LayoutSearch, candidates

BC6B = bytes.fromhex("02FF2004134413426C523B615B51678101E7FF0F06FF1B")
# Declared layouts that another order made, so that no search in this one finds them
OTHER_ORDER = {
    "04FF234413523B06FF1B426C61675167023B04138101E7FF0F",
    "02FF200413623B615B515B61675167",
}


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
    damaged = bytearray(frame_of(BC6B, seed=2))
    damaged[-1] ^= 1

    searching.offer(frame_of(BC6B, seed=1))

    assert not searching.offer(bytes(damaged))
    assert len(formats) == 0


def test_what_is_no_compact_frame_is_not_searched() -> None:
    assert not LayoutSearch(Formats()).offer(b"\x01\x02\x03\x04")


def test_only_so_many_signatures_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_PENDING", 1)
    formats = Formats()
    searching = LayoutSearch(formats)
    searching.offer(b"\x01\x02\x03\x04\x05")

    searching.offer(frame_of(BC6B, seed=1))

    assert not searching.offer(frame_of(BC6B, seed=2))
    assert len(formats) == 0
