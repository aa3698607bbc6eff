"""LoRaWAN frames, codes and keys against public test suites and a real server's frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from decoders.errors import DecodeError, Malformed, Truncated, UnknownFormat, Unsupported, WrongKey
from decoders.lorawan import join, phy, security
from decoders.lorawan.phy import DataFrame, JoinRequest, RejoinRequest, SealedJoinAccept

FOLDER = Path(__file__).parents[2] / "vectors" / "lorawan"
VECTORS: list[dict[str, Any]] = [
    vector
    for name in ("mac.json", "chirpstack_frames.json")
    for vector in json.loads((FOLDER / name).read_text())["vectors"]
]


def of_kind(*kinds: str) -> list[Any]:
    return [pytest.param(v, id=v["name"]) for v in VECTORS if v["kind"] in kinds]


def parsed(vector: dict[str, Any], kind: type[Any]) -> Any:
    frame = phy.parse_phy(bytes.fromhex(vector["frame"]))
    assert isinstance(frame, kind)
    return frame


def session_of(vector: dict[str, Any]) -> security.Session:
    def key(name: str) -> bytes:
        return bytes.fromhex(vector[name])

    if "s_nwk_s_int_key" in vector:
        return security.Session(
            f_nwk_s_int_key=key("f_nwk_s_int_key"),
            s_nwk_s_int_key=key("s_nwk_s_int_key"),
            nwk_s_enc_key=key("nwk_s_enc_key"),
            app_s_key=key("app_s_key"),
            is_1_1=True,
        )
    return security.session_1_0(nwk_s_key=key("nwk_s_key"), app_s_key=key("app_s_key"))


def test_every_public_entry_and_every_recorded_session_is_here() -> None:
    recorded = [v for v in VECTORS if v["source"].startswith("recorded from ChirpStack")]

    assert len(VECTORS) - len(recorded) == 19
    assert sum(1 for v in recorded if v["kind"] == "session keys 1.0") == 14
    assert sum(1 for v in recorded if v.get("published")) == 17


@pytest.mark.parametrize("vector", [v for v in VECTORS if v.get("frame")])
def test_a_frame_is_put_together_again_from_its_fields(vector: dict[str, Any]) -> None:
    sent = bytes.fromhex(vector["frame"])

    assert phy.build_phy(phy.parse_phy(sent)) == sent


@pytest.mark.parametrize("vector", of_kind("data 1.0", "data 1.1"))
def test_a_data_frame_opens_with_its_session(vector: dict[str, Any]) -> None:
    frame = parsed(vector, DataFrame)
    radio = security.Radio(
        conf_f_cnt=vector.get("conf_fcnt", 0),
        tx_dr=vector.get("tx_dr", 0),
        tx_ch=vector.get("tx_ch", 0),
    )
    counter = vector.get("counter", 1)

    clear = security.open_payload(frame, session_of(vector), f_cnt=counter, radio=radio)

    assert clear.hex() == vector["clear"]
    assert frame.is_uplink is (vector["direction"] == "up")
    assert frame.f_cnt == counter % 65536
    if "dev_addr" in vector:
        assert f"{frame.dev_addr:08x}" == vector["dev_addr"]
    if "f_port" in vector:
        assert frame.f_port == vector["f_port"]
    if "f_opts" in vector:
        assert frame.f_opts.hex() == vector["f_opts"]


@pytest.mark.parametrize("vector", of_kind("data 1.0", "data 1.1"))
def test_every_flipped_bit_of_a_data_frame_is_refused(vector: dict[str, Any]) -> None:
    sent, session = bytes.fromhex(vector["frame"]), session_of(vector)
    radio = security.Radio(tx_dr=vector.get("tx_dr", 0), tx_ch=vector.get("tx_ch", 0))
    for bit in range(8 * len(sent)):
        flipped = bytearray(sent)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            frame = phy.parse_phy(bytes(flipped))
            if isinstance(frame, DataFrame):
                security.open_payload(frame, session, f_cnt=vector.get("counter", 1), radio=radio)
        except DecodeError:
            continue
        assert not isinstance(frame, DataFrame), f"bit {bit} was not noticed"


@pytest.mark.parametrize("vector", of_kind("data 1.0, refused"))
def test_a_frame_whose_code_does_not_fit_is_refused_with_the_place(vector: dict[str, Any]) -> None:
    frame = parsed(vector, DataFrame)

    with pytest.raises(WrongKey) as refused:
        security.open_payload(frame, session_of(vector), f_cnt=vector["counter"])

    assert refused.value.offset == len(vector["frame"]) // 2 - 4


@pytest.mark.parametrize("vector", of_kind("data 1.0, another key"))
def test_another_key_decrypts_to_other_bytes(vector: dict[str, Any]) -> None:
    frame = parsed(vector, DataFrame)
    key = bytes.fromhex(vector["app_s_key"])

    clear = security.crypt(
        frame.payload, key, dev_addr=frame.dev_addr, f_cnt=frame.f_cnt, is_uplink=True
    )

    assert clear.hex() == vector["clear"]


@pytest.mark.parametrize("vector", of_kind("payload"))
def test_a_payload_alone_is_sealed_and_opened(vector: dict[str, Any]) -> None:
    clear = security.crypt(
        bytes.fromhex(vector["sealed"]),
        bytes.fromhex(vector["app_s_key"]),
        dev_addr=int(vector["dev_addr"], 16),
        f_cnt=vector["counter"],
        is_uplink=vector["direction"] == "up",
    )

    assert clear.hex() == vector["clear"]


@pytest.mark.parametrize("vector", of_kind("join-request", "join-request, refused"))
def test_a_join_request_is_signed_with_the_root_key(vector: dict[str, Any]) -> None:
    request = parsed(vector, JoinRequest)
    code = security.join_mic(request, bytes.fromhex(vector["app_key"]))

    assert (code == request.mic) is (vector["kind"] == "join-request")
    assert f"{request.join_eui:016x}" == vector["join_eui"]
    assert f"{request.dev_eui:016x}" == vector["dev_eui"]
    assert request.dev_nonce == vector["dev_nonce"]


@pytest.mark.parametrize("vector", of_kind("rejoin-request"))
def test_a_rejoin_request_is_signed(vector: dict[str, Any]) -> None:
    request = parsed(vector, RejoinRequest)

    assert security.join_mic(request, bytes.fromhex(vector["key"])) == request.mic
    assert request.mic.hex() == vector["mic"]


@pytest.mark.parametrize("vector", of_kind("join-accept 1.0"))
def test_a_join_accept_says_what_the_network_gave(vector: dict[str, Any]) -> None:
    key = bytes.fromhex(vector["app_key"])
    if vector["frame"]:
        accept = join.open_accept(parsed(vector, SealedJoinAccept), key)
        assert join.seal_accept(accept, key).sealed.hex() == vector["frame"][2:]
    else:  # given in clear: only its integrity code can be checked
        clear = bytes.fromhex(vector["clear"])
        accept = join.read_accept(clear[1:-4])
        assert join.accept_mic(accept, key) == clear[-4:]

    assert accept.join_nonce == vector["join_nonce"]
    assert f"{accept.net_id:06x}" == vector["net_id"]
    assert f"{accept.dev_addr:08x}" == vector["dev_addr"]
    assert f"{accept.dl_settings:02x}" == vector["dl_settings"]
    assert accept.rx_delay == vector["rx_delay"]
    assert accept.cf_list.hex() == vector["cf_list"]


@pytest.mark.parametrize("vector", of_kind("session keys 1.0"))
def test_a_join_gives_the_session_keys(vector: dict[str, Any]) -> None:
    session = join.session_of_1_0(
        bytes.fromhex(vector["app_key"]),
        join_nonce=int(vector["join_nonce"], 16),
        net_id=int(vector["net_id"], 16),
        dev_nonce=int(vector["dev_nonce"], 16),
    )

    assert session.nwk_s_enc_key.hex() == vector["nwk_s_key"]
    assert session.app_s_key.hex() == vector["app_s_key"]


@pytest.mark.parametrize("vector", of_kind("join server keys 1.1"))
def test_a_join_server_has_two_keys_for_each_device(vector: dict[str, Any]) -> None:
    signing, sealing = join.join_server_keys(
        bytes.fromhex(vector["nwk_key"]), dev_eui=int(vector["dev_eui"], 16)
    )

    assert (signing.hex(), sealing.hex()) == (vector["js_int_key"], vector["js_enc_key"])


def test_a_counter_is_the_first_from_the_last_one_on_that_ends_so() -> None:
    assert security.full_counter(7, last=None) == 7
    assert security.full_counter(7, last=7) == 7  # sent again
    assert security.full_counter(20_034, last=24) == 20_034
    assert security.full_counter(65_535, last=20_034) == 65_535
    assert security.full_counter(0, last=65_535) == 65_536
    assert security.full_counter(4, last=0x0007_0005) == 0x0008_0004
    with pytest.raises(Malformed):
        security.full_counter(0, last=0xFFFF_FFFF)


def test_counters_of_a_recorded_session_are_found_from_what_was_sent() -> None:
    rolled = [v for v in VECTORS if v["name"].startswith("counter rollover")]
    last = 20_034
    for vector in rolled:
        last = security.full_counter(parsed(vector, DataFrame).f_cnt, last=last)
        assert last == vector["counter"]
    assert last == 65_536


def test_what_is_no_lorawan_frame_is_refused_with_the_reason() -> None:
    whole = bytes.fromhex("40f17dbe4900020001954378762b11ff0d")
    for refused, frame in (
        (Truncated, b""),
        (Truncated, whole[:11]),
        (Truncated, b"\x00" * 22),
        (Malformed, b"\x00" * 24),
        (Malformed, whole + bytes(256)),
        (Malformed, b"\x20" + bytes(20)),
        (UnknownFormat, b"\x41" + whole[1:]),
        (UnknownFormat, b"\xc0\x03" + bytes(17)),
        (Truncated, b"\xc0"),
        (Truncated, b"\xc0\x01" + bytes(17)),
        (Unsupported, b"\xe0" + whole[1:]),
    ):
        with pytest.raises(refused):
            phy.parse_phy(frame)


def test_a_frame_that_no_radio_can_send_is_not_built() -> None:
    frame = phy.parse_phy(bytes.fromhex("40f17dbe4900020001954378762b11ff0d"))
    assert isinstance(frame, DataFrame)
    long = DataFrame(
        mtype=frame.mtype,
        dev_addr=frame.dev_addr,
        f_ctrl=0,
        f_cnt=0,
        f_opts=b"",
        f_port=1,
        payload=bytes(243),
        mic=bytes(4),
    )

    with pytest.raises(ValueError, match="256 bytes"):
        phy.build_phy(long)
