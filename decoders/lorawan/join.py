"""Joining: the join-accept and the keys that come of it, LoRaWAN 1.0.x and 1.1.

A join-accept is encrypted with AES *decryption*, so that a device needs only the encrypting half.
Source: LoRaWAN L2 1.0.4 (TS001), 6.2; LoRaWAN 1.1, 6.1.1.3, 6.2.3.
"""

from __future__ import annotations

from decoders import aes
from decoders.errors import Malformed
from decoders.lorawan.phy import LAYER, MIC_BYTES, MType, SealedJoinAccept
from decoders.lorawan.security import Session, check_mic, session_1_0
from decoders.value import value

CF_LIST_BYTES = 16
OPT_NEG = 0x80  # DLSettings: the network speaks 1.1
JOIN_REQUEST_TYPE = 0xFF  # what a join-accept answers; 0 … 2 a rejoin of that type
_MHDR = bytes((MType.JOIN_ACCEPT << 5,))
_HEAD_BYTES = 12


@value
class JoinAccept:
    """A join-accept in clear.

    join_nonce   24 bits (AppNonce in older text)
    dl_settings  raw: OptNeg 0x80, RX1DROffset 0x70, RX2 data rate 0x0F
    rx_delay     seconds, 0 means 1
    cf_list      16 bytes of channels or channel masks, or nothing
    """

    join_nonce: int
    net_id: int
    dev_addr: int
    dl_settings: int
    rx_delay: int
    cf_list: bytes = b""

    @property
    def body(self) -> bytes:
        """The fields as sent, without MHDR and integrity code."""
        return (
            self.join_nonce.to_bytes(3, "little")
            + self.net_id.to_bytes(3, "little")
            + self.dev_addr.to_bytes(4, "little")
            + bytes((self.dl_settings, self.rx_delay))
            + self.cf_list
        )


@value
class Asked:
    """What a 1.1 join-accept answers: its integrity code covers it.

    kind       JOIN_REQUEST_TYPE or the rejoin type
    dev_nonce  DevNonce, or RJcount of a rejoin
    """

    kind: int
    join_eui: int
    dev_nonce: int

    @property
    def signed(self) -> bytes:
        nonce = self.dev_nonce.to_bytes(2, "little")
        return bytes((self.kind,)) + self.join_eui.to_bytes(8, "little") + nonce


def accept_mic(accept: JoinAccept, key: bytes, *, asked: Asked | None = None) -> bytes:
    """The integrity code of a join-accept.

    key    AppKey or NwkKey; JSIntKey where `asked` is given (1.1, OptNeg set)
    """
    before = b"" if asked is None else asked.signed
    return aes.cmac(key, before + _MHDR + accept.body)[:MIC_BYTES]


def open_accept(
    sent: SealedJoinAccept, key: bytes, *, mic_key: bytes | None = None, asked: Asked | None = None
) -> JoinAccept:
    """Decrypt a join-accept and check its integrity code.

    key      AppKey (1.0.x), NwkKey (1.1), JSEncKey (an answer to a rejoin)
    mic_key  JSIntKey where `asked` is given; else `key` serves
    Raises WrongKey, Malformed.
    """
    if len(sent.sealed) not in (16, 32):
        raise Malformed(LAYER, 1, f"a join-accept has 16 or 32 bytes, got {len(sent.sealed)}")
    clear = aes.ecb_encrypt(key, sent.sealed)
    accept = read_accept(clear[:-MIC_BYTES])
    expected = accept_mic(accept, mic_key or key, asked=asked)
    check_mic(expected, clear[-MIC_BYTES:], at=1 + len(clear) - MIC_BYTES)
    return accept


def seal_accept(
    accept: JoinAccept, key: bytes, *, mic_key: bytes | None = None, asked: Asked | None = None
) -> SealedJoinAccept:
    """Sign and encrypt a join-accept; keys as for `open_accept`."""
    assert len(accept.cf_list) in (0, CF_LIST_BYTES)
    clear = accept.body + accept_mic(accept, mic_key or key, asked=asked)
    return SealedJoinAccept(sealed=aes.ecb_decrypt(key, clear))


def read_accept(body: bytes) -> JoinAccept:
    """Read a join-accept's fields from its clear body, without MHDR and integrity code."""
    assert len(body) in (_HEAD_BYTES, _HEAD_BYTES + CF_LIST_BYTES)
    return JoinAccept(
        join_nonce=int.from_bytes(body[:3], "little"),
        net_id=int.from_bytes(body[3:6], "little"),
        dev_addr=int.from_bytes(body[6:10], "little"),
        dl_settings=body[10],
        rx_delay=body[11],
        cf_list=body[_HEAD_BYTES:],
    )


def session_of_1_0(app_key: bytes, *, join_nonce: int, net_id: int, dev_nonce: int) -> Session:
    """The session keys that a join gives in LoRaWAN 1.0.x."""
    seed = (
        join_nonce.to_bytes(3, "little")
        + net_id.to_bytes(3, "little")
        + dev_nonce.to_bytes(2, "little")
    )
    return session_1_0(nwk_s_key=_derived(app_key, 1, seed), app_s_key=_derived(app_key, 2, seed))


def session_of_1_1(
    *, nwk_key: bytes, app_key: bytes, join_nonce: int, join_eui: int, dev_nonce: int
) -> Session:
    """The session keys that a join gives in LoRaWAN 1.1 (OptNeg set)."""
    seed = (
        join_nonce.to_bytes(3, "little")
        + join_eui.to_bytes(8, "little")
        + dev_nonce.to_bytes(2, "little")
    )
    return Session(
        f_nwk_s_int_key=_derived(nwk_key, 1, seed),
        s_nwk_s_int_key=_derived(nwk_key, 3, seed),
        nwk_s_enc_key=_derived(nwk_key, 4, seed),
        app_s_key=_derived(app_key, 2, seed),
        is_1_1=True,
    )


def join_server_keys(nwk_key: bytes, *, dev_eui: int) -> tuple[bytes, bytes]:
    """(JSIntKey, JSEncKey) of a 1.1 device: they sign and seal its later join-accepts."""
    seed = dev_eui.to_bytes(8, "little")
    return _derived(nwk_key, 6, seed), _derived(nwk_key, 5, seed)


def _derived(key: bytes, kind: int, seed: bytes) -> bytes:
    return aes.ecb_encrypt(key, (bytes((kind,)) + seed).ljust(aes.BLOCK_BYTES, b"\0"))
