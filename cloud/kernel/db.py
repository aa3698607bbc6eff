"""A schema and a login of its own for every context, and the migrations that fill it.

    database = Database(server.dsn(), server.passwords_path)
    database.migrate([KERNEL, context("metering")])
    with database.connect("metering") as connection: ...

A context's role owns its schema and has no rights on any other; the only door between
schemas is `relay`, which may read every outbox and nothing else. Database-per-service that
still fits one server (ARCHITECTURE decision 1).
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool

from cloud.kernel.postgres_cluster import read_passwords, write_passwords
from decoders.value import value

RELAY = "relay"
CONNECT_TIMEOUT_S = 10
_CLOUD = Path(__file__).resolve().parent.parent
_EVERYWHERE = _CLOUD / "kernel" / "schema"  # context_*.sql: what each context's schema holds
_MIGRATION_LOCK = 4_277_009_102_001  # any number that nobody else locks with

_log = logging.getLogger(__name__)

Connection = psycopg.Connection[TupleRow]


@value
class Context:
    """A bounded context as the database sees it: schema `name`, filled from folder `schema`."""

    name: str
    schema: Path


def context(name: str) -> Context:
    """Return the context whose migrations lie in `cloud/<name>/schema`."""
    assert name != KERNEL.name, "the kernel's own schema is KERNEL"
    return Context(name=name, schema=_CLOUD / name / "schema")


KERNEL = Context(name="kernel", schema=_EVERYWHERE / "kernel")


class MigrationChanged(Exception):
    """A migration that was applied reads differently now. Write a new one instead."""

    def __init__(self, context: str, file: str) -> None:
        super().__init__(
            f"{context}: {file} was applied and has changed since; migrations only go forward: "
            "restore the file and put the change in a new one"
        )
        self.context = context
        self.file = file


class SchemaIsNewer(Exception):
    """The database was migrated by a newer version of this program than the one running."""

    def __init__(self, context: str, files: Sequence[str]) -> None:
        super().__init__(
            f"{context}: the database has migrations this version does not know: "
            f"{', '.join(files)}; run the newer version, or restore an older backup"
        )
        self.context = context
        self.files = tuple(files)


class PeriodsOverlap(Exception):
    """Something would hold twice at the same instant; the database refused it."""

    def __init__(self, constraint: str, detail: str) -> None:
        super().__init__(f"{constraint}: {detail}")
        self.constraint = constraint


@contextmanager
def refusing_overlap() -> Iterator[None]:
    """Turn the database's refusal (`forbid_overlap`) into `PeriodsOverlap`."""
    try:
        yield
    except psycopg.errors.ExclusionViolation as refusal:
        details = refusal.diag
        raise PeriodsOverlap(
            details.constraint_name or "", details.message_detail or str(refusal)
        ) from refusal


def role_of(context: str) -> str:
    """Return the login role of a context, or of the relay."""
    return f"aquacis_{context}"


