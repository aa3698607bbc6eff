"""How the outbox packs rows: they come back as they were, and nothing else comes back."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.uplink import MAX_PAYLOAD_BYTES, Row, RowFlag, RowKind
from edge_agent.outbox_rows import RowDamaged, pack_page, pack_row, unpack_page, unpack_row

instants = st.integers(min_value=-(1 << 62), max_value=1 << 62)
seqs = st.integers(min_value=1, max_value=(1 << 63) - 1)


@st.composite
def some_rows(draw: st.DrawFn) -> list[Row]:
    return [
        Row(
            seq=seq,
            heard_at=draw(instants),
            kind=draw(st.sampled_from(RowKind)),
            flags=RowFlag(draw(st.integers(0, 127))),
            radio=draw(st.integers(0, (1 << 64) - 1)),
            session=draw(st.integers(0, (1 << 32) - 1)),
            counter=draw(st.integers(0, (1 << 32) - 1)),
            port=draw(st.integers(0, 255)),
            rssi=draw(st.integers(-32768, 32767)),
            snr=draw(st.integers(-128, 127)),
            payload=draw(st.binary(max_size=MAX_PAYLOAD_BYTES) | st.binary(max_size=3)),
        )
        for seq in sorted(draw(st.sets(seqs, max_size=8)))
    ]


@given(rows=some_rows())
def test_rows_come_back_from_a_page_and_one_by_one(rows: list[Row]) -> None:
    assert unpack_page(pack_page(rows), len(rows)) == tuple(rows)
    assert [unpack_row(row.seq, pack_row(row)) for row in rows] == rows


@given(rows=some_rows().filter(bool), place=st.integers(0, 1 << 20), bit=st.integers(0, 7))
def test_a_flipped_bit_of_a_row_is_noticed(rows: list[Row], place: int, bit: int) -> None:
    packed = bytearray(pack_row(rows[0]))
    packed[place % len(packed)] ^= 1 << bit

    with pytest.raises(RowDamaged):
        unpack_row(rows[0].seq, bytes(packed))
    with pytest.raises(RowDamaged):
        unpack_row(rows[0].seq ^ 1, pack_row(rows[0]))


@given(body=st.binary(max_size=200) | st.binary(max_size=200).map(zlib.compress))
def test_what_is_no_page_is_refused(body: bytes) -> None:
    with pytest.raises(RowDamaged):
        unpack_page(body, 3)
