"""ChirpStack's protobuf by our own reader, held against ChirpStack's own library."""

from __future__ import annotations

import base64
import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from chirpstack_api import gw  # type: ignore[import-untyped]  # it ships no types
from chirpstack_api.integration import integration_pb2  # type: ignore[import-untyped]
from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.inputs import Heard
from edge_agent.sources.chirpstack import heard_in
from edge_agent.sources.uplinks import BadEvent

UplinkEvent = integration_pb2.UplinkEvent
VECTORS = Path(__file__).parents[1] / "vectors" / "lorawan" / "chirpstack_up_protobuf.json"
CAPTURED = [
    bytes.fromhex(event["payload_hex"]) for event in json.loads(VECTORS.read_text())["events"]
]
YEAR_3000_S = 32_503_680_000

u32 = st.integers(0, 2**32 - 1)
i32 = st.integers(-(2**31), 2**31 - 1)
texts = st.text(max_size=12)
hexes = st.integers(0, 2**64 - 1).map("{:016x}".format)
levels = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def receivers(draw: st.DrawFn) -> Any:
    return gw.UplinkRxInfo(
        gateway_id=draw(hexes | texts),
        uplink_id=draw(u32),
        rssi=draw(i32),
        snr=draw(levels),
        channel=draw(u32),
        context=draw(st.binary(max_size=8)),
        metadata=draw(st.dictionaries(texts, texts, max_size=2)),
    )


@st.composite
def events(draw: st.DrawFn) -> Any:
    """An uplink as ChirpStack could send it, every field of it that we read and some we do not."""
    event = UplinkEvent(
        deduplication_id=draw(texts),
        dev_addr=f"{draw(u32):08x}",
        adr=draw(st.booleans()),
        dr=draw(u32),
        f_cnt=draw(u32),
        f_port=draw(st.integers(0, 255)),
        confirmed=draw(st.booleans()),
        data=draw(st.binary(max_size=242)),
        rx_info=draw(st.lists(receivers(), max_size=4)),
        region_config_id=draw(texts),
    )
    event.time.seconds = draw(st.integers(0, YEAR_3000_S))
    event.time.nanos = draw(st.integers(0, 999_999_999))
    event.device_info.dev_eui = draw(hexes)
    event.device_info.tenant_name = draw(texts)
    event.device_info.tags.update(draw(st.dictionaries(texts, texts, max_size=3)))
    event.object.update({"volume": draw(levels), "note": draw(texts)})
    return event


def read(event: bytes) -> Heard | None:
    return heard_in(event, gateway_eui=None)


def code_of(event: bytes) -> str | None:
    """The code of the refusal; None when the event is taken, with fields within their bounds."""
    try:
        heard = read(event)
    except BadEvent as refused:
        return refused.code
    assert heard is None or (0 < heard.port <= 255 and heard.heard_at >= 0)
    return None


def through_json(event: Any) -> Heard | None:
    """What our JSON reader makes of the same event: the library writes it as ChirpStack does."""
    said = MessageToDict(event)
    for receiver, whole in zip(said.get("rxInfo", []), event.rx_info, strict=True):
        receiver["snr"] = whole.snr  # JSON has fewer digits
    nanos = f"{event.time.nanos:09d}"
    said["time"] = event.time.ToDatetime().strftime(f"%Y-%m-%dT%H:%M:%S.{nanos}+00:00")
    return read(json.dumps(said).encode())


@pytest.mark.parametrize("captured", CAPTURED)
def test_what_a_real_chirpstack_published_reads_as_its_own_library_reads_it(
    captured: bytes,
) -> None:
    event = UplinkEvent.FromString(captured)

    heard = read(captured)

    if not event.data or not event.f_port:
        assert heard is None
        return
    assert heard is not None
    best = max(event.rx_info, key=lambda receiver: receiver.rssi)
    assert heard.frame == event.data
    assert heard.radio == int(event.device_info.dev_eui, 16)
    assert heard.session == int(event.dev_addr, 16)
    assert (heard.counter, heard.port) == (event.f_cnt, event.f_port)
    assert heard.heard_at == event.time.ToMicroseconds()
    assert (heard.rssi, heard.snr) == (best.rssi, round(best.snr * 4))


@given(events())
def test_protobuf_and_json_of_one_event_say_the_same(event: Any) -> None:
    assert read(event.SerializeToString()) == through_json(event)


