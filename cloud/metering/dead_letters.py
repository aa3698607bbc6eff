"""Rows and messages that could not be believed: kept with their bytes, counted, replayable."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import cbor2
import psycopg
from psycopg.types.json import Jsonb

from cloud.kernel import telemetry
from cloud.kernel.blobs import BlobStore
from cloud.kernel.clock import to_us
from cloud.metering.model import Gateway
from cloud.metering.store import storable
from decoders import cbor
from decoders.uplink import MAX_MESSAGE_BYTES, Row, RowFlag, RowKind
from decoders.value import value

Connection = psycopg.Connection[Any]

INLINE_BYTES_MAX = 64 * 1024  # a longer message is a blob; its beginning stays in the row
DETAIL_CHARACTERS_MAX = 500

REJECTED = telemetry.counter(
    "aquacis_rejected_total", "Uplink rows and messages that were refused, by code.", "code"
)


@value
class RejectedRow:
    """A row of a batch that is refused. `index` is its place in the batch."""

    index: int
    row: Row
    code: str
    detail: str
    meter: str | None = None


@value
class DeadLetter:
    """What somebody may look at and replay. `row` is None for a whole message."""

    dead_letter_key: int
    code: str
    state: str
    topic_gateway: str
    batch_key: int | None
    batch_row: int | None
    row: Row | None
    message: bytes
    received_at: int  # µs


class DeadLetterUnknown(LookupError):
    """There is no dead letter of this number."""

    def __init__(self, dead_letter_key: int) -> None:
        super().__init__(f"no dead letter {dead_letter_key}")
        self.dead_letter_key = dead_letter_key


def bury_rows(
    connection: Connection,
    gateway: Gateway,
    rejected: Sequence[RejectedRow],
    *,
    stream: bytes,
    batch_key: int,
    received_at: int,
    state: str = "open",
) -> None:
    """Keep refused rows of a batch. `state`: "replayed" for rows that came through late."""
    with connection.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO row_dead_letters (code, detail, gateway_key, topic_gateway, stream, seq,
                   batch_key, batch_row, row_kind, meter, bytes, row_fields, received_at,
                   last_attempt_at, state)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
            [
                (
                    each.code,
                    each.detail[:DETAIL_CHARACTERS_MAX],
                    gateway.gateway_key,
                    gateway.id,
                    stream,
                    each.row.seq,
                    batch_key,
                    each.index,
                    int(each.row.kind),
                    each.meter,
                    each.row.payload,
                    Jsonb(_fields(each.row)),
                    storable(received_at),
                    storable(received_at),
                    state,
                )
                for each in rejected
            ],
        )


def bury_message(
    connection: Connection,
    message: bytes,
    *,
    code: str,
    detail: str,
    topic_gateway: str,
    gateway: Gateway | None,
    stream: bytes | None,
    received_at: int,
    blobs: BlobStore,
) -> None:
    """Keep a message that cannot be taken as a whole; one that says the same again is counted."""
    values = {
        "code": code,
        "detail": detail[:DETAIL_CHARACTERS_MAX],
        "gateway_key": None if gateway is None else gateway.gateway_key,
        "topic_gateway": topic_gateway,
        "stream": stream,
        "bytes": message[:INLINE_BYTES_MAX],
        "at": storable(received_at),
        "digest": digest_of(message),
    }
    if connection.execute(_COUNT_AGAIN, values).rowcount:
        return  # nor is there another blob
    values["blob"] = blobs.put(message) if len(message) > INLINE_BYTES_MAX else None
    connection.execute(_BURY_MESSAGE, values)


_COUNT_AGAIN = """UPDATE row_dead_letters SET detail = %(detail)s, attempts = attempts + 1,
        last_attempt_at = greatest(last_attempt_at, %(at)s)
    WHERE topic_gateway = %(topic_gateway)s AND code = %(code)s AND digest = %(digest)s
      AND state = 'open'"""
_BURY_MESSAGE = """INSERT INTO row_dead_letters AS l (code, detail, gateway_key, topic_gateway,
        stream, bytes, blob, received_at, last_attempt_at, digest)
    VALUES (%(code)s, %(detail)s, %(gateway_key)s, %(topic_gateway)s, %(stream)s, %(bytes)s,
        %(blob)s, %(at)s, %(at)s, %(digest)s)
    ON CONFLICT (topic_gateway, code, digest) WHERE state = 'open' AND digest IS NOT NULL
    DO UPDATE SET attempts = l.attempts + 1"""


def letter(connection: Connection, dead_letter_key: int, *, blobs: BlobStore) -> DeadLetter:
    """Return a dead letter with all its bytes, locked. Raises DeadLetterUnknown."""
    found = connection.execute(
        """SELECT code, state, topic_gateway, batch_key, batch_row, row_kind, seq, row_fields,
               bytes, blob, received_at
           FROM row_dead_letters WHERE dead_letter_key = %s FOR NO KEY UPDATE""",
        [dead_letter_key],
    ).fetchone()
    if found is None:
        raise DeadLetterUnknown(dead_letter_key)
    code, state, topic_gateway, batch_key, batch_row, kind, seq, fields, data, blob, at = found
    message = bytes(data) if blob is None else blobs.get(blob)
    row = None
    if kind is not None:
        flags = RowFlag(fields.pop("flags"))
        row = Row(seq=seq, kind=RowKind(kind), flags=flags, payload=message, **fields)
    return DeadLetter(
        dead_letter_key=dead_letter_key,
        code=code,
        state=state,
        topic_gateway=topic_gateway,
        batch_key=batch_key,
        batch_row=batch_row,
        row=row,
        message=message,
        received_at=to_us(at),
    )


def settle(connection: Connection, dead_letter_key: int, *, state: str, now_us: int) -> None:
    """Set a dead letter aside: replayed or dismissed."""
    connection.execute(
        """UPDATE row_dead_letters SET state = %s, attempts = attempts + 1, last_attempt_at = %s
           WHERE dead_letter_key = %s""",
        [state, storable(now_us), dead_letter_key],
    )


def refused_again(
    connection: Connection, dead_letter_key: int, *, code: str, detail: str, now_us: int
) -> None:
    """Record that a replay did not help, and why now.

    It keeps its code where another open letter has these bytes under the new one.
    """
    connection.execute(
        """UPDATE row_dead_letters l SET detail = %(detail)s, attempts = attempts + 1,
               last_attempt_at = %(now)s,
               code = CASE WHEN EXISTS (
                   SELECT FROM row_dead_letters o
                   WHERE o.topic_gateway = l.topic_gateway AND o.code = %(code)s
                     AND o.digest = l.digest AND o.state = 'open')
                   THEN l.code ELSE %(code)s END
           WHERE dead_letter_key = %(key)s""",
        {
            "code": code,
            "detail": detail[:DETAIL_CHARACTERS_MAX],
            "now": storable(now_us),
            "key": dead_letter_key,
        },
    )


def digest_of(message: bytes) -> bytes:
    """Return the SHA-256 of what a message says, apart from the moment it was sent in.

    An agent makes the same message anew for each attempt: only its instants and figures differ.
    What is no CBOR map stands for itself.
    """
    said = message
    if len(message) <= MAX_MESSAGE_BYTES:
        with suppress(Exception):  # cbor2 leaks TypeError, RecursionError, … on damaged input
            fields = cbor.loads(message)
            lasting = {name: told for name, told in fields.items() if name not in _OF_THE_MOMENT}
            said = cbor2.dumps(lasting)
    return hashlib.sha256(said).digest()


_OF_THE_MOMENT = frozenset({"sent", "echo", "head", "head_at", "acked", "health", "steps", "tp"})
"""Keys of the uplink map (`decoders.uplink.encode_batch`) that change with every attempt."""


def _fields(row: Row) -> dict[str, int]:
    """Return what `Row` has beside its number, kind and bytes."""
    return {
        "heard_at": row.heard_at,
        "flags": int(row.flags),
        "radio": row.radio,
        "session": row.session,
        "counter": row.counter,
        "port": row.port,
        "rssi": row.rssi,
        "snr": row.snr,
    }
