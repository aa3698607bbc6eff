"""Integrity codes, encryption and frame counters of LoRaWAN sessions, 1.0.x and 1.1.

Only sixteen bits of the 32-bit frame counter are sent, so whoever checks a frame says which
counter it takes it for. Keys are 16 bytes each.
Source: LoRaWAN L2 1.0.4 (TS001), 4.3.3 and 4.4; LoRaWAN 1.1, 4.3.1.6, 4.3.3, 4.4, with the
erratum on FOpts encryption (2018-01-26).
"""

from __future__ import annotations

import hmac

from decoders import aes
from decoders.errors import Malformed, WrongKey
from decoders.lorawan.phy import LAYER, MIC_BYTES, DataFrame, JoinRequest, RejoinRequest
from decoders.value import value

COUNTERS = 1 << 32
_SENT = 1 << 16
_MAC_PORT = 0


@value
class Session:
    """The keys of a joined device.

    In LoRaWAN 1.0.x the three network keys are one and the same, NwkSKey: see `session_1_0`.
    """

    f_nwk_s_int_key: bytes
    s_nwk_s_int_key: bytes
    nwk_s_enc_key: bytes
    app_s_key: bytes
    is_1_1: bool


@value
class Radio:
    """What the uplink MIC of 1.1 covers beside the frame.

    conf_f_cnt  counter of the confirmed frame that an ACK answers; counts only with ACK
    tx_dr       data rate index of the transmission
    tx_ch       channel index of the transmission
    """

    conf_f_cnt: int = 0
    tx_dr: int = 0
    tx_ch: int = 0


UNUSED_RADIO = Radio()


def session_1_0(*, nwk_s_key: bytes, app_s_key: bytes) -> Session:
    """A session of LoRaWAN 1.0.x."""
    return Session(
        f_nwk_s_int_key=nwk_s_key,
        s_nwk_s_int_key=nwk_s_key,
        nwk_s_enc_key=nwk_s_key,
        app_s_key=app_s_key,
        is_1_1=False,
    )


def full_counter(sent: int, *, last: int | None) -> int:
    """The 32-bit counter of a frame that carries `sent` (its low 16 bits).

    last  the newest counter that passed its integrity code; None when the session is new
    Counters only go up, so it is the first from `last` on (a repetition included) that ends so.

    >>> full_counter(0x0002, last=0x0001_FFFF)
    131074

    Raises Malformed when the counter would run over: the device must join anew.
    """
    assert 0 <= sent < _SENT
    counter = sent if last is None else last + ((sent - last) % _SENT)
    if counter >= COUNTERS:
        raise Malformed(LAYER, 6, "the frame counter ran over: the session is used up")
    return counter


def data_mic(
    frame: DataFrame, session: Session, *, f_cnt: int, radio: Radio = UNUSED_RADIO
) -> bytes:
    """The integrity code that `frame` must carry if its 32-bit counter is `f_cnt`."""
    confirmed = radio.conf_f_cnt % _SENT if session.is_1_1 and frame.is_ack else 0
    size = len(frame.signed)
    if not frame.is_uplink:
        block = _b_block(frame, f_cnt, size, confirmed.to_bytes(2, "little") + bytes(2))
        return aes.cmac(session.s_nwk_s_int_key, block + frame.signed)[:MIC_BYTES]
    block = _b_block(frame, f_cnt, size, bytes(4))
    by_forwarding = aes.cmac(session.f_nwk_s_int_key, block + frame.signed)
    if not session.is_1_1:
        return by_forwarding[:MIC_BYTES]
    context = confirmed.to_bytes(2, "little") + bytes((radio.tx_dr, radio.tx_ch))
    block = _b_block(frame, f_cnt, size, context)
    by_serving = aes.cmac(session.s_nwk_s_int_key, block + frame.signed)
    return by_serving[:2] + by_forwarding[:2]


def join_mic(request: JoinRequest | RejoinRequest, key: bytes) -> bytes:
    """The integrity code of a join-request or rejoin-request.

    key  join-request: AppKey (1.0.x) or NwkKey (1.1); rejoin types 0, 2: SNwkSIntKey; 1: JSIntKey
    """
    return aes.cmac(key, request.signed)[:MIC_BYTES]


def check_mic(expected: bytes, sent: bytes, *, at: int) -> None:
    """Raise WrongKey when an integrity code is not the expected one; `at` is where it stands."""
    if not hmac.compare_digest(expected, sent):
        detail = "the integrity code does not fit: another key or counter, or damaged bytes"
        raise WrongKey(LAYER, at, detail)


def open_payload(
    frame: DataFrame, session: Session, *, f_cnt: int, radio: Radio = UNUSED_RADIO
) -> bytes:
    """Check the integrity code and decrypt FRMPayload. Raises WrongKey."""
    expected = data_mic(frame, session, f_cnt=f_cnt, radio=radio)
    check_mic(expected, frame.mic, at=len(frame.signed))
    return crypt_payload(frame, session, f_cnt=f_cnt)


def crypt_payload(frame: DataFrame, session: Session, *, f_cnt: int) -> bytes:
    """FRMPayload decrypted, or encrypted: the cipher is its own inverse. Nothing is checked."""
    key = session.nwk_s_enc_key if frame.f_port == _MAC_PORT else session.app_s_key
    return crypt(
        frame.payload, key, dev_addr=frame.dev_addr, f_cnt=f_cnt, is_uplink=frame.is_uplink
    )


def crypt(payload: bytes, key: bytes, *, dev_addr: int, f_cnt: int, is_uplink: bool) -> bytes:
    """Encrypt or decrypt FRMPayload: AES-CTR whose counter is the last byte and starts at one."""
    block = b"\x01" + bytes(4) + _place(dev_addr, f_cnt, is_uplink=is_uplink) + b"\x00\x01"
    return aes.ctr(key, block, payload)


def crypt_options(
    frame: DataFrame, session: Session, *, f_cnt: int, by_application_counter: bool = False
) -> bytes:
    """FOpts decrypted or encrypted (LoRaWAN 1.1); as they are in 1.0.x.

    by_application_counter  a 1.1 downlink with a port, which counts with AFCntDown
    """
    if not session.is_1_1:
        return frame.f_opts
    counter_kind = 2 if by_application_counter else 1
    place = _place(frame.dev_addr, f_cnt, is_uplink=frame.is_uplink)
    block = b"\x01" + bytes(3) + bytes((counter_kind,)) + place + b"\x00\x01"
    return aes.ctr(session.nwk_s_enc_key, block, frame.f_opts)


def _b_block(frame: DataFrame, f_cnt: int, size: int, context: bytes) -> bytes:
    """B0 or B1: what is signed in front of the frame."""
    place = _place(frame.dev_addr, f_cnt, is_uplink=frame.is_uplink)
    return b"\x49" + context + place + bytes((0, size))


def _place(dev_addr: int, f_cnt: int, *, is_uplink: bool) -> bytes:
    """Direction, address and counter: which keystream or signature this is."""
    return (
        bytes((0 if is_uplink else 1,))
        + dev_addr.to_bytes(4, "little")
        + f_cnt.to_bytes(4, "little")
    )
