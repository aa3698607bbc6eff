"""ChirpStack's JSON events: as captured from a real server, and as they may come."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.uplink import NO_RSSI, NO_SNR, RowFlag, RowKind
from edge_agent.sources.chirpstack import heard_in
from edge_agent.sources.uplinks import MAX_EVENT_BYTES, BadEvent

# As a ChirpStack 4.20.0 published it; made-up keys and identities.
CAPTURED: dict[str, Any] = {
    "deduplicationId": "48769407-7c93-494d-8adf-5183fd1e0f2b",
    "time": "2026-11-24T08:35:52.282480+00:00",
    "deviceInfo": {
        "tenantName": "Agua Prueba",
        "applicationId": "4f3c13e6-ecfa-496b-8b63-eedf77195658",
        "deviceProfileName": "flowiq-oms",
        "devEui": "70b3d54990000001",
        "deviceClassEnabled": "CLASS_A",
        "tags": {"route": "R-07"},
    },
    "devAddr": "01da4231",
    "adr": True,
    "dr": 3,
    "fCnt": 0,
    "fPort": 1,
    "confirmed": False,
    "data": "eERtADMYN0QTAwAAAE2TEyJhAQAAAAMAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "rxInfo": [
        {"gatewayId": "0016c001f1500002", "rssi": -112, "snr": -4.25, "channel": 3},
        {"gatewayId": "0016c001f1500001", "rssi": -97, "snr": 7.5, "channel": 3},
    ],
    "txInfo": {"frequency": 904500000},
    "regionConfigId": "us915_1",
}


def event(**changed: Any) -> bytes:
    said = {**CAPTURED, **changed}
    return json.dumps({k: v for k, v in said.items() if v is not ...}).encode()


def test_a_captured_uplink_is_read_whole() -> None:
    heard = heard_in(event(), gateway_eui=None, token="t")

    assert heard is not None
    assert heard.kind == RowKind.LORAWAN
    assert heard.flags == RowFlag.NETWORK_CHECKED
    assert heard.frame == base64.b64decode(CAPTURED["data"])
    assert (heard.radio, heard.session) == (0x70B3D54990000001, 0x01DA4231)
    assert (heard.counter, heard.port, heard.token) == (0, 1, "t")
    assert heard.heard_at == 1_795_509_352_282_480


def test_the_time_of_a_server_elsewhere_is_marked_as_not_of_this_clock() -> None:
    heard = heard_in(event(), gateway_eui=None, is_elsewhere=True)

    assert heard is not None
    assert heard.flags == RowFlag.NETWORK_CHECKED | RowFlag.FOREIGN_CLOCK
    assert heard_in(event(data=""), gateway_eui=None, is_elsewhere=True) is None


def test_the_level_is_our_own_radios_or_the_best_receivers() -> None:
    own = heard_in(event(), gateway_eui="0016c001f1500002")
    best = heard_in(event(), gateway_eui=None)
    none = heard_in(event(rxInfo=...), gateway_eui=None)

    assert own is not None
    assert (own.rssi, own.snr) == (-112, -17)
    assert best is not None
    assert (best.rssi, best.snr) == (-97, 30)
    assert none is not None
    assert (none.rssi, none.snr) == (NO_RSSI, NO_SNR)


def test_nine_digits_of_a_second_and_missing_defaults_are_read() -> None:
    said = event(
        time="2026-11-24T08:35:52.283429466+00:00",
        fCnt=...,
        devAddr=...,
        rxInfo=[{"gatewayId": "0016c001f1500001"}],
    )

    heard = heard_in(said, gateway_eui=None)

    assert heard is not None
    assert heard.heard_at == 1_795_509_352_283_429
    assert (heard.counter, heard.session, heard.rssi, heard.snr) == (0, 0, 0, 0)


@pytest.mark.parametrize("nothing", [{"data": ""}, {"data": ...}, {"fPort": 0}, {"fPort": ...}])
def test_an_uplink_without_application_payload_is_the_network_servers_business(
    nothing: dict[str, Any],
) -> None:
    assert heard_in(event(**nothing), gateway_eui=None) is None


@pytest.mark.parametrize(
    "wrong",
    [
        b"{not json",
        b"[]",
        b"null",
        b"\xff\xfe",
        event(data="not base64!"),
        event(data=5),
        event(deviceInfo=...),
        event(deviceInfo={"devEui": "12"}),
        event(deviceInfo={"devEui": "zzzzzzzzzzzzzzzz"}),
        event(time=...),
        event(time="soon"),
        event(fCnt=-1),
        event(fCnt="1"),
        event(fPort=256),
        event(devAddr="0123456789"),
        event(rxInfo=[{"rssi": "loud"}]),
        event(rxInfo=[5]),
        b"[" * 100_000,
    ],
)
def test_an_event_that_is_no_uplink_says_why(wrong: bytes) -> None:
    with pytest.raises(BadEvent) as refused:
        heard_in(wrong, gateway_eui=None)

    assert refused.value.code == "malformed"


@pytest.mark.parametrize(
    "huge", [b" " * (MAX_EVENT_BYTES + 1), event(data=base64.b64encode(bytes(2000)).decode())]
)
def test_an_event_larger_than_any_is_oversized(huge: bytes) -> None:
    with pytest.raises(BadEvent) as refused:
        heard_in(huge, gateway_eui=None)

    assert refused.value.code == "oversized"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(sorted(CAPTURED)), json_values))
def test_no_event_breaks_the_reader(changed: dict[str, Any]) -> None:
    try:
        heard = heard_in(event(**changed), gateway_eui=None)
    except BadEvent:
        return
    assert heard is None or 0 <= heard.counter <= 0xFFFFFFFF
