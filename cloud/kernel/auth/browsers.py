"""Browsers in which somebody signed in: a reload gets new tokens without the password."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from uuid import UUID

from cloud.kernel.auth.users import User
from cloud.kernel.db import Connection
from decoders.value import value

SIGN_IN_LIFE = timedelta(hours=12)  # a working day; then the password again


@value
class Browser:
    """Who signed in here, and when."""

    cookie: str
    user: User
    auth_at: datetime
    expires_at: datetime


def remember(connection: Connection, user: User, *, now: datetime) -> Browser:
    """Return a browser that `user` just proved to sit at, with a new cookie."""
    cookie = secrets.token_urlsafe(32)
    browser = Browser(cookie=cookie, user=user, auth_at=now, expires_at=now + SIGN_IN_LIFE)
    connection.execute(
        "INSERT INTO browsers (browser_sha256, user_id, auth_at, expires_at)"
        " VALUES (%s, %s, %s, %s)",
        [digest(cookie), user.user_id, now, browser.expires_at],
    )
    return browser


def recognise(connection: Connection, cookie: str, *, now: datetime) -> Browser | None:
    """Return the browser of a cookie, with its user as they are now; None when it is over."""
    row = connection.execute(
        "SELECT u.user_id, u.name, u.roles, u.administrations, b.auth_at, b.expires_at"
        " FROM browsers b JOIN users u USING (user_id)"
        " WHERE b.browser_sha256 = %s AND b.expires_at > %s",
        [digest(cookie), now],
    ).fetchone()
    if row is None:
        return None
    auth_at, expires_at = row[4:]
    assert isinstance(auth_at, datetime)
    assert isinstance(expires_at, datetime)
    return Browser(cookie=cookie, user=User.of(*row[:4]), auth_at=auth_at, expires_at=expires_at)


def forget(connection: Connection, cookie: str, *, now: datetime) -> None:
    """Sign a browser out, and every session that began in it."""
    _forget(connection, digest(cookie), now)


def forget_of_session(connection: Connection, session_id: UUID, *, now: datetime) -> None:
    """Sign out the browser in which a session began."""
    row = connection.execute(
        "SELECT browser_sha256 FROM sessions WHERE session_id = %s", [session_id]
    ).fetchone()
    if row is not None and isinstance(row[0], bytes):
        _forget(connection, row[0], now)


def purge_browsers(connection: Connection, now: datetime) -> None:
    connection.execute("DELETE FROM browsers WHERE expires_at < %s", [now])


def digest(cookie: str) -> bytes:
    """Return what is stored of a cookie."""
    return hashlib.sha256(cookie.encode()).digest()


def _forget(connection: Connection, browser: bytes, now: datetime) -> None:
    connection.execute(
        "UPDATE sessions SET ended_at = %s, ended_why = 'logout'"
        " WHERE browser_sha256 = %s AND ended_at IS NULL",
        [now, browser],
    )
    connection.execute("DELETE FROM browsers WHERE browser_sha256 = %s", [browser])
