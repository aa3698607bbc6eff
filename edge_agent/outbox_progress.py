"""How far an outbox file has got: its one row in `stream`, and the name's twin elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from decoders.value import value
from edge_agent.outbox_file import Connection, one
from edge_agent.outbox_rows import seal

LOST_KINDS: Final = ("undecodable", "sub_hourly", "hourly", "own", "corrupt")
SELECT: Final = (
    "SELECT id, started_at, base, head, head_at, acked, lived_us, shed_undecodable,"
    " shed_sub_hourly, shed_hourly, shed_own, corrupt, seal FROM stream"
)
REPLACE: Final = "INSERT OR REPLACE INTO stream VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


@value
class Progress:
    """Numbers are the file's own: they go on when a stream begins anew; the stream's own numbers
    are `base` less.

    head, acked   the highest number committed, and up to where the cloud has acknowledged
    head_at       heard_at of the head, µs
    lived_us      how long agents have worked on this file
    lost          rows given up unacknowledged, and rows found damaged, in order of LOST_KINDS
    """

    stream: bytes
    started_at: int
    base: int = 0
    head: int = 0
    head_at: int = 0
    acked: int = 0
    lived_us: int = 0
    lost: tuple[int, ...] = (0,) * len(LOST_KINDS)

    def with_lost(self, more: Mapping[str, int]) -> tuple[int, ...]:
        """Return the counts with more rows of some kinds."""
        pairs = zip(LOST_KINDS, self.lost, strict=True)
        return tuple(count + more.get(kind, 0) for kind, count in pairs)


def read(connection: Connection) -> Progress:
    return progress_of(one(connection, SELECT))


def write(connection: Connection, progress: Progress) -> None:
    columns = (
        *(progress.stream, progress.started_at, progress.base, progress.head, progress.head_at),
        *(progress.acked, progress.lived_us, *progress.lost),
    )
    connection.execute(REPLACE, (*columns, seal(*columns)))


def write_twin(connection: Connection, progress: Progress) -> None:
    columns = (progress.stream, progress.started_at, progress.base)
    connection.execute(
        "INSERT OR REPLACE INTO twin VALUES (1, ?, ?, ?, ?)", (*columns, seal(*columns))
    )


def progress_of(row: tuple[Any, ...]) -> Progress:
    stream, started_at, base, head, head_at, acked, lived_us, *lost, _ = row
    return Progress(
        stream=stream,
        started_at=started_at,
        base=base,
        head=head,
        head_at=head_at,
        acked=acked,
        lived_us=lived_us,
        lost=tuple(lost),
    )
