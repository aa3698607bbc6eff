"""The local issuer's decisions: who may ask, what a sign-in gives, what tokens say.

OpenID Connect Core 1.0, authorization code with PKCE (RFC 7636, S256 only), access tokens as
RFC 9068, `iss` in the answer as RFC 9207, refresh rotation as RFC 9700. One public client: the
web pages. HTTP is `issuer_api`; rows are `sessions`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import UUID, uuid4

from joserfc import jwt
from joserfc.errors import JoseError

from cloud.kernel import telemetry
from cloud.kernel.auth import browsers, sessions, users
from cloud.kernel.auth.authorization import CLIENT_ID, SCOPES, Asked, read_request
from cloud.kernel.auth.keys import ALGORITHM, LocalKeys
from cloud.kernel.auth.sessions import Refusal, Session
from cloud.kernel.auth.users import User
from cloud.kernel.clock import Clock
from cloud.kernel.config import Settings
from decoders.value import value

ACCESS_LIFE = timedelta(minutes=10)  # how long a taken-away role still works
PURGE_EVERY = timedelta(minutes=10)
LOOPBACK = ("127.0.0.1", "localhost")

_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636 §4.1


log = telemetry.logger(__name__)


class GrantRefused(Exception):
    """The token endpoint gives nothing (RFC 6749 §5.2)."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description


@value
class Tokens:
    """What one grant gave."""

    access: str
    identity: str
    refresh: str
    scope: str

    def answer(self) -> dict[str, str | int]:
        """Return the body of a token response."""
        return {
            "access_token": self.access,
            "token_type": "Bearer",
            "expires_in": int(ACCESS_LIFE.total_seconds()),
            "refresh_token": self.refresh,
            "id_token": self.identity,
            "scope": self.scope,
        }


@value
class SignedIn:
    """Where to send a browser that signed in, and the cookie to know it by."""

    location: str
    cookie: str


