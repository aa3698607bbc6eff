"""What `inspect --tables` says of a file, with sqlite-utils and without."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from edge_agent import tables as reading
from edge_agent.tables import Table, tables


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    made = sqlite3.connect(":memory:")
    made.executescript(
        'CREATE TABLE page (id INTEGER PRIMARY KEY, body BLOB); CREATE TABLE "a ""b" (c TEXT);'
        "INSERT INTO page (body) VALUES (x'00'), (x'01');"
        "CREATE INDEX by_body ON page (body); CREATE VIEW seen AS SELECT id FROM page;"
    )
    yield made
    made.close()


EXPECTED = (
    Table(name='a "b', rows=0, columns=("c",)),
    Table(name="page", rows=2, columns=("id", "body")),
)


def test_a_gateway_without_the_library_says_it_by_itself(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "sqlite_utils", lambda: None)

    assert tables(connection) == EXPECTED


def test_where_the_library_is_the_answer_is_its_own_and_the_same(
    connection: sqlite3.Connection,
) -> None:
    assert tables(connection) == EXPECTED
