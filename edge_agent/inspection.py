"""`aquacis-edge inspect`: what the outbox holds, read beside a running agent."""

from __future__ import annotations

import json
import sqlite3
from typing import Final, TextIO

from edge_agent import outbox_progress
from edge_agent.config import Config
from edge_agent.instants import iso
from edge_agent.outbox import OutboxUnusable
from edge_agent.outbox_file import disk_bytes
from edge_agent.outbox_rescue import damage
from edge_agent.outbox_rows import Keep, RowDamaged, keep_of, unpack_row
from edge_agent.tables import tables
from edge_agent.wiring import OUTBOX_FILE

EXIT_OK: Final = 0


def show(
    config: Config, *, as_json: bool, with_tables: bool = False, out: TextIO | None = None
) -> int:
    """Print the summary and a check of the whole file.

    Raises OutboxUnusable where there is no outbox.
    """
    path = config.state / OUTBOX_FILE
    if not path.exists():
        raise OutboxUnusable(f"{path}: there is none yet; `run` makes it")
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        said = summary(connection)
        said["bytes"] = disk_bytes(connection, path)
        said["check"] = damage(path, budget_s=None) or "ok"
        if with_tables:
            said["tables"] = {table.name: table.rows for table in tables(connection)}
    except (sqlite3.DatabaseError, RowDamaged) as error:
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
    at = outbox_progress.read(connection)
    pages, paged, first_at, last_at = connection.execute(
        "SELECT count(*), coalesce(sum(rows), 0), min(from_at), max(to_at) FROM page"
    ).fetchone()
    kinds = dict(connection.execute("SELECT keep, sum(rows) FROM page GROUP BY keep").fetchall())
    heard = [instant for instant in (first_at, last_at) if instant is not None]
    fresh = connection.execute("SELECT seq, body FROM fresh").fetchall()
    for seq, body in fresh:
        row = unpack_row(seq, body)
        heard.append(row.heard_at)
        kinds[keep_of(row)] = kinds.get(keep_of(row), 0) + 1
    refused = connection.execute("SELECT code, count(*) FROM rejected GROUP BY code")
    return {
        "stream": at.stream.hex(),
        "started": iso(at.started_at),
        "head": at.head - at.base,
        "head_at": iso(at.head_at) if at.head else None,
        "acked": at.acked - at.base,
        "pending": at.head - at.acked,
        "rows": paged + len(fresh),
        "pages": pages,
        "first_at": iso(min(heard)) if heard else None,
        "last_at": iso(max(heard)) if heard else None,
        "kinds": {Keep(keep).name.lower(): count for keep, count in sorted(kinds.items())},
        "lost": dict(zip(outbox_progress.LOST_KINDS, at.lost, strict=True)),
        "rejected": dict(refused.fetchall()),
        "meters": connection.execute(
            "SELECT count(*) FROM checkpoint WHERE name GLOB 'm/*'"
        ).fetchone()[0],
    }
