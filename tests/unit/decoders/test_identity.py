"""Who sent a frame, and the name that every reception of it shares."""

from __future__ import annotations

import pytest

from decoders.decode import claimed_sender, decode_lorawan, decode_wmbus
from decoders.drivers.registry import known_formats
from decoders.encode import (
    encode_lorawan_hourly,
    encode_wmbus,
    kamstrup_flowiq_records,
    session_number,
)
from decoders.identity import KIND_LORAWAN, KIND_WMBUS, frame_hash, hash_of
from decoders.ids import MeterId, dev_eui_text, manufacturer_code, manufacturer_letters
from decoders.wmbus.link import WIRELESS, Form

METER = MeterId(manufacturer="KAW", serial="53885758", version=0x3C, medium=0x16)
KEY = bytes(range(16))


def made(*, minutes: int = 1, form: Form = Form.FORMAT_B) -> bytes:
    return encode_wmbus(
        kamstrup_flowiq_records(total_l=1),
        meter=METER,
        session_number=session_number(session=0, minutes=minutes, encrypted=True),
        access_number=1,
        key=KEY,
        form=form,
    )


def name_of(frame: bytes) -> bytes:
    return hash_of(decode_wmbus(frame, key=KEY, formats=known_formats()))


def test_an_identity_reads_as_printed_on_the_meter() -> None:
    wire = bytes.fromhex("372c5857885353" + "16")

    assert str(MeterId.from_wire(METER.to_wire())) == "KAW-53885758"
    assert METER.to_wire() == bytes.fromhex("372c585788533c16")
    assert MeterId.from_wire(wire).version == 0x53


@pytest.mark.parametrize(("letters", "code"), [("KAM", 0x2C2D), ("KAW", 0x2C37), ("AXI", 0x0709)])
def test_makers_have_three_letters_in_two_bytes(letters: str, code: int) -> None:
    assert manufacturer_code(letters) == code
    assert manufacturer_letters(code) == letters
    assert manufacturer_letters(code | 0x8000) == letters


def test_a_device_is_named_by_its_eui_in_capitals() -> None:
    assert dev_eui_text(0x0013EA0001020304) == "0013EA0001020304"


def test_one_frame_has_one_name_however_it_was_received() -> None:
    names = {name_of(made(form=form)) for form in WIRELESS}
    names.add(name_of(made() + b"\x00\x00"))

    assert len(names) == 1


def test_another_frame_has_another_name() -> None:
    assert name_of(made(minutes=1)) != name_of(made(minutes=2))


def test_the_name_needs_no_key() -> None:
    telegram = decode_wmbus(made(), key=KEY, formats=known_formats())

    assert telegram.checked == made(form=Form.STRIPPED)[1:]


def test_a_payload_is_named_by_device_counter_and_bytes() -> None:
    payload = encode_lorawan_hourly([5, 4, 3], local_us=1_772_366_400_000_000)
    telegram = decode_lorawan(payload, port=4, f_cnt=70_000, dev_eui=0x0013EA0001020304)

    assert hash_of(telegram) == frame_hash(
        KIND_LORAWAN, bytes.fromhex("0013EA0001020304"), 70_000, payload
    )
    others = {
        frame_hash(KIND_WMBUS, bytes(8), 1, b""),
        frame_hash(KIND_LORAWAN, bytes(8), 1, b""),
        frame_hash(KIND_LORAWAN, bytes(8), 2, b""),
        frame_hash(KIND_LORAWAN, bytes(7) + b"\x01", 1, b""),
        frame_hash(KIND_LORAWAN, bytes(8), 1, b"\x00"),
    }
    assert len(others) == 5


def test_the_sender_is_known_before_anything_is_decrypted() -> None:
    for form in WIRELESS:
        assert claimed_sender(made(form=form)) == METER
    assert claimed_sender(b"\x44") is None
