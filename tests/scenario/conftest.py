"""The composed application on a fresh database, and how to call it as somebody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from cloud import app as composition
from cloud.kernel import config
from cloud.kernel.auth.principal import Role
from cloud.kernel.auth.users import User
from cloud.kernel.db import Database
from cloud.kernel.platform import Platform
from decoders.value import value

ADMINISTRATION = "queretaro"


@value
class Api:
    """The application, called by somebody of `ADMINISTRATION` with every role there is."""

    platform: Platform
    client: TestClient

    def get(self, path: str, **query: Any) -> Any:
        answer = self.call("GET", path, query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str) -> Any:
        answer = self.call("POST", path, {})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def call(self, method: str, path: str, query: dict[str, Any] | None) -> Response:
        assert self.platform.issuer is not None
        user = User(
            user_id=uuid4(),
            name="operador",
            roles=tuple(role.value for role in Role),
            administrations=(ADMINISTRATION,),
        )
        bearer = {"Authorization": f"Bearer {self.platform.issuer.access_token(user)}"}
        answer: Response = self.client.request(
            method, f"/api/v1{path}", params=query, headers=bearer
        )
        return answer


@contextmanager
def composed(database: Database, state: Path) -> Iterator[Api]:
    settings = config.load(
        Path(),
        {
            "AQUACIS_STATE": str(state),
            "AQUACIS_HTTP_PORT": "8080",
            "AQUACIS_ADMINISTRATIONS": json.dumps({ADMINISTRATION: {"name": "Querétaro"}}),
        },
    )
    platform = composition.assemble(settings, database)
    try:
        client = TestClient(composition.create_app(platform), base_url=settings.base_url)
        yield Api(platform=platform, client=client)
    finally:
        platform.close()


@pytest.fixture
def api(database: Database, tmp_path: Path) -> Iterator[Api]:
    with composed(database, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def module_api(
    module_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    """One application for all tests of a module that only look."""
    with composed(module_database, tmp_path_factory.mktemp("state")) as made:
        yield made
