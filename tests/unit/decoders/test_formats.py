"""Compact layouts: taught, bounded, and told apart when they share a signature."""

from __future__ import annotations

import pytest

from decoders.drivers.registry import known_formats
from decoders.encode import record
from decoders.errors import CrcMismatch, DecodeError, Malformed, Truncated
from decoders.formats import MAX_LAYOUTS_PER_SIGNATURE, Formats, signature_of
from decoders.wmbus.compact import compacted, expand

LAYOUT = bytes.fromhex("02FF2004134413615B6167")
RECORDS = (
    record("02FF20", 0),
    record("0413", 3871),
    record("4413", 0),
    record("615B", 12),
    record("6167", 20),
)


class Colliding(Formats):
    """A store in which two layouts have one signature, as one pair in 65,536 does."""

    def layouts(self, signature: int) -> tuple[bytes, ...]:
        return (bytes.fromhex("04FF23041302FF20615B"), LAYOUT)


def test_every_public_signature_is_known() -> None:
    signatures = {signature_of(layout) for layout in known_formats()}

    assert signatures == {
        *(0xA8ED, 0xC412, 0x0905, 0x36D4, 0x61EB, 0xD2F7),
        *(0xDD34, 0x7C0E, 0xA9F3, 0xDD07, 0x7F32, 0xBC6B),
        0x052D,  # Engelmann FAW
    }


def test_a_layout_is_learned_once() -> None:
    formats = Formats()

    assert formats.learn(LAYOUT)
    assert not formats.learn(LAYOUT)
    assert formats.layouts(0xA8ED) == (LAYOUT,)
    assert len(formats) == 1
    assert list(formats) == [LAYOUT]


@pytest.mark.parametrize("nonsense", [b"", b"\x04", b"\x0f\x13", b"\x84\x84"])
def test_what_is_no_layout_is_not_learned(nonsense: bytes) -> None:
    assert not Formats().learn(nonsense)


def test_a_store_does_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decoders.formats.MAX_LAYOUTS", 2)
    formats = Formats()

    learned = [formats.learn(bytes((0x04, vif))) for vif in range(5)]

    assert learned == [True, True, False, False, False]
    assert MAX_LAYOUTS_PER_SIGNATURE == 4


def test_the_full_frames_checksum_picks_between_layouts_of_one_signature() -> None:
    expanded = expand(compacted(RECORDS), Colliding(), at=0, vouched=False)

    assert [r.shape.head for r in expanded.records] == [r.shape.head for r in RECORDS]
    assert expanded.full_crc_fits


def test_a_rebuilt_frame_that_differs_is_refused_unless_a_lower_layer_vouches() -> None:
    formats = Formats([LAYOUT])
    encoded = bytearray(compacted(RECORDS))
    encoded[2] ^= 1

    with pytest.raises(CrcMismatch):
        expand(bytes(encoded), formats, at=0, vouched=False)
    assert not expand(bytes(encoded), formats, at=0, vouched=True).full_crc_fits


def test_two_layouts_that_both_only_nearly_fit_are_refused() -> None:
    encoded = bytearray(compacted(RECORDS))
    encoded[2] ^= 1

    class Twice(Formats):
        def layouts(self, signature: int) -> tuple[bytes, ...]:
            return (LAYOUT, LAYOUT)

    with pytest.raises(CrcMismatch):
        expand(bytes(encoded), Twice(), at=0, vouched=True)


def test_a_compact_frame_of_the_wrong_size_is_refused() -> None:
    formats = Formats([LAYOUT])
    encoded = compacted(RECORDS)
    wrong: dict[bytes, type[DecodeError]] = {
        encoded[:3]: Truncated,
        encoded[:-1]: Truncated,
        encoded + b"\x01": Malformed,
    }

    for sent, error in wrong.items():
        with pytest.raises(error):
            expand(sent, formats, at=0, vouched=True)
