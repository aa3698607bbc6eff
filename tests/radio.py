"""LoRaWAN meters and a packet forwarder for tests: real frames, real datagrams, no radio."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from decoders.lorawan.join import (
    JOIN_REQUEST_TYPE,
    OPT_NEG,
    Asked,
    JoinAccept,
    join_server_keys,
    seal_accept,
    session_of_1_0,
    session_of_1_1,
)
from decoders.lorawan.phy import (
    DataFrame,
    JoinRequest,
    MType,
    RejoinRequest,
    SealedJoinAccept,
    build_phy,
)
from decoders.lorawan.security import (
    UNUSED_RADIO,
    Radio,
    Session,
    crypt,
    data_mic,
    join_mic,
    session_1_0,
)
from edge_agent.keys import LorawanKeys

JOIN_EUI = 0x70B3_D549_9000_0000
NET_ID = 0x000013
GATEWAY = bytes.fromhex("0016c001f1500001")
US915_CHANNEL_11_HZ = 904_500_000


def key(number: int) -> bytes:
    """A made-up key, another for each number."""
    return number.to_bytes(16, "big")


@dataclass
class Device:
    """A meter's radio: it has a session, or joins, and counts."""

    dev_eui: int
    dev_addr: int = 0x26011F2A
    session: Session = field(
        default_factory=lambda: session_1_0(nwk_s_key=key(1), app_s_key=key(2))
    )
    app_key: bytes = field(default_factory=lambda: key(3))
    nwk_key: bytes | None = None
    dev_nonce: int = 0
    counter: int = 0

    def handed_over(self, **more: Any) -> LorawanKeys:
        """The session as a key file gives it."""
        version = "1.1" if self.session.is_1_1 else "1.0"
        more_1_1 = {
            "s_nwk_s_int_key": self.session.s_nwk_s_int_key,
            "nwk_s_enc_key": self.session.nwk_s_enc_key,
        }
        said: dict[str, Any] = {
            "dev_addr": self.dev_addr,
            "nwk_s_key": self.session.f_nwk_s_int_key,
            "app_s_key": self.session.app_s_key,
            **(more_1_1 if self.session.is_1_1 else {}),
            **more,
        }
        return LorawanKeys(dev_eui=self.dev_eui, version=version, **said)

    def roots(self) -> LorawanKeys:
        """The root keys as a key file gives them."""
        return LorawanKeys(dev_eui=self.dev_eui, app_key=self.app_key, nwk_key=self.nwk_key)

    def uplink(
        self,
        payload: bytes = b"\x01\x02\x03",
        *,
        counter: int | None = None,
        port: int | None = 4,
        f_ctrl: int = 0,
        radio: Radio = UNUSED_RADIO,
    ) -> DataFrame:
        """The next uplink, or the one of a given counter."""
        f_cnt = self.counter if counter is None else counter
        self.counter = f_cnt + 1
        secret = self.session.app_s_key if port else self.session.nwk_s_enc_key
        unsigned = DataFrame(
            mtype=MType.UNCONFIRMED_UP,
            dev_addr=self.dev_addr,
            f_ctrl=f_ctrl,
            f_cnt=f_cnt % 65_536,
            f_opts=b"",
            f_port=port,
            payload=crypt(payload, secret, dev_addr=self.dev_addr, f_cnt=f_cnt, is_uplink=True),
            mic=b"",
        )
        return _signed(unsigned, data_mic(unsigned, self.session, f_cnt=f_cnt, radio=radio))

    def confirmed_downlink(self, counter: int) -> DataFrame:
        """What the server sends and the next uplink answers."""
        unsigned = DataFrame(
            mtype=MType.CONFIRMED_DOWN,
            dev_addr=self.dev_addr,
            f_ctrl=0,
            f_cnt=counter % 65_536,
            f_opts=b"",
            f_port=10,
            payload=b"\x01",
            mic=b"",
        )
        return _signed(unsigned, data_mic(unsigned, self.session, f_cnt=counter))

    def join_request(self) -> JoinRequest:
        """Ask to join, with the next nonce."""
        self.dev_nonce += 1
        unsigned = JoinRequest(
            join_eui=JOIN_EUI, dev_eui=self.dev_eui, dev_nonce=self.dev_nonce, mic=b""
        )
        return JoinRequest(
            join_eui=JOIN_EUI,
            dev_eui=self.dev_eui,
            dev_nonce=self.dev_nonce,
            mic=join_mic(unsigned, self.nwk_key or self.app_key),
        )

    def rejoin_request(self, rj_count: int) -> RejoinRequest:
        """Ask to join anew, type 0: signed with the session's key."""
        unsigned = RejoinRequest(
            kind=0, home=NET_ID, dev_eui=self.dev_eui, rj_count=rj_count, mic=b""
        )
        return RejoinRequest(
            kind=0,
            home=NET_ID,
            dev_eui=self.dev_eui,
            rj_count=rj_count,
            mic=join_mic(unsigned, self.session.s_nwk_s_int_key),
        )

    def accepted(
        self, *, join_nonce: int, dev_addr: int, rejoin: RejoinRequest | None = None
    ) -> SealedJoinAccept:
        """The server's answer, which the device hears: it has a new session."""
        nonce = self.dev_nonce if rejoin is None else rejoin.rj_count
        accept = JoinAccept(
            join_nonce=join_nonce,
            net_id=NET_ID,
            dev_addr=dev_addr,
            dl_settings=0 if self.nwk_key is None else OPT_NEG,
            rx_delay=1,
        )
        self.dev_addr, self.counter = dev_addr, 0
        if self.nwk_key is None:
            self.session = session_of_1_0(
                self.app_key, join_nonce=join_nonce, net_id=NET_ID, dev_nonce=nonce
            )
            return seal_accept(accept, self.app_key)
        self.session = session_of_1_1(
            nwk_key=self.nwk_key,
            app_key=self.app_key,
            join_nonce=join_nonce,
            join_eui=JOIN_EUI,
            dev_nonce=nonce,
        )
        sign_key, rejoin_key = join_server_keys(self.nwk_key, dev_eui=self.dev_eui)
        kind = JOIN_REQUEST_TYPE if rejoin is None else rejoin.kind
        asked = Asked(kind=kind, join_eui=JOIN_EUI, dev_nonce=nonce)
        sealing = self.nwk_key if rejoin is None else rejoin_key
        return seal_accept(accept, sealing, mic_key=sign_key, asked=asked)


