"""Frames and payloads of every kind that is decoded: where mutation and fuzzing begin."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from decoders.encode import (
    encode_lorawan_daily,
    encode_lorawan_hourly,
    encode_lorawan_install,
    encode_wmbus,
    kamstrup_flowiq_records,
    session_number,
)
from decoders.encode_oms import Sealing, behind_ell, transport_layer, without_ell
from decoders.ids import MeterId
from decoders.wmbus import link

KEY = bytes(range(16))
METER = MeterId(manufacturer="KAW", serial="12345678", version=0x3C, medium=0x16)
DEV_EUI = 0x0013_EA00_0102_0304
LOCAL_US = 1_772_452_800_000_000
VECTORS = Path(__file__).parents[2] / "tests" / "vectors"
PHY = bytes.fromhex("4004030201030000020305016a3798f5b64dc039")  # tests/vectors/lorawan/mac.json


def seeds_by_radio() -> Mapping[str, Sequence[bytes]]:
    """Frames and payloads of every kind that is decoded."""
    return {
        "wmbus": (*wmbus_frames(), *public("telegrams", "frame", "format_a", "format_b")),
        "payload": (*lorawan_payloads(), *public("lorawan", "payload")),
        "phy": (PHY, *public("lorawan", "frame")),
    }


def lorawan_payloads() -> Iterator[bytes]:
    yield encode_lorawan_hourly(range(1000, 900, -3), local_us=LOCAL_US)
    yield encode_lorawan_hourly(range(9000, 0, -300), local_us=LOCAL_US, access_number=8)
    yield encode_lorawan_daily(1000, local_us=LOCAL_US, min_water_c=9)
    yield encode_lorawan_install(meter=METER, config_number=7_362_751)


def wmbus_frames() -> Iterator[bytes]:
    records = kamstrup_flowiq_records(total_l=123_456, target_l=120_000, flow_lph=12)
    for encrypted in (False, True):
        session = session_number(session=1, minutes=9, encrypted=encrypted)
        key = KEY if encrypted else None
        for compact in (False, True):
            for form in link.WIRELESS:
                yield encode_wmbus(
                    records,
                    meter=METER,
                    session_number=session,
                    access_number=7,
                    key=key,
                    compact=compact,
                    form=form,
                )
        for ci in (0x8C, 0x8D, 0x8E, 0x8F):
            payload = transport_layer(records, meter=METER, access_number=1)
            yield behind_ell(
                payload,
                ci=ci,
                sender=METER,
                meter=METER,
                access_number=1,
                session_number=session,
                key=key if ci & 1 else None,
            )
    for mode in (0, 5, 7):
        for long in (False, True):
            sealing = Sealing(mode=mode, key=KEY, message_counter=5)
            payload = transport_layer(
                records, meter=METER, access_number=1, long=long, sealing=sealing
            )
            yield without_ell(payload, sender=METER)
    yield link.wrap_wired(
        transport_layer(records, meter=METER, access_number=1, long=True), address=1
    )


def public(folder: str, *names: str) -> Iterator[bytes]:
    """The bytes in the tests' vectors, as far as those are on this machine."""
    for file in sorted(VECTORS.glob(f"{folder}/*.json")):
        vectors: list[Mapping[str, Any]] = json.loads(file.read_text()).get("vectors", [])
        for vector in vectors:
            yield from (bytes.fromhex(vector[name]) for name in names if vector.get(name))
