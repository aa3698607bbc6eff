"""What the local issuer has issued: codes, refresh tokens, and the session both belong to.

Only hashes are stored. A code or refresh token that comes twice ends its session: somebody
else has it too. Functions return a refusal instead of raising it, so that ending the session
is committed.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID, uuid4

from cloud.kernel.auth.browsers import Browser, digest
from cloud.kernel.auth.users import User
from cloud.kernel.db import Connection
from decoders.value import value

CODE_LIFE = timedelta(seconds=60)
ROTATION_GRACE = timedelta(seconds=10)  # the answer to a rotation may get lost on the way
KEPT_AFTER_END = timedelta(days=7)  # so that a late replay is still recognised


class Refusal(StrEnum):
    """Why a grant gives nothing: for logs. The client always hears `invalid_grant`."""

    UNKNOWN = "unknown"
    EXPIRED = "expired"
    REUSED = "reused"
    OTHER_CLIENT = "other_client"
    OTHER_REDIRECT = "other_redirect"
    WRONG_VERIFIER = "wrong_verifier"
    ENDED = "session_ended"


@value
class Session:
    """One sign-in of one client, with the user as they are now."""

    session_id: UUID
    user: User
    client_id: str
    scope: str
    nonce: str | None
    auth_at: datetime
    expires_at: datetime
    ended: bool


@value
class Opening:
    """What a client asked for when somebody signed in."""

    client_id: str
    redirect_uri: str
    scope: str
    nonce: str | None
    challenge: str  # PKCE S256


def open_session(connection: Connection, browser: Browser, asked: Opening, *, now: datetime) -> str:
    """Begin a session; return the authorization code that redeems it once."""
    session_id, code = uuid4(), secrets.token_urlsafe(32)
    connection.execute(
        "INSERT INTO sessions (session_id, user_id, client_id, scope, nonce, auth_at, expires_at,"
        " browser_sha256) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        [
            session_id,
            browser.user.user_id,
            asked.client_id,
            asked.scope,
            asked.nonce,
            browser.auth_at,
            browser.expires_at,
            digest(browser.cookie),
        ],
    )
    connection.execute(
        "INSERT INTO authorization_codes"
        " (code_sha256, session_id, redirect_uri, challenge, expires_at)"
        " VALUES (%s, %s, %s, %s, %s)",
        [digest(code), session_id, asked.redirect_uri, asked.challenge, now + CODE_LIFE],
    )
    return code


def redeem_code(
    connection: Connection,
    code: str,
    *,
    client_id: str,
    redirect_uri: str,
    verifier: str,
    now: datetime,
) -> Session | Refusal:
    """Exchange a code, once, for its session. A wrong verifier burns it too."""
    row = connection.execute(
        "SELECT session_id, redirect_uri, challenge, expires_at, used_at"
        " FROM authorization_codes WHERE code_sha256 = %s FOR UPDATE",
        [digest(code)],
    ).fetchone()
    if row is None:
        return Refusal.UNKNOWN
    session_id, asked_uri, challenge, expires_at, used_at = row
    assert isinstance(session_id, UUID)
    assert isinstance(expires_at, datetime)
    session = session_of(connection, session_id)
    assert session is not None
    connection.execute(
        "UPDATE authorization_codes SET used_at = %s WHERE code_sha256 = %s", [now, digest(code)]
    )
    refusal: Refusal | None = None
    if used_at is not None:
        end_session(connection, session_id, why="code_reused", now=now)
        refusal = Refusal.REUSED
    elif session.ended:
        refusal = Refusal.ENDED
    elif now >= expires_at:
        refusal = Refusal.EXPIRED
    elif session.client_id != client_id:
        refusal = Refusal.OTHER_CLIENT
    elif asked_uri != redirect_uri:
        refusal = Refusal.OTHER_REDIRECT
    elif not hmac.compare_digest(s256(verifier).encode(), str(challenge).encode()):
        refusal = Refusal.WRONG_VERIFIER
    return refusal or session


def issue_refresh(connection: Connection, session: Session) -> str:
    """Return a new refresh token of the session; it lives as long as the session."""
    token = secrets.token_urlsafe(32)
    connection.execute(
        "INSERT INTO refresh_tokens (token_sha256, session_id, expires_at) VALUES (%s, %s, %s)",
        [digest(token), session.session_id, session.expires_at],
    )
    return token


def rotate_refresh(
    connection: Connection, token: str, *, client_id: str, now: datetime
) -> tuple[Session, str] | Refusal:
    """Exchange a refresh token for the session and the next token."""
    row = connection.execute(
        "SELECT session_id, rotated_at FROM refresh_tokens WHERE token_sha256 = %s FOR UPDATE",
        [digest(token)],
    ).fetchone()
    if row is None:
        return Refusal.UNKNOWN
    session_id, rotated_at = row
    assert isinstance(session_id, UUID)
    session = session_of(connection, session_id)
    assert session is not None
    if session.ended:
        return Refusal.ENDED
    if session.client_id != client_id:
        return Refusal.OTHER_CLIENT
    if now >= session.expires_at:
        return Refusal.EXPIRED
    if isinstance(rotated_at, datetime) and now - rotated_at > ROTATION_GRACE:
        end_session(connection, session_id, why="refresh_reused", now=now)
        return Refusal.REUSED
    connection.execute(
        "UPDATE refresh_tokens SET rotated_at = coalesce(rotated_at, %s) WHERE token_sha256 = %s",
        [now, digest(token)],
    )
    return session, issue_refresh(connection, session)


def session_of_refresh(connection: Connection, token: str) -> UUID | None:
    """Return which session a refresh token belongs to."""
    row = connection.execute(
        "SELECT session_id FROM refresh_tokens WHERE token_sha256 = %s", [digest(token)]
    ).fetchone()
    return None if row is None else UUID(str(row[0]))


def session_of(connection: Connection, session_id: UUID) -> Session | None:
    row = connection.execute(
        "SELECT u.user_id, u.name, u.roles, u.administrations, s.client_id, s.scope, s.nonce,"
        " s.auth_at, s.expires_at, s.ended_at IS NOT NULL"
        " FROM sessions s JOIN users u USING (user_id) WHERE s.session_id = %s",
        [session_id],
    ).fetchone()
    if row is None:
        return None
    user_id, name, roles, administrations, client_id, scope, nonce, auth_at, expires_at, ended = row
    user = User.of(user_id, name, roles, administrations)
    return Session(
        session_id=session_id,
        user=user,
        client_id=str(client_id),
        scope=str(scope),
        nonce=None if nonce is None else str(nonce),
        auth_at=_instant(auth_at),
        expires_at=_instant(expires_at),
        ended=bool(ended),
    )


def end_session(connection: Connection, session_id: UUID, *, why: str, now: datetime) -> None:
    """End a session and with it everything issued from it."""
    connection.execute(
        "UPDATE sessions SET ended_at = %s, ended_why = %s"
        " WHERE session_id = %s AND ended_at IS NULL",
        [now, why, session_id],
    )


def purge_sessions(connection: Connection, now: datetime) -> None:
    """Drop sessions that ended long ago; their codes and tokens go with them."""
    connection.execute("DELETE FROM sessions WHERE expires_at < %s", [now - KEPT_AFTER_END])


def s256(verifier: str) -> str:
    """Return the PKCE challenge of a verifier (RFC 7636 §4.2)."""
    hashed = hashlib.sha256(verifier.encode("ascii", "replace")).digest()
    return urlsafe_b64encode(hashed).rstrip(b"=").decode()


def _instant(held: object) -> datetime:
    assert isinstance(held, datetime)
    return held
