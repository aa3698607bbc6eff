"""Rows of the log that hold several events: nothing lost or moved, each with its own place."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from tempfile import gettempdir

from hypothesis import given
from hypothesis import strategies as st

from cloud.kernel import outbox
from cloud.kernel.blobs import FolderBlobs
from cloud.kernel.events import Event, EventType, json_event
from cloud.kernel.postgres_bus import PostgresPage
from cloud.kernel.wire import BUNDLE_BYTES_MAX, BUNDLE_EVENTS_MAX, bundled, unbundled

BLOBS = FolderBlobs(Path(gettempdir()) / "never-written")
_new_id = outbox.new_ids(1_790_000_000_000_000)

kinds = st.sampled_from([EventType(name=name, version=1) for name in ("thing.a", "thing.b")])
sizes = st.one_of(st.integers(0, 300), st.sampled_from([3_800, 7_850, 7_900, 8_000, 60_000]))


@st.composite
def events(draw: st.DrawFn) -> list[Event]:
    made = []
    for n, (kind, size) in enumerate(draw(st.lists(st.tuples(kinds, sizes), max_size=40))):
        for _ in range(draw(st.sampled_from([1, 1, 1, 150]))):
            body = {"n": n, "pad": "*" * size}
            made.append(json_event(kind, body, id=_new_id(), source="metering", time=1, key=n))
    return made


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=BUNDLE_EVENTS_MAX))
def test_a_bundle_gives_back_what_was_put_in(bodies: list[bytes]) -> None:
    wires = [b"0" + body for body in bodies]  # an event begins with a digit of its id
    assert list(unbundled(bundled(wires))) == wires


@given(events())
def test_rows_hold_the_events_in_order_and_keep_to_their_bounds(published: list[Event]) -> None:
    rows = list(outbox._rows(published, BLOBS)) if published else []

    assert [each for _, _, wire in rows for each in unbundled(wire)] == published
    for kind, count, wire in rows:
        held = [Event.received(each) for each in unbundled(wire)]
        assert len(held) == count <= BUNDLE_EVENTS_MAX
        assert {event.type for event in held} == {kind}
        assert count == 1 or len(wire) <= BUNDLE_BYTES_MAX
    for (kind, _, wire), (next_kind, _, next_wire) in pairwise(rows):
        together = len(wire) + len(unbundled(next_wire)[0]) + 8
        full = len(unbundled(wire)) == BUNDLE_EVENTS_MAX or together > BUNDLE_BYTES_MAX
        assert kind != next_kind or full, "two rows where one would do"


@given(events(), st.data())
def test_each_event_of_a_page_has_its_own_token(
    published: list[Event], data: st.DataObject
) -> None:
    rows: list[tuple[int, int, bytes | None]] = []
    tokens: list[tuple[int, int]] = []
    xid, last = 7, 0
    for _, count, wire in outbox._rows(published, BLOBS) if published else []:
        xid += data.draw(st.integers(0, 1))
        last += BUNDLE_EVENTS_MAX
        wanted = data.draw(st.booleans())
        rows.append((xid, last, bytes(wire) if wanted else None))
        tokens += [(xid, last - count + 1 + n) for n in range(count) if wanted]

    page = PostgresPage(rows, (1, 1))

    assert [page.token(n) for n in range(len(page.events))] == tokens == sorted(set(tokens))
    assert page.end == ((rows[-1][0], rows[-1][1]) if rows else (1, 1))
