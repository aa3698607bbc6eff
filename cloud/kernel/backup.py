"""The database in one file, and back from it.

A backup is PostgreSQL's own custom format: `pg_restore --list FILE` reads it anywhere. It holds
the database alone; the raw telegrams (`blobs/`) and the keys (`keys/`) of the state folder are
copied beside it, after it, and then hold at least what it points to.

A restore fills a new database and puts it in the old one's place in one transaction, so that a
restore that fails or is killed changes nothing. Then nothing of the past may be misread:

- The event log is ordered by transaction ids, and those of a new server begin low: the restored
  events would hide from their readers, or new ones be taken for read. They get id 0, which no
  transaction has, and readers' positions follow (reference/postgres.md §6).
- A context may hold a procedure `after_restore()` in its schema; it is called with that
  context's own rights. Metering's asks every gateway for what came after.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cloud.kernel import log_upkeep, private_files
from cloud.kernel.db import KERNEL, Connection, Database, context, role_of
from cloud.kernel.postgres import Server
from cloud.kernel.postgres_errors import DiskFull
from cloud.kernel.postgres_install import client_program, tied_to_us
from decoders.value import value

MAINTENANCE_DATABASE = "postgres"
_TABLE = re.compile(r'(?:dumping contents of|processing data for) table "(.+)"')
_LAST_LINES = 12

_log = logging.getLogger(__name__)


@value
class Progress:
    """How far it is: `done` of `total` tables, the last one being `table`."""

    done: int
    total: int
    table: str


Report = Callable[[Progress], None]


@value
class BackupMade:
    """A backup lies on the disk, whole."""

    file: Path
    size_bytes: int
    tables: int


@value
class Restored:
    """The database is what the backup held."""

    tables: int
    events: int  # of all outboxes, given new places in the log
    contexts: tuple[str, ...]


class BackupFailed(Exception):
    """PostgreSQL's program ended with an error; nothing was changed. Carries its last lines."""

    def __init__(self, program: str, code: int, words: str) -> None:
        super().__init__(f"{program} ended with {code}: {words.strip()}")
        self.program = program
        self.words = words


class DatabaseInUse(Exception):
    """Somebody works in the database that would be replaced under him."""

    def __init__(self, database: str, applications: Sequence[str]) -> None:
        super().__init__(f"{database} is in use by {', '.join(applications)}; stop them first")
        self.applications = tuple(applications)


def backup(server: Server, file: Path, report: Report = lambda _: None) -> BackupMade:
    """Write the database into `file`, readable by its owner alone; the platform may run on.

    The file has its name only when it is whole. Raises `BackupFailed`.
    """
    file = file.absolute()
    with psycopg.connect(server.dsn()) as admin:
        total = _count(admin, _TABLES)
    scratch, descriptor = private_files.make_scratch(file)
    options = ["--format=custom", "--compress=gzip:1", f"--file={scratch}"]
    try:
        _run("pg_dump", options, server.dsn(), total, report)
        os.fsync(descriptor)
        scratch.replace(file)
    finally:
        os.close(descriptor)
        scratch.unlink(missing_ok=True)
    private_files.sync_folder(file.parent)
    made = BackupMade(file=file, size_bytes=file.stat().st_size, tables=total)
    _log.info("BACKUP_MADE", extra={"file": str(file), "bytes": made.size_bytes, "tables": total})
    return made


def restore(server: Server, file: Path, report: Report = lambda _: None) -> Restored:
    """Put what `file` holds in the place of the database. The platform must be stopped.

    A backup of an older version is brought up to date on the way. Raises `DatabaseInUse`,
    `DiskFull`, `DiskNearlyFull`, `BackupFailed`, `SchemaIsNewer`, `MigrationChanged`; the
    database is then as it was.
    """
    server.require_intake()
    file = file.absolute()
    listed = _list(file)
    contexts = tuple(sorted({entry.owner for entry in listed} & {e.schema for e in listed}))
    name = str(conninfo_to_dict(server.dsn())["dbname"])
    scratch = f"{name}_restoring"
    with psycopg.connect(server.dsn(MAINTENANCE_DATABASE), autocommit=True) as admin:
        _require_unused(admin, name)
        _drop(admin, scratch)
        _drop(admin, f"{name}_replaced")
        _require_room(admin, server, name, file)
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(scratch)))
        try:
            fresh = Database(server.dsn(scratch), server.passwords_path)
            fresh.make_roles(contexts)
            tables = sum(entry.kind == "TABLE DATA" for entry in listed)
            options = ["--exit-on-error", "--jobs=2", str(file)]
            _run("pg_restore", options, fresh.admin_dsn, tables, report)
            fresh.migrate([KERNEL if each == KERNEL.name else context(each) for each in contexts])
            events = _settle(fresh, contexts)
            _replace(admin, name, scratch)
        finally:
            _drop(admin, scratch)
        _drop(admin, f"{name}_replaced")
    _log.info("RESTORED", extra={"file": str(file), "tables": tables, "events": events})
    return Restored(tables=tables, events=events, contexts=contexts)


