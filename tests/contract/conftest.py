"""The bus contract runs on every adapter there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloud.kernel.db import Database
from tests.contract.bus_stage import ADAPTERS, Stage


@pytest.fixture(params=sorted(ADAPTERS))
def adapter(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def stage(adapter: str, database: Database, tmp_path: Path) -> Stage:
    return Stage(database, tmp_path / "blobs", ADAPTERS[adapter])
