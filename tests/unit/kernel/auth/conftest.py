"""The real application with one person, on a clock that tests move."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from fastapi.testclient import TestClient

from cloud import app as composition
from cloud.kernel import auth, config
from cloud.kernel.auth import passwords
from cloud.kernel.auth.principal import Role
from cloud.kernel.db import Database
from cloud.kernel.platform import Platform
from tests.unit.kernel.auth.signing_in import NOW, ORIGIN, PASSWORD, Browser, SetClock


@pytest.fixture(scope="module")
def platform(
    module_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    state = str(tmp_path_factory.mktemp("state"))
    settings = config.load(Path(), {"AQUACIS_STATE": state, "AQUACIS_HTTP_PORT": "8080"})
    made = composition.assemble(settings, module_database, wall=SetClock())
    yield made
    made.close()


@pytest.fixture
def clock(platform: Platform) -> SetClock:
    assert isinstance(platform.wall, SetClock)
    platform.wall.at = NOW
    return platform.wall


@pytest.fixture(scope="module")
def app(platform: Platform) -> FastAPI:
    return composition.create_app(platform)


@pytest.fixture
def browser(
    app: FastAPI, platform: Platform, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> Browser:
    """Return a browser; the only person is ana, a clerk of Querétaro."""
    cheap = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(passwords, "_hasher", cheap)
    with platform.pool("kernel").connection() as connection:
        connection.execute("TRUNCATE users, login_tries CASCADE")
    auth.ensure_user(platform.database, "ana", [Role.CLERK], ["queretaro"], PASSWORD)
    return Browser(TestClient(app, base_url=ORIGIN, follow_redirects=False))


@pytest.fixture
def other_browser(app: FastAPI) -> Browser:
    return Browser(TestClient(app, base_url=ORIGIN, follow_redirects=False))
