"""Which tables a SQLite file has: by sqlite-utils where it is installed, else by sqlite3 alone.

A gateway has no sqlite-utils; who takes an outbox home to look at it may. The answers are the same.
"""

from __future__ import annotations

import importlib
import sqlite3
from types import ModuleType

from decoders.value import value


@value
class Table:
    """One table and what is in it."""

    name: str
    rows: int
    columns: tuple[str, ...]


def tables(connection: sqlite3.Connection) -> tuple[Table, ...]:
    """Return the tables by name."""
    library = sqlite_utils()
    found = _by_sqlite3(connection) if library is None else _by_library(library, connection)
    return tuple(sorted(found, key=lambda table: table.name))


def sqlite_utils() -> ModuleType | None:
    """Return the library where it is installed."""
    try:
        return importlib.import_module("sqlite_utils")
    except ImportError:
        return None


def _by_library(library: ModuleType, connection: sqlite3.Connection) -> list[Table]:
    database = library.Database(connection)
    return [
        Table(
            name=table.name,
            rows=table.count,
            columns=tuple(column.name for column in table.columns),
        )
        for table in database.tables
    ]


def _by_sqlite3(connection: sqlite3.Connection) -> list[Table]:
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return [_table(connection, name) for (name,) in names]


def _table(connection: sqlite3.Connection, name: str) -> Table:
    quoted = '"' + name.replace('"', '""') + '"'
    rows = connection.execute(f"SELECT count(*) FROM {quoted}").fetchone()  # noqa: S608  quoted
    columns = connection.execute("SELECT name FROM pragma_table_info(?)", (name,)).fetchall()
    return Table(name=name, rows=rows[0], columns=tuple(column for (column,) in columns))
