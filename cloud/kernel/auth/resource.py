"""What a resource server checks before it believes an access token, for any issuer.

Signature by a key the issuer publishes, algorithm from our own list (never the token's word),
`iss`, `aud`, `exp`, `nbf`, type. Keys are cached; an unknown `kid` asks the issuer again, at
most every half minute, so that forged tokens cannot make us hammer it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.util import urlsafe_b64decode

from cloud.kernel.auth.principal import Principal, granted, known_roles
from cloud.kernel.config import Settings
from decoders.value import value

# Asymmetric only: with an HMAC in the list, a public key would be a signing key (RFC 8725 §3.2).
ALGORITHMS = ("ES256", "RS256", "PS256", "EdDSA")
TOKEN_TYPES = frozenset({"at+jwt", "application/at+jwt", "jwt"})  # Keycloak says JWT
TOKEN_CHARACTERS_MAX = 8_192  # what servers accept as one header
LEEWAY_S = 30  # two honest clocks
JWKS_FRESH_S = 600.0
JWKS_AGAIN_S = 30.0
ISSUER_TIMEOUT_S = 5.0
ISSUER_BYTES_MAX = 256 * 1024


class TokenRefused(Exception):
    """The token proves nothing; `reason` is for logs, in English, without the token."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class IssuerUnreachable(Exception):
    """The issuer's keys cannot be had now: nobody can be believed or refused."""


class KeySource(Protocol):
    """Where the issuer's public keys come from."""

    def keys(self, *, kid: str | None) -> KeySet:
        """Return the signing keys, asked for again when `kid` is not among those held."""


@value
class TokenRules:
    """What this resource server expects of a token."""

    issuer: str
    audience: str
    roles_claim: str = "roles"
    administrations_claim: str = "administrations"
    administrations: tuple[str, ...] = ()  # configured codes


def rules_of(settings: Settings) -> TokenRules:
    return TokenRules(
        issuer=settings.issuer or settings.base_url,
        audience=settings.audience,
        roles_claim=settings.roles_claim,
        administrations_claim=settings.administrations_claim,
        administrations=settings.administration_codes,
    )


class TokenVerifier:
    """Turns an access token into a `Principal`, or raises `TokenRefused`."""

    def __init__(self, rules: TokenRules, keys: KeySource, now_s: Callable[[], float]) -> None:
        self._rules = rules
        self._keys = keys
        self._now_s = now_s  # wall clock: a simulated city has real passwords

    def principal(self, token: str) -> Principal:
        return principal_of(self.claims(token), self._rules)

    def claims(self, token: str) -> dict[str, Any]:
        """Return the claims of a token that passed every check."""
        if len(token) > TOKEN_CHARACTERS_MAX:
            raise TokenRefused("longer than a token may be")
        header = _header_of(token)
        if header.get("alg") not in ALGORITHMS:
            raise TokenRefused("algorithm not allowed")
        if "crit" in header:
            raise TokenRefused("critical header not understood")
        if str(header.get("typ", "jwt")).lower() not in TOKEN_TYPES:
            raise TokenRefused("not an access token")
        kid = header.get("kid")
        keys = self._keys.keys(kid=kid if isinstance(kid, str) else None)
        try:
            read = jwt.decode(token, keys, algorithms=list(ALGORITHMS))
            registry = jwt.JWTClaimsRegistry(
                now=int(self._now_s()),
                leeway=LEEWAY_S,
                iss={"essential": True, "value": self._rules.issuer},
                aud={"essential": True, "value": self._rules.audience},
                exp={"essential": True},
                sub={"essential": True},
            )
            registry.validate(read.claims)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise TokenRefused(f"{type(error).__name__}: {error}") from None
        return dict(read.claims)


def principal_of(claims: Mapping[str, Any], rules: TokenRules) -> Principal:
    """Map an issuer's claims to our caller. Source of roles: `rules.roles_claim`, dotted."""
    name = claims.get("name") or claims.get("preferred_username")
    return Principal(
        subject=str(claims["sub"]),
        roles=known_roles(_texts(claims, rules.roles_claim)),
        administrations=granted(_texts(claims, rules.administrations_claim), rules.administrations),
        name=str(name) if name else None,
    )


class RemoteKeys:
    """`KeySource` by OpenID Connect discovery: <issuer>/.well-known/openid-configuration."""

    def __init__(self, issuer: str, client: httpx.Client, monotonic_s: Callable[[], float]) -> None:
        self._issuer = issuer
        self._client = client
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._held: KeySet | None = None
        self._asked_at = float("-inf")

    def keys(self, *, kid: str | None) -> KeySet:
        with self._lock:
            age_s = self._monotonic_s() - self._asked_at
            unknown = self._held is not None and kid is not None and kid not in _kids(self._held)
            if self._held is None or age_s > JWKS_FRESH_S or (unknown and age_s > JWKS_AGAIN_S):
                self._ask_again(age_s)
            assert self._held is not None
            return self._held

    def discovery(self) -> dict[str, Any]:
        """Return the issuer's own description. Raises `IssuerUnreachable`."""
        try:
            return self._described()
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise IssuerUnreachable(f"{self._issuer}: {error}") from error

    def _ask_again(self, age_s: float) -> None:
        if self._held is None and age_s < 1.0:
            raise IssuerUnreachable(f"{self._issuer}: did not answer a moment ago")
        self._asked_at = self._monotonic_s()
        try:
            self._held = self._fetched()
        except (httpx.HTTPError, ValueError, KeyError, TypeError, JoseError) as error:
            if self._held is None:  # else the keys we have still verify what they signed
                raise IssuerUnreachable(f"{self._issuer}: {error}") from error

    def _fetched(self) -> KeySet:
        published = self._json(self._described()["jwks_uri"])
        signing = [key for key in published["keys"] if key.get("use", "sig") == "sig"]
        return KeySet.import_key_set({"keys": signing})

    def _described(self) -> dict[str, Any]:
        described = self._json(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        if described["issuer"] != self._issuer:
            raise ValueError(f"the discovery document is of {described['issuer']!r}")
        return described

    def _json(self, url: str) -> dict[str, Any]:
        answer = self._client.get(url, timeout=ISSUER_TIMEOUT_S, follow_redirects=False)
        answer.raise_for_status()
        if len(answer.content) > ISSUER_BYTES_MAX:
            raise ValueError(f"{url}: {len(answer.content)} bytes")
        read: dict[str, Any] = answer.json()
        return read


def _kids(keys: KeySet) -> set[str | None]:
    return {key.kid for key in keys.keys}


def _header_of(token: str) -> Mapping[str, Any]:
    """Return the unverified header: it only chooses the key and is checked against our lists."""
    try:
        header = json.loads(urlsafe_b64decode(token.partition(".")[0].encode("ascii")))
    except ValueError:
        header = None
    if not isinstance(header, dict) or token.count(".") != 2:
        raise TokenRefused("not a signed token")
    return header


def _texts(claims: Mapping[str, Any], path: str) -> tuple[str, ...]:
    """Return the texts at a dotted path; nothing when the claim is not there or not texts."""
    held: Any = claims
    for part in path.split("."):
        held = held.get(part) if isinstance(held, Mapping) else None
    if isinstance(held, str):
        held = held.split()
    if not isinstance(held, list):
        return ()
    return tuple(one for one in held if isinstance(one, str))
