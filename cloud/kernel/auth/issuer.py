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
from cloud.kernel.auth import sessions, users
from cloud.kernel.auth.keys import ALGORITHM, LocalKeys
from cloud.kernel.auth.sessions import Opening, Refusal, Session
from cloud.kernel.auth.users import User
from cloud.kernel.clock import Clock
from cloud.kernel.config import Settings
from decoders.value import value

CLIENT_ID = "aquacis-web"
ACCESS_LIFE = timedelta(minutes=10)  # how long a taken-away role still works
SCOPES = frozenset({"openid", "profile", "offline_access"})
PARAMETER_CHARACTERS_MAX = 2_048
PURGE_EVERY = timedelta(minutes=10)
LOOPBACK = ("127.0.0.1", "localhost")

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")  # SHA-256 in base64url
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636 §4.1

log = telemetry.logger(__name__)


class ClientRefused(Exception):
    """Client or redirect address are not ours: nothing may be sent there. Shown as a page."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class RequestRefused(Exception):
    """The client asked for what it cannot have; it is told so at its redirect address."""

    def __init__(self, error: str, description: str, *, location: str) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.location = location


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
class Asked:
    """A valid authorization request."""

    opening: Opening
    state: str | None
    hint: str  # name to fill in


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
        if given.get("client_id") != CLIENT_ID:
            raise ClientRefused("client_unknown")
        redirect_uri = given.get("redirect_uri", "")
        if redirect_uri not in {f"{origin}/entrar" for origin in self.origins}:
            raise ClientRefused("redirect_unknown")
        state = given.get("state")
        if fault := _fault_of(given):
            error, description = fault
            more = {"error": error, "error_description": description}
            location = self._back(redirect_uri, state, more)
            raise RequestRefused(error, description, location=location)
        scope = " ".join(sorted(SCOPES & set(given["scope"].split())))
        return Asked(
            opening=Opening(
                client_id=CLIENT_ID,
                redirect_uri=redirect_uri,
                scope=scope,
                nonce=given.get("nonce"),
                challenge=given["code_challenge"],
            ),
            state=state,
            hint=given.get("login_hint", ""),
        )

    def sign_in(self, asked: Asked, *, name: str, password: str) -> str:
        """Return where to send the browser with its code. Raises `SignInRefused`, `TooBusy`."""
        now = self.wall.now()
        self._purge(now)
        user = users.sign_in(self.connect, name=name, password=password, now=now)
        with self.connect() as connection:
            code = sessions.open_session(connection, user, asked.opening, now=now)
        log.info("signed_in", user=user.user_id, client=asked.opening.client_id)
        return self._back(asked.opening.redirect_uri, asked.state, {"code": code})

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

    def log_out(self, given: Mapping[str, str]) -> str | None:
        """End the session an ID token names; return where to go, None when nowhere of ours."""
        if session_id := self._session_of(given.get("id_token_hint", "")):
            with self.connect() as connection:
                sessions.end_session(connection, session_id, why="logout", now=self.wall.now())
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

    def _back(self, redirect_uri: str, state: str | None, more: Mapping[str, str]) -> str:
        query = {**more, "iss": self.name}
        if state is not None:
            query["state"] = state
        return f"{redirect_uri}?{urlencode(query)}"

    def _purge(self, now: datetime) -> None:
        if self._purged_at is not None and now - self._purged_at < PURGE_EVERY:
            return
        self._purged_at = now
        with self.connect() as connection:
            users.purge_tries(connection, now)
            sessions.purge_sessions(connection, now)


def _fault_of(given: Mapping[str, str]) -> tuple[str, str] | None:
    """Return (error, description) of a request whose client and address are right."""
    checks = (
        (
            all(len(text) <= PARAMETER_CHARACTERS_MAX for text in given.values()),
            ("invalid_request", "a parameter is too long"),
        ),
        (
            given.get("response_type") == "code",
            ("unsupported_response_type", "only response_type=code"),
        ),
        (
            given.get("response_mode", "query") == "query",
            ("invalid_request", "only response_mode=query"),
        ),
        (
            not {"request", "request_uri"} & given.keys(),
            ("request_not_supported", "no request objects"),
        ),
        (
            "openid" in given.get("scope", "").split(),
            ("invalid_scope", "scope must contain openid"),
        ),
        (
            given.get("code_challenge_method") == "S256",
            ("invalid_request", "code_challenge_method must be S256"),
        ),
        (
            _CHALLENGE.fullmatch(given.get("code_challenge", "")) is not None,
            ("invalid_request", "code_challenge is missing or malformed"),
        ),
        (
            given.get("prompt") != "none",
            ("login_required", "nobody is signed in here: each sign-in asks for the password"),
        ),
    )
    return next((fault for holds, fault in checks if not holds), None)


def _refused(refusal: Refusal) -> GrantRefused:
    log.warning("grant_refused", reason=refusal.value)
    return GrantRefused("invalid_grant", "the grant is not valid, was used, or has expired")


def _half_hash(token: str) -> str:
    """Return `at_hash` (OIDC Core §3.1.3.6): the left half of SHA-256 in base64url."""
    digest = hashlib.sha256(token.encode("ascii")).digest()
    return urlsafe_b64encode(digest[:16]).rstrip(b"=").decode()
