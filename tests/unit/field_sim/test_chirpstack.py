"""Our events have the shape that a real ChirpStack's have."""

from __future__ import annotations

import json
from typing import Any

from field_sim.chirpstack import Reception, topic, up_event
from field_sim.meters import lorawan_meters
from field_sim.radio import gateways

# Recorded from a ChirpStack 4.20.0-test.1, region us915_1; made-up keys and EUIs.
RECORDED = """
{"deduplicationId":"94a89811-7d71-452b-8a4e-b00e92d83dc4",
 "time":"2026-11-24T08:37:34.123388+00:00",
 "deviceInfo":{"tenantId":"1fedb75c-c78d-455f-ad48-099a5d1998ba","tenantName":"Agua Prueba",
  "applicationId":"4f3c13e6-ecfa-496b-8b63-eedf77195658","applicationName":"meters",
  "deviceProfileId":"386c86fb-6c33-4c86-8375-661b0e659d89","deviceProfileName":"flowiq-status",
  "deviceName":"meter-2","devEui":"70b3d54990000002","deviceClassEnabled":"CLASS_A",
  "tags":{"serial":"78500002"}},
 "devAddr":"015dbe77","adr":true,"dr":2,"fCnt":5,"fPort":4,"confirmed":false,
 "data":"eERtACAoNEQTAAAAAFL/JQAAQv8c/w9iOwAAUjsAAGFbgFFbgA==",
 "rxInfo":[{"gatewayId":"0016c001f1500002","uplinkId":3087342497,
  "gwTime":"2026-11-24T08:37:34.123388+00:00","nsTime":"2026-11-24T08:37:34.123852715+00:00",
  "rssi":-112,"snr":-4.25,"channel":3,
  "location":{"latitude":22.7809,"longitude":-102.5832,"altitude":2440.0,"source":"GPS"},
  "context":"nzQxqw==","crcStatus":"CRC_OK"}],
 "txInfo":{"frequency":903900000,
  "modulation":{"lora":{"bandwidth":125000,"spreadingFactor":8,"codeRate":"CR_4_5"}}},
 "regionConfigId":"us915_1"}
"""


def shape(told: Any) -> Any:
    if isinstance(told, dict):
        return {name: shape(held) for name, held in told.items()}
    if isinstance(told, list):
        return [shape(held) for held in told]
    return type(told)


def reception(counter: int, at_us: int = 1_795_512_345_678_901) -> Reception:
    return Reception(
        gateway=gateways(7)[2],
        meter=lorawan_meters(7, range(3))[1],
        counter=counter,
        port=4,
        payload=b"\x78\x00",
        at_us=at_us,
        rssi=-93,
    )


def test_an_event_has_the_names_and_types_of_a_recorded_one() -> None:
    told = [json.loads(up_event(reception(counter), seed=7)) for counter in range(30)]
    with_channel = [event for event in told if "channel" in event["rxInfo"][0]]

    assert all(shape(event) == shape(json.loads(RECORDED)) for event in with_channel)
    # the default value is left out inside rxInfo, as protobuf's JSON does
    assert 0 < len(with_channel) < len(told)


def test_its_time_is_the_gateways_own_clock() -> None:
    event = json.loads(up_event(reception(1, at_us=0), seed=7))

    assert event["time"] == "1970-01-01T00:07:00.000000+00:00"
    assert event["rxInfo"][0]["gwTime"] == event["time"]
    assert len(event["rxInfo"][0]["nsTime"]) == len("1970-01-01T00:07:00.000000000+00:00")


def test_the_same_uplink_gives_the_same_bytes_and_another_one_others() -> None:
    assert up_event(reception(1), seed=7) == up_event(reception(1), seed=7)
    assert up_event(reception(2), seed=7) != up_event(reception(1), seed=7)


def test_the_topic_is_the_gateways_own_application() -> None:
    assert topic(reception(1)) == (
        f"application/{gateways(7)[2].application}/device/0013ea0007000002/event/up"
    )
