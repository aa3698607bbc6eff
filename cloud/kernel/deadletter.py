"""Events that could not be handled, kept whole; looked at, replayed or dismissed by people."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

import psycopg

from cloud.kernel.blobs import BlobStore
from cloud.kernel.cloudevents import event_from, headers_of
from cloud.kernel.events import Event
from decoders.value import value

Connection = psycopg.Connection[Any]
State = Literal["open", "replayed", "dismissed"]

REASON_CHARACTERS_MAX: Final = 4_000
"""The end of a traceback says what happened; a log table is no place for all of it."""


@value
class DeadLetter:
    """An event somebody has to look at."""

    id: int
    subscription: str
    code: str
    reason: str
    attempts: int
    first_at: datetime
    last_at: datetime
    state: State
    headers: Mapping[str, str]
    data: bytes | None  # None when the body is the blob
    blob: str | None

    def event(self, blobs: BlobStore) -> Event:
        """Return the event as it was delivered. Raises what the blob store raises."""
        if self.blob is not None:
            return event_from(self.headers, blobs.get(self.blob))
        assert self.data is not None
        return event_from(self.headers, self.data)


class NoSuchDeadLetter(LookupError):
    """There is no dead letter of this number in this context."""

    def __init__(self, number: int) -> None:
        super().__init__(f"no dead letter {number}")
        self.number = number


def code_of(failure: BaseException) -> str:
    """Return a stable code for a failure: its own `code`, else its class's name in snake case."""
    code = getattr(failure, "code", None)
    if isinstance(code, str) and code:
        return code
    name = type(failure).__name__
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


_COLUMNS: Final = (
    "id, subscription, code, reason, attempts, first_at, last_at, state, headers, data, blob"
)


def record_event(
    connection: Connection,
    event: Event,
    *,
    subscription: str,
    code: str,
    reason: str,
    attempts: int,
) -> int:
    """Keep an event that its handler refuses; return the dead letter's number."""
    row = connection.execute(
        "INSERT INTO dead_letter (subscription, code, reason, attempts, first_at, last_at,"
        " headers, data, blob) VALUES (%s, %s, %s, %s, clock_timestamp(), clock_timestamp(),"
        " %s, %s, %s) RETURNING id",
        (
            subscription,
            code,
            _shortened(reason),
            attempts,
            json.dumps(headers_of(event)),
            None if event.blob else event.data,
            event.blob,
        ),
    ).fetchone()
    assert row is not None
    return int(row[0])


def find(
    connection: Connection,
    *,
    state: State | None = "open",
    code: str | None = None,
    after: int = 0,
    limit: int = 100,
) -> list[DeadLetter]:
    """Return dead letters by number, those above `after`, at most `limit`."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM dead_letter WHERE id > %s"  # noqa: S608  our own column names
        " AND (%s::text IS NULL OR state = %s) AND (%s::text IS NULL OR code = %s)"
        " ORDER BY id LIMIT %s",
        (after, state, state, code, code, limit),
    ).fetchall()
    return [_letter(row) for row in rows]


def get(connection: Connection, number: int, *, lock: bool = False) -> DeadLetter:
    """Return one dead letter; raises `NoSuchDeadLetter`."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM dead_letter WHERE id = %s"  # noqa: S608  our own column names
        + (" FOR UPDATE" if lock else ""),
        (number,),
    ).fetchone()
    if row is None:
        raise NoSuchDeadLetter(number)
    return _letter(row)


def replay(
    connection: Connection, number: int, handle: Callable[[Connection, DeadLetter], None]
) -> bool:
    """Handle a dead letter again; return False when that was already done.

    The effect and the new state share a transaction, so replaying twice has one effect. When the
    handler fails again the attempt is counted, the new reason kept, and its error raised.
    """
    try:
        with connection.transaction():
            letter = get(connection, number, lock=True)
            if letter.state == "replayed":
                return False
            handle(connection, letter)
            _mark(connection, number, "replayed")
    except NoSuchDeadLetter:
        raise
    except Exception as failure:
        connection.execute(
            "UPDATE dead_letter SET attempts = attempts + 1, last_at = clock_timestamp(),"
            " code = %s, reason = %s WHERE id = %s AND state <> 'replayed'",
            (code_of(failure), _shortened(repr(failure)), number),
        )
        raise
    return True


def dismiss(connection: Connection, number: int) -> None:
    """Close a dead letter without an effect; a later replay is still possible."""
    get(connection, number)
    connection.execute(
        "UPDATE dead_letter SET state = 'dismissed' WHERE id = %s AND state = 'open'", (number,)
    )


def _mark(connection: Connection, number: int, state: State) -> None:
    connection.execute(
        "UPDATE dead_letter SET state = %s, last_at = clock_timestamp() WHERE id = %s",
        (state, number),
    )


def _shortened(reason: str) -> str:
    clean = reason.replace("\0", "")  # PostgreSQL text holds no NUL
    if len(clean) <= REASON_CHARACTERS_MAX:
        return clean
    return "…" + clean[1 - REASON_CHARACTERS_MAX :]


def _letter(row: Sequence[Any]) -> DeadLetter:
    names = _COLUMNS.split(", ")
    return DeadLetter(**dict(zip(names, row, strict=True)))
