"""What travels between contexts: the event, its shard, its wire header and its versions.

An event is a CloudEvents 1.0 envelope around either one JSON object (a business fact) or an
Arrow IPC stream (many readings of one shard as columns). Nothing here reads a clock, draws a
random number or opens a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Final, TypeAlias
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from cloud.kernel.shards import SHARDS, shard_of, shards_of
from cloud.kernel.wire import END, Attributes, attributes_of, head_of
from decoders.value import value

INLINE_BYTES_MAX: Final = 256 * 1024
"""Above this an event carries a blob reference: Kafka's default message limit is 1 MiB, and a
reader that only wants the header must not pay for the body."""

JSON: Final = "application/json"
ARROW: Final = "application/vnd.apache.arrow.stream"

Column: TypeAlias = "npt.NDArray[Any] | pa.Array"


class BlobNotFetched(LookupError):
    """The body of this event is in the blob store; `whole` gets it."""

    def __init__(self, address: str) -> None:
        super().__init__(f"event body is blob {address}")
        self.address = address


class Event(bytes):
    """A fact one context published, as the bytes it travels in: see `wire.py`.

    Reading it is left to who asks: most handlers want little of it, a reader handles a hundred
    thousand events a second, and making an object of every attribute would cost more than all the
    rest. That is why it is a `bytes`: one is made without running any Python.
    """

    def __new__(
        cls,
        *,
        id: UUID,
        source: str,
        type: str,
        time: int,
        dataschema: str,  # "reading.recorded/1"
        traceparent: str = "",
        shard: int,
        key: int | None = None,
        rows: int = 1,
        first_at: int | None = None,
        last_at: int | None = None,
        content_type: str = JSON,
        data: bytes,
    ) -> Event:
        name, _, version = dataschema.rpartition("/")
        assert name == type, f"dataschema {dataschema} is not one of {type}"
        assert 0 <= shard < SHARDS, f"shard {shard}"
        attributes = Attributes(
            id,
            source,
            type,
            int(version),
            time,
            traceparent,
            shard,
            key,
            rows,
            first_at,
            last_at,
            content_type,
            None,
        )
        return Event.received(head_of(attributes) + data)

    @staticmethod
    def received(wire: bytes) -> Event:
        """Return the event of a log's bytes."""
        return bytes.__new__(Event, wire)

    def as_blob(self, address: str) -> Event:
        """Return this event without its body, which is stored under `address`."""
        return Event.received(head_of(self.attributes._replace(blob=address)))

    def whole(self, fetch: Callable[[str], bytes]) -> Event:
        """Return this event with its body, fetched when it is in the blob store."""
        if self[-1] != END or self.attributes.blob is None:
            return self
        body = fetch(self.attributes.blob)
        return Event.received(head_of(self.attributes._replace(blob=None)) + body)

    @cached_property
    def attributes(self) -> Attributes:
        return attributes_of(self[: self.index(END)])

    @cached_property
    def data(self) -> bytes:
        """The body. Raises `BlobNotFetched`."""
        data = self[self.index(END) + 1 :]
        if not data and self.attributes.blob is not None:
            raise BlobNotFetched(self.attributes.blob)
        return data

    @property
    def id(self) -> UUID:
        return self.attributes.id

    @property
    def source(self) -> str:
        return self.attributes.source

    @property
    def type(self) -> str:
        return self.split(b";", 3)[2].decode()  # without the rest: asked of all that is published

    @property
    def time(self) -> int:
        return self.attributes.time

    @property
    def version(self) -> int:
        return self.attributes.version

    @property
    def dataschema(self) -> str:
        return f"{self.type}/{self.version}"

    @property
    def traceparent(self) -> str:
        return self.attributes.traceparent

    @property
    def shard(self) -> int:
        return self.attributes.shard

    @property
    def key(self) -> int | None:
        return self.attributes.key

    @property
    def rows(self) -> int:
        return self.attributes.rows

    @property
    def first_at(self) -> int | None:
        return self.attributes.first_at

    @property
    def last_at(self) -> int | None:
        return self.attributes.last_at

    @property
    def content_type(self) -> str:
        return self.attributes.content_type

    @property
    def blob(self) -> str | None:
        return self.attributes.blob

    def body(self) -> dict[str, Any]:
        """Return the JSON object of a business fact."""
        body: dict[str, Any] = json.loads(self.data)
        return body

    def table(self) -> pa.Table:
        """Return the columns of a batch event."""
        with pa.ipc.open_stream(self.data) as stream:
            return stream.read_all()

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return the columns of a batch event as numpy arrays, nulls as numpy has them."""
        table = self.table()
        return {
            name: table.column(name).to_numpy(zero_copy_only=False) for name in table.column_names
        }

    def __repr__(self) -> str:
        return f"Event({self.dataschema} {self.id} shard {self.shard} rows {self.rows})"


received_all: Final[Callable[[Iterable[bytes]], Iterable[Event]]] = partial(
    map, partial(bytes.__new__, Event)
)
"""`Event.received` for each of many, without running Python for any."""


@value
class EventType:
    """One published fact, declared once in its context's `events.py`.

    `columns` is the Arrow schema of a batch event and None for a JSON fact; within a version
    columns are only added.
    """

    name: str  # past tense, "reading.recorded"
    version: int
    columns: pa.Schema | None = None

    @property
    def dataschema(self) -> str:
        return f"{self.name}/{self.version}"


def uuid7(time_us: int, randomness: bytes) -> UUID:
    """Make a UUID of version 7 (RFC 9562 §5.7) from an instant and 10 random bytes.

    rand_a holds the microseconds within the millisecond (§6.2, method 3), so ids made in one
    process sort as they were made, to the microsecond.
    """
    milliseconds, microseconds = divmod(time_us, 1000)
    random = int.from_bytes(randomness[:8], "big") & ((1 << 62) - 1)
    fraction = (microseconds << 12) // 1000
    return UUID(
        int=(milliseconds & ((1 << 48) - 1)) << 80 | 7 << 76 | fraction << 64 | 2 << 62 | random
    )


def json_event(
    kind: EventType,
    body: Mapping[str, Any],
    *,
    id: UUID,
    source: str,
    time: int,
    key: int,
    traceparent: str = "",
) -> Event:
    """Make a business fact about `key`; its body must be plain JSON (whole numbers, no floats)."""
    return Event(
        id=id,
        source=source,
        type=kind.name,
        time=time,
        dataschema=kind.dataschema,
        traceparent=traceparent,
        shard=shard_of(key),
        key=key,
        content_type=JSON,
        data=_json(body),
    )


def json_events(
    kind: EventType,
    facts: Iterable[tuple[int, Mapping[str, Any] | bytes]],
    *,
    first_id: UUID,
    source: str,
    time: int,
    traceparent: str = "",
) -> list[Event]:
    """Make many business facts of one instant at once, several times faster than one by one.

    facts      (key, body), the body as an object or as JSON already
    first_id   of the first; the others count up from it (RFC 9562 §6.2, method 2)
    """
    alone = (0, None, 1, None, None, JSON, None)
    sample = Attributes(_NO_ID, source, kind.name, kind.version, time, traceparent, *alone)
    before, after = head_of(sample).decode()[32:].split(";0;;")
    return [
        Event.received(
            f"{number:032x}{before};{shard_of(key)};{key};{after}".encode()
            + (body if isinstance(body, bytes) else _json(body))
        )
        for number, (key, body) in enumerate(facts, start=first_id.int)
    ]


_NO_ID: Final = UUID(int=0)
_json_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _json(body: Mapping[str, Any]) -> bytes:
    return _json_encoder.encode(body).encode()


# Handing small buffers to a pool of threads costs eight times what compressing them does.
_IPC_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)


def arrow_events(
    kind: EventType,
    columns: Mapping[str, Column],
    *,
    new_id: Callable[[], UUID],
    source: str,
    time: int,
    key: str = "meter_key",
    at: str | None = "register_at",
    traceparent: str = "",
) -> list[Event]:
    """Split columns into one event per shard that occurs: at most 64.

    columns     each (n,), in the order that must hold within a shard
    key         the int64 column that chooses the shard
    at          the int64 column of instants (µs) that `first_at` and `last_at` bound, or None
    """
    keys = np.asarray(columns[key], dtype=np.int64)
    if not len(keys):
        return []
    shards = shards_of(keys)
    order = np.argsort(shards, kind="stable")
    ends = np.cumsum(np.bincount(shards, minlength=SHARDS))
    batch = _record_batch(kind, columns).take(pa.array(order))
    instants = None if at is None else np.asarray(columns[at], dtype=np.int64)[order]
    return [
        Event(
            id=new_id(),
            source=source,
            type=kind.name,
            time=time,
            dataschema=kind.dataschema,
            traceparent=traceparent,
            shard=shard,
            rows=end - begin,
            first_at=None if instants is None else int(instants[begin:end].min()),
            last_at=None if instants is None else int(instants[begin:end].max()),
            content_type=ARROW,
            data=_stream(batch.slice(begin, end - begin)),
        )
        for shard, begin, end in _runs(ends)
    ]


def _runs(ends: npt.NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Yield (shard, begin, end) of every shard that has rows, from cumulated counts."""
    begin = 0
    for shard, end in enumerate(ends.tolist()):
        if end > begin:
            yield shard, begin, end
        begin = end