def rxpk(frame: DataFrame | JoinRequest | RejoinRequest | bytes, **changed: Any) -> dict[str, Any]:
    """A reception as a packet forwarder says it."""
    phy = frame if isinstance(frame, bytes) else build_phy(frame)
    said = {
        "tmst": 3512348611,
        "chan": 2,
        "rfch": 0,
        "freq": US915_CHANNEL_11_HZ / 1e6,
        "stat": 1,
        "modu": "LORA",
        "datr": "SF7BW125",
        "codr": "4/5",
        "rssi": -97,
        "lsnr": 5.5,
        "size": len(phy),
        "data": base64.b64encode(phy).decode(),
        **changed,
    }
    return {name: given for name, given in said.items() if given is not ...}


def push_data(*receptions: dict[str, Any], token: int = 1, gateway: bytes = GATEWAY) -> bytes:
    """A PUSH_DATA datagram."""
    head = b"\x02" + token.to_bytes(2, "big") + b"\x00" + gateway
    return head + json.dumps({"rxpk": list(receptions)}).encode()


def pull_resp(frame: DataFrame | SealedJoinAccept, *, token: int = 1) -> bytes:
    """A PULL_RESP datagram."""
    phy = build_phy(frame)
    packet = {"imme": False, "tmst": 1, "size": len(phy), "data": base64.b64encode(phy).decode()}
    return b"\x02" + token.to_bytes(2, "big") + b"\x03" + json.dumps({"txpk": packet}).encode()


def _signed(frame: DataFrame, mic: bytes) -> DataFrame:
    return DataFrame(
        mtype=frame.mtype,
        dev_addr=frame.dev_addr,
        f_ctrl=frame.f_ctrl,
        f_cnt=frame.f_cnt,
        f_opts=frame.f_opts,
        f_port=frame.f_port,
        payload=frame.payload,
        mic=mic,
    )
