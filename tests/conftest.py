"""What every test may ask for: a real PostgreSQL, and a fresh database on it in milliseconds."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg import connect, sql

from cloud.kernel import postgres
from cloud.kernel.db import KERNEL, Context, Database, context
from cloud.kernel.postgres import Server
from cloud.kernel.postgres_disk import Reserve
from decoders.value import value
from tests import profiles
from tests.real_parts import pytest_runtest_setup

__all__ = ["profiles", "pytest_runtest_setup"]  # how long Hypothesis looks; what may be missing

CONTEXTS: tuple[Context, ...] = (KERNEL, context("metering"), context("operations"))
SMALL = Reserve(ballast_bytes=1 << 20, low_water_bytes=1 << 20, start_bytes=1 << 20)
FAST = {  # a test's data may be lost in a power cut
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "autovacuum_naptime": "10min",
}
PREFIX = "aquacis-test-"
MEMORY = Path("/dev/shm")
MEMORY_BYTES = 2 << 30

_numbers = itertools.count(1)


@value
class Template:
    """A migrated database that nobody connects to, so that it can be copied."""

    server: Server
    name: str


@pytest.fixture(scope="session", autouse=True)
def _no_leftovers() -> None:
    """Remove the state folders of test runs that were killed: their name says whose they were."""
    for folder in _roomy_folder().glob(f"{PREFIX}*-*"):
        owner = folder.name.removeprefix(PREFIX).split("-")[0]
        if not Path("/proc", owner).exists():
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def session_state() -> Iterator[Path]:
    """A state folder for what a session's tests share."""
    with state_folder() as folder:
        yield folder


@pytest.fixture
def state() -> Iterator[Path]:
    """An empty state folder that the server's user can walk into; pytest's own is closed."""
    with state_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres_server(session_state: Path) -> Iterator[Server]:
    """A running server. One per xdist worker: an open transaction delays the whole server's log."""
    with postgres.ensure(session_state / "server", reserve=SMALL, settings=FAST) as server:
        yield server


@pytest.fixture(scope="session")
def database_template(postgres_server: Server) -> Template:
    """The database that `database` copies: migrated once, for all contexts."""
    name = f"template_{next(_numbers)}"
    _administer(postgres_server, "CREATE DATABASE {}", name)
    made = Database(postgres_server.dsn(name), postgres_server.passwords_path)
    made.migrate(CONTEXTS)
    return Template(server=postgres_server, name=name)


@pytest.fixture
def empty_database(postgres_server: Server) -> Iterator[Database]:
    """A fresh database that was never migrated."""
    name = f"empty_{next(_numbers)}"
    _administer(postgres_server, "CREATE DATABASE {}", name)
    yield Database(postgres_server.dsn(name), postgres_server.passwords_path)
    _administer(postgres_server, "DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture
def database(database_template: Template) -> Iterator[Database]:
    """A fresh, migrated database."""
    yield from _copy_of(database_template)


@pytest.fixture(scope="module")
def module_database(database_template: Template) -> Iterator[Database]:
    """A migrated database that a module's tests share: for property tests, or many readers."""
    yield from _copy_of(database_template)


def _copy_of(database_template: Template) -> Iterator[Database]:
    server, name = database_template.server, f"test_{next(_numbers)}"
    _administer(
        server, "CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY", name, database_template.name
    )
    yield Database(server.dsn(name), server.passwords_path)
    _administer(server, "DROP DATABASE {} WITH (FORCE)", name)


@contextmanager
def state_folder() -> Iterator[Path]:
    """Make a folder one may walk through if not list, and remove it."""
    prefix = f"{PREFIX}{os.getpid()}-"
    with tempfile.TemporaryDirectory(
        prefix=prefix, dir=_roomy_folder(), ignore_cleanup_errors=True
    ) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@functools.cache
def _roomy_folder() -> Path:
    """Where test databases lie: in memory if there is plenty, for copying one is 20 x cheaper."""
    try:
        status = os.statvfs(MEMORY)
    except OSError:
        return Path(tempfile.gettempdir())
    roomy = status.f_bavail * status.f_frsize > MEMORY_BYTES
    usable = os.access(MEMORY, os.W_OK) and not status.f_flag & os.ST_NOEXEC
    return MEMORY if roomy and usable else Path(tempfile.gettempdir())


def _administer(server: Server, statement: str, *names: str) -> None:
    with connect(server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
