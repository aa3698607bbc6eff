"""ChirpStack's `integration.UplinkEvent` in protobuf: the few fields that we use, as JSON has them.

Field numbers: `chirpstack_api.integration` and `chirpstack_api.gw` 4.20.0.
"""

from __future__ import annotations

from typing import Any, Final

from edge_agent.sources.protobuf import (
    BYTES,
    FIXED32,
    VARINT,
    BadProtobuf,
    fields_of,
    signed,
    single,
    tag,
    text,
)

SECOND_US: Final = 1_000_000
SECOND_NS: Final = 1_000_000_000
U32: Final = 0xFFFFFFFF
MAX_RECEIVERS: Final = 1000  # gateways within reach of one meter: dozens

# integration.UplinkEvent
TIME, DEVICE_INFO, DEV_ADDR = tag(2, BYTES), tag(3, BYTES), tag(4, BYTES)
F_CNT, F_PORT, DATA, RX_INFO = tag(7, VARINT), tag(8, VARINT), tag(10, BYTES), tag(12, BYTES)
# google.protobuf.Timestamp
SECONDS, NANOS = tag(1, VARINT), tag(2, VARINT)
# integration.DeviceInfo
DEV_EUI: Final = tag(8, BYTES)
# gw.UplinkRxInfo
GATEWAY_ID, RSSI, SNR = tag(1, BYTES), tag(6, VARINT), tag(7, FIXED32)


def event_in(event: bytes) -> dict[str, Any]:
    """Return an uplink event with JSON's names; `data` is bytes, `time` µs. Raises BadProtobuf.

    What is absent is left out, as JSON may; of a field that comes twice the last holds.
    """
    said: dict[str, Any] = {}
    device: dict[str, str] = {}
    receivers: list[dict[str, Any]] = []
    seconds, nanos, timed = 0, 0, False
    for found, value, given in fields_of(memoryview(event)):
        if found == TIME:
            seconds, nanos = _timestamp(given, seconds, nanos)
            timed = True
        elif found == DEVICE_INFO:
            _device(given, device)
        elif found == DEV_ADDR:
            said["devAddr"] = text(given)
        elif found == F_CNT:
            said["fCnt"] = value & U32
        elif found == F_PORT:
            said["fPort"] = value & U32
        elif found == DATA:
            said["data"] = bytes(given)
        elif found == RX_INFO:
            receivers.append(_receiver(given))
            if len(receivers) > MAX_RECEIVERS:
                raise BadProtobuf(f"more than {MAX_RECEIVERS} receivers", 0)
    if timed:
        said["time"] = _micros(seconds, nanos)
    return {**said, "deviceInfo": device, "rxInfo": receivers}


def _timestamp(message: memoryview, seconds: int, nanos: int) -> tuple[int, int]:
    for found, value, _ in fields_of(message):
        if found == SECONDS:
            seconds = signed(value, 64)
        elif found == NANOS:
            nanos = signed(value, 32)
    return seconds, nanos


def _micros(seconds: int, nanos: int) -> int:
    if not 0 <= nanos < SECOND_NS:
        raise BadProtobuf(f"{nanos} ns of a second", 0)
    return seconds * SECOND_US + nanos // 1000


def _device(message: memoryview, device: dict[str, str]) -> None:
    for found, _, given in fields_of(message):
        if found == DEV_EUI:
            device["devEui"] = text(given)


def _receiver(message: memoryview) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for found, value, given in fields_of(message):
        if found == GATEWAY_ID:
            said["gatewayId"] = text(given)
        elif found == RSSI:
            said["rssi"] = signed(value, 32)
        elif found == SNR:
            said["snr"] = single(given)
    return said
