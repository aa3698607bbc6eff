"""What must hold of OMS frames: every extended link layer, security mode and wired frame."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.decode import decode_wmbus
from decoders.encode import record, session_number
from decoders.encode_oms import Sealing, behind_ell, transport_layer, without_ell
from decoders.errors import DecodeError, WrongKey
from decoders.formats import Formats
from decoders.ids import MeterId
from decoders.reading import Integrity
from decoders.wmbus import link
from decoders.wmbus.link import Form
from decoders.wmbus.records import layout_of

keys = st.binary(min_size=16, max_size=16)
meters = st.builds(
    MeterId,
    manufacturer=st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=3, max_size=3),
    serial=st.from_regex(r"[0-9]{8}", fullmatch=True),
    version=st.integers(0, 255),
    medium=st.sampled_from((0x06, 0x07, 0x16)),
).filter(lambda meter: meter.manufacturer not in {"KAM", "KAW", "AXI", "EFE"})
litres = st.integers(0, 2**31 - 1)
bytes_ = st.integers(0, 255)
forms = st.sampled_from((Form.FORMAT_A, Form.FORMAT_B, Form.STRIPPED, Form.STRIPPED_L_KEPT))
sealings = st.one_of(
    st.just(Sealing()),
    st.builds(Sealing, mode=st.just(5), key=keys),
    st.builds(Sealing, mode=st.just(7), key=keys, message_counter=st.integers(0, 2**32 - 1)),
)
EXPECTED = {0: Integrity.NONE, 5: Integrity.FILL_2F2F, 7: Integrity.MAC}


@given(
    meter=meters,
    now_l=litres,
    then_l=litres,
    access=bytes_,
    sealing=sealings,
    long=st.booleans(),
    compact=st.booleans(),
    form=forms,
)
def test_what_a_meter_sends_is_decoded(
    *,
    meter: MeterId,
    now_l: int,
    then_l: int,
    access: int,
    sealing: Sealing,
    long: bool,
    compact: bool,
    form: Form,
) -> None:
    sent = (record("0413", now_l), record("4413", then_l), record("01FD17", 0))
    formats = Formats([layout_of(sent)])
    payload = transport_layer(
        sent, meter=meter, access_number=access, long=long, compact=compact, sealing=sealing
    )

    telegram = decode_wmbus(
        without_ell(payload, sender=meter, form=form), key=sealing.key, formats=formats
    )

    assert telegram.meter == meter
    assert telegram.register_l == now_l
    assert telegram.fields["access_counter"] == access
    assert telegram.counter == access
    if not compact and form in (Form.STRIPPED, Form.STRIPPED_L_KEPT):
        assert telegram.integrity is EXPECTED[sealing.mode]


@given(
    sender=meters,
    meter=meters,
    now_l=litres,
    ci=st.sampled_from((0x8C, 0x8D, 0x8E, 0x8F)),
    key=st.none() | keys,
    access=bytes_,
    form=forms,
)
def test_every_extended_link_layer_is_opened(
    *,
    sender: MeterId,
    meter: MeterId,
    now_l: int,
    ci: int,
    key: bytes | None,
    access: int,
    form: Form,
) -> None:
    payload = b"\x78\x04\x13" + now_l.to_bytes(4, "little")
    key = key if ci in (0x8D, 0x8F) else None
    session = session_number(session=access & 15, minutes=access, encrypted=key is not None)
    frame = behind_ell(
        payload,
        ci=ci,
        sender=sender,
        meter=meter,
        access_number=access,
        session_number=session,
        key=key,
        form=form,
    )

    telegram = decode_wmbus(frame, key=key, formats=Formats())

    assert telegram.register_l == now_l
    assert telegram.meter == (meter if ci in (0x8E, 0x8F) else sender)
    assert telegram.counter == (session if ci in (0x8D, 0x8F) else access)
    assert telegram.natural_id == str(sender)


@given(meters, litres, bytes_, st.integers(0, 250), st.sampled_from((0x08, 0x18, 0x28, 0x38)))
def test_a_wired_frame_is_decoded(
    meter: MeterId, now_l: int, access: int, address: int, control: int
) -> None:
    payload = transport_layer(
        (record("0413", now_l),), meter=meter, access_number=access, long=True
    )

    telegram = decode_wmbus(
        link.wrap_wired(payload, address=address, control=control), key=None, formats=Formats()
    )

    assert telegram.meter == meter
    assert telegram.register_l == now_l
    assert telegram.integrity is Integrity.CRC


@given(meters, keys, keys, st.integers(0, 2**32 - 1))
def test_mode_seven_refuses_every_other_key(
    meter: MeterId, key: bytes, other: bytes, counter: int
) -> None:
    sealing = Sealing(mode=7, key=key, message_counter=counter)
    payload = transport_layer((record("0413", 1),), meter=meter, access_number=0, sealing=sealing)
    frame = without_ell(payload, sender=meter)

    if key != other:
        with pytest.raises(WrongKey):
            decode_wmbus(frame, key=other, formats=Formats())


@given(meters, litres, sealings, st.data())
def test_every_truncation_is_refused(
    meter: MeterId, now_l: int, sealing: Sealing, data: st.DataObject
) -> None:
    payload = transport_layer((record("0413", now_l),), meter=meter, access_number=0, long=True)
    frame = data.draw(
        st.sampled_from((link.wrap_wired(payload, address=1), without_ell(payload, sender=meter)))
    )
    cut = data.draw(st.integers(0, len(frame) - 3))

    with pytest.raises(DecodeError):
        decode_wmbus(frame[:cut], key=sealing.key, formats=Formats())
