"""The authorization request: what a client may ask, and how it hears the answer.

OpenID Connect Core 1.0 §3.1.2, PKCE with S256 only (RFC 7636), `iss` in the answer (RFC 9207).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from urllib.parse import urlencode

from cloud.kernel.auth.sessions import Opening
from decoders.value import value

CLIENT_ID = "aquacis-web"
SCOPES = frozenset({"openid", "profile", "offline_access"})
REDIRECT_PATH = "/entrar"
PARAMETER_CHARACTERS_MAX = 2_048

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")  # SHA-256 in base64url
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SECONDS = re.compile(r"[0-9]{1,8}")

Fault = tuple[str, str]  # error code of the protocol, English description


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


@value
class Asked:
    """A valid authorization request."""

    opening: Opening
    issuer: str
    state: str | None
    hint: str  # name to fill in
    prompt: str | None  # "none": no form; "login": always the form
    max_age: timedelta | None  # how long ago the password may have been given

    def accepts(self, auth_at: datetime, now: datetime) -> bool:
        """Say whether a sign-in at `auth_at` is fresh enough for this request."""
        if self.prompt == "login":
            return False
        return self.max_age is None or now - auth_at <= self.max_age

    def with_code(self, code: str) -> str:
        """Return the address that brings the code back to the client."""
        return _back(self.opening.redirect_uri, self.state, {"code": code, "iss": self.issuer})

    def refused(self, error: str, description: str) -> RequestRefused:
        """Return the refusal that tells the client at its address."""
        return _refusal(self.opening.redirect_uri, self.state, self.issuer, (error, description))


def read_request(given: Mapping[str, str], *, issuer: str, origins: tuple[str, ...]) -> Asked:
    """Read a request. Redirect addresses match to the letter.

    Raises `ClientRefused` when nothing may be sent back, `RequestRefused` when it may.
    """
    if given.get("client_id") != CLIENT_ID:
        raise ClientRefused("client_unknown")
    redirect_uri = given.get("redirect_uri", "")
    if redirect_uri not in {f"{origin}{REDIRECT_PATH}" for origin in origins}:
        raise ClientRefused("redirect_unknown")
    state = given.get("state")
    if fault := _fault_of(given):
        raise _refusal(redirect_uri, state, issuer, fault)
    return Asked(
        opening=Opening(
            client_id=CLIENT_ID,
            redirect_uri=redirect_uri,
            scope=" ".join(sorted(SCOPES & set(given["scope"].split()))),
            nonce=given.get("nonce"),
            challenge=given["code_challenge"],
        ),
        issuer=issuer,
        state=state,
        hint=given.get("login_hint", ""),
        prompt=given.get("prompt"),
        max_age=timedelta(seconds=int(given["max_age"])) if "max_age" in given else None,
    )


def _fault_of(given: Mapping[str, str]) -> tuple[str, str] | None:
    """Return (error, description) of a request whose client and address are right."""
    checks = (
        (
            all(len(text) <= PARAMETER_CHARACTERS_MAX for text in given.values()),
            ("invalid_request", "a parameter is too long"),
        ),
        (
            not any(_CONTROL.search(text) for text in given.values()),
            ("invalid_request", "a parameter has control characters"),
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
            given.get("prompt") in {None, "none", "login"},
            ("invalid_request", "prompt is none or login"),
        ),
        (
            _SECONDS.fullmatch(given.get("max_age", "0")) is not None,
            ("invalid_request", "max_age is a number of seconds"),
        ),
    )
    return next((fault for holds, fault in checks if not holds), None)


def _refusal(redirect_uri: str, state: str | None, issuer: str, fault: Fault) -> RequestRefused:
    error, description = fault
    more = {"error": error, "error_description": description, "iss": issuer}
    return RequestRefused(error, description, location=_back(redirect_uri, state, more))


def _back(redirect_uri: str, state: str | None, more: Mapping[str, str]) -> str:
    query = dict(more) if state is None else {**more, "state": state}
    return f"{redirect_uri}?{urlencode(query)}"
