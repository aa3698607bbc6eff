"""`aquacis-edge inspect`: what the outbox holds, read beside a running agent."""

from __future__ import annotations

import json
import sqlite3
from typing import Final, TextIO

from decoders.uplink import RowKind
from edge_agent.config import Config
from edge_agent.instants import iso
from edge_agent.outbox import OutboxUnusable
from edge_agent.wiring import OUTBOX_FILE

EXIT_OK: Final = 0


def show(config: Config, *, as_json: bool, out: TextIO | None = None) -> int:
    """Print the summary. Raises OutboxUnusable where there is no outbox."""
    path = config.state / OUTBOX_FILE
    if not path.exists():
        raise OutboxUnusable(f"{path}: there is none yet; `run` makes it")
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        said = summary(connection)
    except sqlite3.DatabaseError as error:
        raise OutboxUnusable(f"{path}: {error}") from None
    finally:
        connection.close()
    if as_json:
        print(json.dumps(said), file=out)
        return EXIT_OK
    for name, figure in said.items():
        print(f"{name:<12} {figure}", file=out)
    return EXIT_OK


def summary(connection: sqlite3.Connection) -> dict[str, object]:
    """Return the figures of an outbox file."""
    stream, started_at, head, head_at, acked, size = connection.execute(
        "SELECT id, started_at, head, head_at, acked, bytes FROM stream"
    ).fetchone()
    rows, first_at, last_at = connection.execute(
        "SELECT count(*), min(heard_at), max(heard_at) FROM row"
    ).fetchone()
    kinds = connection.execute("SELECT kind, count(*) FROM row GROUP BY kind")
    gone = connection.execute("SELECT acked, sum(last - first + 1) FROM gone GROUP BY acked")
    refused = connection.execute("SELECT code, count(*) FROM rejected GROUP BY code")
    left = dict(gone.fetchall())
    return {
        "stream": stream.hex(),
        "started": iso(started_at),
        "head": head,
        "head_at": iso(head_at) if head else None,
        "acked": acked,
        "pending": head - acked,
        "rows": rows,
        "first_at": iso(first_at) if rows else None,
        "last_at": iso(last_at) if rows else None,
        "bytes": size,
        "kinds": {RowKind(kind).name.lower(): count for kind, count in kinds},
        "dropped": left.get(1, 0),
        "shed": left.get(0, 0),
        "rejected": dict(refused.fetchall()),
        "meters": connection.execute(
            "SELECT count(*) FROM checkpoint WHERE name GLOB 'm/*'"
        ).fetchone()[0],
    }
