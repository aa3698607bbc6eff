"""GWMP datagrams: as the specification shows them, and as they may come."""

from __future__ import annotations

import json
from typing import Any

import pytest

from decoders.uplink import NO_RSSI, NO_SNR
from edge_agent.lorawan_regions import radios
from edge_agent.sources.gwmp import BadDatagram, Identifier, downlink, identifier, pushed
from edge_agent.sources.gwmp_relay import Endpoint, endpoint_at
from tests.radio import GATEWAY, Device, pull_resp, push_data, rxpk

FRAME = bytes.fromhex("40f17dbe4900020001954378762b11ff0d")


def push(text: str) -> bytes:
    return b"\x02\x00\x01\x00" + GATEWAY + text.encode()


def test_the_specifications_own_example_is_read_though_its_base64_is_of_two_kinds() -> None:
    example = (
        '{"rxpk":[{"time":"2013-03-31T16:21:17.528002Z","tmst":3512348611,"chan":2,"rfch":0,'
        '"freq":866.349812,"stat":1,"modu":"LORA","datr":"SF7BW125","codr":"4/6","rssi":-35,'
        '"lsnr":5.1,"size":32,"data":"-DS4CGaDCdG+48eJNM3Vai-zDpsR71Pn9CPA9uCON84"},'
        '{"time":"2013-03-31T16:21:17.530974Z","tmst":3512348514,"chan":9,"rfch":1,"freq":869.1,'
        '"stat":1,"modu":"FSK","datr":50000,"rssi":-75,"size":16,'
        '"data":"VEVTVF9QQUNLRVRfMTIzNA=="}]}'
    )

    lora, fsk = pushed(push(example)).receptions

    assert len(lora.phy) == 32
    assert lora.phy.hex().startswith("f834b8086683")
    assert (lora.rssi, lora.snr, lora.datr, lora.freq_hz) == (-35, 20, "SF7BW125", 866_349_812)
    assert fsk.phy == b"TEST_PACKET_1234"
    assert (fsk.rssi, fsk.snr, fsk.datr) == (-75, NO_SNR, "")


def test_every_reception_of_a_datagram_is_read_and_a_bad_one_is_counted() -> None:
    brought = pushed(
        push_data(
            rxpk(FRAME), rxpk(FRAME + b"\x01", data="?"), rxpk(FRAME[::-1]), rxpk(b"\x80", data=7)
        )
    )

    assert [reception.phy for reception in brought.receptions] == [FRAME, FRAME[::-1]]
    assert brought.unreadable == 2


def test_a_frame_heard_on_two_channels_counts_once_with_its_better_level() -> None:
    brought = pushed(
        push_data(rxpk(FRAME, rssi=-110, lsnr=-9), rxpk(b"\x01"), rxpk(FRAME, rssi=-80, lsnr=9))
    )

    assert [(r.phy, r.rssi) for r in brought.receptions] == [(FRAME, -80), (b"\x01", -97)]


def test_of_several_antennas_the_one_that_heard_best_gives_the_level() -> None:
    antennas = [
        {"ant": 0, "chan": 7, "rssic": -113, "lsnr": -7.5},
        {"ant": 1, "chan": 23, "rssic": -108, "rssis": -109, "lsnr": 3.25},
        "?",
    ]
    (reception,) = pushed(push_data(rxpk(FRAME, rssi=..., lsnr=..., rsig=antennas))).receptions

    assert (reception.rssi, reception.snr) == (-108, 13)


@pytest.mark.parametrize(
    ("said", "level"),
    [
        ({"rssi": ..., "lsnr": ...}, (NO_RSSI, NO_SNR)),
        ({"rssi": "loud", "lsnr": None, "rsig": 5}, (NO_RSSI, NO_SNR)),
        ({"rssi": -1e300, "lsnr": 1e300}, (NO_RSSI, NO_SNR)),
        ({"rssi": -99999, "lsnr": 99}, (-32767, 127)),
        ({"rssi": True, "lsnr": 0}, (NO_RSSI, 0)),
    ],
)
def test_levels_that_are_none_are_none(said: dict[str, Any], level: tuple[int, int]) -> None:
    (reception,) = pushed(push_data(rxpk(FRAME, **said))).receptions

    assert (reception.rssi, reception.snr) == level


def test_a_frame_whose_crc_failed_says_so_and_one_without_crc_does_not() -> None:
    brought = pushed(
        push_data(rxpk(b"\x01", stat=-1), rxpk(b"\x02", stat=0), rxpk(b"\x03", stat=...))
    )

    assert [reception.crc_ok for reception in brought.receptions] == [False, True, True]


def test_a_report_of_the_gateway_alone_brings_nothing() -> None:
    assert pushed(push('{"stat":{"rxnb":2}}')).receptions == ()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"rxpk":{}}', '{"rxpk":NaN}', "[" * 100_000, '"x"', "\x00"]
)
def test_json_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(BadDatagram):
        pushed(push(text))


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(BadDatagram):
        pushed(push("")[:12] + b'{"rxpk":["\xff"]}')


def test_a_downlink_is_taken_from_a_pull_resp() -> None:
    frame = Device(dev_eui=1).confirmed_downlink(7)

    assert downlink(pull_resp(frame))[:1] == b"\xa0"
    for text in ('{"txpk":{}}', '{"txpk":[]}', "{}", '{"txpk":{"data":"@"}}'):
        with pytest.raises(BadDatagram):
            downlink(b"\x02\x00\x01\x03" + text.encode())


def test_datagrams_are_told_apart_by_their_fourth_byte() -> None:
    assert identifier(b"\x02\x00\x01\x00") is Identifier.PUSH_DATA
    assert identifier(b"\x01\x00\x01\x05") is Identifier.TX_ACK
    assert [
        identifier(bytes(given)) for given in (b"", b"\x02\x00\x01", b"\x02ab\x06", b"\x03ab\x00")
    ] == [None] * 4


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("ns.example", "ns.example", 1700),
        ("ns.example:1680", "ns.example", 1680),
        ("[::1]:5", "::1", 5),
        ("[::1]", "::1", 1700),
        ("::1", "::1", 1700),
    ],
)
def test_an_endpoint_is_read(text: str, host: str, port: int) -> None:
    assert endpoint_at(text, port=1700) == Endpoint(host=host, port=port)


@pytest.mark.parametrize("text", ["", ":1700", "host:", "host:x", "host:70000", "host:-1"])
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        endpoint_at(text, port=1700)


def test_the_region_numbers_data_rates_and_channels() -> None:
    assert radios("us915", datr="SF10BW125", freq_hz=902_300_000) == ((0, 0),)
    assert radios("us915", datr="SF8BW500", freq_hz=914_200_000) == ((4, 71),)
    assert radios("au915", datr="SF12BW125", freq_hz=927_800_000) == ((0, 63),)
    assert radios("eu868", datr="SF7BW250", freq_hz=868_300_000)[3] == (6, 3)
    assert radios("us915", datr="SF12BW125", freq_hz=902_300_000) == ()
    assert radios("us915", datr="SF7BW125", freq_hz=923_300_000) == ()
    assert json.dumps(radios("eu868", datr="SF6BW125", freq_hz=0)) == "[]"
