"""The database server that comes along: PostgreSQL from a wheel, one per state folder.

    with postgres.ensure(state) as server:
        database = Database(server.dsn(), server.passwords_path)

The first process to ask becomes its launcher and keeps it alive; others attach to it. It dies
with its launcher, however that dies. `YourServer` is one of yours instead: same interface,
nothing started. Design and crash cases: reference/postgres.md §1.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Protocol, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from cloud.kernel import postgres_cluster, private_files
from cloud.kernel.postgres_cluster import ADMIN, Folders
from cloud.kernel.postgres_disk import Disk, Reserve
from cloud.kernel.postgres_errors import LauncherBusy, ServerError, ServerGivenUp, WrongOwner
from cloud.kernel.postgres_install import choose_user, find_programs, require_reachable
from cloud.kernel.postgres_keeper import Keeper
from cloud.kernel.state import make_folder, prepare

DATABASE = "aquacis"
ATTACH_TIMEOUT_S = 120  # a first start on a slow disk
_POLL_S = 0.1
_CONNECT_TIMEOUT_S = 3

_log = logging.getLogger(__name__)


class Server(Protocol):
    """A PostgreSQL server, ours or yours. Also a context manager that stops it at the end."""

    @property
    def passwords_path(self) -> Path:
        """Where the passwords of the contexts' roles lie; readable by this user alone."""
        ...

    def dsn(self, database: str | None = None) -> str:
        """Return how its administrator connects to `database` (default: the platform's)."""
        ...

    def free_bytes(self) -> int | None:
        """Return the room left on its disk; None when that is not ours to know."""
        ...

    def require_intake(self) -> None:
        """Raise `DiskNearlyFull` when nothing more may be taken in."""
        ...

    @property
    def failure(self) -> ServerError | None:
        """Why its launcher gave it up: it is gone and stays so, and `spanish` says why to people.

        None while it runs or is being started again, and always for one of yours. Also told to
        those who attached, for as long as the launcher runs on. Whoever needs the server asks
        each second or so, and ends when it is not None.
        """
        ...

    def stop(self) -> None:
        """Stop the server if this process started it; else do nothing. Safe to repeat."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def ensure(
    state: Path,
    *,
    port: int = 0,
    reserve: Reserve | None = None,
    settings: Mapping[str, str] | None = None,
) -> OurServer:
    """Return the ready server of `state`: started now, or found running.

    port      TCP port on 127.0.0.1 if this call starts it; 0 takes a free one
    reserve   how much disk is kept back
    settings  of postgresql.conf, over the defaults

    Raises `ServerError` (see `postgres_errors`).
    """
    folders = Folders(state.absolute() / "postgres")
    disk = Disk(folders.home, reserve or Reserve())
    try:
        prepare(state.absolute())
        make_folder(folders.home, mode=0o711)  # the server's user walks through it to its data
        return _launch_or_attach(folders, disk, port, settings or {})
    except PermissionError as error:
        closed = Path(str(error.filename))
        owner = next(p for p in (closed, *closed.parents) if os.access(p, os.F_OK)).stat().st_uid
        raise WrongOwner(closed, owner, os.geteuid()) from error


@dataclass
class YourServer:
    """A server that somebody else runs."""

    url: str = field(repr=False)  # it may have a password
    passwords_path: Path

    def dsn(self, database: str | None = None) -> str:
        return self.url if database is None else make_conninfo(self.url, dbname=database)

    def free_bytes(self) -> int | None:
        return None

    def require_intake(self) -> None:
        return

    @property
    def failure(self) -> ServerError | None:
        return None

    def stop(self) -> None:
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@dataclass
class OurServer:
    """The server under a state folder. `keeper` is None when another process launched it."""

    folders: Folders
    disk: Disk
    port: int
    password: str = field(repr=False)
    keeper: Keeper | None = None
    _lock: IO[str] | None = None

    @property
    def passwords_path(self) -> Path:
        return self.folders.passwords

    def dsn(self, database: str | None = None) -> str:
        return make_conninfo(
            host="127.0.0.1",
            port=self.port,
            user=ADMIN,
            password=self.password,
            dbname=database or DATABASE,
        )

    def free_bytes(self) -> int | None:
        return self.disk.free_bytes()

    def require_intake(self) -> None:
        self.disk.require_intake()

    @property
    def failure(self) -> ServerError | None:
        return _given_up(self.folders) if self.keeper is None else self.keeper.failure

    def stop(self) -> None:
        if self.keeper is None or self._lock is None:
            return
        self.keeper.stop()
        self.folders.endpoint.unlink(missing_ok=True)
        self.folders.failure.unlink(missing_ok=True)
        self._lock.close()
        self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _launch_or_attach(
    folders: Folders, disk: Disk, port: int, settings: Mapping[str, str]
) -> OurServer:
    give_up_s = time.monotonic() + ATTACH_TIMEOUT_S
    while True:
        lock = _try_lock(folders.lock)
        if lock is not None:
            return _launch(folders, disk, port, settings, lock)
        if (failure := _given_up(folders)) is not None:
            raise failure
        found = _attach(folders, disk)
        if found is not None:
            return found
        if time.monotonic() > give_up_s:
            raise LauncherBusy(folders.home, ATTACH_TIMEOUT_S)
        time.sleep(_POLL_S)


def _launch(
    folders: Folders, disk: Disk, port: int, settings: Mapping[str, str], lock: IO[str]
) -> OurServer:
    try:
        began_s = time.monotonic()
        folders.endpoint.unlink(missing_ok=True)
        folders.failure.unlink(missing_ok=True)
        disk.make_room_to_recover()
        user = choose_user(folders.data)
        if user.switch and folders.home.parent.stat().st_uid == 0:
            folders.home.parent.chmod(0o711)  # the state folder is ours; what is above it is not
        require_reachable(folders.home, user)
        programs = find_programs(folders.runtime, user)
        postgres_cluster.write_settings(folders, disk, settings)
        postgres_cluster.prepare(folders, programs, disk)
        password = postgres_cluster.read_passwords(folders.passwords)[ADMIN]

        def publish(port: int, pid: int) -> None:
            where = {"host": "127.0.0.1", "port": port, "pid": pid}
            private_files.write(folders.endpoint, json.dumps(where).encode())

        def confess(error: ServerError) -> None:
            told = {"english": str(error), "spanish": error.spanish}
            private_files.write(folders.failure, json.dumps(told).encode())

        keeper = Keeper(folders, programs, disk, port, publish, confess)
        keeper.start()
        server = OurServer(folders, disk, keeper.port, password, keeper, lock)
        _make_database(server)
        took_ms = round((time.monotonic() - began_s) * 1000)
        _log.info("DATABASE_READY", extra={"port": server.port, "took_ms": took_ms})
        return server
    except BaseException:
        folders.failure.unlink(missing_ok=True)  # ours alone to know: nobody attached
        lock.close()
        raise


def _attach(folders: Folders, disk: Disk) -> OurServer | None:
    """Return the server another process launched here, if it answers yet."""
    try:
        where = json.loads(folders.endpoint.read_text())
        password = postgres_cluster.read_passwords(folders.passwords)[ADMIN]
    except (FileNotFoundError, KeyError):
        return None
    server = OurServer(folders, disk, where["port"], password)
    try:
        with psycopg.connect(server.dsn(), connect_timeout=_CONNECT_TIMEOUT_S):
            return server
    except psycopg.OperationalError:
        return None


def _given_up(folders: Folders) -> ServerGivenUp | None:
    """Return what the launcher wrote down when it gave the server up, if it did."""
    try:
        told = json.loads(folders.failure.read_text())
    except FileNotFoundError:
        return None
    return ServerGivenUp(told["english"], told["spanish"])


def _make_database(server: OurServer) -> None:
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        known = connection.execute(
            "SELECT FROM pg_database WHERE datname = %s", [DATABASE]
        ).fetchone()
        if known is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))


def _try_lock(path: Path) -> IO[str] | None:
    """Take the launcher's lock for as long as the file stays open; None when it is taken."""
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
