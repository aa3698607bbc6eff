"""A restored database goes on where the backup stopped: no event lost, none applied twice."""

from __future__ import annotations

import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from cloud.kernel import backup, db, log_upkeep, postgres
from cloud.kernel.backup import BackupFailed, DatabaseInUse, Progress
from cloud.kernel.db import Connection, Database
from cloud.kernel.events import Event
from cloud.kernel.postgres import Server, YourServer
from cloud.kernel.postgres_disk import Reserve
from cloud.kernel.postgres_errors import DiskFull
from tests.contract.bus_stage import ADAPTERS, CONSUMER, PUBLISHER, Stage, fact, subscription

SMALL = Reserve(ballast_bytes=1 << 20, low_water_bytes=1 << 20, start_bytes=1 << 20)
ROOT = Path(__file__).resolve().parents[3]
RESTORE_SLOWLY = """
import pathlib, sys, time
from cloud.kernel import backup, db, log_upkeep, postgres
def tell(progress):
    print(progress.done, "of", progress.total, flush=True)
    time.sleep(600)
dsn, passwords, file = sys.argv[1:]
server = postgres.YourServer(dsn, pathlib.Path(passwords))
backup.restore(server, pathlib.Path(file), tell)
"""


@pytest.fixture
def stage(database: Database, tmp_path: Path) -> Stage:
    return Stage(database, tmp_path / "blobs", ADAPTERS["postgres"])


@pytest.fixture
def server(database: Database) -> Server:
    """The server as the platform sees it whose database is the test's."""
    return YourServer(database.admin_dsn, database.passwords_path)


@pytest.fixture
def young_server(filled_state: Path) -> Iterator[Server]:
    """A new server: its transaction ids begin lower than those of any backup."""
    with postgres.ensure(filled_state, reserve=SMALL) as started:
        yield started


def handle(stage: Stage) -> list[int]:
    """Let the consumer catch up; return all it ever handled, in order."""
    stage.bus.run_once([subscription()])
    return stage.effects()


def age(database: Database) -> None:
    """Let the server's transaction ids grow by some thousands."""
    with database.connect_admin() as admin:
        admin.autocommit = True
        admin.execute(
            "DO $$ BEGIN FOR n IN 1..3000 LOOP"
            " PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
        )


def test_a_consumer_goes_on_after_a_restore(stage: Stage, server: Server, tmp_path: Path) -> None:
    stage.publish(fact(1), fact(2), fact(3))
    assert handle(stage) == [1, 2, 3]
    stage.publish(fact(4))
    stage.publish(fact(5))
    backup.backup(server, tmp_path / "city.backup")
    stage.publish(fact(6), fact(7))
    assert handle(stage) == [1, 2, 3, 4, 5, 6, 7]

    restored = backup.restore(server, tmp_path / "city.backup")

    assert restored.events == 5
    assert stage.effects() == [1, 2, 3]
    assert handle(stage) == [1, 2, 3, 4, 5]
    stage.publish(fact(6), fact(7))  # heard again: the gateways still held them
    assert handle(stage) == [1, 2, 3, 4, 5, 6, 7]


def test_a_consumer_goes_on_on_a_server_that_counts_transactions_from_the_beginning(
    stage: Stage, server: Server, young_server: Server, tmp_path: Path
) -> None:
    age(stage.database)
    stage.publish(fact(1), fact(2))
    assert handle(stage) == [1, 2]
    stage.publish(fact(3))
    backup.backup(server, tmp_path / "city.backup")

    backup.restore(young_server, tmp_path / "city.backup")

    fresh = Database(young_server.dsn(), young_server.passwords_path)
    moved = Stage.__new__(Stage)
    moved.database, moved.blobs = fresh, stage.blobs
    moved.bus = ADAPTERS["postgres"](fresh, stage.blobs)
    assert moved.effects() == [1, 2]
    assert handle(moved) == [1, 2, 3]
    moved.publish(fact(4))
    assert handle(moved) == [1, 2, 3, 4]


def test_a_restored_database_can_be_backed_up_and_restored_again(
    stage: Stage, server: Server, tmp_path: Path
) -> None:
    stage.publish(fact(1), fact(2))
    assert handle(stage) == [1, 2]
    for n in (3, 4):
        backup.backup(server, tmp_path / "again.backup")
        backup.restore(server, tmp_path / "again.backup")
        stage.publish(fact(n))
    assert handle(stage) == [1, 2, 3, 4]


PLACES = [(100, 5), (101, 4), (101, 6), (103, 1)]  # (xid, id): the two orders disagree


