"""The outbox file as earlier agents made it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

OLD_SCHEMA = """
CREATE TABLE row (
    seq INTEGER PRIMARY KEY, heard_at INTEGER NOT NULL, kind INTEGER NOT NULL,
    flags INTEGER NOT NULL, radio INTEGER NOT NULL, session INTEGER NOT NULL,
    counter INTEGER NOT NULL, port INTEGER NOT NULL, rssi INTEGER NOT NULL,
    snr INTEGER NOT NULL, payload BLOB NOT NULL);
CREATE TABLE stream (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1), id BLOB NOT NULL,
    started_at INTEGER NOT NULL, head INTEGER NOT NULL, head_at INTEGER NOT NULL,
    acked INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE gone (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL, from_at INTEGER NOT NULL,
    to_at INTEGER NOT NULL, acked INTEGER NOT NULL);
CREATE TABLE rejected (seq INTEGER PRIMARY KEY, code TEXT NOT NULL);
CREATE TABLE given_up (seq INTEGER PRIMARY KEY, code TEXT NOT NULL);
CREATE TABLE checkpoint (name TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID;
"""


def old_file(path: Path, *, stream: bytes, rows: int, acked: int) -> None:
    """Make a file of version 1; a row's payload begins with its number, in eight characters."""
    with closing(sqlite3.connect(path)) as old:
        old.executescript(OLD_SCHEMA)
        old.execute("INSERT INTO stream VALUES (1, ?, 5, ?, ?, ?, 99)", (stream, rows, rows, acked))
        old.executemany(
            "INSERT INTO row VALUES (?, ?, 1, 0, -1, 0, ?, 0, 0, 0, ?)",
            ((seq, seq, seq, b"%8d" % seq + os.urandom(192)) for seq in range(1, rows + 1)),
        )
        old.execute("PRAGMA user_version=1")
        old.commit()
