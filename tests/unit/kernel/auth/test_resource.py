"""A token is believed only with the right signature, issuer, audience, times, type, algorithm."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, RSAKey

from cloud.kernel.auth.principal import Role
from cloud.kernel.auth.resource import (
    IssuerUnreachable,
    RemoteKeys,
    TokenRefused,
    TokenRules,
    TokenVerifier,
)

ISSUER = "https://id.example/realms/aquacis"
NOW_S = 1_790_000_000
RULES = TokenRules(
    issuer=ISSUER, audience="aquacis-api", administrations=("queretaro", "corregidora")
)
KEY = ECKey.generate_key("P-256", {"kid": "current", "use": "sig"}, private=True)
STRANGER = ECKey.generate_key("P-256", {"kid": "current", "use": "sig"}, private=True)


class FixedKeys:
    """A key source that knows one key."""

    def keys(self, *, kid: str | None) -> KeySet:
        return KeySet([KEY])


def claims(**changed: Any) -> dict[str, Any]:
    made = {
        "iss": ISSUER,
        "aud": "aquacis-api",
        "sub": "user-1",
        "iat": NOW_S,
        "exp": NOW_S + 600,
        "roles": ["clerk"],
        "administrations": ["queretaro"],
        **changed,
    }
    return {name: held for name, held in made.items() if held is not None}


def token(
    key: Any = KEY, *, alg: str = "ES256", typ: str = "at+jwt", more: Any = None, **changed: Any
) -> str:
    header = {"alg": alg, "kid": "current", "typ": typ, **(more or {})}
    return jwt.encode(header, claims(**changed), key, algorithms=[alg])


@pytest.fixture
def verifier() -> TokenVerifier:
    return TokenVerifier(RULES, FixedKeys(), lambda: float(NOW_S))


def test_a_good_token_gives_its_bearer_roles_and_administrations(verifier: TokenVerifier) -> None:
    principal = verifier.principal(token(roles=["clerk", "payroll"], name="Ana"))

    assert principal.subject == "user-1"
    assert principal.roles == {Role.CLERK}  # a role that is not ours is no role
    assert principal.administrations == ("queretaro",)
    assert principal.name == "Ana"


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"iss": "https://evil.example"}, "iss"),
        ({"iss": None}, "iss"),
        ({"aud": "other-api"}, "aud"),
        ({"aud": None}, "aud"),
        ({"aud": "aquacis-api-2"}, "aud"),
        ({"exp": NOW_S - 31}, "expired"),
        ({"exp": None}, "exp"),
        ({"exp": "tomorrow"}, "exp"),
        ({"nbf": NOW_S + 60}, "not yet valid"),
        ({"sub": None}, "sub"),
        ({"typ": "JWS"}, "not an access token"),
        ({"more": {"crit": ["b64"], "b64": True}}, "critical"),
    ],
)
def test_a_token_with_one_thing_wrong_is_refused(
    verifier: TokenVerifier, changed: dict[str, Any], why: str
) -> None:
    with pytest.raises(TokenRefused, match=rf"(?i){why}"):
        verifier.principal(token(**changed))


def test_a_strangers_signature_is_refused(verifier: TokenVerifier) -> None:
    with pytest.raises(TokenRefused, match="BadSignature"):
        verifier.principal(token(STRANGER))


def test_no_algorithm_and_symmetric_algorithms_are_refused(verifier: TokenVerifier) -> None:
    unsigned = ".".join((encoded({"alg": "none", "typ": "at+jwt"}), encoded(claims()), ""))
    public = json.dumps(KEY.as_dict(private=False)).encode()  # the classic confusion
    hmac_signed = token(OctKey.import_key(public), alg="HS256")

    for forged in (unsigned, hmac_signed):
        with pytest.raises(TokenRefused, match="algorithm not allowed"):
            verifier.principal(forged)


def test_changed_claims_are_refused(verifier: TokenVerifier) -> None:
    head, _, signature = token().split(".")
    for changed in (claims(roles=["admin"]), claims(administrations=["*"])):
        with pytest.raises(TokenRefused):
            verifier.principal(".".join((head, encoded(changed), signature)))


@pytest.mark.parametrize(
    "garbage", ["", "x", "a.b", "a.b.c", "é.é.é", "." * 9, "e30.e30.", "x" * 9000]
)
def test_garbage_is_refused(verifier: TokenVerifier, garbage: str) -> None:
    with pytest.raises(TokenRefused):
        verifier.principal(garbage)


def test_a_refusal_does_not_repeat_the_token(verifier: TokenVerifier) -> None:
    given = token(STRANGER)

    with pytest.raises(TokenRefused) as refused:
        verifier.principal(given)

    assert given.split(".")[1] not in str(refused.value)


def test_two_honest_clocks_may_differ_by_half_a_minute(verifier: TokenVerifier) -> None:
    verifier.principal(token(exp=NOW_S - 5, nbf=NOW_S + 5))


def test_all_means_what_is_configured_and_unknown_administrations_are_nothing() -> None:
    verifier = TokenVerifier(RULES, FixedKeys(), lambda: float(NOW_S))

    assert verifier.principal(token(administrations=["*"])).administrations == (
        "queretaro",
        "corregidora",
    )
    assert verifier.principal(token(administrations=["tequisquiapan"])).administrations == ()
    assert verifier.principal(token(administrations=None)).administrations == ()
    assert verifier.principal(token(administrations=17)).administrations == ()


def test_roles_are_found_where_the_issuer_puts_them() -> None:
    """Keycloak: realm_access.roles, and `typ: JWT`."""
    rules = TokenRules(issuer=ISSUER, audience="aquacis-api", roles_claim="realm_access.roles")
    verifier = TokenVerifier(rules, FixedKeys(), lambda: float(NOW_S))

    given = token(typ="JWT", roles=["admin"], realm_access={"roles": ["network", "offline"]})

    assert verifier.principal(given).roles == {Role.NETWORK}


def encoded(given: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(given).encode()).rstrip(b"=").decode()


class FakeIssuer:
    """An issuer's two documents, and how often they were asked for."""

    def __init__(self) -> None:
        self.asked = 0
        self.broken = False
        self.named = ISSUER
        encryption = RSAKey.generate_key(2048, {"kid": "enc", "use": "enc"}, private=True)
        self.published = [KEY.as_dict(private=False), encryption.as_dict(private=False)]

    def answer(self, request: httpx.Request) -> httpx.Response:
        if self.broken:
            return httpx.Response(503)
        if request.url.path.endswith("/.well-known/openid-configuration"):
            jwks_uri = "https://id.example/keys"
            return httpx.Response(200, json={"issuer": self.named, "jwks_uri": jwks_uri})
        self.asked += 1
        return httpx.Response(200, json={"keys": self.published})

    def client(self) -> httpx.Client:
        return httpx.Client(transport=httpx.MockTransport(self.answer))


