"""The PHYPayload: what a LoRaWAN radio sends, cut into its fields and put together again.

MHDR(1) then, by its three top bits:
000  join-request    JoinEUI(8) DevEUI(8) DevNonce(2) MIC(4)
001  join-accept     sealed(16 or 32): see decoders.lorawan.join
010  … 101 data      DevAddr(4) FCtrl(1) FCnt(2) FOpts(0-15) [FPort(1) FRMPayload(n)] MIC(4)
110  rejoin-request  type(1), then NetID(3) or JoinEUI(8), DevEUI(8) RJcount(2) MIC(4)
Every number is little-endian on the air; here they are integers, so that byte order cannot be
mistaken. Nothing is decrypted here. Source: LoRaWAN L2 1.0.4 (TS001), 4 and 6; LoRaWAN 1.1, 4, 6.
"""

from __future__ import annotations

from enum import IntEnum

from decoders.errors import Malformed, Truncated, UnknownFormat, Unsupported
from decoders.value import value

LAYER = "lorawan"
MIC_BYTES = 4
MAX_PHY_BYTES = 255  # what a LoRa radio's length byte can say
MAX_FOPTS_BYTES = 15
_EUI = 8
_DATA_HEAD = 8  # MHDR, DevAddr, FCtrl, FCnt
_JOIN_REQUEST = 1 + 2 * _EUI + 2 + MIC_BYTES
_JOIN_ACCEPTS = frozenset({17, 33})  # without and with CFList
_REJOINS = {0: 19, 1: 24, 2: 19}  # rejoin type → bytes of the whole frame


class MType(IntEnum):
    """Message type, the three top bits of MHDR."""

    JOIN_REQUEST = 0
    JOIN_ACCEPT = 1
    UNCONFIRMED_UP = 2
    UNCONFIRMED_DOWN = 3
    CONFIRMED_UP = 4
    CONFIRMED_DOWN = 5
    REJOIN_REQUEST = 6
    PROPRIETARY = 7


_DATA = frozenset(
    {MType.UNCONFIRMED_UP, MType.UNCONFIRMED_DOWN, MType.CONFIRMED_UP, MType.CONFIRMED_DOWN}
)


@value
class DataFrame:
    """An uplink or downlink as sent.

    f_ctrl   raw: ADR 0x80, ADRACKReq 0x40 (up), ACK 0x20, ClassB or FPending 0x10, FOptsLen 0x0F
    f_cnt    the sixteen bits that are sent; see `decoders.lorawan.security.full_counter`
    f_opts   MAC commands; encrypted in LoRaWAN 1.1. The standard forbids them beside port 0, but
             a device did so and its server took it, so nothing is refused for that
    f_port   None: no port and no payload
    payload  FRMPayload, encrypted
    """

    mtype: MType
    dev_addr: int
    f_ctrl: int
    f_cnt: int
    f_opts: bytes
    f_port: int | None
    payload: bytes
    mic: bytes

    @property
    def is_uplink(self) -> bool:
        return self.mtype in (MType.UNCONFIRMED_UP, MType.CONFIRMED_UP)

    @property
    def is_ack(self) -> bool:
        return bool(self.f_ctrl & 0x20)

    @property
    def signed(self) -> bytes:
        """The bytes its integrity code covers."""
        body = b"" if self.f_port is None else bytes((self.f_port,)) + self.payload
        head = _mhdr(self.mtype) + self.dev_addr.to_bytes(4, "little")
        return head + bytes((self.f_ctrl,)) + self.f_cnt.to_bytes(2, "little") + self.f_opts + body


@value
class JoinRequest:
    """A device asks to join."""

    join_eui: int
    dev_eui: int
    dev_nonce: int
    mic: bytes

    @property
    def signed(self) -> bytes:
        """The bytes its integrity code covers."""
        euis = self.join_eui.to_bytes(_EUI, "little") + self.dev_eui.to_bytes(_EUI, "little")
        return _mhdr(MType.JOIN_REQUEST) + euis + self.dev_nonce.to_bytes(2, "little")


@value
class RejoinRequest:
    """A device asks to join anew (LoRaWAN 1.1).

    kind      0, 1 or 2
    home      NetID of the network (kinds 0, 2) or JoinEUI (kind 1)
    rj_count  RJcount0 or RJcount1
    """

    kind: int
    home: int
    dev_eui: int
    rj_count: int
    mic: bytes

    @property
    def signed(self) -> bytes:
        """The bytes its integrity code covers."""
        home = self.home.to_bytes(_EUI if self.kind == 1 else 3, "little")
        head = _mhdr(MType.REJOIN_REQUEST) + bytes((self.kind,)) + home
        return head + self.dev_eui.to_bytes(_EUI, "little") + self.rj_count.to_bytes(2, "little")


