"""The pages: files of the build, the shell for every other address, nothing from outside."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from cloud.kernel import problems, web
from cloud.kernel.config import Settings


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    dist = tmp_path / "dist"
    (dist / "assets").mkdir(parents=True)
    (dist / "index.html").write_text("<!doctype html><title>AquaCIS</title>")
    (dist / "assets" / "app-3f2a.js").write_text("export {}")
    (dist / "favicon.svg").write_text("<svg/>")
    (dist / ".built-from").write_text("abc")
    (tmp_path / "secret.txt").write_text("planted")
    (dist / "link.txt").symlink_to(tmp_path / "secret.txt")
    app = FastAPI(openapi_url=None)
    problems.install(app)
    app.add_middleware(web.Envelope, settings=Settings(state=tmp_path))
    app.include_router(web.pages(dist))
    return TestClient(app)


@pytest.mark.parametrize("path", ["/", "/medidores", "/medidores/17", "/entrar?code=x&state=y"])
def test_every_address_of_the_application_is_its_shell(client: TestClient, path: str) -> None:
    answer = client.get(path)

    assert answer.status_code == 200
    assert "<title>AquaCIS</title>" in answer.text
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["content-type"].startswith("text/html")


def test_files_named_by_their_hash_are_kept_for_ever(client: TestClient) -> None:
    script = client.get("/assets/app-3f2a.js")

    assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert "javascript" in script.headers["content-type"]
    assert client.get("/favicon.svg").headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path",
    [
        "/assets/missing.js",
        "/api/v1/nothing",
        "/oidc/nothing",
        "/.well-known/nothing",
        "/.built-from",
        "/link.txt",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/assets/..%2f..%2fsecret.txt",
        "/%00.txt",
    ],
)
def test_nothing_else_is_a_page(client: TestClient, path: str) -> None:
    answer = client.get(path)

    assert answer.status_code == 404
    assert "planted" not in answer.text


def test_pages_that_were_not_built_say_what_to_do(tmp_path: Path) -> None:
    app = FastAPI(openapi_url=None)
    problems.install(app)
    app.include_router(web.pages(tmp_path / "dist"))

    answer = TestClient(app).get("/")

    assert (answer.status_code, answer.json()["code"]) == (503, "pages_not_built")
    assert "tasks.py web" in answer.json()["detail"]
