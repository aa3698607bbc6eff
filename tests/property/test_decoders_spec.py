"""The declared layouts and the fast decoders are one: each parses what the other says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.decode import decode_lorawan, decode_wmbus
from decoders.encode import encode_lorawan_hourly, record, session_number, type_f
from decoders.encode_oms import Sealing, behind_ell, transport_layer, without_ell
from decoders.errors import DecodeError
from decoders.formats import Formats
from decoders.ids import MeterId
from decoders.lorawan import axioma, phy
from decoders.spec import lorawan, records, wmbus
from decoders.wmbus.data import datetime_of
from decoders.wmbus.records import join, split

LORAWAN = Path(__file__).parents[1] / "vectors" / "lorawan"
FRAMES = [
    bytes.fromhex(vector["frame"])
    for name in ("mac.json", "chirpstack_frames.json")
    for vector in json.loads((LORAWAN / name).read_text())["vectors"]
    if vector.get("frame")
]
METER = MeterId(manufacturer="ABC", serial="12345678", version=1, medium=0x07)
bytes_ = st.integers(0, 255)


@st.composite
def encoded_records(draw: st.DrawFn) -> bytes:
    """Records as a meter could send them: any head, data of the size that the head says."""
    sent = b""
    for _ in range(draw(st.integers(1, 5))):
        field = draw(st.sampled_from((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)))
        difes = draw(st.lists(bytes_, max_size=3))
        vifes = draw(st.lists(bytes_, max_size=3))
        vif = draw(bytes_.filter(lambda code: code & 0x7F != 0x7C))
        dif = field | draw(st.integers(0, 7)) << 4
        head = chained([dif & 0x7F, *difes]) + chained([vif, *vifes])
        size = {5: 4, 6: 6, 7: 8, 8: 0, 9: 1, 10: 2, 11: 3, 12: 4, 14: 6}.get(field, field)
        if field == 13:
            length = draw(st.sampled_from((0, 3, 0xC2, 0xD3, 0xE4, 0xF0, 0xF5, 0xF6)))
            data = bytes((length,)) + bytes(records.rest_of(length))
        else:
            data = draw(st.binary(min_size=size, max_size=size))
        sent += draw(st.sampled_from((b"", b"\x2f"))) + head + data
    return sent


def chained(codes: list[int]) -> bytes:
    """Set the extension bit of all but the last."""
    return bytes([code | 0x80 for code in codes[:-1]] + [codes[-1] & 0x7F])


def number_of(head: Any) -> tuple[int, int, int]:
    """(storage, tariff, subunit) as DIF and DIFEs add up."""
    storage, tariff, subunit = head.dif.storage, 0, 0
    for place, dife in enumerate(head.difes or ()):
        storage |= dife.storage << 1 + 4 * place
        tariff |= dife.tariff << 2 * place
        subunit |= dife.subunit << place
    return storage, tariff, subunit


@given(encoded_records())
def test_records_are_the_same_to_both(sent: bytes) -> None:
    declared = records.Records.parse(sent)
    fast = split(sent, at=0)

    assert records.Records.build(declared) == sent
    assert len(declared.records) == len(fast)
    for ours, theirs in zip(fast, declared.records, strict=True):
        built = records.Head.build(theirs.head)
        data = (
            theirs.data if isinstance(theirs.data, bytes) else records.Variable.build(theirs.data)
        )
        assert ours.shape.head == built
        assert ours.data == data
        shape = ours.shape
        assert (shape.storage, shape.tariff, shape.subunit) == number_of(theirs.head)
        assert (shape.function, shape.data_field) == (
            theirs.head.dif.function,
            theirs.head.dif.field,
        )


@given(st.integers(946_684_800, 4_102_444_799))
def test_an_instant_is_the_same_to_both(seconds: int) -> None:
    local_us = seconds // 60 * 60_000_000
    moment = datetime_of(local_us)

    declared = records.TypeF.parse(type_f(local_us))

    year = 1900 + 100 * declared.century + (declared.year_high << 3 | declared.year_low)
    assert (year, declared.month, declared.day) == (moment.year, moment.month, moment.day)
    assert (declared.hour, declared.minute) == (moment.hour, moment.minute)
    assert records.TypeF.build(declared) == type_f(local_us)


@given(st.lists(st.integers(0, 60_000), min_size=1, max_size=33), st.integers(0, 10**6))
def test_a_profile_is_the_same_to_both(steps: list[int], newest: int) -> None:
    registers = [newest + sum(steps)]
    for step in steps:
        registers.append(registers[-1] - step)
    payload = encode_lorawan_hourly(registers, local_us=1_772_452_800_000_000)
    series = decode_lorawan(payload, port=1, f_cnt=0, dev_eui=0x0013EA << 40).series

    *_, last = records.Records.parse(payload[1:]).records
    profile = records.InverseProfile.parse(records.Variable.build(last.data))

    litres = [registers[0]]
    for element in profile.elements:
        litres.append(litres[-1] - int.from_bytes(element, "little"))
    assert litres == [register for _, register in series]
    assert (profile.control.mode, profile.control.unit, profile.spacing) == (1, 2, 1)


@given(
    ci=st.sampled_from((None, 0x8C, 0x8D, 0x8E, 0x8F)),
    long=st.booleans(),
    compact=st.booleans(),
    access=bytes_,
    litres=st.integers(0, 2**31 - 1),
)
def test_a_frame_is_the_same_to_both(
    *, ci: int | None, long: bool, compact: bool, access: int, litres: int
) -> None:
    sent = (record("0413", litres), record("01FD17", 0))
    payload = transport_layer(sent, meter=METER, access_number=access, long=long, compact=compact)
    frame = (
        without_ell(payload, sender=METER)
        if ci is None
        else behind_ell(
            payload,
            ci=ci,
            sender=METER,
            meter=METER,
            access_number=access,
            session_number=session_number(session=1, minutes=2, encrypted=False),
        )
    )
    layout = bytes.fromhex("041301FD17")

    declared = wmbus.Frame.parse(frame)
    telegram = decode_wmbus(frame, key=None, formats=Formats([layout]))

    assert wmbus.Frame.build(declared) == frame
    assert declared.length == len(frame) - 1
    header = declared.transport.long.rest if long else declared.transport.short
    assert header.access_number == access == telegram.fields["access_counter"]
    assert (declared.extended_link is None) is (ci is None)
    expected = b"".join(item.data for item in sent) if compact else join(sent)
    assert declared.transport.records == expected
    assert telegram.register_l == litres


@given(st.integers(0, 2**32 - 1))
def test_the_authentication_layer_is_declared(counter: int) -> None:
    sealing = Sealing(mode=7, key=bytes(16), message_counter=counter)
    payload = transport_layer((record("0413", 1),), meter=METER, access_number=1, sealing=sealing)

    declared = wmbus.Frame.parse(without_ell(payload, sender=METER))

    assert declared.authentication.message_counter == counter
    assert len(declared.authentication.code) == 8
    assert declared.transport.short.configuration.mode == 7
    assert declared.transport.short.extension == 0x10


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame.hex()[:24])
def test_a_lorawan_frame_is_the_same_to_both(frame: bytes) -> None:
    fast = phy.parse_phy(frame)
    if isinstance(fast, phy.SealedJoinAccept):
        assert lorawan.SealedAccept.parse(frame).body.sealed == fast.sealed
        return
    layout = lorawan.phy_payload(len(frame))

    declared = layout.parse(frame)

    assert layout.build(declared) == frame
    assert declared.code == fast.mic
    body = declared.signed.body
    if isinstance(fast, phy.DataFrame):
        assert (body.dev_addr, body.counter) == (fast.dev_addr, fast.f_cnt)
        assert (body.port, body.payload, body.options) == (fast.f_port, fast.payload, fast.f_opts)
    else:
        assert body.dev_eui == fast.dev_eui


@given(st.binary(min_size=50, max_size=50).map(lambda rest: b"\x01" + rest))
def test_a_packed_day_is_the_same_to_both(payload: bytes) -> None:
    declared = lorawan.PackedDay.parse(payload)
    if declared.multiplier:
        payload = payload[:-1] + bytes((payload[-1] & 0x03,))

    fast = axioma.read_packed_day(payload)

    assert list(fast.hours_l) == declared.hours_l
    assert (fast.time_us, fast.status, fast.log_l) == (
        declared.time * 1_000_000,
        declared.status,
        declared.log_l,
    )


@given(st.binary(min_size=1, max_size=40))
def test_what_the_fast_decoder_reads_the_declaration_builds_again(sent: bytes) -> None:
    try:
        fast = split(sent, at=0)
    except DecodeError:
        return
    again = join(fast)

    if b"\x7c" not in again and b"\xfc" not in again:
        assert records.Records.build(records.Records.parse(again)) == again
