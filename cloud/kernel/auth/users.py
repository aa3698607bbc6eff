"""People of the local issuer: argon2id hashes, roles, and a lock after failed tries."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Self
from uuid import UUID, uuid4

from cloud.kernel.auth.passwords import (
    UserInvalid,
    check_password,
    hash_of_nobody,
    hashed,
    outdated,
    verified,
)
from cloud.kernel.auth.principal import Role
from cloud.kernel.clock import SystemClock
from cloud.kernel.db import Connection, Database
from decoders.value import value

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
TRIES = 5
LOCK_FIRST = timedelta(minutes=1)  # doubles with every further failure
LOCK_MAX = timedelta(minutes=15)
TRIES_FORGOTTEN_AFTER = timedelta(hours=1)


class SignInRefused(Exception):
    """Name and password do not open anything now. The caller must not learn which was wrong."""

    def __init__(self, *, locked_until: datetime | None = None) -> None:
        super().__init__("locked" if locked_until else "wrong name or password")
        self.locked_until = locked_until


@value
class User:
    """Somebody who may sign in."""

    user_id: UUID
    name: str
    roles: tuple[str, ...]
    administrations: tuple[str, ...]

    @classmethod
    def of(cls, *row: Any) -> Self:  # noqa: ANN401  columns as the driver gives them
        """Read the columns user_id, name, roles, administrations."""
        user_id, name, roles, administrations = row
        return cls(
            user_id=user_id,
            name=name,
            roles=tuple(roles),
            administrations=tuple(administrations),
        )


def ensure_user(
    database: Database,
    name: str,
    roles: Iterable[Role],
    administrations: Iterable[str],
    password: str,
) -> None:
    """Make a user, or give an existing one these roles and this password. Safe to repeat.

    Sessions the user had end. For a shell: it reads the wall clock. Raises `UserInvalid`.
    """
    with database.connect("kernel") as connection:
        put_user(
            connection,
            name=name,
            roles=roles,
            administrations=administrations,
            password=password,
            now=SystemClock().now(),
        )


def put_user(
    connection: Connection,
    *,
    name: str,
    roles: Iterable[Role],
    administrations: Iterable[str],
    password: str,
    now: datetime,
) -> None:
    """Do `ensure_user` in the caller's transaction."""
    if NAME.fullmatch(name) is None:
        raise UserInvalid(f"nombre {name!r}: minúsculas, dígitos, punto y guion; hasta 64")
    check_password(password)
    held = {"name": name, "hash": hashed(password), "now": now, "user_id": uuid4()}
    held["roles"] = sorted({Role(role).value for role in roles})
    held["administrations"] = sorted(set(administrations))
    connection.execute(
        "INSERT INTO users AS u"
        " (user_id, name, password_hash, roles, administrations, created_at, password_at)"
        " VALUES (%(user_id)s, %(name)s, %(hash)s, %(roles)s, %(administrations)s,"
        " %(now)s, %(now)s)"
        " ON CONFLICT (name) DO UPDATE SET password_hash = EXCLUDED.password_hash,"
        " roles = EXCLUDED.roles, administrations = EXCLUDED.administrations,"
        " password_at = EXCLUDED.password_at",
        held,
    )
    _end_sessions(connection, name, now)
    _forget_tries(connection, name)


def set_password(connection: Connection, *, name: str, password: str, now: datetime) -> None:
    """Change a password, end the user's sessions, lift a lock. Raises `UserInvalid`."""
    check_password(password)
    changed = connection.execute(
        "UPDATE users SET password_hash = %s, password_at = %s WHERE name = %s",
        [hashed(password), now, name],
    )
    if changed.rowcount == 0:
        raise UserInvalid(f"no hay usuario {name!r}")
    _end_sessions(connection, name, now)
    _forget_tries(connection, name)


def all_users(connection: Connection) -> list[User]:
    found = connection.execute(
        "SELECT user_id, name, roles, administrations FROM users ORDER BY name"
    )
    return [User.of(*row) for row in found.fetchall()]


