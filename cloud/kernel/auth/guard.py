"""The guard every route declares: which roles may call it.

    @router.get("/gateways")
    def gateways(principal: Annotated[Principal, Depends(require(Role.NETWORK))]) -> …

No token: 401. A token without one of the roles: 403. A row of another administration does not
exist for the caller (404): that is the query's part, by `principal.administrations`. A route
for everybody says so with `Depends(public)`; a route that says neither fails a test.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Request, Security
from fastapi.security import OpenIdConnect

from cloud.kernel import telemetry
from cloud.kernel.auth.principal import Principal, Role
from cloud.kernel.auth.resource import IssuerUnreachable, TokenRefused, TokenVerifier
from cloud.kernel.problems import FORBIDDEN, UNAUTHENTICATED, UNAVAILABLE, Problem

log = telemetry.logger(__name__)
_refused = telemetry.counter("aquacis_auth_refused_total", "Requests refused, by reason", "reason")

# Tells the API's description how to sign in; `authenticated` does the checking.
_scheme = OpenIdConnect(openIdConnectUrl="/.well-known/openid-configuration", auto_error=False)


class Guard:
    """A FastAPI dependency that lets the given roles in; `roles` is read by the route test."""

    def __init__(self, roles: frozenset[Role]) -> None:
        self.roles = roles

    def __call__(self, request: Request, _: Annotated[str | None, Security(_scheme)]) -> Principal:
        principal = authenticated(request)
        if not principal.has_any(self.roles):
            _refused.labels("role").inc()
            raise Problem(FORBIDDEN)
        return principal


class Public:
    """A FastAPI dependency that only says: this route is meant for everybody."""

    def __call__(self) -> None:
        return None


public = Public()


def require(*roles: Role) -> Guard:
    """Let in who has one of `roles`."""
    assert roles, "a guard without roles lets nobody in"
    return Guard(frozenset(roles))


signed_in = Guard(frozenset(Role))
"""Anybody with a role of ours."""


def authenticated(request: Request) -> Principal:
    """Return the caller that the bearer token proves. Raises `Problem` 401 or 503."""
    verifier: TokenVerifier = request.app.state.platform.tokens
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        _refused.labels("no_token").inc()
        raise Problem(UNAUTHENTICATED, headers={"WWW-Authenticate": "Bearer"})
    try:
        return verifier.principal(token.strip())
    except TokenRefused as refused:
        _refused.labels("token").inc()
        log.info("token_refused", reason=refused.reason)
        raise Problem(
            UNAUTHENTICATED,
            detail="La sesión terminó o no es válida",
            headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
        ) from None
    except IssuerUnreachable as unreachable:
        log.error("issuer_unreachable", error=str(unreachable))
        raise Problem(UNAVAILABLE, headers={"Retry-After": "5"}) from None
