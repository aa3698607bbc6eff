"""Events: shards for ever, ids that sort, bytes that come back as they went."""

from __future__ import annotations

import dataclasses
import os
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.kernel import outbox
from cloud.kernel.cloudevents import event_from, headers_of
from cloud.kernel.events import (
    ARROW,
    BlobNotFetched,
    Event,
    EventType,
    arrow_events,
    json_event,
    json_events,
    upcast,
    uuid7,
)
from cloud.kernel.shards import SHARDS, shard_of, shards_of

INT64 = st.integers(-(2**63), 2**63 - 1)
READING = EventType(
    name="reading.recorded",
    version=1,
    columns=pa.schema([("meter_key", pa.int64()), ("register_at", pa.int64()), ("l", pa.int32())]),
)
THING = EventType(name="thing.happened", version=2)

# Each is the CRC-32 in the trailer that gzip (RFC 1952) writes after the key's 8 big-endian bytes,
# modulo 64: for key 1 the trailer says 0x1225efff, and 0xff % 64 = 63.
VECTORS = {0: 41, 1: 63, 2: 5, 63: 20, 64: 57, 400_000: 32, 2**63 - 1: 6, -1: 28}


@pytest.mark.parametrize(("key", "shard"), VECTORS.items())
def test_a_key_has_the_same_shard_for_ever(key: int, shard: int) -> None:
    assert shard_of(key) == shard


@given(st.lists(INT64))
def test_a_column_of_keys_has_the_shards_of_its_keys(keys: list[int]) -> None:
    assert shards_of(np.array(keys, dtype=np.int64)).tolist() == [shard_of(key) for key in keys]


def test_meters_spread_evenly_over_the_shards() -> None:
    counts = np.bincount(shards_of(np.arange(400_000)), minlength=SHARDS)

    assert counts.min() > 0.95 * 400_000 / SHARDS
    assert counts.max() < 1.05 * 400_000 / SHARDS


@given(st.integers(0, 2**48 * 1000 - 1), st.binary(min_size=10, max_size=10))
def test_an_id_is_a_uuid_of_version_7_that_tells_its_millisecond(time: int, noise: bytes) -> None:
    made = uuid7(time, noise)

    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert made.int >> 80 == time // 1000


@given(st.integers(0, 2**48 * 1000 - 2), st.binary(min_size=8, max_size=8))
def test_ids_sort_by_the_microsecond(time: int, noise: bytes) -> None:
    assert uuid7(time, b"\xff" * 8) < uuid7(time + 1, noise)


def test_new_ids_differ_and_stay_version_7() -> None:
    new_id = outbox.new_ids(1_790_000_000_000_000)
    made = [new_id() for _ in range(1000)]

    assert made == sorted(set(made))
    assert all(each.version == 7 and each.variant == made[0].variant for each in made)


events = st.builds(
    Event,
    id=st.uuids(),
    source=st.sampled_from(["metering", "billing"]),
    type=st.just("thing.happened"),
    dataschema=st.integers(1, 300).map(lambda version: f"thing.happened/{version}"),
    time=INT64,
    traceparent=st.sampled_from(["", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]),
    shard=st.integers(0, 63),
    key=st.none() | INT64,
    rows=st.integers(0, 2**31 - 1),
    first_at=st.none() | INT64,
    last_at=st.none() | INT64,
    content_type=st.sampled_from(["application/json", ARROW]),
    data=st.binary(),
)


@given(events)
def test_an_event_comes_back_from_a_log_as_it_went(event: Event) -> None:
    received = Event.received(bytes(event))

    assert received == event
    assert received.attributes == event.attributes
    assert received.data == event.data
    assert (received.type, received.dataschema) == (event.type, event.dataschema)


@given(events)
def test_an_event_comes_back_from_cloudevents_headers_as_it_went(event: Event) -> None:
    assert event_from(headers_of(event) | {"unknown": "header"}, event.data) == event


@given(events)
def test_an_event_with_a_blob_gets_its_body_when_asked(event: Event) -> None:
    address = "ab" * 32
    received = event.as_blob(address)

    with pytest.raises(BlobNotFetched, match=address):
        assert received.data
    assert received.blob == address
    assert received.whole({address: event.data}.__getitem__) == event
    assert event.whole(str.encode) is event, "nothing is fetched"


def test_a_separator_inside_an_attribute_is_a_bug_that_shows() -> None:
    with pytest.raises(AssertionError, match="separator"):
        json_event(THING, {}, id=UUID(int=1), source="a;b", time=1, key=1)


def test_many_facts_made_at_once_equal_facts_made_one_by_one() -> None:
    bodies = [(key, {"litros": key, "toma": "ñ"}) for key in (1, -7, 2**62)]
    first = outbox.new_ids(5)()

    many = json_events(THING, bodies, first_id=first, source="billing", time=5, traceparent="t")

    assert many == [
        json_event(
            THING,
            body,
            id=UUID(int=first.int + place),
            source="billing",
            time=5,
            key=key,
            traceparent="t",
        )
        for place, (key, body) in enumerate(bodies)
    ]


def split(keys: list[int], instants: list[int], litres: list[int]) -> list[Event]:
    return arrow_events(
        READING,
        {
            "meter_key": np.array(keys, dtype=np.int64),
            "register_at": np.array(instants, dtype=np.int64),
            "l": np.array(litres, dtype=np.int32),
        },
        new_id=lambda: uuid7(1, os.urandom(8)),
        source="metering",
        time=1,
    )


@settings(deadline=None)  # the first call imports Arrow's codecs
@given(st.lists(st.tuples(st.integers(0, 400), INT64, st.integers(0, 2**31 - 1))))
def test_splitting_columns_loses_no_row_and_keeps_order(rows: list[tuple[int, int, int]]) -> None:
    made = split([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows])

    by_shard: dict[int, list[tuple[int, int, int]]] = {}
    for row in rows:
        by_shard.setdefault(shard_of(row[0]), []).append(row)
    found = {
        event.shard: list(
            zip(*(column.tolist() for column in event.columns().values()), strict=True)
        )
        for event in made
    }
    assert found == by_shard
    for event in made:
        instants = [row[1] for row in by_shard[event.shard]]
        assert (event.first_at, event.last_at) == (min(instants), max(instants))
        assert event.rows == len(instants)
        assert event.content_type == ARROW


def test_a_batch_without_a_declared_column_is_refused() -> None:
    with pytest.raises(KeyError):
        arrow_events(
            READING,
            {"meter_key": np.array([1]), "register_at": np.array([1])},
            new_id=lambda: UUID(int=1),
            source="metering",
            time=1,
        )


def test_an_old_event_is_brought_to_the_newest_version_step_by_step() -> None:
    old = json_event(
        dataclasses.replace(THING, version=1), {"m3": 2}, id=UUID(int=1), source="x", time=1, key=1
    )

    def step(event: Event, version: int, field: str, factor: int) -> Event:
        kind = dataclasses.replace(THING, version=version)
        (amount,) = event.body().values()
        body = {field: amount * factor}
        return json_event(kind, body, id=event.id, source=event.source, time=event.time, key=1)

    upcasters = {
        "thing.happened/1": lambda event: step(event, 2, "litres", 1000),
        "thing.happened/2": lambda event: step(event, 3, "millilitres", 1000),
    }

    assert upcast(old, upcasters).body() == {"millilitres": 2_000_000}
    assert upcast(old, upcasters).dataschema == "thing.happened/3"
    assert upcast(old, {}) == old