@dataclass
class Issuer:
    """The local identity provider. Many threads use one."""

    settings: Settings
    keys: LocalKeys
    connect: Callable[[], Any]  # gives a kernel connection as a context manager
    wall: Clock
    _purged_at: datetime | None = None

    @property
    def name(self) -> str:
        """`iss` in every token."""
        return self.settings.base_url

    @property
    def origins(self) -> tuple[str, ...]:
        """Where our pages may live: the public address; on a laptop both names of loopback."""
        public = urlsplit(self.name)
        if public.hostname not in LOOPBACK:
            return (self.name,)
        return tuple(f"{public.scheme}://{host}:{public.port}" for host in LOOPBACK)

    def asked(self, given: Mapping[str, str]) -> Asked:
        """Read an authorization request. Raises `ClientRefused`, `RequestRefused`."""
        return read_request(given, issuer=self.name, origins=self.origins)

    def sign_in(self, asked: Asked, *, name: str, password: str) -> SignedIn:
        """Let somebody in by password. Raises `SignInRefused`, `TooBusy`."""
        now = self.wall.now()
        self._purge(now)
        user = users.sign_in(self.connect, name=name, password=password, now=now)
        with self.connect() as connection:
            browser = browsers.remember(connection, user, now=now)
            code = sessions.open_session(connection, browser, asked.opening, now=now)
        log.info("signed_in", user=user.user_id, client=asked.opening.client_id)
        return SignedIn(location=asked.with_code(code), cookie=browser.cookie)

    def continued(self, asked: Asked, cookie: str) -> str | None:
        """Return where to send a browser that is signed in already; None: ask the password.

        Raises `RequestRefused` when the client wanted no form and there must be one.
        """
        now = self.wall.now()
        with self.connect() as connection:
            browser = browsers.recognise(connection, cookie, now=now) if cookie else None
            if browser is not None and asked.accepts(browser.auth_at, now):
                code = sessions.open_session(connection, browser, asked.opening, now=now)
                return asked.with_code(code)
        if asked.prompt == "none":
            raise asked.refused("login_required", "nobody is signed in here")
        return None

    def redeem(self, given: Mapping[str, str]) -> Tokens:
        """Exchange an authorization code. Raises `GrantRefused`."""
        if _VERIFIER.fullmatch(given.get("code_verifier", "")) is None:
            raise GrantRefused("invalid_request", "code_verifier is missing or malformed")
        with self.connect() as connection:
            session = sessions.redeem_code(
                connection,
                given.get("code", ""),
                client_id=given.get("client_id", ""),
                redirect_uri=given.get("redirect_uri", ""),
                verifier=given["code_verifier"],
                now=self.wall.now(),
            )
            if isinstance(session, Session):
                return self._tokens(session, sessions.issue_refresh(connection, session))
        raise _refused(session)

    def refresh(self, given: Mapping[str, str]) -> Tokens:
        """Exchange a refresh token for new tokens, with the roles of now. Raises `GrantRefused`."""
        with self.connect() as connection:
            rotated = sessions.rotate_refresh(
                connection,
                given.get("refresh_token", ""),
                client_id=given.get("client_id", ""),
                now=self.wall.now(),
            )
        if isinstance(rotated, Refusal):
            raise _refused(rotated)
        session, token = rotated
        return self._tokens(session, token)

    def revoke(self, token: str) -> None:
        """End the session of a refresh token; silent when there is none (RFC 7009 §2.2)."""
        with self.connect() as connection:
            session_id = sessions.session_of_refresh(connection, token)
            if session_id is not None:
                sessions.end_session(connection, session_id, why="logout", now=self.wall.now())

    def log_out(self, given: Mapping[str, str], cookie: str) -> str | None:
        """Sign this browser out; return where to go, None when nowhere of ours.

        The cookie is SameSite=Strict: a link on a foreign page does not carry it here.
        """
        session_id = self._session_of(given.get("id_token_hint", ""))
        now = self.wall.now()
        with self.connect() as connection:
            if cookie:
                browsers.forget(connection, cookie, now=now)
            if session_id is not None:
                browsers.forget_of_session(connection, session_id, now=now)
                sessions.end_session(connection, session_id, why="logout", now=now)
        wanted = given.get("post_logout_redirect_uri", "")
        ours = {f"{origin}{path}" for origin in self.origins for path in ("", "/", "/entrar")}
        if wanted not in ours:
            return None
        return (
            wanted if "state" not in given else f"{wanted}?{urlencode({'state': given['state']})}"
        )

    def access_token(self, user: User, *, session_id: UUID | None = None) -> str:
        """Return an access token for `user` (RFC 9068)."""
        claims = self._common(user, audience=self.settings.audience)
        claims |= {"client_id": CLIENT_ID, "scope": "openid profile"}
        if session_id is not None:
            claims["sid"] = str(session_id)
        return self._signed(claims, kind="at+jwt")

    def form_secret(self) -> bytes:
        """Return the key of login-form tokens; the same in every process of this issuer."""
        private = json.dumps(self.keys.signing().key.as_dict(private=True), sort_keys=True)
        return hmac.digest(private.encode(), b"login form", "sha256")

    def discovery(self, base_url: str) -> dict[str, Any]:
        """Return the OpenID Connect discovery document, with endpoints under `base_url`."""
        return {
            "issuer": self.name,
            "authorization_endpoint": f"{base_url}/oidc/authorize",
            "token_endpoint": f"{base_url}/oidc/token",
            "userinfo_endpoint": f"{base_url}/oidc/userinfo",
            "end_session_endpoint": f"{base_url}/oidc/logout",
            "revocation_endpoint": f"{base_url}/oidc/revoke",
            "jwks_uri": f"{base_url}/oidc/jwks",
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [ALGORITHM],
            "scopes_supported": sorted(SCOPES),
            "claims_supported": ["sub", "name", "preferred_username", "roles", "administrations"],
            "authorization_response_iss_parameter_supported": True,
            "ui_locales_supported": ["es-MX"],
        }

    def _tokens(self, session: Session, refresh: str) -> Tokens:
        access = self.access_token(session.user, session_id=session.session_id)
        identity = self._common(session.user, audience=CLIENT_ID)
        identity |= {
            "auth_time": int(session.auth_at.timestamp()),
            "sid": str(session.session_id),
            "at_hash": _half_hash(access),
        }
        if session.nonce is not None:
            identity["nonce"] = session.nonce
        return Tokens(
            access=access,
            identity=self._signed(identity, kind="JWT"),
            refresh=refresh,
            scope=session.scope,
        )

    def _common(self, user: User, *, audience: str) -> dict[str, Any]:
        now = self.wall.now()
        return {
            "iss": self.name,
            "sub": str(user.user_id),
            "aud": audience,
            "iat": int(now.timestamp()),
            "exp": int((now + ACCESS_LIFE).timestamp()),
            "jti": str(uuid4()),
            "preferred_username": user.name,
            "name": user.name,
            "roles": list(user.roles),
            "administrations": list(user.administrations),
        }

    def _signed(self, claims: dict[str, Any], *, kind: str) -> str:
        signing = self.keys.signing()
        header = {"alg": ALGORITHM, "kid": signing.kid, "typ": kind}
        return jwt.encode(header, claims, signing.key, algorithms=[ALGORITHM])

    def _session_of(self, id_token: str) -> UUID | None:
        """Return the session of an ID token we signed; it may be out of date (OIDC RP-Initiated
        Logout 1.0 §2)."""
        try:
            claims = jwt.decode(id_token, self.keys.keys(kid=None), algorithms=[ALGORITHM]).claims
            if claims["iss"] != self.name or claims["aud"] != CLIENT_ID:
                return None
            return UUID(claims["sid"])
        except (JoseError, ValueError, KeyError, TypeError):
            return None

    def _purge(self, now: datetime) -> None:
        if self._purged_at is not None and now - self._purged_at < PURGE_EVERY:
            return
        self._purged_at = now
        with self.connect() as connection:
            users.purge_tries(connection, now)
            browsers.purge_browsers(connection, now)
            sessions.purge_sessions(connection, now)


def _refused(refusal: Refusal) -> GrantRefused:
    log.warning("grant_refused", reason=refusal.value)
    return GrantRefused("invalid_grant", "the grant is not valid, was used, or has expired")


def _half_hash(token: str) -> str:
    """Return `at_hash` (OIDC Core §3.1.3.6): the left half of SHA-256 in base64url."""
    digest = hashlib.sha256(token.encode("ascii")).digest()
    return urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()