@given(events(), st.lists(st.tuples(st.integers(18, 2**29 - 1), st.binary(max_size=40))))
def test_fields_of_a_later_version_are_skipped(
    event: Any, unknown: list[tuple[int, bytes]]
) -> None:
    written = event.SerializeToString()
    for number, payload in unknown:
        written += varint(number << 3 | 2) + varint(len(payload)) + payload
        written += varint(number << 3) + varint(len(payload))
        written += varint(number << 3 | 5) + b"\0\0\0\0" + varint(number << 3 | 1) + bytes(8)

    assert read(written) == through_json(event)
    assert UplinkEvent.FromString(written).data == event.data


@given(events(), st.data())
def test_a_cut_event_is_refused_unless_its_library_takes_it_too(
    event: Any, data: st.DataObject
) -> None:
    whole = event.SerializeToString()
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    try:
        known = UplinkEvent.FromString(cut)
    except DecodeError:
        with pytest.raises(BadEvent) as refused:
            read(cut)
        assert refused.value.code == "malformed"
        return
    try:
        heard = read(cut)
    except BadEvent:  # whole fields, but one that we need is missing
        assert not (known.HasField("time") and known.device_info.dev_eui)
    else:
        assert heard is None or heard.frame == known.data


@given(st.sampled_from(CAPTURED), st.data())
def test_no_damage_does_more_than_a_coded_refusal(captured: bytes, data: st.DataObject) -> None:
    damaged = bytearray(captured)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    assert code_of(bytes(damaged)) in {None, "malformed", "oversized"}


@given(st.binary(max_size=400))
def test_no_bytes_break_the_reader(given: bytes) -> None:
    assert code_of(given) in {None, "malformed"}


HOSTILE = {
    "a length of 4 GiB": b"\x52\xff\xff\xff\xff\x0f",
    "a length of 2^63": b"\x52" + b"\xff" * 8 + b"\x7f",
    "a number without an end": b"\x38" + b"\xff" * 200_000,
    "messages in messages": b"".join(
        varint_bytes for n in range(60_000, 0, -4) for varint_bytes in (b"\x1a", b"\xff\xff\x03")
    ),
    "a hundred thousand receivers": b"\x62\x00" * 100_000,
    "groups in groups": b"\x0b" * 200_000,
    "only zeroes": bytes(200_000),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_event_is_refused_within_little_memory(hostile: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BadEvent):
            read(hostile + b"\x40\x01\x52\x01\x07")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 4 << 20


@pytest.mark.parametrize("snr", [math.nan, math.inf, -math.inf])
def test_a_level_that_is_no_number_is_malformed(snr: float) -> None:
    event = UplinkEvent(f_port=1, data=b"\x01", dev_addr="01da4231")
    event.device_info.dev_eui = "0013ea0000000001"
    event.time.seconds = 1_772_452_800
    event.rx_info.append(gw.UplinkRxInfo(gateway_id="0016c001f1500001", rssi=-97, snr=snr))

    with pytest.raises(BadEvent, match="level"):
        read(event.SerializeToString())


def test_a_time_before_1970_or_with_too_many_nanoseconds_is_malformed() -> None:
    for seconds, nanos in ((-1, 0), (2**62, 0), (5, 1_000_000_000), (5, -1)):
        event = UplinkEvent(f_port=1, data=b"\x01", dev_addr="01da4231")
        event.device_info.dev_eui = "0013ea0000000001"
        event.time.seconds, event.time.nanos = seconds, nanos

        with pytest.raises(BadEvent):
            read(event.SerializeToString())


def test_the_smallest_difference_json_keeps_is_kept() -> None:
    event = UplinkEvent(f_port=1, data=b"\x01", dev_addr="01da4231")
    event.device_info.dev_eui = "0013ea0000000001"
    event.time.seconds, event.time.nanos = 1_772_452_800, 283_429_466

    heard = read(event.SerializeToString())

    assert heard is not None
    assert heard.heard_at == 1_772_452_800_283_429
    assert heard.frame == base64.b64decode("AQ==")


def varint(number: int) -> bytes:
    written = b""
    while number > 0x7F:
        written += bytes([number & 0x7F | 0x80])
        number >>= 7
    return written + bytes([number])
