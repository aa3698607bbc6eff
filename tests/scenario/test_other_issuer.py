"""The API on somebody else's identity provider: found by discovery, over real HTTP."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
import uvicorn
from fastapi.testclient import TestClient

from cloud import app as composition
from cloud.kernel import config
from cloud.kernel.auth.principal import Role
from cloud.kernel.auth.users import User
from cloud.kernel.config import Settings
from cloud.kernel.db import Database
from cloud.kernel.platform import Platform
from cloud.serve import listen


@pytest.fixture
def provider(database: Database, tmp_path: Path) -> Iterator[Platform]:
    """An OIDC provider: our own issuer, on a port of its own."""
    settings = config.load(tmp_path, {"AQUACIS_STATE": str(tmp_path / "provider")})
    listener = listen(settings)
    platform = composition.assemble(on_port(settings, listener), database)
    server = uvicorn.Server(
        uvicorn.Config(composition.create_app(platform), log_config=None, lifespan="off")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield platform
    server.should_exit = True
    thread.join(20)
    platform.close()


@pytest.fixture
def relying(database: Database, provider: Platform, tmp_path: Path) -> Iterator[Platform]:
    """A platform that trusts the provider and has no issuer of its own."""
    given = {
        "AQUACIS_STATE": str(tmp_path / "relying"),
        "AQUACIS_ISSUER": provider.settings.base_url,
        "AQUACIS_HTTP_PORT": "8080",
    }
    platform = composition.assemble(config.load(tmp_path, given), database)
    yield platform
    platform.close()


def on_port(settings: Settings, listener: socket.socket) -> Settings:
    return replace(settings, http_port=listener.getsockname()[1])


def token(provider: Platform, *roles: Role) -> dict[str, str]:
    assert provider.issuer is not None
    user = User(
        user_id=uuid4(),
        name="alguien",
        roles=tuple(role.value for role in roles),
        administrations=("*",),
    )
    return {"Authorization": f"Bearer {provider.issuer.access_token(user)}"}


def test_routes_believe_another_issuers_tokens_and_no_others(
    provider: Platform, relying: Platform
) -> None:
    client = TestClient(composition.create_app(relying), base_url="http://127.0.0.1:8080")

    allowed = client.get("/api/v1/meters", headers=token(provider, Role.CLERK))
    refused = client.get("/api/v1/gateways", headers=token(provider, Role.CLERK))

    assert (allowed.status_code, refused.status_code) == (200, 403)
    assert provider.issuer is not None
    provider.issuer.keys.rotate()  # a key the API has not seen yet, within half a minute
    assert client.get("/api/v1/me", headers=token(provider, Role.CLERK)).status_code == 401


def test_our_own_sign_in_is_not_there_and_the_pages_are_sent_to_the_issuer(
    provider: Platform, relying: Platform
) -> None:
    client = TestClient(composition.create_app(relying), base_url="http://127.0.0.1:8080")

    assert client.get("/oidc/authorize").status_code == 404
    assert client.get("/oidc/jwks").status_code == 404
    told = client.get("/.well-known/openid-configuration").json()
    assert told["issuer"] == provider.settings.base_url
    policy = client.get("/healthz").headers["content-security-policy"]
    assert f"connect-src 'self' {provider.settings.base_url};" in policy


def test_an_issuer_that_is_away_is_nobodys_fault(database: Database, tmp_path: Path) -> None:
    given = {"AQUACIS_STATE": str(tmp_path), "AQUACIS_ISSUER": "http://127.0.0.1:1"}
    platform = composition.assemble(config.load(tmp_path, given), database)
    try:
        client = TestClient(composition.create_app(platform))
        anything = {"Authorization": "Bearer eyJhbGciOiJFUzI1NiJ9.e30.AAAA"}

        for path in ("/api/v1/me", "/.well-known/openid-configuration"):
            answer = client.get(path, headers=anything)
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert answer.headers["retry-after"] == "5"
    finally:
        platform.close()
