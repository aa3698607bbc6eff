"""The edge-to-cloud message: round trips, what it refuses, and every version ever emitted."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.uplink import (
    COLUMNS,
    MAX_GAPS,
    MAX_MESSAGE_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_ROWS,
    MAX_STEPS,
    VERSION,
    Ack,
    Batch,
    ClockStep,
    Gap,
    LossKind,
    Lost,
    Malformed,
    Oversized,
    Row,
    RowFlag,
    RowKind,
    UnknownVersion,
    UplinkError,
    claimed_sent,
    claimed_stream,
    decode_ack,
    decode_batch,
    encode_ack,
    encode_batch,
    pack_rows,
)
from decoders.uplink_gaps import pack_gaps
from decoders.uplink_steps import NOBODY_KNOWS_US, pack_steps

CORPUS = Path(__file__).parents[2] / "vectors" / "uplink"
STREAM = bytes(range(16))
instants = st.integers(min_value=-(1 << 50), max_value=1 << 60)
seqs = st.integers(min_value=1, max_value=(1 << 63) - 1)


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    numbers = sorted(draw(st.sets(seqs, max_size=8)))
    return [
        Row(
            seq=seq,
            heard_at=draw(instants),
            kind=draw(st.sampled_from(RowKind)),
            flags=RowFlag(draw(st.integers(0, 255))),
            radio=draw(st.integers(0, (1 << 64) - 1)),
            session=draw(st.integers(0, (1 << 32) - 1)),
            counter=draw(st.integers(0, (1 << 32) - 1)),
            port=draw(st.integers(0, 255)),
            rssi=draw(st.integers(-32768, 32767)),
            snr=draw(st.integers(-128, 127)),
            payload=draw(st.binary(max_size=MAX_PAYLOAD_BYTES)),
        )
        for seq in numbers
    ]


def a_batch(*some: Row) -> Batch:
    return Batch(
        gateway="gw-1",
        stream=STREAM,
        rows=pack_rows(some),
        sent_at=1_764_000_000_000_000,
        started_at=1_763_000_000_000_000,
        head=9,
        lost=(Lost(first=1, last=3, from_at=5, to_at=8),),
        health={"queue": 4, "agent_ok": "yes"},
    )


def a_row(seq: int = 7, payload: bytes = b"\x78\x44") -> Row:
    return Row(seq=seq, heard_at=12, kind=RowKind.LORAWAN, payload=payload, radio=1 << 63)


@given(rows())
def test_rows_come_back_as_they_went(some: list[Row]) -> None:
    batch = a_batch(*some)

    read = decode_batch(encode_batch(batch))

    assert list(read.rows) == some
    assert read == batch


@given(st.builds(Ack, stream=st.just(STREAM), upto=seqs, credit=seqs, cloud_at=instants))
def test_an_ack_comes_back_as_it_went(ack: Ack) -> None:
    full = replace(ack, rejected=((4, "crc"),), resend_from=ack.upto)

    assert decode_ack(encode_ack(full)) == full


@given(st.binary(max_size=200))
def test_noise_is_refused_by_name(noise: bytes) -> None:
    for read in (decode_batch, decode_ack):
        with pytest.raises(UplinkError):
            read(noise)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_message_is_read_or_refused_but_never_crashes(at: int, flip: int) -> None:
    message = bytearray(encode_batch(a_batch(a_row(), a_row(8))))
    message[at % len(message)] ^= flip

    with suppress(UplinkError):
        decode_batch(bytes(message))


def test_every_truncation_is_refused() -> None:
    message = encode_batch(a_batch(a_row()))

    for length in range(len(message)):
        with pytest.raises(Malformed):
            decode_batch(message[:length])


@pytest.mark.parametrize("version", [VERSION + 1, 0, 99])
def test_an_unknown_version_is_refused_as_such(version: int) -> None:
    fields = cbor2.loads(encode_batch(a_batch(a_row())))

    with pytest.raises(UnknownVersion, match=str(version)):
        decode_batch(cbor2.dumps({**fields, "v": version}))


def test_unknown_keys_and_columns_are_ignored() -> None:
    fields = cbor2.loads(encode_batch(a_batch(a_row())))
    fields["cols"]["tilt"] = b"\0"

    assert list(decode_batch(cbor2.dumps({**fields, "later": [1]})).rows) == [a_row()]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ({"gw": "GW/1"}, "gw"),
        ({"gw": ""}, "gw"),
        ({"stream": b"short"}, "stream"),
        ({"sent": "now"}, "sent"),
        ({"n": 2}, "seq"),
        ({"n": -1}, "n:"),
        ({"payload": b"\x78"}, "payload"),
        ({"cols": []}, "cols"),
        ({"lost": [[3, 1, 0, 0]]}, "lost"),
        ({"health": {"a": []}}, "health"),
        ({"echo": [1]}, "echo"),
    ],
)
def test_a_wrong_field_is_named(damage: dict[str, object], says: str) -> None:
    fields = cbor2.loads(encode_batch(a_batch(a_row())))

    with pytest.raises(Malformed, match=says):
        decode_batch(cbor2.dumps({**fields, **damage}))


def test_rows_out_of_order_are_refused() -> None:
    with pytest.raises(Malformed, match="rising"):
        decode_batch(encode_batch(a_batch(a_row(8), a_row(7))))


def test_what_no_broker_would_take_is_refused_by_both_ends() -> None:
    many = [a_row(seq) for seq in range(1, MAX_ROWS + 2)]

    with pytest.raises(Oversized):
        encode_batch(a_batch(*many))
    with pytest.raises(Oversized):
        decode_batch(bytes(MAX_MESSAGE_BYTES + 1))


def test_a_damaged_message_still_names_its_stream() -> None:
    fields = cbor2.loads(encode_batch(a_batch(a_row())))

    assert claimed_stream(cbor2.dumps({**fields, "n": -1})) == STREAM
    assert claimed_stream(b"\xff\x00") is None


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.json")), ids=lambda p: p.stem)
def test_every_message_ever_emitted_still_reads(path: Path) -> None:
    frozen = json.loads(path.read_text())

    batch = decode_batch(bytes.fromhex(frozen["batch_hex"]))
    ack = decode_ack(bytes.fromhex(frozen["ack_hex"]))

    assert batch.version == ack.version == frozen["version"]
    seen = [{"seq": r.seq, "kind": r.kind, "payload": r.payload.hex()} for r in batch.rows]
    assert seen == frozen["rows"]
    assert (batch.gateway, batch.head, ack.upto) == (
        frozen["gateway"],
        frozen["head"],
        frozen["upto"],
    )


def test_the_present_version_is_in_the_corpus() -> None:
    versions = {json.loads(path.read_text())["version"] for path in CORPUS.glob("*.json")}

    assert VERSION in versions


GAPS = (
    Gap(first=1, count=2, kind=LossKind.ACKED, from_at=-5, to_at=9),
    Gap(first=8, count=1 << 40, kind=LossKind.SUB_HOURLY, from_at=10, to_at=20),
)


def test_gaps_by_kind_come_back_and_cost_nothing_where_there_are_none() -> None:
    assert "gaps" not in cbor2.loads(encode_batch(a_batch(a_row())))

    batch = decode_batch(encode_batch(replace(a_batch(a_row(7)), gaps=GAPS)))

    assert batch.gaps == GAPS


def test_a_kind_of_loss_that_this_cloud_does_not_know_is_still_a_loss() -> None:
    fields = cbor2.loads(encode_batch(replace(a_batch(a_row(7)), gaps=GAPS)))

    fields["gaps"]["kind"] = bytes((4, 99))

    assert [gap.kind for gap in decode_batch(cbor2.dumps(fields)).gaps] == [
        LossKind.ACKED,
        LossKind.MIXED,
    ]


@pytest.mark.parametrize(
    "gaps",
    [
        [],
        {},
        {**pack_gaps(GAPS), "first": bytes(8)},
        pack_gaps(GAPS[::-1]),
        pack_gaps([replace(GAPS[0], count=0)]),
        pack_gaps([replace(GAPS[0], first=1 << 63)]),
        pack_gaps([replace(GAPS[0], count=1 << 63)]),
        pack_gaps([replace(GAPS[0], first=1 + i) for i in range(MAX_GAPS + 1)]),
    ],
)
def test_gaps_that_are_none_are_refused(gaps: object) -> None:
    fields = cbor2.loads(encode_batch(a_batch(a_row(7))))

    with pytest.raises(Malformed, match=r"gaps|first|count|kind"):
        decode_batch(cbor2.dumps({**fields, "gaps": gaps}))


def test_columns_have_the_same_width_everywhere() -> None:
    widths = {name: len(pack_rows([a_row()]).columns[name]) for name in COLUMNS}

    assert widths == {
        "seq": 8,
        "heard_at": 8,
        "kind": 1,
        "flags": 1,
        "radio": 8,
        "session": 4,
        "counter": 4,
        "port": 1,
        "rssi": 2,
        "snr": 1,
        "length": 2,
    }


def test_rows_ahead_of_their_turn_are_marked_and_cost_nothing_where_there_are_none() -> None:
    assert "early" not in cbor2.loads(encode_batch(a_batch(a_row())))
    assert decode_batch(encode_batch(replace(a_batch(a_row(7)), early=True))).early

    plain = Ack(stream=STREAM, upto=3, credit=10, cloud_at=1)
    assert {"early", "took"}.isdisjoint(cbor2.loads(encode_ack(plain)))
    answer = replace(plain, early=512, took=7)
    assert decode_ack(encode_ack(answer)) == answer


def test_an_answer_names_its_message_even_one_that_could_not_be_read() -> None:
    plain = Ack(stream=STREAM, upto=3, credit=10, cloud_at=1)
    assert {"sent", "seen"}.isdisjoint(cbor2.loads(encode_ack(plain)))
    answer = replace(plain, answers=7, seen=9)
    assert decode_ack(encode_ack(answer)) == answer

    batch = a_batch(a_row())
    damaged = cbor2.dumps(cbor2.loads(encode_batch(batch)) | {"n": -1})
    assert claimed_sent(damaged) == batch.sent_at
    for other in ("soon", 1 << 63, None, True):
        assert claimed_sent(cbor2.dumps({"sent": other})) is None
    assert claimed_sent(b"") is None


STEPS = (
    ClockStep(seq=3, by_us=-3_600_000_000),
    ClockStep(seq=8, by_us=1 << 50, doubt_us=NOBODY_KNOWS_US),
)


def test_how_the_clock_was_set_comes_back_and_costs_nothing_where_it_was_not() -> None:
    assert "steps" not in cbor2.loads(encode_batch(a_batch(a_row())))

    batch = decode_batch(encode_batch(replace(a_batch(a_row()), steps=STEPS)))

    assert batch.steps == STEPS


@pytest.mark.parametrize(
    "steps",
    [
        3,
        {},
        {**pack_steps(STEPS), "by_us": b""},
        pack_steps(STEPS[::-1]),
        pack_steps([ClockStep(seq=0, by_us=1)]),
        pack_steps([ClockStep(seq=1, by_us=-(1 << 63) + 1)]),
        pack_steps([ClockStep(seq=1, by_us=1, doubt_us=-1)]),
        pack_steps([ClockStep(seq=n + 1, by_us=1) for n in range(MAX_STEPS + 1)]),
    ],
)
def test_steps_that_make_no_sense_are_refused(steps: object) -> None:
    fields = cbor2.loads(encode_batch(a_batch(a_row())))

    with pytest.raises(Malformed, match=r"steps|seq|by_us|doubt_us"):
        decode_batch(cbor2.dumps({**fields, "steps": steps}))