def user_named(connection: Connection, name: str) -> User | None:
    found = connection.execute(
        "SELECT user_id, name, roles, administrations FROM users WHERE name = %s", [name]
    )
    row = found.fetchone()
    return None if row is None else User.of(*row)


def sign_in(
    connect: Any,  # noqa: ANN401  a pool's or a database's connection maker
    *,
    name: str,
    password: str,
    now: datetime,
) -> User:
    """Return the user that name and password prove.

    The try is counted and committed before the password is looked at, so that a hundred tries
    in parallel are a hundred tries. `connect` gives a kernel connection as a context manager.
    Raises `SignInRefused`, `TooBusy`.
    """
    name = name.strip().lower()
    with connect() as connection:
        locked_until = _count_try(connection, name, now)
    if locked_until is not None:
        raise SignInRefused(locked_until=locked_until)
    row = _row_with_hash(connect, name) if NAME.fullmatch(name) else None
    matches = verified(row[4] if row else hash_of_nobody(), password)
    if row is None or not matches:
        raise SignInRefused
    with connect() as connection:
        _forget_tries(connection, name)
        if outdated(row[4]):
            connection.execute(
                "UPDATE users SET password_hash = %s WHERE user_id = %s",
                [hashed(password), row[0]],
            )
    return User.of(*row[:4])


def purge_tries(connection: Connection, now: datetime) -> None:
    """Drop what no longer counts."""
    connection.execute("DELETE FROM login_tries WHERE last_at < %s", [now - TRIES_FORGOTTEN_AFTER])


def _row_with_hash(connect: Any, name: str) -> Any:  # noqa: ANN401  a row of the driver
    with connect() as connection:
        return connection.execute(
            "SELECT user_id, name, roles, administrations, password_hash FROM users"
            " WHERE name = %s",
            [name],
        ).fetchone()


def _count_try(connection: Connection, name: str, now: datetime) -> datetime | None:
    """Count one try; return until when the name is locked, None when this try may go on.

    The fifth try in a row sets the lock already: if it is the right password, the row goes.
    """
    held = {
        "name": _digest(name),
        "now": now,
        "tries": TRIES,
        "first": LOCK_FIRST,
        "longest": LOCK_MAX,
        "forgotten": now - TRIES_FORGOTTEN_AFTER,
    }
    counted = connection.execute(
        "INSERT INTO login_tries AS t (name_sha256, failed, last_at) VALUES (%(name)s, 1, %(now)s)"
        " ON CONFLICT (name_sha256) DO UPDATE SET last_at = %(now)s,"
        " failed = CASE WHEN t.last_at < %(forgotten)s THEN 1 ELSE t.failed + 1 END,"
        " locked_until = CASE WHEN t.last_at >= %(forgotten)s AND t.failed + 1 >= %(tries)s"
        " THEN %(now)s + least(%(longest)s, %(first)s * 2 ^ least(t.failed + 1 - %(tries)s, 10))"
        " END"
        " WHERE t.locked_until IS NULL OR t.locked_until <= %(now)s RETURNING failed",
        held,
    ).fetchone()
    if counted is not None:
        return None
    row = connection.execute(
        "SELECT locked_until FROM login_tries WHERE name_sha256 = %s", [_digest(name)]
    ).fetchone()
    assert row is not None
    assert isinstance(row[0], datetime)
    return row[0]


def _forget_tries(connection: Connection, name: str) -> None:
    connection.execute("DELETE FROM login_tries WHERE name_sha256 = %s", [_digest(name)])


def _end_sessions(connection: Connection, name: str, now: datetime) -> None:
    connection.execute(
        "UPDATE sessions SET ended_at = %s, ended_why = 'password' WHERE ended_at IS NULL"
        " AND user_id = (SELECT user_id FROM users WHERE name = %s)",
        [now, name],
    )
    connection.execute(
        "DELETE FROM browsers WHERE user_id = (SELECT user_id FROM users WHERE name = %s)", [name]
    )


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