@value
class SealedJoinAccept:
    """A join-accept as sent: 16 or 32 encrypted bytes, its integrity code inside."""

    sealed: bytes


Phy = DataFrame | JoinRequest | RejoinRequest | SealedJoinAccept


def parse_phy(phy: bytes) -> Phy:
    """Cut a PHYPayload into fields. Raises Truncated, Malformed, UnknownFormat, Unsupported."""
    if not phy:
        raise Truncated(LAYER, 0, "no MHDR")
    if len(phy) > MAX_PHY_BYTES:
        detail = f"{len(phy)} bytes, a radio sends at most {MAX_PHY_BYTES}"
        raise Malformed(LAYER, MAX_PHY_BYTES, detail)
    mtype = MType(phy[0] >> 5)
    if mtype is MType.PROPRIETARY:
        raise Unsupported(LAYER, 0, "a proprietary frame: only its maker can read it")
    if phy[0] & 0x1F:
        detail = f"MHDR {phy[0]:02X}: its major version or reserved bits are no LoRaWAN R1"
        raise UnknownFormat(LAYER, 0, detail)
    if mtype in _DATA:
        return _data(mtype, phy)
    if mtype is MType.JOIN_REQUEST:
        return _join_request(phy)
    if mtype is MType.REJOIN_REQUEST:
        return _rejoin_request(phy)
    if len(phy) not in _JOIN_ACCEPTS:
        raise _wrong_size(phy, "a join-accept has 17 or 33 bytes", shortest=17)
    return SealedJoinAccept(sealed=phy[1:])


def build_phy(frame: Phy) -> bytes:
    """Put a PHYPayload together. Raises ValueError when it is too long to send."""
    if isinstance(frame, SealedJoinAccept):
        return _mhdr(MType.JOIN_ACCEPT) + frame.sealed
    phy = frame.signed + frame.mic
    if len(phy) > MAX_PHY_BYTES:
        raise ValueError(f"{len(phy)} bytes, a radio sends at most {MAX_PHY_BYTES}")
    return phy


def _data(mtype: MType, phy: bytes) -> DataFrame:
    options = phy[5] & MAX_FOPTS_BYTES if len(phy) > 5 else 0
    end = len(phy) - MIC_BYTES
    if end < _DATA_HEAD + options:
        needed = _DATA_HEAD + options + MIC_BYTES
        raise Truncated(LAYER, len(phy), f"a data frame like this has {needed} bytes or more")
    body = phy[_DATA_HEAD + options : end]
    return DataFrame(
        mtype=mtype,
        dev_addr=int.from_bytes(phy[1:5], "little"),
        f_ctrl=phy[5],
        f_cnt=int.from_bytes(phy[6:8], "little"),
        f_opts=phy[_DATA_HEAD : _DATA_HEAD + options],
        f_port=body[0] if body else None,
        payload=body[1:],
        mic=phy[end:],
    )


def _join_request(phy: bytes) -> JoinRequest:
    if len(phy) != _JOIN_REQUEST:
        raise _wrong_size(phy, f"a join-request has {_JOIN_REQUEST} bytes", shortest=_JOIN_REQUEST)
    return JoinRequest(
        join_eui=int.from_bytes(phy[1:9], "little"),
        dev_eui=int.from_bytes(phy[9:17], "little"),
        dev_nonce=int.from_bytes(phy[17:19], "little"),
        mic=phy[19:],
    )


def _rejoin_request(phy: bytes) -> RejoinRequest:
    if len(phy) < 2:
        raise Truncated(LAYER, len(phy), "no rejoin type")
    kind = phy[1]
    if kind not in _REJOINS:
        raise UnknownFormat(LAYER, 1, f"rejoin type {kind} is in no LoRaWAN version")
    size = _REJOINS[kind]
    if len(phy) != size:
        raise _wrong_size(phy, f"a rejoin-request of type {kind} has {size} bytes", shortest=size)
    home_end = 2 + (_EUI if kind == 1 else 3)
    return RejoinRequest(
        kind=kind,
        home=int.from_bytes(phy[2:home_end], "little"),
        dev_eui=int.from_bytes(phy[home_end : home_end + _EUI], "little"),
        rj_count=int.from_bytes(phy[home_end + _EUI : -MIC_BYTES], "little"),
        mic=phy[-MIC_BYTES:],
    )


def _wrong_size(phy: bytes, detail: str, *, shortest: int) -> Truncated | Malformed:
    """The error of a frame whose size is fixed."""
    kind = Truncated if len(phy) < shortest else Malformed
    return kind(LAYER, min(len(phy), shortest), f"{detail}, got {len(phy)}")


def _mhdr(mtype: MType) -> bytes:
    return bytes((mtype << 5,))