class Stopwatch:
    def __init__(self) -> None:
        self.at_s = 1_000.0

    def __call__(self) -> float:
        return self.at_s


@pytest.fixture
def issuer() -> FakeIssuer:
    return FakeIssuer()


def test_keys_come_by_discovery_and_encryption_keys_stay_out(issuer: FakeIssuer) -> None:
    keys = RemoteKeys(ISSUER, issuer.client(), Stopwatch()).keys(kid="current")

    assert [key.kid for key in keys.keys] == ["current"]


def test_keys_are_asked_for_once_and_again_when_old(issuer: FakeIssuer) -> None:
    watch = Stopwatch()
    remote = RemoteKeys(ISSUER, issuer.client(), watch)
    for _ in range(50):
        remote.keys(kid="current")
    assert issuer.asked == 1

    watch.at_s += 601
    remote.keys(kid="current")

    assert issuer.asked == 2


def test_an_unknown_key_asks_again_but_forgers_cannot_make_us_hammer(issuer: FakeIssuer) -> None:
    watch = Stopwatch()
    remote = RemoteKeys(ISSUER, issuer.client(), watch)
    remote.keys(kid="current")

    for number in range(100):
        watch.at_s += 0.2
        remote.keys(kid=f"forged-{number}")
    assert issuer.asked == 1

    watch.at_s += 31
    fresh = ECKey.generate_key("P-256", {"kid": "fresh", "use": "sig"}, private=True)
    issuer.published.append(fresh.as_dict(private=False))
    assert "fresh" in [key.kid for key in remote.keys(kid="fresh").keys]


def test_keys_that_are_held_outlive_an_issuer_that_is_down(issuer: FakeIssuer) -> None:
    watch = Stopwatch()
    remote = RemoteKeys(ISSUER, issuer.client(), watch)
    remote.keys(kid="current")
    issuer.broken = True
    watch.at_s += 3_600

    assert remote.keys(kid="current").keys


def test_without_keys_nobody_is_believed_or_refused(issuer: FakeIssuer) -> None:
    issuer.broken = True
    remote = RemoteKeys(ISSUER, issuer.client(), Stopwatch())

    for _ in range(2):
        with pytest.raises(IssuerUnreachable):
            remote.keys(kid="current")


def test_another_issuers_document_is_not_ours(issuer: FakeIssuer) -> None:
    issuer.named = "https://evil.example"

    with pytest.raises(IssuerUnreachable, match=r"evil\.example"):
        RemoteKeys(ISSUER, issuer.client(), Stopwatch()).keys(kid=None)
