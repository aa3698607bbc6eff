"""Which rows of a message the database accounts for. In the caller's transaction."""

from __future__ import annotations

from typing import Any

import numpy as np
import psycopg

from cloud.metering.frames import Uplinked
from cloud.metering.model import Bools, Gateway
from decoders.batch import Columns as Decoded

Connection = psycopg.Connection[Any]


def unaccounted(
    connection: Connection,
    gateway: Gateway,
    *,
    stream: bytes,
    upto: int,
    up: Uplinked,
    decoded: Decoded,
) -> list[int]:
    """Return the rows at or below `upto` that are neither stored nor dead letters, by index.

    They were declared lost. A telegram is stored when this gateway has a reception of it; other
    rows leave no trace of their number, so of them only those within a declared loss are returned.
    """
    lost = _declared_lost(connection, gateway, stream=stream, up=up)
    lost[decoded.row] = True
    good = np.flatnonzero(decoded.refused < 0)
    names = [frame.tobytes() for frame in decoded.frame[good]]
    heard = {
        bytes(frame)
        for (frame,) in connection.execute(
            "SELECT DISTINCT frame FROM receptions WHERE frame = ANY (%s) AND gateway_key = %s",
            [names, gateway.gateway_key],
        )
    }
    rows = decoded.row[good].tolist()
    lost[[row for row, name in zip(rows, names, strict=True) if name in heard]] = False
    lost[up.seq > upto] = False
    buried = connection.execute(
        """SELECT seq FROM row_dead_letters
           WHERE gateway_key = %s AND stream = %s AND seq = ANY (%s)""",
        [gateway.gateway_key, stream, up.seq[lost].tolist()],
    ).fetchall()
    lost[np.isin(up.seq, np.array([seq for (seq,) in buried], np.int64))] = False
    return [int(index) for index in np.flatnonzero(lost)]


def _declared_lost(
    connection: Connection, gateway: Gateway, *, stream: bytes, up: Uplinked
) -> Bools:
    lost = np.zeros(len(up.seq), np.bool_)
    if not len(up.seq):
        return lost
    for first, last in connection.execute(
        """SELECT lower(one), upper(one) - 1 FROM edge_losses, unnest(
               coalesce(seqs, int8multirange(int8range(first_seq, last_seq, '[]')))) AS one
           WHERE gateway_key = %s AND stream = %s AND reason = 'declared'
             AND last_seq >= %s AND first_seq <= %s""",
        [gateway.gateway_key, stream, int(up.seq.min()), int(up.seq.max())],
    ):
        lost |= (up.seq >= first) & (up.seq <= last)
    return lost