def _settle(fresh: Database, contexts: Sequence[str]) -> int:
    """Put the log's past behind its present and tell the contexts; return the events moved."""
    with fresh.connect_admin() as admin:
        events = log_upkeep.rebase(admin, contexts)
        for name in contexts:
            _tell(admin, name)
        admin.execute("ANALYZE")
    return events


def _tell(admin: Connection, context: str) -> None:
    """Call the context's `after_restore()`, if it has one, with its own rights."""
    procedure = sql.Identifier(context, "after_restore")
    found = admin.execute("SELECT to_regproc(%s)", [procedure.as_string(admin)]).fetchone()
    if found == (None,):
        return
    admin.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role_of(context))))
    admin.execute(sql.SQL("CALL {}()").format(procedure))
    admin.execute("RESET ROLE")


def _replace(admin: Connection, name: str, scratch: str) -> None:
    rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
    try:
        with admin.transaction():
            for old, new in ((name, f"{name}_replaced"), (scratch, name)):
                admin.execute(rename.format(sql.Identifier(old), sql.Identifier(new)))
    except psycopg.errors.ObjectInUse:
        _require_unused(admin, name)
        raise


def _require_unused(admin: Connection, name: str) -> None:
    working = admin.execute(
        "SELECT DISTINCT coalesce(nullif(application_name, ''), usename) FROM pg_stat_activity"
        " WHERE datname = %s AND backend_type = 'client backend' ORDER BY 1",
        [name],
    ).fetchall()
    if working:
        raise DatabaseInUse(name, [row[0] for row in working])


def _require_room(admin: Connection, server: Server, name: str, file: Path) -> None:
    """Raise `DiskFull` when a second copy of the database would hardly fit beside the first."""
    free = server.free_bytes()
    size = admin.execute("SELECT pg_database_size(%s)", [name]).fetchone()
    assert size is not None
    needed = max(int(size[0]), file.stat().st_size)
    if free is not None and free < needed:
        raise DiskFull(server.passwords_path.parent, free, needed)


def _drop(admin: Connection, name: str) -> None:
    admin.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@value
class _Entry:
    """One line of a backup's table of contents; `schema` is a schema's own name, else ""."""

    kind: str
    owner: str  # the context, when a context's role owns it
    schema: str


_ENTRY = re.compile(r"^\d+; \d+ \d+ (SCHEMA|TABLE DATA) (\S+) (\S+) (\S+)$")


def _list(file: Path) -> list[_Entry]:
    """Return a backup's table of contents. Raises `BackupFailed` when the file is not one."""
    lines = list(_output("pg_restore", ["--list", str(file)], {}))
    return [_entry(*found.groups()) for line in lines if (found := _ENTRY.match(line))]


def _entry(kind: str, schema: str, name: str, owner: str) -> _Entry:
    return _Entry(
        kind=kind,
        owner=owner.removeprefix(role_of("")),
        schema=name if (kind, schema) == ("SCHEMA", "-") else "",
    )


_TABLES = """
    SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')
      AND n.nspname NOT LIKE 'pg_toast%'
"""


def _count(connection: Connection, query: str) -> int:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def _run(program: str, options: Sequence[str], dsn: str, total: int, report: Report) -> None:
    """Run a program of PostgreSQL on the database `dsn`, telling of each table it comes to."""
    known = conninfo_to_dict(dsn)
    # arguments are shown by `ps`, the environment is not
    environment = {"PGPASSWORD": str(known.pop("password", ""))}
    where = make_conninfo("", **known)
    done = 0
    for line in _output(program, ["--verbose", f"--dbname={where}", *options], environment):
        if found := _TABLE.search(line):
            done += 1
            report(Progress(done=done, total=total, table=found[1]))


def _output(program: str, options: Sequence[str], environment: dict[str, str]) -> Iterator[str]:
    """Yield what a program says, line by line. Raises `BackupFailed` at its end if it failed."""
    last: list[str] = []
    with subprocess.Popen(  # noqa: S603  the wheel's own program
        tied_to_us([str(client_program(program)), *options], signal.SIGTERM),
        env={"LC_ALL": "C", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            last = [*last, line][-_LAST_LINES:]
            yield line.rstrip("\n")
    if running.returncode != 0:
        raise BackupFailed(program, running.returncode, "".join(last))
