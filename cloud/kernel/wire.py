"""The bytes of an event in a log: its attributes as a line of text, then its body.

Several small events of one transaction share a row, since reading a row costs more than reading an
event. Such a bundle is

    "*"   u8 number of events   u16 size of each, big-endian   the events

An event's own first byte is never an asterisk: it is a digit of its id.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple
from uuid import UUID


class Attributes(NamedTuple):
    """What an event says about itself; all but its body."""

    id: UUID  # version 7; the same for every delivery of this event
    source: str  # the context that published it, "metering"
    type: str  # "reading.recorded"
    version: int  # of the body's schema
    time: int  # µs since 1970 UTC, when it happened
    traceparent: str  # W3C trace context, empty when nobody traces
    shard: int  # order holds within one
    key: int | None  # the surrogate key that chose the shard; None for a batch of keys
    rows: int
    first_at: int | None  # µs, smallest instant inside
    last_at: int | None  # µs, greatest instant inside
    content_type: str
    blob: str | None  # where the body is when it was too large to travel


END: Final = 10
"""The line feed after the attributes."""


def head_of(attributes: Attributes) -> bytes:
    """Write attributes as a line of text, in order, separated by `;`; absent ones are empty.

    Short, quick to write and legible in SQL (`split_part(convert_from(wire, 'UTF8'), ';', 7)` is
    the shard of a JSON event, where `events = 1`). A later version of the line only adds at its
    end.
    """
    a = attributes
    head = (
        f"{a.id.int:032x};{a.source};{a.type};{a.version};{a.time};{a.traceparent};{a.shard};"
        f"{'' if a.key is None else a.key};{a.rows};{'' if a.first_at is None else a.first_at};"
        f"{'' if a.last_at is None else a.last_at};{a.content_type};{a.blob or ''}\n"
    )
    assert head.count(";") == len(Attributes._fields) - 1, f"separator inside {head}"
    return head.encode()


def attributes_of(head: bytes) -> Attributes:
    part = head.decode().split(";")
    return Attributes(
        id=UUID(part[0]),
        source=part[1],
        type=part[2],
        version=int(part[3]),
        time=int(part[4]),
        traceparent=part[5],
        shard=int(part[6]),
        key=int(part[7]) if part[7] else None,
        rows=int(part[8]),
        first_at=int(part[9]) if part[9] else None,
        last_at=int(part[10]) if part[10] else None,
        content_type=part[11],
        blob=part[12] or None,
    )


BUNDLE: Final = ord("*")
BUNDLE_EVENTS_MAX: Final = 128
BUNDLE_BYTES_MAX: Final = 8_000
"""A row of this many bytes still fits a block of PostgreSQL, so reading it follows no pointer."""


def bundled(wires: Sequence[bytes]) -> bytes:
    """Return the row of 1 to BUNDLE_EVENTS_MAX events, BUNDLE_BYTES_MAX together; one event of any
    size stays as it is."""
    count = len(wires)
    if count == 1:
        return wires[0]
    head = struct.pack(f">BB{count}H", BUNDLE, count, *map(len, wires))
    return b"".join((head, *wires))


def unbundled(wire: bytes) -> Sequence[bytes]:
    """Return the events of a row; raises struct.error for a bundle that was cut."""
    if wire[0] != BUNDLE:
        return (wire,)
    count = wire[1]
    sizes = struct.unpack_from(f">{count}H", wire, 2)
    return struct.unpack_from("%ds" * count % sizes, wire, 2 + 2 * count)  # all in one call


def events_in(wire: bytes) -> int:
    """Return how many events a row holds."""
    return wire[1] if wire[0] == BUNDLE else 1
