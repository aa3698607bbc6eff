"""Damaged, foreign and incomplete bytes: each refused, each for its own reason."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from decoders.decode import decode_lorawan, decode_wmbus
from decoders.drivers.registry import known_formats
from decoders.encode import (
    encode_lorawan_daily,
    encode_lorawan_hourly,
    encode_wmbus,
    kamstrup_multical_records,
    session_number,
)
from decoders.errors import DecodeError
from decoders.formats import Formats
from decoders.ids import MeterId
from decoders.wmbus.link import Form, frames_in, wrap

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "telegrams" / "kamstrup_water.json").read_text()
)["vectors"]
ENCRYPTED = [vector for vector in VECTORS if vector["key"]]
METER = MeterId(manufacturer="KAM", serial="76348799", version=0x1B, medium=0x16)
KEY = bytes(range(16))
NOON_US = 1_772_366_400_000_000
# Bytes of the link layer and the ELL that no checksum covers once a receiver stripped the link's:
# L, the C field, the two bits of CC that repeaters change, and the access number.
UNCOVERED = {0: 0xFF, 1: 0xFF, 11: 0x12, 12: 0xFF}


def named(vector: dict[str, Any]) -> str:
    return str(vector["name"])


def code_of(frame: bytes, key: bytes | None, formats: Formats | None = None) -> str | None:
    """The code a frame is refused with; None when it is accepted."""
    try:
        decode_wmbus(frame, key=key, formats=known_formats() if formats is None else formats)
    except DecodeError as error:
        return error.code
    return None


def made(*, form: Form = Form.FORMAT_B, compact: bool = False, key: bytes | None = KEY) -> bytes:
    return encode_wmbus(
        kamstrup_multical_records(total_l=6408, target_l=6000, water_c=12, ambient_c=19),
        meter=METER,
        session_number=session_number(session=1, minutes=9, encrypted=key is not None),
        access_number=3,
        key=key,
        compact=compact,
        form=form,
    )


def flips(frame: bytes, *, but: dict[int, int] | None = None) -> list[bytes]:
    """The frame with each single bit flipped, except bits in `but` (byte → mask)."""
    flipped = []
    for place in range(len(frame)):
        for bit in range(8):
            if but is None or not but.get(place, 0) >> bit & 1:
                damaged = bytearray(frame)
                damaged[place] ^= 1 << bit
                flipped.append(bytes(damaged))
    return flipped


@pytest.mark.parametrize("vector", ENCRYPTED, ids=named)
def test_every_bit_flip_that_a_checksum_covers_is_refused(vector: dict[str, Any]) -> None:
    key, frame = bytes.fromhex(vector["key"]), bytes.fromhex(vector["frame"])

    accepted = [bad.hex() for bad in flips(frame, but=UNCOVERED) if code_of(bad, key) is None]

    assert not accepted


@pytest.mark.parametrize("form", [Form.FORMAT_A, Form.FORMAT_B])
@pytest.mark.parametrize("vector", ENCRYPTED, ids=named)
def test_with_the_link_checksums_there_every_single_bit_flip_is_refused(
    vector: dict[str, Any], form: Form
) -> None:
    key, body = bytes.fromhex(vector["key"]), bytes.fromhex(vector["frame"])[1:]
    # An L of two less makes format B's checksum look like the junk that some receivers append:
    # the frame is then read as a stripped one, with the same bytes.
    but = {0: 0x02} if form is Form.FORMAT_B else None

    accepted = [bad.hex() for bad in flips(wrap(body, form), but=but) if code_of(bad, key) is None]

    assert not accepted


@pytest.mark.parametrize("vector", ENCRYPTED, ids=named)
def test_every_truncation_is_refused(vector: dict[str, Any]) -> None:
    key, frame = bytes.fromhex(vector["key"]), bytes.fromhex(vector["frame"])

    codes = Counter(code_of(frame[:size], key) for size in range(len(frame)))

    assert None not in codes
    assert codes["truncated"] >= len(frame) - 5


@pytest.mark.parametrize("form", [Form.FORMAT_A, Form.FORMAT_B])
def test_a_frame_cut_short_is_refused_unless_only_its_checksum_is_gone(form: Form) -> None:
    frame = made(form=form)

    accepted = [cut for cut in range(1, len(frame)) if code_of(frame[:-cut], KEY) is None]

    assert accepted == ([2] if form is Form.FORMAT_B else [])


@pytest.mark.parametrize("header", [None, 7])
def test_every_truncation_of_a_lorawan_payload_is_refused_or_ends_between_records(
    header: int | None,
) -> None:
    payloads = (
        encode_lorawan_hourly(range(900, 0, -20), local_us=NOON_US, access_number=header),
        encode_lorawan_daily(5, local_us=NOON_US, access_number=header),
    )
    for payload in payloads:
        whole = decode_lorawan(payload, port=1, f_cnt=1, dev_eui=1)
        between = {record.at for record in whole.records}
        for size in range(len(payload)):
            if size in between:
                continue
            with pytest.raises(DecodeError):
                decode_lorawan(payload[:size], port=1, f_cnt=1, dev_eui=1)


def test_a_wrong_key_is_not_a_bad_checksum() -> None:
    assert code_of(made(), bytes(16)) == "wrong_key"
    assert code_of(made(form=Form.STRIPPED), bytes(16)) == "wrong_key"


def test_a_right_key_with_a_damaged_format_b_checksum_is_a_bad_checksum() -> None:
    frame = bytearray(made())
    frame[-1] ^= 0x40

    assert code_of(bytes(frame), KEY) == "crc"


def test_a_payload_in_clear_that_is_damaged_is_a_bad_checksum() -> None:
    frame = bytearray(made(key=None, form=Form.STRIPPED))
    frame[-3] ^= 1

    assert code_of(bytes(frame), None) == "crc"


def test_an_encrypted_frame_without_a_key_says_so() -> None:
    assert code_of(made(), None) == "key_missing"


def test_already_decrypted_is_a_choice_and_never_a_guess() -> None:
    kept = bytes.fromhex(next(v["frame"] for v in VECTORS if v["kept_decrypted"]))
    formats = known_formats()

    telegram = decode_wmbus(kept, key=None, formats=formats, already_decrypted=True)

    assert telegram.register_l == 3871
    assert code_of(kept, None) == "key_missing"
    assert code_of(kept, KEY) == "wrong_key"


def test_a_compact_frame_of_a_layout_nobody_taught_says_which() -> None:
    frame = made(compact=True)

    with pytest.raises(DecodeError, match="A8ED") as refused:
        decode_wmbus(frame, key=KEY, formats=Formats())

    assert refused.value.code == "unknown_signature"
    assert refused.value.layer == "compact"


def test_a_full_frame_teaches_the_layout_of_its_compact_ones() -> None:
    formats = Formats()
    taught = decode_wmbus(made(), key=KEY, formats=formats)

    assert formats.learn(taught.layout)

    assert decode_wmbus(made(compact=True), key=KEY, formats=formats).register_l == 6408


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"", "truncated"),
        (b"\xff" * 40, "unknown_format"),
        (bytes(40), "unknown_format"),
        (bytes.fromhex("684d4d680801729381174504") + bytes(80), "unknown_format"),
        (bytes.fromhex("684d4d6808017293811745042e2c01") + bytes(66) + b"\x00\x16", "crc"),
        (bytes.fromhex("684d4d68080172938117450400"), "truncated"),
        (bytes.fromhex("6808086808017804130000009816"), "unsupported"),
        (bytes.fromhex("680808685b01780413000000eb16"), "not_for_us"),
        (wrap(b"\x44" + METER.to_wire() + b"\xa0\x01\x02", Form.STRIPPED), "unknown_format"),
        (wrap(b"\x40" + METER.to_wire() + b"\x78\x04\x13", Form.STRIPPED), "not_for_us"),
        (wrap(b"\x44" + METER.to_wire() + b"\x78\x04\x13\x01", Form.STRIPPED), "truncated"),
        (wrap(b"\x44" + METER.to_wire() + b"\x78\x3f\x13\x01", Form.STRIPPED), "malformed"),
        (wrap(b"\x44" + METER.to_wire() + b"\x7a\x01\x00\x00\x08", Form.STRIPPED), "unsupported"),
        (wrap(b"\x44" + METER.to_wire() + b"\x7a\x01\x00\x00\x07", Form.STRIPPED), "truncated"),
        (
            wrap(
                b"\x44" + METER.to_wire() + b"\x7a\x01\x00\x10\x07\x10" + bytes(16), Form.STRIPPED
            ),
            "unsupported",
        ),
        (wrap(b"\x44" + METER.to_wire() + b"\x7a\x01\x00", Form.STRIPPED), "truncated"),
        (wrap(b"\x44" + METER.to_wire() + b"\x8d\x20\x01\x00", Form.STRIPPED), "truncated"),
        (
            wrap(
                b"\x44" + METER.to_wire() + bytes.fromhex("8d2001000000601234781122"), Form.STRIPPED
            ),
            "unsupported",
        ),
    ],
)
def test_bytes_that_are_no_telegram_have_a_code(frame: bytes, code: str) -> None:
    assert code_of(frame, KEY) == code


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ("", "truncated"),
        ("00", "unknown_format"),
        ("7a0800000744130300", "unsupported"),
        ("7a08000005", "unsupported"),
        ("7a08001005" + "00" * 16, "unsupported"),
        ("7978563412", "unsupported"),
        ("78446d0033", "truncated"),
        ("78446d003318374413030000004d931303200100", "malformed"),
        ("78446d003318374413030000004d93130361fb00", "malformed"),
        ("78446d003318374413030000004d9313036f0100", "malformed"),
        ("78446d003318374413030000004d931302", "truncated"),
        ("78" + "2f" * 300, "unsupported"),
        # published by Kamstrup as one that must fail: a profile without its base value
        ("78446d003318374d931322610100000003" + "00" * 28, "malformed"),
    ],
)
def test_a_lorawan_payload_that_is_none_of_ours_has_a_code(payload: str, code: str) -> None:
    with pytest.raises(DecodeError) as refused:
        decode_lorawan(bytes.fromhex(payload), port=1, f_cnt=1, dev_eui=0x0013EA << 40)

    assert refused.value.code == code


def test_an_error_names_layer_byte_and_reason() -> None:
    with pytest.raises(DecodeError) as refused:
        frames_in(b"\x10\x44")

    assert str(refused.value) == (
        "truncated in link at byte 2: 2 bytes hold no header and CI field"
    )


def test_an_error_survives_a_process_boundary() -> None:
    import pickle

    with pytest.raises(DecodeError) as refused:
        decode_wmbus(made(compact=True), key=KEY, formats=Formats())

    copied = pickle.loads(pickle.dumps(refused.value))

    assert str(copied) == str(refused.value)
    assert type(copied) is type(refused.value)


def test_every_refusal_says_what_to_do() -> None:
    refusals = DecodeError.__subclasses__()

    assert len({refusal.advice for refusal in refusals}) == len(refusals)
