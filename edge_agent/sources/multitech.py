"""The network server of a MultiTech Conduit: uplinks from the broker on the gateway itself.

In LoRa mode NETWORK SERVER it publishes each uplink, decrypted and checked, as JSON to
`lora/<DevEUI>/up` and, from firmware that knows applications, `lora/<AppEUI>/<DevEUI>/up`. An
uplink that comes on both is the same frame twice, which the agent sees and counts as a repeat.
Source: MultiTech, lorawan-app-connect and lora-mqtt-bridge, docs of MQTT topics and messages.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from decoders.uplink import NO_RSSI, NO_SNR
from edge_agent.clock import Clock
from edge_agent.inputs import Heard
from edge_agent.instants import BadInstant, micros
from edge_agent.sources.uplinks import BadEvent, check_size, level_of, malformed, uplink

TOPICS: Final = ("lora/+/up", "lora/+/+/up")
BROKER: Final = "mqtt://127.0.0.1:1883"
_EUI: Final = re.compile(r"[0-9A-Fa-f]{2}(-?[0-9A-Fa-f]{2}){7}")
_ADDRESS: Final = re.compile(r"[0-9A-Fa-f]{2}(-?[0-9A-Fa-f]{2}){3}")


def heard_in(event: bytes, *, clock: Clock, token: object = None) -> Heard | None:
    """Read an `up` message; None when it carries no application payload. Raises BadEvent.

    clock   stamps an uplink that says no time of its own (a Conduit without GPS or NTP)
    """
    check_size(event)
    try:
        said = json.loads(event)
    except (ValueError, RecursionError) as error:
        raise malformed(f"JSON: {error}") from None
    try:
        return _heard(said, clock, token)
    except BadEvent:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise malformed(f"{type(error).__name__}: {error}") from None


def _heard(said: Mapping[str, Any], clock: Clock, token: object) -> Heard | None:
    port, encoded = said.get("port", 0), said.get("data") or ""
    if not encoded or not port:
        return None  # MAC commands only: the network server's business
    payload = base64.b64decode(encoded, validate=True)
    if said.get("size", len(payload)) != len(payload):
        raise malformed(f"size {said['size']!r:.20}, but data has {len(payload)} bytes")
    return uplink(
        payload,
        eui=_number(_EUI, said["deveui"], "deveui"),
        session=_number(_ADDRESS, said.get("devaddr") or "00000000", "devaddr"),
        counter=said.get("fcnt", 0),
        port=port,
        heard_at=_heard_at(said, clock),
        level=_level(said),
        token=token,
    )


def _number(shape: re.Pattern[str], given: str, name: str) -> int:
    """Return the number that hex digits write, in pairs with dashes between them or without."""
    if not shape.fullmatch(given):
        raise malformed(f"{name}: {given!r:.40}")
    return int(given.replace("-", ""), 16)


def _heard_at(said: Mapping[str, Any], clock: Clock) -> int:
    given = said.get("time")
    if given in (None, ""):
        return clock.now_us()
    try:
        return micros(given)
    except BadInstant as error:
        raise malformed(f"time: {error}") from None


def _level(said: Mapping[str, Any]) -> tuple[int, int]:
    rssi = said.get("rssi")
    if rssi is None:
        return NO_RSSI, NO_SNR
    dbm, quarters = level_of(rssi, said.get("lsnr", 0))
    return dbm, quarters if "lsnr" in said else NO_SNR
