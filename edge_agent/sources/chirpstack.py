"""A ChirpStack v4 on or near this gateway: its `up` events, JSON or protobuf.

ChirpStack itself must publish with `qos = 1`; its default 0 is not kept for absent clients.
Whether it publishes JSON or protobuf (`json = true` or `false`) need not be told: a JSON event
begins with a brace, which no protobuf field does.
Shapes: ChirpStack v4 integration events, as captured from 4.20.0.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from decoders.uplink import NO_RSSI, NO_SNR, RowFlag
from edge_agent.inputs import Heard
from edge_agent.instants import BadInstant, micros
from edge_agent.sources.chirpstack_protobuf import event_in
from edge_agent.sources.protobuf import BadProtobuf
from edge_agent.sources.uplinks import BadEvent, check_size, level_of, malformed, uplink

BRACE: Final = b"{"  # as a protobuf tag: field 15 in a wire type that is not written any more
_EUI: Final = re.compile(r"[0-9A-Fa-f]{16}")
_ADDRESS: Final = re.compile(r"[0-9A-Fa-f]{1,8}")


def topic_of(application: str) -> str:
    """Return the topic of an application's uplinks ("+" = of all applications)."""
    return f"application/{application}/device/+/event/up"


def heard_in(
    event: bytes, *, gateway_eui: str | None, is_elsewhere: bool = False, token: object = None
) -> Heard | None:
    """Read an `up` event; None when it carries no application payload. Raises BadEvent.

    gateway_eui    our own radio: its level is taken; else the best receiver's
    is_elsewhere   the server runs on another machine, whose clock its `time` is of
    """
    check_size(event)
    said = _json(event) if event[:1] == BRACE else _protobuf(event)
    try:
        heard = _heard(said, gateway_eui, token)
        if heard is None or not is_elsewhere:
            return heard
        return replace(heard, flags=heard.flags | RowFlag.FOREIGN_CLOCK)
    except BadEvent:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise malformed(f"{type(error).__name__}: {error}") from None


def _json(event: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(event)
    except (ValueError, RecursionError) as error:
        raise malformed(f"JSON: {error}") from None
    assert isinstance(said, dict)  # it begins with a brace
    return said


def _protobuf(event: bytes) -> Mapping[str, Any]:
    if not event:
        raise malformed("an empty event")
    try:
        return event_in(event)
    except BadProtobuf as error:
        raise malformed(str(error)) from None


def _heard(said: Mapping[str, Any], gateway_eui: str | None, token: object) -> Heard | None:
    port = said.get("fPort", 0)
    encoded = said.get("data") or ""
    if not encoded or not port:
        return None  # MAC commands only: the network server's business
    payload = encoded if isinstance(encoded, bytes) else base64.b64decode(encoded, validate=True)
    eui, address = said["deviceInfo"]["devEui"], said.get("devAddr") or "0"
    if not _EUI.fullmatch(eui) or not _ADDRESS.fullmatch(address):
        raise malformed(f"devEui {eui!r:.40}, devAddr {address!r:.40}")
    try:
        heard_at = micros(said["time"])
    except BadInstant as error:
        raise malformed(f"time: {error}") from None
    return uplink(
        payload,
        eui=int(eui, 16),
        session=int(address, 16),
        counter=said.get("fCnt", 0),
        port=port,
        heard_at=heard_at,
        level=_level(said.get("rxInfo") or (), gateway_eui),
        token=token,
    )


def _level(receivers: Iterable[Mapping[str, Any]], gateway_eui: str | None) -> tuple[int, int]:
    """Return dBm and quarter dB of our own radio, else of the receiver that heard it best.

    ChirpStack lists receivers in no order, and leaves out values that are zero.
    """
    best: Mapping[str, Any] | None = None
    for receiver in receivers:
        if gateway_eui is not None and receiver.get("gatewayId") == gateway_eui:
            best = receiver
            break
        if best is None or receiver.get("rssi", 0) > best.get("rssi", 0):
            best = receiver
    if best is None:
        return NO_RSSI, NO_SNR
    return level_of(best.get("rssi", 0), best.get("snr", 0))
