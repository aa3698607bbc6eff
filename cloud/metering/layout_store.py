"""Compact layouts in PostgreSQL: the `LayoutStore` of every worker.

Every method runs in the caller's transaction on a connection of this context.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

from cloud.kernel.clock import from_us
from decoders import DECODER_VERSION
from decoders.wmbus.search import Doubt, Suspect


class PostgresLayouts:
    """Layouts behind one connection."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def believed(self) -> Iterator[bytes]:
        for (layout,) in self._connection.execute("SELECT layout FROM compact_formats"):
            yield bytes(layout)

    def believe(self, layout: bytes, *, now_us: int, source: tuple[int, int] | None = None) -> bool:
        batch_key, row = source or (None, None)
        return bool(
            self._connection.execute(
                """INSERT INTO compact_formats (layout, learned_at, batch_key, batch_row, searched)
                   VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING""",
                [layout, from_us(now_us), batch_key, row, source is None],
            ).rowcount
        )

    def doubt(self, signature: int) -> Doubt:
        row = self._connection.execute(
            """SELECT newest, layouts, frames, searches FROM layout_doubts
               WHERE signature = %s AND decoder_version = %s FOR UPDATE""",
            [signature, DECODER_VERSION],
        ).fetchone()
        if row is None:
            return Doubt()
        newest, layouts, frames, searches = row
        return Doubt(
            newest=bytes(newest),
            suspects=tuple(
                Suspect(layout=bytes(layout), encoded=bytes(frame))
                for layout, frame in zip(layouts, frames, strict=True)
            ),
            searches=searches,
        )

    def keep_doubt(self, signature: int, doubt: Doubt, *, now_us: int) -> None:
        self._connection.execute(
            """INSERT INTO layout_doubts VALUES (%s, %s, %s::bytea[], %s::bytea[], %s, %s, %s)
               ON CONFLICT (signature) DO UPDATE SET newest = excluded.newest,
                   layouts = excluded.layouts, frames = excluded.frames,
                   searches = excluded.searches, decoder_version = excluded.decoder_version,
                   changed_at = excluded.changed_at""",
            [
                signature,
                doubt.newest,
                [suspect.layout for suspect in doubt.suspects],
                [suspect.encoded for suspect in doubt.suspects],
                doubt.searches,
                DECODER_VERSION,
                from_us(now_us),
            ],
        )
