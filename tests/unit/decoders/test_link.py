"""One frame, whatever a receiver did to its length and checksums."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from decoders.errors import CrcMismatch, NotForUs, Truncated, UnknownFormat
from decoders.wmbus.crc import crc16
from decoders.wmbus.link import WIRELESS, Form, Frame, frames_in, wrap

LINK_FORMATS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "telegrams" / "link_formats.json").read_text()
)
VECTORS: list[dict[str, str]] = LINK_FORMATS["vectors"]
BODY = bytes.fromhex("44372c785634123a1678") + bytes(range(40))


def named(vector: dict[str, str]) -> str:
    return vector["name"]


def likeliest(received: bytes) -> Frame:
    return frames_in(received)[0]


def test_the_checksum_is_the_catalogued_one() -> None:
    assert crc16(b"123456789") == 0xC2B7


@pytest.mark.parametrize("vector", VECTORS, ids=named)
@pytest.mark.parametrize("form", ["format_a", "format_b"])
def test_a_frame_with_checksums_gives_the_bytes_of_the_stripped_one(
    vector: dict[str, str], form: str
) -> None:
    frame = likeliest(bytes.fromhex(vector[form]))

    assert frame.body == bytes.fromhex(vector["stripped"])[1:]
    assert frame.form is {"format_a": Form.FORMAT_A, "format_b": Form.FORMAT_B}[form]
    assert frame.checked


@pytest.mark.parametrize("vector", VECTORS, ids=named)
def test_the_encoder_makes_the_same_frames(vector: dict[str, str]) -> None:
    body = bytes.fromhex(vector["stripped"])[1:]

    assert wrap(body, Form.FORMAT_A).hex() == vector["format_a"]
    assert wrap(body, Form.FORMAT_B).hex() == vector["format_b"]
    assert wrap(body, Form.STRIPPED).hex() == vector["stripped"]


def test_a_frame_as_received_over_the_air_passes_its_checksum() -> None:
    frame = likeliest(bytes.fromhex(LINK_FORMATS["over_the_air"]["format_b"]))

    assert frame.form is Form.FORMAT_B
    assert frame.checked


@pytest.mark.parametrize("form", WIRELESS)
@pytest.mark.parametrize("size", [11, 26, 27, 100, 124, 125, 126, 127, 128, 200])
def test_every_form_and_length_comes_back(form: Form, size: int) -> None:
    body = (BODY * 6)[:size]

    frame = likeliest(wrap(body, form))

    assert frame.body == body
    assert frame.form is form


@pytest.mark.parametrize("form", [Form.FORMAT_A, Form.FORMAT_B, Form.STRIPPED])
@pytest.mark.parametrize("junk", [b"\x00\x00", b"\x8f\x12", b"\xff" * 5])
def test_junk_after_a_frame_is_dropped(form: Form, junk: bytes) -> None:
    frame = likeliest(wrap(BODY, form) + junk)

    assert frame.body == BODY
    assert frame.form is form


def test_a_stripped_frame_whose_end_looks_like_a_checksum_is_offered_both_ways() -> None:
    body = BODY[:-2]
    looks_checked = bytes((len(body) + 2,)) + body
    looks_checked += crc16(looks_checked).to_bytes(2, "big")

    readings = frames_in(looks_checked)

    assert [frame.form for frame in readings] == [Form.FORMAT_B, Form.STRIPPED]
    assert readings[1].body == looks_checked[1:]


def test_a_damaged_block_of_format_a_is_a_bad_checksum() -> None:
    damaged = bytearray(wrap(BODY, Form.FORMAT_A))
    damaged[20] ^= 1

    with pytest.raises(CrcMismatch) as refused:
        frames_in(bytes(damaged))

    assert refused.value.code == "crc"
    assert refused.value.layer == "link"


@pytest.mark.parametrize("size", range(12))
def test_too_few_bytes_are_truncated(size: int) -> None:
    with pytest.raises(Truncated):
        frames_in(wrap(BODY, Form.STRIPPED)[:size])


def test_a_frame_that_ends_before_its_length_is_truncated() -> None:
    with pytest.raises(Truncated):
        frames_in(wrap(BODY, Form.STRIPPED)[:-5])


def test_a_length_without_room_for_a_header_is_no_format_of_ours() -> None:
    with pytest.raises(UnknownFormat):
        frames_in(b"\x09" + BODY)


def test_what_is_spoken_to_a_meter_is_not_for_us() -> None:
    with pytest.raises(NotForUs):
        frames_in(wrap(b"\x40" + BODY[1:], Form.STRIPPED))


def test_a_wired_frame_is_an_unknown_format() -> None:
    with pytest.raises(UnknownFormat):
        frames_in(bytes.fromhex("684d4d680801729381174504") + bytes(80))
