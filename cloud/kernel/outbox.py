"""Writing events into the publishing context's own outbox, in the caller's transaction."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

import psycopg

from cloud.kernel.blobs import BlobStore
from cloud.kernel.events import INLINE_BYTES_MAX, Event, uuid7

CHANNEL: Final = "aquacis_outbox"
"""Wakes readers after a commit; carries no data, and nobody relies on it."""

_COPY: Final = "COPY outbox (type, wire) FROM STDIN (FORMAT binary)"
_COPY_TYPES: Final = ("text", "bytea")
_INSERT: Final = "INSERT INTO outbox (type, wire) VALUES (%b::text, %b::bytea)"

COPY_FROM_EVENTS: Final = 4
"""From this many events on, COPY costs less than one prepared INSERT each."""


def new_ids(time: int) -> Callable[[], UUID]:
    """Return a source of event ids for facts of the instant `time` (µs since 1970).

    Each is its predecessor plus one, from a random start (RFC 9562 §6.2, method 2): drawing
    random bits for every event would cost more than the rest of it.
    """
    first = uuid7(time, os.urandom(8)).int & ~(1 << 61)  # room for the counter
    numbers = itertools.count(first)
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
    rows = [(event.type, _wire(event, blobs)) for event in events]
    with connection.cursor() as cursor:
        if len(rows) < COPY_FROM_EVENTS:
            for row in rows:
                cursor.execute(_INSERT, row, prepare=True)
        else:
            with cursor.copy(_COPY) as copy:
                copy.set_types(_COPY_TYPES)
                for row in rows:
                    copy.write_row(row)
        cursor.execute(f"NOTIFY {CHANNEL}")


def _wire(event: Event, blobs: BlobStore) -> bytes:
    if len(event.data) <= INLINE_BYTES_MAX:
        return event.wire()
    return event.wire(blob=blobs.put(event.data))
