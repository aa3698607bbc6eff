"""What a Conduit's network server publishes."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.uplink import NO_RSSI, NO_SNR, RowFlag, RowKind
from edge_agent.inputs import Heard
from edge_agent.sources.multitech import heard_in
from edge_agent.sources.uplinks import MAX_EVENT_BYTES, BadEvent

NOW_US = 1_772_452_800_000_000
# From MultiTech's description of its MQTT messages (multitech.net, lora-network-server).
DOCUMENTED: dict[str, Any] = {
    "jver": 1,
    "tmst": 1480759655,
    "time": "2022-08-31T20:02:39.470982Z",
    "tmms": 1346011377470,
    "chan": 8,
    "rfch": 0,
    "freq": 903,
    "mid": 16,
    "stat": 1,
    "modu": "LORA",
    "datr": "SF8BW500",
    "codr": "4/5",
    "rssis": -12,
    "lsnr": 12.5,
    "foff": -3206,
    "rssi": -12,
    "opts": "",
    "size": 9,
    "fcnt": 0,
    "cls": 0,
    "port": 1,
    "mhdr": "401d97ef01800000",
    "data": "AAIAWgBkgAYU",
    "appeui": "16-ea-76-f6-ab-66-3d-80",
    "deveui": "00-80-00-ff-00-00-00-01",
    "devaddr": "01ef971d",
    "ack": False,
    "adr": True,
    "gweui": "00-80-00-00-d0-00-01-ff",
    "seqn": 0,
}


class Stopped:
    """A clock that stands still."""

    def now_us(self) -> int:
        return NOW_US

    def ticks_us(self) -> int:
        return 0

    def life(self) -> bytes:
        return bytes(16)


def event(**changed: Any) -> bytes:
    said = {**DOCUMENTED, **changed}
    return json.dumps({k: v for k, v in said.items() if v is not ...}).encode()


def read(given: bytes) -> Heard | None:
    return heard_in(given, clock=Stopped())


def test_a_documented_uplink_is_read_whole() -> None:
    heard = heard_in(event(), clock=Stopped(), token="t")

    assert heard is not None
    assert heard.kind == RowKind.LORAWAN
    assert heard.flags == RowFlag.NETWORK_CHECKED
    assert heard.frame == base64.b64decode("AAIAWgBkgAYU")
    assert (heard.radio, heard.session) == (0x008000FF00000001, 0x01EF971D)
    assert (heard.counter, heard.port, heard.token) == (0, 1, "t")
    assert (heard.rssi, heard.snr) == (-12, 50)
    assert heard.heard_at == 1_661_976_159_470_982


@pytest.mark.parametrize("deveui", ["00-80-00-FF-00-00-00-01", "008000ff00000001"])
def test_an_eui_is_read_however_it_is_written(deveui: str) -> None:
    heard = read(event(deveui=deveui))

    assert heard is not None
    assert heard.radio == 0x008000FF00000001


def test_an_uplink_without_a_time_or_level_is_heard_now_at_no_level() -> None:
    heard = read(event(time=..., rssi=..., lsnr=...))

    assert heard is not None
    assert (heard.heard_at, heard.rssi, heard.snr) == (NOW_US, NO_RSSI, NO_SNR)


def test_nine_digits_of_a_second_are_read() -> None:
    heard = read(event(time="2022-08-31T20:02:39.470982123Z"))

    assert heard is not None
    assert heard.heard_at == 1_661_976_159_470_982


@pytest.mark.parametrize("nothing", [{"data": ""}, {"data": ...}, {"port": 0}, {"port": ...}])
def test_an_uplink_without_application_payload_is_the_network_servers_business(
    nothing: dict[str, Any],
) -> None:
    assert read(event(**nothing)) is None


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"{not json",
        b"[]",
        b"null",
        b"\xff\xfe",
        event(data="not base64!"),
        event(data=5),
        event(size=10),
        event(deveui=...),
        event(deveui="00-80-00-ff-00-00-00"),
        event(deveui="00-80-00-ff-00-00-00-0g"),
        event(deveui=128),
        event(devaddr="01ef971d00"),
        event(time="soon"),
        event(time=1.5),
        event(fcnt=-1),
        event(fcnt="1"),
        event(fcnt=True),
        event(port=256),
        event(rssi="loud"),
        event(rssi=10**400),
        event(lsnr=float("nan")),
        b"[" * 100_000,
    ],
)
def test_an_event_that_is_no_uplink_says_why(wrong: bytes) -> None:
    with pytest.raises(BadEvent) as refused:
        read(wrong)

    assert refused.value.code == "malformed"


@pytest.mark.parametrize(
    "huge",
    [b" " * (MAX_EVENT_BYTES + 1), event(data=base64.b64encode(bytes(2000)).decode(), size=2000)],
)
def test_an_event_larger_than_any_is_oversized(huge: bytes) -> None:
    with pytest.raises(BadEvent) as refused:
        read(huge)

    assert refused.value.code == "oversized"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(DOCUMENTED)), values))
def test_no_event_breaks_the_reader(changed: dict[str, Any]) -> None:
    try:
        heard = read(event(**changed))
    except BadEvent:
        return
    assert heard is None or 0 <= heard.counter <= 0xFFFFFFFF
