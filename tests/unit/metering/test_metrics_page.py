"""Who may read intake's figures: as on `serve`, and nobody in production without a token."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from cloud.kernel.config import Settings
from cloud.metering import metrics_page


@contextmanager
def published(state: Path, **given: Any) -> Iterator[str | None]:
    """The address of the figures, as written to intake.json."""
    server = metrics_page.publish(Settings(state=state, **given))
    try:
        yield json.loads((state / "intake.json").read_text()).get("metrics")
    finally:
        if server is not None:
            server.shutdown()
            server.server_close()


def test_a_laptop_reads_its_figures_without_a_token(tmp_path: Path) -> None:
    with published(tmp_path) as url:
        assert url is not None
        assert "# HELP" in httpx.get(url).text
        assert httpx.get(url.replace("metrics", "")).status_code == 404
    assert (tmp_path / "intake.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("env", ["development", "production"])
@pytest.mark.parametrize(
    ("header", "status"),
    [({}, 401), ({"Authorization": "Bearer no"}, 401), ({"Authorization": "Bearer sésamo"}, 200)],
)
def test_a_token_that_is_set_must_be_shown(
    tmp_path: Path, env: str, header: dict[str, str], status: int
) -> None:
    with published(tmp_path, env=env, metrics_token="sésamo") as url:
        assert url is not None
        sent = {name.encode(): value.encode() for name, value in header.items()}
        assert httpx.get(url, headers=sent).status_code == status


def test_production_without_a_token_serves_no_figures(tmp_path: Path) -> None:
    with published(tmp_path, env="production") as url:
        assert url is None
