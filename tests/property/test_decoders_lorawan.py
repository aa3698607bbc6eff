"""What must hold of every LoRaWAN frame."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from decoders.errors import DecodeError
from decoders.lorawan import join, phy, security
from decoders.lorawan.phy import DataFrame, JoinRequest, MType, RejoinRequest

keys = st.binary(min_size=16, max_size=16)
euis = st.integers(0, 2**64 - 1)
words = st.integers(0, 0xFFFF)
mics = st.binary(min_size=4, max_size=4)
DATA = (
    MType.UNCONFIRMED_UP,
    MType.UNCONFIRMED_DOWN,
    MType.CONFIRMED_UP,
    MType.CONFIRMED_DOWN,
)


@st.composite
def data_frames(draw: st.DrawFn) -> DataFrame:
    options = draw(st.binary(max_size=15))
    port = draw(st.none() | st.integers(0, 255))
    return DataFrame(
        mtype=draw(st.sampled_from(DATA)),
        dev_addr=draw(st.integers(0, 2**32 - 1)),
        f_ctrl=draw(st.integers(0, 15)) << 4 | len(options),
        f_cnt=draw(words),
        f_opts=options,
        f_port=port,
        payload=b"" if port is None else draw(st.binary(max_size=222)),
        mic=draw(mics),
    )


@st.composite
def sessions(draw: st.DrawFn) -> security.Session:
    if draw(st.booleans()):
        return security.session_1_0(nwk_s_key=draw(keys), app_s_key=draw(keys))
    return security.Session(
        f_nwk_s_int_key=draw(keys),
        s_nwk_s_int_key=draw(keys),
        nwk_s_enc_key=draw(keys),
        app_s_key=draw(keys),
        is_1_1=True,
    )


requests = st.builds(JoinRequest, join_eui=euis, dev_eui=euis, dev_nonce=words, mic=mics)
rejoins = st.one_of(
    st.builds(
        RejoinRequest,
        kind=st.sampled_from((0, 2)),
        home=st.integers(0, 2**24 - 1),
        dev_eui=euis,
        rj_count=words,
        mic=mics,
    ),
    st.builds(RejoinRequest, kind=st.just(1), home=euis, dev_eui=euis, rj_count=words, mic=mics),
)
accepts = st.builds(
    join.JoinAccept,
    join_nonce=st.integers(0, 2**24 - 1),
    net_id=st.integers(0, 2**24 - 1),
    dev_addr=st.integers(0, 2**32 - 1),
    dl_settings=st.integers(0, 255),
    rx_delay=st.integers(0, 255),
    cf_list=st.just(b"") | st.binary(min_size=16, max_size=16),
)
asked = st.builds(join.Asked, kind=st.sampled_from((0, 1, 2, 0xFF)), join_eui=euis, dev_nonce=words)


@given(data_frames() | requests | rejoins)
def test_what_is_built_is_parsed_to_the_same(frame: phy.Phy) -> None:
    assert phy.parse_phy(phy.build_phy(frame)) == frame


@given(st.binary(max_size=300))
def test_any_bytes_are_a_frame_or_a_decode_error(received: bytes) -> None:
    with suppress(DecodeError):
        assert phy.build_phy(phy.parse_phy(received)) == received


@given(data_frames(), sessions(), words, st.integers(0, 255), st.integers(0, 255))
def test_what_is_sealed_and_signed_is_opened(
    clear: DataFrame, session: security.Session, high: int, data_rate: int, channel: int
) -> None:
    counter = high << 16 | clear.f_cnt
    radio = security.Radio(conf_f_cnt=high, tx_dr=data_rate, tx_ch=channel)
    sealed = replace(clear, payload=security.crypt_payload(clear, session, f_cnt=counter))
    signed = replace(sealed, mic=security.data_mic(sealed, session, f_cnt=counter, radio=radio))

    assert security.open_payload(signed, session, f_cnt=counter, radio=radio) == clear.payload


@given(data_frames(), sessions(), st.booleans())
def test_options_are_encrypted_only_in_1_1_and_by_the_same_cipher(
    frame: DataFrame, session: security.Session, by_application_counter: bool
) -> None:
    def crypted(of: DataFrame) -> bytes:
        return security.crypt_options(
            of, session, f_cnt=7, by_application_counter=by_application_counter
        )

    sealed = crypted(frame)

    assert crypted(replace(frame, f_opts=sealed)) == frame.f_opts
    assert session.is_1_1 or sealed == frame.f_opts


@given(accepts, keys, st.none() | asked)
def test_a_join_accept_is_opened_to_what_was_sealed(
    accept: join.JoinAccept, key: bytes, question: join.Asked | None
) -> None:
    mic_key = None if question is None else key[::-1]
    sealed = join.seal_accept(accept, key, mic_key=mic_key, asked=question)

    assert phy.parse_phy(phy.build_phy(sealed)) == sealed
    assert join.open_accept(sealed, key, mic_key=mic_key, asked=question) == accept


@given(keys, keys, st.integers(0, 2**24 - 1), euis, words)
def test_a_1_1_session_has_four_different_keys(
    nwk_key: bytes, app_key: bytes, join_nonce: int, join_eui: int, dev_nonce: int
) -> None:
    session = join.session_of_1_1(
        nwk_key=nwk_key,
        app_key=app_key,
        join_nonce=join_nonce,
        join_eui=join_eui,
        dev_nonce=dev_nonce,
    )
    held = {session.f_nwk_s_int_key, session.s_nwk_s_int_key, session.nwk_s_enc_key}

    assert len(held | {session.app_s_key}) == 4


@given(st.integers(0, 2**32 - 2**16 - 1), st.integers(0, 2**16 - 1))
def test_a_counter_never_goes_back_and_never_jumps_further_than_it_can_be_told(
    last: int, ahead: int
) -> None:
    counter = last + ahead

    assert security.full_counter(counter & 0xFFFF, last=last) == counter
