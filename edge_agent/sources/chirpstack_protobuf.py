"""ChirpStack's `integration.UplinkEvent` in protobuf: the few fields that we use, as JSON has them.

Field numbers: `chirpstack_api.integration` and `chirpstack_api.gw` 4.20.0.
"""

from __future__ import annotations

from typing import Any, Final

from edge_agent.sources.protobuf import BadProtobuf, Wire, fields_of, signed, single, text

SECOND_US: Final = 1_000_000
SECOND_NS: Final = 1_000_000_000
U32: Final = 0xFFFFFFFF
MAX_RECEIVERS: Final = 1000  # gateways within reach of one meter: dozens


def event_in(event: bytes) -> dict[str, Any]:
    """Return an uplink event with JSON's names; `data` is bytes, `time` µs. Raises BadProtobuf.

    What is absent is left out, as JSON may; of a field that comes twice the last holds.
    """
    said: dict[str, Any] = {}
    device: dict[str, str] = {}
    receivers: list[dict[str, Any]] = []
    seconds, nanos, timed = 0, 0, False
    for number, wire, value, given in fields_of(memoryview(event)):
        if (number, wire) == (2, Wire.BYTES):
            seconds, nanos = _timestamp(given, seconds, nanos)
            timed = True
        elif (number, wire) == (3, Wire.BYTES):
            _device(given, device)
        elif (number, wire) == (4, Wire.BYTES):
            said["devAddr"] = text(given)
        elif (number, wire) == (7, Wire.VARINT):
            said["fCnt"] = value & U32
        elif (number, wire) == (8, Wire.VARINT):
            said["fPort"] = value & U32
        elif (number, wire) == (10, Wire.BYTES):
            said["data"] = bytes(given)
        elif (number, wire) == (12, Wire.BYTES):
            receivers.append(_receiver(given))
            if len(receivers) > MAX_RECEIVERS:
                raise BadProtobuf(f"more than {MAX_RECEIVERS} receivers", 0)
    if timed:
        said["time"] = _micros(seconds, nanos)
    return {**said, "deviceInfo": device, "rxInfo": receivers}


def _timestamp(message: memoryview, seconds: int, nanos: int) -> tuple[int, int]:
    for number, wire, value, _ in fields_of(message):
        if (number, wire) == (1, Wire.VARINT):
            seconds = signed(value, 64)
        elif (number, wire) == (2, Wire.VARINT):
            nanos = signed(value, 32)
    return seconds, nanos


def _micros(seconds: int, nanos: int) -> int:
    if not 0 <= nanos < SECOND_NS:
        raise BadProtobuf(f"{nanos} ns of a second", 0)
    return seconds * SECOND_US + nanos // 1000


def _device(message: memoryview, device: dict[str, str]) -> None:
    for number, wire, _, given in fields_of(message):
        if (number, wire) == (8, Wire.BYTES):
            device["devEui"] = text(given)


def _receiver(message: memoryview) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for number, wire, value, given in fields_of(message):
        if (number, wire) == (1, Wire.BYTES):
            said["gatewayId"] = text(given)
        elif (number, wire) == (6, Wire.VARINT):
            said["rssi"] = signed(value, 32)
        elif (number, wire) == (7, Wire.FIXED32):
            said["snr"] = single(given)
    return said
