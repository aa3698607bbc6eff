"""Writing events into the publishing context's own outbox, in the caller's transaction."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

import psycopg

from cloud.kernel.blobs import BlobStore
from cloud.kernel.events import INLINE_BYTES_MAX, Event, uuid7

CHANNEL: Final = "aquacis_outbox"
"""Wakes readers after a commit; carries no data, and nobody relies on it."""

_COLUMNS: Final = (
    ("event_id", "uuid"),
    ("source", "text"),
    ("type", "text"),
    ("version", "int2"),
    ("time", "int8"),
    ("traceparent", "text"),
    ("shard", "int2"),
    ("key", "int8"),
    ("rows", "int4"),
    ("first_at", "int8"),
    ("last_at", "int8"),
    ("content_type", "text"),
    ("data", "bytea"),
    ("blob", "text"),
)
_NAMES: Final = ", ".join(name for name, _ in _COLUMNS)
_COPY: Final = f"COPY outbox ({_NAMES}) FROM STDIN (FORMAT binary)"
_INSERT: Final = (
    f"INSERT INTO outbox ({_NAMES}) VALUES ("  # noqa: S608  names of our own columns
    + ", ".join(f"%b::{kind}" for _, kind in _COLUMNS)
    + ")"
)

COPY_FROM_EVENTS: Final = 4
"""From this many events on, COPY costs less than one prepared INSERT each."""


def new_ids(time: int) -> Callable[[], UUID]:
    """Return a source of event ids for facts of the instant `time` (µs since 1970)."""
    return lambda: uuid7(time, os.urandom(8))


def publish(
    connection: psycopg.Connection[Any], events: Sequence[Event], *, blobs: BlobStore
) -> None:
    """Add events to the outbox of the connection's context, in its open transaction.

    They are delivered after that transaction commits, in this order within their shard; a
    rollback publishes nothing (and may leave a large event's blob behind, which harms nobody).
    """
    if not events:
        return
    rows = [_row(event, blobs) for event in events]
    with connection.cursor() as cursor:
        if len(rows) < COPY_FROM_EVENTS:
            for row in rows:
                cursor.execute(_INSERT, row, prepare=True)
        else:
            with cursor.copy(_COPY) as copy:
                copy.set_types([kind for _, kind in _COLUMNS])
                for row in rows:
                    copy.write_row(row)
        cursor.execute(f"NOTIFY {CHANNEL}")


def _row(event: Event, blobs: BlobStore) -> tuple[Any, ...]:
    large = len(event.data) > INLINE_BYTES_MAX
    return (
        event.id,
        event.source,
        event.type,
        event.version,
        event.time,
        event.traceparent,
        event.shard,
        event.key,
        event.rows,
        event.first_at,
        event.last_at,
        event.content_type,
        None if large else event.data,
        blobs.put(event.data) if large else None,
    )
