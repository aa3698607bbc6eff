"""A schema and a login of its own for every context; migrations that only go forward."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from cloud.kernel.db import Context, Database, MigrationChanged, SchemaIsNewer, role_of

ROOT = Path(__file__).resolve().parents[3]
CONTEXTS = ("kernel", "metering", "operations")
PATIENCE_S = 60


@pytest.fixture
def billing(tmp_path: Path) -> Context:
    """A context that begins with one migration."""
    folder = tmp_path / "schema"
    folder.mkdir()
    (folder / "0001_invoices.sql").write_text("CREATE TABLE invoice (n int); -- 100 % of them")
    return Context(name="billing", schema=folder)


def columns(database: Database, table: str) -> list[str]:
    with database.connect("billing") as connection:
        found = connection.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0",
            [table],
        )
        return [row[0] for row in found]


def migrate_elsewhere(database: Database, context: Context) -> subprocess.Popen[bytes]:
    """Migrate in a process of its own, which can be killed."""
    script = (
        "import sys, pathlib; from cloud.kernel.db import Context, Database\n"
        "dsn, passwords, name, schema = sys.argv[1:]\n"
        "database = Database(dsn, pathlib.Path(passwords))\n"
        "database.migrate([Context(name=name, schema=pathlib.Path(schema))])"
    )
    names = [database.admin_dsn, str(database.passwords_path), context.name, str(context.schema)]
    return subprocess.Popen([sys.executable, "-c", script, *names], cwd=ROOT)


def test_a_context_works_in_its_own_schema_in_utc(database: Database) -> None:
    for name in CONTEXTS:
        with database.connect(name) as connection:
            found = connection.execute(
                "SELECT current_schema(), current_user, current_setting('timezone')"
            )
            assert found.fetchone() == (name, role_of(name), "UTC")


@pytest.mark.parametrize("reader", CONTEXTS)
@pytest.mark.parametrize("owner", CONTEXTS)
def test_a_context_reads_its_own_tables_and_no_other(
    module_database: Database, reader: str, owner: str
) -> None:
    with module_database.connect(reader) as connection:
        for table in ("outbox", "inbox", "dead_letter"):
            if reader == owner:
                connection.execute(f"SELECT * FROM {owner}.{table}")
                continue
            for attempt in (f"SELECT * FROM {owner}.{table}", f"DELETE FROM {owner}.{table}"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(attempt)
                connection.rollback()


@pytest.mark.parametrize("name", CONTEXTS)
def test_the_relay_reads_every_outbox(module_database: Database, name: str) -> None:
    with module_database.connect("relay") as relay:
        relay.execute(f"SELECT * FROM {name}.outbox")


@pytest.mark.parametrize(
    "attempt",
    [
        "SELECT * FROM metering.inbox",
        "SELECT * FROM metering.migrations",
        "DELETE FROM metering.outbox",
        "UPDATE metering.outbox SET id = 0",
        "INSERT INTO metering.outbox DEFAULT VALUES",
        "SET ROLE aquacis_metering",
        "CREATE TEMPORARY TABLE copied (n int)",
        "CREATE TABLE public.copied (n int)",
    ],
)
def test_the_relay_may_do_nothing_else(empty_database: Database, attempt: str) -> None:
    empty_database.migrate([context_named("metering")])
    with (
        empty_database.connect("relay") as relay,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        relay.execute(attempt)


def context_named(name: str) -> Context:
    """A context with nothing of its own: what every one has is enough here."""
    return Context(name=name, schema=Path("/nonexistent"))


@pytest.mark.parametrize(
    "attempt",
    [
        "SET ROLE aquacis_operations",
        "SET ROLE aquacis_admin",
        "CREATE SCHEMA mine",
        "CREATE TABLE public.mine (n int)",
        "CREATE ROLE friend",
        "SELECT * FROM pg_authid",
        "SELECT pg_read_file('PG_VERSION')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
    ],
)
def test_a_context_cannot_get_out_of_its_schema(empty_database: Database, attempt: str) -> None:
    empty_database.migrate([context_named("metering"), context_named("operations")])
    with (
        empty_database.connect("metering") as metering,
        pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedObject)),
    ):
        metering.execute(attempt)


def test_a_login_of_another_database_is_not_let_in(empty_database: Database) -> None:
    """Roles belong to the whole server; whose database it is decides who may connect."""
    empty_database.migrate([context_named("metering")])
    with empty_database.connect_admin() as admin:
        admin.execute(f"REVOKE CONNECT ON DATABASE {empty_database.name} FROM aquacis_metering")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        empty_database.connect("metering")


def test_every_role_has_a_password_of_its_own_in_a_private_file(database: Database) -> None:
    passwords = json.loads(database.passwords_path.read_text())

    assert {"relay", *CONTEXTS} <= passwords.keys()
    assert len(set(passwords.values())) == len(passwords)
    assert database.passwords_path.stat().st_mode & 0o077 == 0


def test_roles_get_new_passwords_when_the_file_is_lost(
    empty_database: Database, tmp_path: Path
) -> None:
    """As after moving to another machine with a database of yours."""
    alone = Context(name="lonely", schema=tmp_path)
    empty_database.migrate([alone])
    elsewhere = Database(empty_database.admin_dsn, tmp_path / "passwords.json")
    known = json.loads(empty_database.passwords_path.read_text())
    elsewhere.passwords_path.write_text(json.dumps({**known, "lonely": "forgotten"}))

    elsewhere.migrate([alone])

    assert elsewhere.connect("lonely").execute("SELECT 1").fetchone() == (1,)


def test_a_pool_hands_out_the_context_s_connections(database: Database) -> None:
    with database.pool("metering", 2) as pool, pool.connection() as connection:
        found = connection.execute("SELECT current_user, current_schema()").fetchone()
        assert found == ("aquacis_metering", "metering")


def test_a_pool_outlives_its_connections(database: Database) -> None:
    with database.pool("metering", 1) as pool:
        with pool.connection() as connection:
            backend = connection.info.backend_pid
        with database.connect_admin() as admin:
            admin.execute("SELECT pg_terminate_backend(%s, 5000)", [backend])
        with pool.connection() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_migrations_are_applied_once_and_in_order(
    empty_database: Database, billing: Context
) -> None:
    empty_database.migrate([billing])
    (billing.schema / "0002_totals.sql").write_text("ALTER TABLE invoice ADD total bigint;")
    (billing.schema / "0003_dates.sql").write_text("ALTER TABLE invoice ADD issued_on date;")

    empty_database.migrate([billing])
    empty_database.migrate([billing])

    assert columns(empty_database, "invoice") == ["n", "total", "issued_on"]


def test_a_migration_that_changed_after_it_was_applied_is_refused(
    empty_database: Database, billing: Context
) -> None:
    empty_database.migrate([billing])
    (billing.schema / "0001_invoices.sql").write_text("CREATE TABLE invoice (n bigint);")

    with pytest.raises(MigrationChanged, match=r"billing: 0001_invoices\.sql was applied"):
        empty_database.migrate([billing])


def test_a_database_of_a_newer_version_is_refused(
    empty_database: Database, billing: Context
) -> None:
    newer = billing.schema / "0002_totals.sql"
    newer.write_text("ALTER TABLE invoice ADD total bigint;")
    empty_database.migrate([billing])
    newer.unlink()

    with pytest.raises(SchemaIsNewer, match=r"0002_totals\.sql; run the newer version"):
        empty_database.migrate([billing])


def test_a_migration_that_fails_leaves_nothing_of_itself(
    empty_database: Database, billing: Context
) -> None:
    wrong = billing.schema / "0002_wrong.sql"
    wrong.write_text("CREATE TABLE half (n int); SELECT 1 / 0;")

    with pytest.raises(psycopg.errors.DivisionByZero):
        empty_database.migrate([billing])
    assert columns(empty_database, "half") == []

    wrong.write_text("CREATE TABLE half (n int);")
    empty_database.migrate([billing])
    assert columns(empty_database, "half") == ["n"]


def test_a_migration_cannot_reach_into_another_context(
    empty_database: Database, billing: Context
) -> None:
    (billing.schema / "0002_curious.sql").write_text(
        "CREATE VIEW v AS SELECT * FROM metering.inbox;"
    )

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        empty_database.migrate([context_named("metering"), billing])


def test_a_migrator_killed_half_way_is_followed_by_one_that_finishes(
    empty_database: Database, billing: Context
) -> None:
    slow = billing.schema / "0002_slow.sql"
    slow.write_text("CREATE TABLE half (n int); SELECT pg_sleep(600); CREATE TABLE whole (n int);")
    killed = migrate_elsewhere(empty_database, billing)
    wait_until_asleep(empty_database)

    killed.send_signal(signal.SIGKILL)
    killed.wait()
    slow.write_text("CREATE TABLE half (n int); CREATE TABLE whole (n int);")
    empty_database.migrate([billing])  # waits for the server to notice the dead client

    assert columns(empty_database, "half") == columns(empty_database, "whole") == ["n"]


def wait_until_asleep(database: Database) -> None:
    give_up_s = time.monotonic() + PATIENCE_S
    asleep = "SELECT FROM pg_stat_activity WHERE datname = %s AND wait_event = 'PgSleep'"
    with database.connect_admin() as admin:
        admin.autocommit = True
        while admin.execute(asleep, [database.name]).fetchone() is None:
            assert time.monotonic() < give_up_s, "the migration did not get there"
            time.sleep(0.05)


def test_of_migrators_at_once_one_works_and_the_others_wait(
    empty_database: Database, billing: Context
) -> None:
    (billing.schema / "0002_slow.sql").write_text("SELECT pg_sleep(0.5); CREATE TABLE t (n int);")

    migrators = [migrate_elsewhere(empty_database, billing) for _ in range(4)]

    assert [each.wait(PATIENCE_S) for each in migrators] == [0] * 4
    assert columns(empty_database, "t") == ["n"]