@pytest.mark.parametrize("position", [(0, 0), (100, 4), *PLACES, (102, 9), (900, 0)])
def test_what_is_unread_stays_unread_in_its_order(
    database: Database, position: tuple[int, int]
) -> None:
    with database.connect_admin() as admin:
        write_log(admin, PLACES)
        admin.execute(
            "INSERT INTO operations.inbox VALUES ('s', 'metering', %s::text::xid8, %s)",
            [str(position[0]), position[1]],
        )
        before = unread(admin)

        for _ in range(2):  # a restored database may be restored again
            assert log_upkeep.rebase(admin, ["metering", "operations"]) == len(PLACES)
            assert unread(admin) == before
        assert before == [f"{xid}-{n}" for xid, n in PLACES if (xid, n) > position]


def test_a_second_restore_after_old_days_were_dropped_skips_nothing(database: Database) -> None:
    with database.connect_admin() as admin:
        write_log(admin, PLACES)
        admin.execute("INSERT INTO operations.inbox VALUES ('s', 'metering', '900', 0)")
        log_upkeep.rebase(admin, ["metering", "operations"])
        admin.execute("DELETE FROM metering.outbox")
        write_log(admin, [(800, 1), (800, 2)])

        log_upkeep.rebase(admin, ["metering", "operations"])

        assert unread(admin) == ["800-1", "800-2"]


def write_log(admin: Connection, places: list[tuple[int, int]]) -> None:
    for xid, number in places:
        admin.execute(
            "INSERT INTO metering.outbox (xid, id, type, wire) VALUES (%s::text::xid8, %s, %s, '')",
            [str(xid), number, f"{xid}-{number}"],
        )


def unread(admin: Connection) -> list[str]:
    rows = admin.execute(
        "SELECT o.type FROM metering.outbox o, operations.inbox i"
        " WHERE (o.xid, o.id) > (i.xid, i.id) ORDER BY o.xid, o.id"
    )
    return [row[0] for row in rows]