def _record_batch(kind: EventType, columns: Mapping[str, Column]) -> pa.RecordBatch:
    """Return the columns as `kind` declares them; raises when one is missing or of another type."""
    if kind.columns is None:
        return pa.RecordBatch.from_arrays(
            [pa.array(column) for column in columns.values()], names=list(columns)
        )
    arrays = [pa.array(columns[field.name], type=field.type) for field in kind.columns]
    return pa.RecordBatch.from_arrays(arrays, schema=kind.columns)


def _stream(batch: pa.RecordBatch) -> bytes:
    """Return an Arrow IPC stream of one batch, its buffers lz4-compressed."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=_IPC_OPTIONS) as writer:
        writer.write_batch(batch)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream


Upcaster = Callable[[Event], Event]


def upcast(event: Event, upcasters: Mapping[str, Upcaster]) -> Event:
    """Return the event in its newest version.

    upcasters   dataschema → the step to a later version of the same event
    """
    while (step := upcasters.get(event.dataschema)) is not None:
        later = step(event)
        assert later.version > event.version, f"upcaster of {event.dataschema} goes back"
        event = later
    return event


def declared_in(module: object) -> Sequence[EventType]:
    """Return the event types an `events.py` declares, by name."""
    found = [each for each in vars(module).values() if isinstance(each, EventType)]
    return sorted(found, key=lambda each: (each.name, each.version))
