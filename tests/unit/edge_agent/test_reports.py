"""No row that the agent makes is longer than the cloud reads, whatever it has to say."""

from __future__ import annotations

import json
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.uplink import MAX_PAYLOAD_BYTES, Batch, RowKind, decode_batch, encode_batch, pack_rows
from edge_agent import reduction
from edge_agent.caps import report
from edge_agent.inputs import BadInput, Now, SourceChanged, Store
from edge_agent.instants import BadInstant, micros
from edge_agent.outbox import Draft
from edge_agent.outbox_rows import numbered
from edge_agent.reports import packed
from edge_agent.sources.chirpstack import heard_in
from edge_agent.sources.lines import put_line
from edge_agent.sources.port import Inbox
from edge_agent.sources.supervisor import Hearing
from edge_agent.sources.uplinks import BadEvent

NOW = Now(at=1_700_000_000_000_000, wall_s=1.0, chance=0.5)
TEXT = st.text(max_size=2000) | st.text(st.sampled_from("ñ\ud800\udcff€😀"), max_size=2000)
SAID = st.recursive(
    TEXT | st.binary(max_size=2000) | st.integers(-(2**63), 2**63 - 1) | st.none(),
    lambda inner: st.lists(inner, max_size=200) | st.dictionaries(st.text(max_size=99), inner),
    max_leaves=60,
)


def taken_by_the_cloud(drafts: list[Draft]) -> list[dict[str, Any]]:
    """Send the rows as the agent does, read them as the cloud does."""
    rows = pack_rows([numbered(draft, 1 + i) for i, draft in enumerate(drafts)])
    batch = Batch(gateway="g", stream=bytes(16), rows=rows, sent_at=1, started_at=1)
    return [cbor2.loads(row.payload) for row in decode_batch(encode_batch(batch)).rows]


def rows_of(bad: object) -> list[Draft]:
    assert isinstance(bad, BadInput)
    _, effects = reduction.bad_input(reduction.State(policy=reduction.Policy()), bad, NOW)
    return [row for effect in effects if isinstance(effect, Store) for row in effect.rows]


def test_an_event_with_a_long_instant_is_reported_in_a_row_that_is_read() -> None:
    event = {"deviceInfo": {"devEui": "0" * 16}, "fPort": 1, "data": "AAAA", "time": ["x" * 3000]}
    inbox = Inbox()
    hearing = Hearing("chirpstack", inbox)
    with pytest.raises(BadEvent) as bad:
        heard_in(json.dumps(event).encode(), gateway_eui=None)
    hearing.put_bad(bad.value.code, bad.value.detail, json.dumps(event).encode())
    put_line(
        json.dumps({"telegram_hex": "2A44", "heard_at": ["ñ" * 3000]}).encode(), hearing, now_us=1
    )

    for said in taken_by_the_cloud([row for _ in range(2) for row in rows_of(inbox.get(1))]):
        assert said["kind"] == "bad_input"
        assert "got ['" in said["detail"]
        assert len(said["detail"]) < 120
        assert len(said["given"]) > 50


@pytest.mark.parametrize("text", ["x" * 9000, "ñ" * 9000, "\udcff" * 9000])
def test_whatever_is_wrong_with_an_input_its_report_is_read(text: str) -> None:
    inbox = Inbox()
    Hearing(text, inbox).put_bad("malformed", text, text.encode("utf-8", "replace"))

    (said,) = taken_by_the_cloud(rows_of(inbox.get(1)))

    assert said["code"] == "malformed"
    assert said["cut"] is True
    assert all(said[name] for name in ("source", "detail", "given"))


def test_a_source_is_down_for_a_reason_that_nobody_can_write() -> None:
    state = reduction.State(policy=reduction.Policy())
    change = SourceChanged(source="radio", kind="source_down", reason="/dev/\udcff: gone" * 90)
    _, effects = reduction.source_changed(state, change, NOW)

    (row,) = [row for effect in effects if isinstance(effect, Store) for row in effect.rows]
    (said,) = taken_by_the_cloud([row])
    assert said["reason"].startswith("/dev/?: gone")


def test_a_report_that_fits_says_all() -> None:
    said = {"kind": "shed", "count": 3, "from_at": 1, "names": ["a", "b"], "bytes": bytes(900)}

    assert cbor2.loads(report(said, at=1).payload) == said


@given(st.dictionaries(st.text(max_size=30), SAID, max_size=60), st.text(max_size=40))
def test_no_report_is_too_long_and_each_says_its_kind(said: dict[str, Any], kind: str) -> None:
    payload = packed({**said, "kind": kind})

    assert len(payload) <= MAX_PAYLOAD_BYTES
    assert cbor2.loads(payload)["kind"] == kind[: len(cbor2.loads(payload)["kind"])]


@given(st.lists(st.text(max_size=9000)) | st.floats() | st.booleans())
def test_a_refused_instant_is_quoted_in_brief(given_at: object) -> None:
    with pytest.raises(BadInstant) as refused:
        micros(given_at)

    assert len(str(refused.value)) < 120


def test_a_longer_row_is_a_fault_that_tests_find() -> None:
    with pytest.raises(AssertionError):
        numbered(Draft(heard_at=1, kind=RowKind.REPORT, payload=bytes(MAX_PAYLOAD_BYTES + 1)), 1)