def test_a_backup_of_before_events_shared_rows_is_restored(
    stage_of_before: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stage = stage_of_before
    for n in range(5):
        write_single(stage.database, fact(n))
    server = YourServer(stage.database.admin_dsn, stage.database.passwords_path)
    backup.backup(server, tmp_path / "before.backup")
    monkeypatch.undo()  # the new version is installed

    restored = backup.restore(server, tmp_path / "before.backup")
    stage.publish(*map(fact, range(5, 40)))

    assert restored.events == 5
    assert handle(stage) == list(range(40))


@pytest.fixture
def stage_of_before(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Stage:
    """A platform whose contexts have the first two files of the bus."""
    files = tmp_path / "before"
    files.mkdir()
    for name in ("context_0001_bus.sql", "context_0002_periods.sql"):
        shutil.copy(db._EVERYWHERE / name, files)
    monkeypatch.setattr(db, "_EVERYWHERE", files)
    empty_database.migrate([db.KERNEL, db.context("metering"), db.context("operations")])
    return Stage(empty_database, tmp_path / "blobs", ADAPTERS["postgres"])


def write_single(database: Database, event: Event) -> None:
    with database.connect(PUBLISHER) as connection:
        connection.execute(
            "INSERT INTO outbox (type, wire) VALUES (%s, %s)", (event.type, bytes(event))
        )


def test_a_new_reader_of_a_restored_log_reads_it_from_the_start(
    stage: Stage, server: Server, tmp_path: Path
) -> None:
    stage.publish(fact(1), fact(2))
    backup.backup(server, tmp_path / "city.backup")
    backup.restore(server, tmp_path / "city.backup")

    assert handle(stage) == [1, 2]


def test_every_gateway_is_asked_for_what_came_after_the_backup(
    database: Database, server: Server, tmp_path: Path
) -> None:
    with database.connect("metering") as metering:
        metering.execute(
            "INSERT INTO gateways (gateway_key, id, name, administration)"
            " OVERRIDING SYSTEM VALUE VALUES (1, 'centro', 'Centro', 'queretaro')"
        )
        metering.execute(
            "INSERT INTO edge_streams (gateway_key, stream, upto, started_at, seen_at)"
            " VALUES (1, decode(repeat('ab', 16), 'hex'), 41, now(), now())"
        )
    backup.backup(server, tmp_path / "city.backup")

    restored = backup.restore(server, tmp_path / "city.backup")

    assert {"kernel", "metering", "operations"} <= set(restored.contexts)
    with database.connect("metering") as metering:
        assert metering.execute("SELECT upto, resend FROM edge_streams").fetchall() == [(41, True)]


def test_a_session_that_was_ended_since_the_backup_is_not_revived(
    database: Database, server: Server, tmp_path: Path
) -> None:
    with database.connect("kernel") as kernel:
        kernel.execute(
            """WITH who AS (
                   INSERT INTO users
                   VALUES (gen_random_uuid(), 'ana', 'x', '{clerk}', '{q}', now(), now())
                   RETURNING user_id),
               session AS (INSERT INTO sessions (session_id, user_id, client_id, scope, auth_at,
                       expires_at)
                   SELECT gen_random_uuid(), user_id, 'aquacis-web', 'openid', now(),
                          now() + interval '1 day' FROM who RETURNING session_id)
               INSERT INTO refresh_tokens SELECT 'token', session_id, now() + interval '1 day', NULL
               FROM session"""
        )
    backup.backup(server, tmp_path / "city.backup")

    backup.restore(server, tmp_path / "city.backup")

    with database.connect("kernel") as kernel:
        assert kernel.execute("SELECT count(*) FROM refresh_tokens").fetchone() == (0,)
        assert kernel.execute("SELECT count(*) FROM sessions").fetchone() == (0,)
        assert kernel.execute("SELECT name FROM users").fetchall() == [("ana",)]


def test_contexts_stay_apart_in_a_restored_database(
    stage: Stage, server: Server, tmp_path: Path
) -> None:
    backup.backup(server, tmp_path / "city.backup")
    backup.restore(server, tmp_path / "city.backup")

    with stage.database.connect("metering") as metering:
        metering.execute("CREATE TEMPORARY TABLE batch (n int)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            metering.execute("SELECT * FROM operations.effect")
    with stage.database.connect("relay") as relay:
        assert relay.execute("SELECT count(*) FROM metering.outbox").fetchone() == (0,)


def test_a_database_in_use_is_not_replaced(stage: Stage, server: Server, tmp_path: Path) -> None:
    backup.backup(server, tmp_path / "city.backup")

    with (
        stage.database.connect(PUBLISHER),
        stage.database.connect(CONSUMER),
        pytest.raises(DatabaseInUse) as refusal,
    ):
        backup.restore(server, tmp_path / "city.backup")
    assert refusal.value.applications == ("aquacis_metering", "aquacis_operations")


@pytest.mark.parametrize("kept_bytes", [0, 3, 4000, -2000])
def test_a_damaged_backup_changes_nothing(
    stage: Stage, server: Server, tmp_path: Path, kept_bytes: int
) -> None:
    stage.publish(fact(1))
    file = tmp_path / "city.backup"
    backup.backup(server, file)
    file.write_bytes(file.read_bytes()[:kept_bytes])

    with pytest.raises(BackupFailed, match="pg_restore ended with 1"):
        backup.restore(server, file)

    assert handle(stage) == [1]
    with psycopg.connect(server.dsn()) as admin:
        left = admin.execute(
            "SELECT datname FROM pg_database WHERE datname ~ '_restoring|_replaced'"
        )
        assert left.fetchall() == []


def test_a_killed_restore_changes_nothing_and_does_not_hinder_the_next(
    stage: Stage, server: Server, tmp_path: Path
) -> None:
    stage.publish(fact(1))
    file = tmp_path / "city.backup"
    backup.backup(server, file)
    stage.publish(fact(2))
    killed = subprocess.Popen(
        [sys.executable, "-c", RESTORE_SLOWLY, server.dsn(), str(server.passwords_path), str(file)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert killed.stdout is not None
    assert killed.stdout.readline().startswith(b"1 of ")

    killed.kill()
    killed.communicate()

    assert handle(stage) == [1, 2]
    backup.restore(server, file)
    assert handle(stage) == [1]


def test_a_restore_needs_room_for_a_second_copy(
    stage: Stage, server: Server, tmp_path: Path
) -> None:
    stage.publish(fact(1))
    backup.backup(server, tmp_path / "city.backup")

    with pytest.raises(DiskFull, match="1 MiB free"):
        backup.restore(CrampedServer(server.dsn(), server.passwords_path), tmp_path / "city.backup")
    assert handle(stage) == [1]


class CrampedServer(YourServer):
    """A server with little room."""

    def free_bytes(self) -> int | None:
        return 1 << 20


def test_a_backup_is_whole_private_and_tells_how_far_it_is(server: Server, tmp_path: Path) -> None:
    heard: list[Progress] = []

    made = backup.backup(server, tmp_path / "city.backup", heard.append)

    assert stat.S_IMODE(made.file.stat().st_mode) == 0o600
    assert made.size_bytes == made.file.stat().st_size > 0
    assert [each.done for each in heard] == list(range(1, made.tables + 1))
    assert {each.total for each in heard} == {made.tables}
    assert any(each.table == "metering.gateways" for each in heard)
    assert [path.name for path in tmp_path.iterdir()] == ["city.backup"]


def test_a_backup_that_fails_leaves_no_file(server: Server, tmp_path: Path) -> None:
    gone = YourServer(server.dsn("no_such_database"), server.passwords_path)

    with pytest.raises((BackupFailed, psycopg.OperationalError)):
        backup.backup(gone, tmp_path / "city.backup")
    assert list(tmp_path.iterdir()) == []