@dataclass(frozen=True)
class Database:
    """One database of the platform.

    admin_dsn       how its administrator connects: may make schemas and roles
    passwords_path  where the roles' passwords lie, 0600; made at the first `migrate`
    """

    admin_dsn: str = field(repr=False)  # it has the password
    passwords_path: Path

    def migrate(self, contexts: Sequence[Context]) -> None:
        """Bring every context's schema up to date. Waits for another process doing the same.

        Each file is one transaction together with the row that says it was applied: killed
        half way, the next call goes on where this one stopped. Raises `MigrationChanged`,
        `SchemaIsNewer`, `psycopg.Error` of the file that failed.
        """
        with self._locked() as admin:
            self._make_roles(admin, [each.name for each in contexts])
            for each in contexts:
                _make_schema(admin, each.name)
                _apply(admin, each)
                _open_outbox(admin, each.name)

    def make_roles(self, contexts: Sequence[str]) -> None:
        """Make the logins of contexts whose schemas something else will bring: a restore."""
        with self._locked() as admin:
            self._make_roles(admin, contexts)

    def connect(self, context: str) -> Connection:
        """Return a connection with the context's own login, in its schema, in UTC."""
        return psycopg.connect(self.dsn(context))

    def connect_admin(self) -> Connection:
        """Return the administrator's connection: migrations, backups, nothing else."""
        return psycopg.connect(self.admin_dsn, connect_timeout=CONNECT_TIMEOUT_S)

    def pool(self, context: str, size: int) -> ConnectionPool[Connection]:
        """Return an open pool of at most `size` connections like `connect`'s. Close it."""
        return ConnectionPool(
            self.dsn(context),
            connection_class=Connection,
            min_size=1,
            max_size=size,
            check=ConnectionPool.check_connection,  # the server may have been started again
            open=True,
        )

    def dsn(self, context: str) -> str:
        """Return how a context (or `relay`) connects. Raises KeyError before `migrate`."""
        return make_conninfo(
            self.admin_dsn,
            user=role_of(context),
            password=read_passwords(self.passwords_path)[context],
            connect_timeout=CONNECT_TIMEOUT_S,
            application_name=role_of(context),
            options=f"-c search_path={context if context != RELAY else 'pg_catalog'} "
            "-c timezone=UTC",
        )

    @property
    def name(self) -> str:
        """The database's name on its server."""
        return str(conninfo_to_dict(self.admin_dsn)["dbname"])

    @contextmanager
    def _locked(self) -> Iterator[Connection]:
        """Keep other migrations of this database waiting; the lock ends with the connection."""
        with self.connect_admin() as admin:
            admin.autocommit = True
            admin.execute("SELECT pg_advisory_lock(%s)", [_MIGRATION_LOCK])
            yield admin

    def _make_roles(self, admin: Connection, contexts: Sequence[str]) -> None:
        names = [RELAY, *contexts]
        passwords = self._passwords(names)
        _close_to_public(admin)
        for name in names:
            _make_role(admin, name, passwords[name])

    def _passwords(self, names: Sequence[str]) -> dict[str, str]:
        """Return the roles' passwords, inventing those the file lacks."""
        with _alone(self.passwords_path):
            known = read_passwords(self.passwords_path)
            missing = {name: secrets.token_urlsafe(24) for name in names if name not in known}
            if missing:
                write_passwords(self.passwords_path, missing)
        return {**known, **missing}


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes of this machine out: two databases share one file of passwords."""
    with path.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _close_to_public(admin: Connection) -> None:
    """Take away what every login has by default: connecting anywhere, temporary tables."""
    name = sql.Identifier(admin.info.dbname)
    admin.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
    admin.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")


def _make_role(admin: Connection, context: str, password: str) -> None:
    """Make a login; or, where our file's password does not open it, give it that one.

    Roles belong to the whole server, so two databases may race to make one: the loser is told
    so by the server and finds the role made.
    """
    role = sql.Identifier(role_of(context))
    # hashed here: a statement that fails is logged with all its text
    hashed = admin.pgconn.encrypt_password(
        password.encode(), role_of(context).encode(), b"scram-sha-256"
    ).decode()
    try:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN NOINHERIT PASSWORD {}").format(role, hashed))
    except (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
        if not _opens(admin, role_of(context), password):
            admin.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, hashed))
    name = sql.Identifier(admin.info.dbname)
    admin.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(name, role))
    if context != RELAY:
        admin.execute(sql.SQL("GRANT TEMPORARY ON DATABASE {} TO {}").format(name, role))


def _opens(admin: Connection, role: str, password: str) -> bool:
    dsn = make_conninfo(admin.info.dsn, user=role, connect_timeout=CONNECT_TIMEOUT_S)
    try:
        psycopg.connect(dsn, password=password).close()
    except psycopg.OperationalError as error:
        # a right password on a database not opened to the role yet still proves the password
        return "password authentication failed" not in str(error)
    return True


def _make_schema(admin: Connection, name: str) -> None:
    role = sql.Identifier(role_of(name))
    is_superuser = admin.info.parameter_status("is_superuser") == "on"
    if not is_superuser:  # a managed server: making objects for a role needs membership
        admin.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(role))
    admin.execute(
        sql.SQL("CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {}").format(
            sql.Identifier(name), role
        )
    )
    admin.execute(
        sql.SQL(
            "CREATE TABLE IF NOT EXISTS {}.migrations (file text PRIMARY KEY, "
            "sha256 bytea NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        ).format(sql.Identifier(name))
    )


def _apply(admin: Connection, context: Context) -> None:
    """Apply the files that were not yet: what every context has first, then its own."""
    schema = sql.Identifier(context.name)
    known = sql.SQL("SELECT file, sha256 FROM {}.migrations").format(schema)
    applied: dict[str, bytes] = dict(admin.execute(known).fetchall())
    files = [
        *sorted(_EVERYWHERE.glob("context_[0-9]*.sql")),
        *sorted(context.schema.glob("[0-9]*.sql")),
    ]
    if unknown := sorted(str(name) for name in applied.keys() - {file.name for file in files}):
        raise SchemaIsNewer(context.name, unknown)
    for file in files:
        content = file.read_bytes()
        digest = hashlib.sha256(content).digest()
        if file.name not in applied:
            _apply_file(admin, context.name, file, digest)
        elif applied[file.name] != digest:
            raise MigrationChanged(context.name, file.name)


def _apply_file(admin: Connection, name: str, file: Path, digest: bytes) -> None:
    schema = sql.Identifier(name)
    with admin.transaction():
        record = sql.SQL("INSERT INTO {}.migrations (file, sha256) VALUES (%s, %s)")
        admin.execute(record.format(schema), [file.name, digest])
        admin.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role_of(name))))
        admin.execute(sql.SQL("SET LOCAL search_path = {}").format(schema))
        admin.execute("SET LOCAL timezone = 'UTC'")
        admin.execute(file.read_bytes())
        admin.execute("RESET ROLE")
    _log.info("MIGRATED", extra={"context": name, "file": file.name})


def _open_outbox(admin: Connection, name: str) -> None:
    """Let the relay read this context's outbox, if it has one by now."""
    outbox = sql.Identifier(name, "outbox")
    found = admin.execute("SELECT to_regclass(%s)", [outbox.as_string(admin)]).fetchone()
    if found == (None,):
        return
    relay, schema = sql.Identifier(role_of(RELAY)), sql.Identifier(name)
    admin.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, relay))
    admin.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(outbox, relay))
