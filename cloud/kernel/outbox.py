"""Writing events into the publishing context's own outbox, in the caller's transaction."""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final
from uuid import UUID

import psycopg

from cloud.kernel.blobs import BlobStore
from cloud.kernel.events import INLINE_BYTES_MAX, Event, uuid7
from cloud.kernel.wire import BUNDLE_BYTES_MAX, BUNDLE_EVENTS_MAX, bundled

CHANNEL: Final = "aquacis_outbox"
"""Wakes readers after a commit; carries no data, and nobody relies on it."""

_COPY: Final = "COPY outbox (type, events, wire) FROM STDIN (FORMAT binary)"
_COPY_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # signature, no flags, no extension
_COPY_END: Final = b"\xff\xff"
_INSERT: Final = "INSERT INTO outbox (type, events, wire) VALUES (%b::text, %b::int2, %b::bytea)"
_length: Final = struct.Struct(">i").pack
_count: Final = struct.Struct(">ih").pack

COPY_FROM_ROWS: Final = 4
"""From this many rows on, COPY costs less than one prepared INSERT each."""

_Row = tuple[str, int, bytes]
"""Some events of a type that follow one another: type, how many, and `wire.bundled` of them."""


def new_ids(time: int) -> Callable[[], UUID]:
    """Return a source of event ids for facts of the instant `time` (µs since 1970).

    From a random start they count up in steps that leave room for `json_events`, which counts on
    from each (RFC 9562 §6.2, method 2): random bits for each event would cost more than the rest.
    """
    first = uuid7(time, os.urandom(8)).int & ~(1 << 61)  # room for 2^29 steps
    numbers = itertools.count(first, 1 << 32)
    return lambda: UUID(int=next(numbers))


def publish(
    connection: psycopg.Connection[Any], events: Sequence[Event], *, blobs: BlobStore
) -> None:
    """Add events to the outbox of the connection's context, in its open transaction.

    They are delivered after that transaction commits, in this order within their shard; a
    rollback publishes nothing (and may leave a large event's blob behind, which harms nobody).
    """
    if not events:
        return
    rows = list(_rows(events, blobs))
    with connection.cursor() as cursor:
        if len(rows) < COPY_FROM_ROWS:
            for kind, held, wire in rows:
                cursor.execute(_INSERT, (kind, held, bytes(wire)), prepare=True)
        else:
            with cursor.copy(_COPY) as copy:
                copy.write(_copied(rows))
        cursor.execute(f"NOTIFY {CHANNEL}")


def _rows(events: Sequence[Event], blobs: BlobStore) -> Iterator[_Row]:
    """Yield the rows that hold `events`, in order."""
    kind, wires, size = "", list[bytes](), 0
    for event in events:
        wire, type = _wire(event, blobs), event.type
        size += 2 + len(wire)  # its size is noted in two bytes
        fits = size <= BUNDLE_BYTES_MAX and len(wires) < BUNDLE_EVENTS_MAX
        if type != kind or not fits:
            if wires:
                yield kind, len(wires), bundled(wires)
            kind, wires, size = type, [], 4 + len(wire)
        wires.append(wire)
    yield kind, len(wires), bundled(wires)


def _copied(rows: Sequence[_Row]) -> bytes:
    """Return rows as PostgreSQL's binary COPY has them: 3 columns, each with its length.

    Written here because a call per column into the driver costs more than all the rest.
    Source: PostgreSQL 18 documentation, COPY, "Binary Format".
    """
    parts = [_COPY_HEAD]
    for kind, events, wire in rows:
        name = kind.encode()
        parts += (b"\0\3", _length(len(name)), name, _count(2, events), _length(len(wire)), wire)
    parts.append(_COPY_END)
    return b"".join(parts)


def _wire(event: Event, blobs: BlobStore) -> bytes:
    if len(event) <= INLINE_BYTES_MAX:
        return event
    return event.as_blob(blobs.put(event.data))
