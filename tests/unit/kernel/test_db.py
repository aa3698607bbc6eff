"""A schema and a login of its own for every context; migrations that only go forward."""

from __future__ import annotations

import psycopg
import pytest

from cloud.kernel.db import Database


def test_a_context_works_in_its_own_schema(database: Database) -> None:
    with database.connect("metering") as connection:
        connection.execute("CREATE TABLE t (n int)")
        found = connection.execute("SELECT current_schema(), current_setting('timezone')")
        assert found.fetchone() == ("metering", "UTC")


def test_a_context_cannot_read_another(database: Database) -> None:
    with database.connect("metering") as connection:
        connection.execute("CREATE TABLE t (n int)")
    with (
        database.connect("operations") as other,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        other.execute("SELECT * FROM metering.t")
