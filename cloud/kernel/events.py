"""What travels between contexts: the event, its shard, its wire header and its versions.

An event is a CloudEvents 1.0 envelope around either one JSON object (a business fact) or an
Arrow IPC stream (many readings of one shard as columns). Nothing here reads a clock, draws a
random number or opens a file.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from decoders.value import value

SHARDS: Final = 64
"""Fixed for ever: a key's shard is its place in every log ever written."""

INLINE_BYTES_MAX: Final = 256 * 1024
"""Above this an event carries a blob reference: Kafka's default message limit is 1 MiB, and a
reader that only wants the header must not pay for the body."""

JSON: Final = "application/json"
ARROW: Final = "application/vnd.apache.arrow.stream"

Column: TypeAlias = "npt.NDArray[Any] | pa.Array"


@value
class Event:
    """A fact one context published; `data` is what `content_type` and `dataschema` say."""

    id: UUID  # version 7; the same for every delivery of this event
    source: str  # the context that published it, "metering"
    type: str  # "reading.recorded"
    time: int  # µs since 1970 UTC, when it happened
    dataschema: str  # "reading.recorded/1"
    traceparent: str = ""  # W3C trace context, empty when nobody traces
    shard: int  # order holds within one
    key: int | None = None  # the surrogate key that chose the shard; None for a batch of keys
    rows: int = 1
    first_at: int | None = None  # µs, smallest instant inside
    last_at: int | None = None  # µs, greatest instant inside
    content_type: str = JSON
    data: bytes

    @property
    def version(self) -> int:
        return int(self.dataschema.rpartition("/")[2])

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


def shard_of(key: int) -> int:
    """Return the shard of a surrogate key: crc32 of its 8 big-endian bytes, modulo 64."""
    return zlib.crc32(key.to_bytes(8, "big", signed=True)) % SHARDS


def _byte_tables() -> tuple[list[npt.NDArray[np.uint8]], int]:
    """Return what each byte of a key contributes to its shard, and the shard of key 0.

    crc32 is affine over XOR, and so are its low six bits: the shard of a key is the shard of 0
    XORed with one table entry per byte.
    """
    origin = shard_of(0)
    tables = [
        np.array(
            [
                zlib.crc32(bytes(7 - place) + bytes([byte]) + bytes(place)) % SHARDS ^ origin
                for byte in range(256)
            ],
            dtype=np.uint8,
        )
        for place in range(8)
    ]
    return tables, origin


_TABLES, _ORIGIN = _byte_tables()


def shards_of(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Return `shard_of` each key, (n,) → (n,)."""
    octets = np.ascontiguousarray(keys, dtype="<i8").view(np.uint8).reshape(-1, 8)
    shards = np.full(len(octets), _ORIGIN, dtype=np.uint8)
    for place, table in enumerate(_TABLES):
        shards ^= table[octets[:, place]]
    return shards


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
        data=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(),
    )


_IPC_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


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


# The CloudEvents attributes as text (binary content mode: they become message headers). The names
# of ours are lower case letters and digits, as CloudEvents 1.0 §3.1 asks.
_OPTIONAL = {"key": "key", "firstat": "first_at", "lastat": "last_at"}


def headers_of(event: Event) -> dict[str, str]:
    """Return the CloudEvents 1.0 attributes of an event; `time` stays µs since 1970 in text."""
    headers = {
        "specversion": "1.0",
        "id": str(event.id),
        "source": event.source,
        "type": event.type,
        "time": str(event.time),
        "dataschema": event.dataschema,
        "datacontenttype": event.content_type,
        "shard": str(event.shard),
        "rows": str(event.rows),
    }
    if event.traceparent:
        headers["traceparent"] = event.traceparent
    for header, field in _OPTIONAL.items():
        number = getattr(event, field)
        if number is not None:
            headers[header] = str(number)
    return headers


def event_from(headers: Mapping[str, str], data: bytes) -> Event:
    """Return the event of a header and its data; unknown headers are ignored."""
    optional = {
        field: int(headers[header]) for header, field in _OPTIONAL.items() if header in headers
    }
    return Event(
        id=UUID(headers["id"]),
        source=headers["source"],
        type=headers["type"],
        time=int(headers["time"]),
        dataschema=headers["dataschema"],
        traceparent=headers.get("traceparent", ""),
        shard=int(headers["shard"]),
        rows=int(headers["rows"]),
        content_type=headers["datacontenttype"],
        data=data,
        **optional,
    )


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
