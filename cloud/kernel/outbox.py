"""Writing events into the publishing context's own outbox, in the caller's transaction."""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

import psycopg

from cloud.kernel.blobs import BlobStore
from cloud.kernel.events import INLINE_BYTES_MAX, Event, uuid7

CHANNEL: Final = "aquacis_outbox"
"""Wakes readers after a commit; carries no data, and nobody relies on it."""

_COPY: Final = "COPY outbox (type, wire) FROM STDIN (FORMAT binary)"
_COPY_HEAD: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # signature, no flags, no extension
_COPY_END: Final = b"\xff\xff"
_INSERT: Final = "INSERT INTO outbox (type, wire) VALUES (%b::text, %b::bytea)"
_length: Final = struct.Struct(">i").pack

COPY_FROM_EVENTS: Final = 4
"""From this many events on, COPY costs less than one prepared INSERT each."""


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
    with connection.cursor() as cursor:
        if len(events) < COPY_FROM_EVENTS:
            for event in events:
                cursor.execute(_INSERT, (event.type, bytes(_wire(event, blobs))), prepare=True)
        else:
            with cursor.copy(_COPY) as copy:
                copy.write(_copied(events, blobs))
        cursor.execute(f"NOTIFY {CHANNEL}")


def _copied(events: Sequence[Event], blobs: BlobStore) -> bytes:
    """Return events as PostgreSQL's binary COPY has them: per row 2 columns, each with its length.

    Written here because a call per column into the driver costs more than all the rest.
    Source: PostgreSQL 18 documentation, COPY, "Binary Format".
    """
    parts = [_COPY_HEAD]
    kinds: dict[str, bytes] = {}
    for event in events:
        kind = event.type
        if (before := kinds.get(kind)) is None:
            name = kind.encode()
            before = kinds[kind] = b"\0\2" + _length(len(name)) + name
        wire = _wire(event, blobs)
        parts += (before, _length(len(wire)), wire)
    parts.append(_COPY_END)
    return b"".join(parts)


def _wire(event: Event, blobs: BlobStore) -> bytes:
    if len(event) <= INLINE_BYTES_MAX:
        return event
    return event.as_blob(blobs.put(event.data))
