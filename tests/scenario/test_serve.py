"""`aquacis serve` as a process: it starts, answers, refuses, and stops as asked."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from cloud.kernel.db import Database

ROOT = Path(__file__).parents[2]
START_S = 60.0  # on a machine busy with other tests
STOP_S = 20.0


@dataclass
class Installation:
    """A state folder and a database of its own; runs commands in it."""

    state: Path
    environment: dict[str, str]

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cloud", *arguments],
            cwd=ROOT,
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "cloud", *arguments],
            cwd=ROOT,
            env={**self.environment, **more},
            stdout=subprocess.PIPE,
            stderr=(self.state / "serve.log").open("w"),
            text=True,
        )

    def endpoint(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.state / "endpoints.json").read_text())
        return told


@pytest.fixture
def installation(database: Database, tmp_path: Path) -> Installation:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("AQUACIS_")}
    # The test server's roles have their passwords in its own file.
    (tmp_path / "passwords.json").write_bytes(database.passwords_path.read_bytes())
    (tmp_path / "passwords.json").chmod(0o600)
    given = {
        "AQUACIS_STATE": str(tmp_path),
        "AQUACIS_DATABASE_URL": database.admin_dsn,
        "PYTHONPATH": str(ROOT),
    }
    return Installation(state=tmp_path, environment={**kept, **given})


@pytest.fixture
def serving(installation: Installation) -> Iterator[subprocess.Popen[str]]:
    process = installation.start("serve")
    give_up_s = time.monotonic() + START_S
    while not ready(installation):
        assert process.poll() is None, (installation.state / "serve.log").read_text()
        assert time.monotonic() < give_up_s, "not ready in time"
        time.sleep(0.1)
    yield process
    process.kill()
    process.wait()


def ready(installation: Installation) -> bool:
    try:
        url = installation.endpoint()["url"]
        return httpx.get(f"{url}/readyz").status_code == 200
    except (OSError, ValueError, httpx.HTTPError):
        return False


@pytest.mark.usefixtures("serving")
def test_it_takes_a_free_port_and_tells_only_its_owner(installation: Installation) -> None:
    url = installation.endpoint()["url"]

    assert stat.S_IMODE((installation.state / "endpoints.json").stat().st_mode) == 0o600
    assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{url}/openapi.json").json()["openapi"].startswith("3.1")
    assert "aquacis_http_requests_total" in httpx.get(f"{url}/metrics").text
    assert httpx.get(f"{url}/api/v1/meters").status_code == 401


@pytest.mark.usefixtures("serving")
def test_a_person_made_on_the_command_line_may_call_it(installation: Installation) -> None:
    added = installation.run(
        *("--json", "users", "add", "ana", "--role", "clerk"),
        *("--administration", "queretaro", "--generate"),
    )
    password = json.loads(added.stdout)["password"]
    token = installation.run("users", "token", "ana").stdout.strip()

    url = installation.endpoint()["url"]
    me = httpx.get(f"{url}/api/v1/me", headers={"Authorization": f"Bearer {token}"})

    assert me.json()["roles"] == ["clerk"]
    assert password not in (installation.state / "serve.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_asked_and_says_so(
    serving: subprocess.Popen[str], installation: Installation, number: signal.Signals
) -> None:
    serving.send_signal(number)

    assert serving.wait(STOP_S) == 0
    log = (installation.state / "serve.log").read_text()
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert "stopping" in events
    assert serving.stdout is not None
    assert serving.stdout.read() == ""  # stdout is for answers


def test_its_log_is_json_that_shows_the_settings_without_secrets(
    installation: Installation,
) -> None:
    planted = {"AQUACIS_BROKER_PASSWORD": "planted-secret", "AQUACIS_METRICS_TOKEN": "planted-too"}
    process = installation.start("serve", **planted)
    give_up_s = time.monotonic() + START_S
    while not ready(installation) and time.monotonic() < give_up_s:
        time.sleep(0.1)
    url = installation.endpoint()["url"]
    metrics = httpx.get(f"{url}/metrics")
    allowed = httpx.get(f"{url}/metrics", headers={"Authorization": "Bearer planted-too"})
    process.terminate()
    process.wait(STOP_S)

    log = (installation.state / "serve.log").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    (configured,) = [line for line in lines if line["event"] == "configured"]
    assert configured["broker_password"] == "***"
    assert "planted" not in log
    assert (metrics.status_code, allowed.status_code) == (401, 200)


def test_a_taken_port_is_said_in_spanish_with_a_code(installation: Installation) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        refused = installation.run("serve", AQUACIS_HTTP_PORT=str(port))

    assert refused.returncode == 1
    assert f"no se puede escuchar en 127.0.0.1:{port}" in refused.stderr
    assert "[port_taken]" in refused.stderr


@pytest.mark.parametrize("command", ["serve", "intake"])
def test_production_refuses_sandbox_parts_and_lists_each(
    installation: Installation, command: str
) -> None:
    refused = installation.run(command, AQUACIS_ENV="production")

    assert refused.returncode == 78
    for part in ("local_issuer", "plain_broker", "invented_key", "plain_http"):
        assert part in refused.stderr
    assert "AQUACIS_ISSUER" in refused.stderr
    assert not (installation.state / "endpoints.json").exists()


def test_a_database_that_is_away_is_no_stack_trace(installation: Installation) -> None:
    away = "postgresql://nobody:planted-secret@127.0.0.1:1/none"

    refused = installation.run("serve", AQUACIS_DATABASE_URL=away)

    assert refused.returncode == 69
    assert "[database_unavailable]" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert "planted-secret" not in refused.stderr


def test_wrong_settings_and_wrong_usage_have_exit_codes_of_their_own(
    installation: Installation,
) -> None:
    wrong = installation.run("config", "show", AQUACIS_HTTP_PORT="eighty", AQUACIS_CLOCK="sundial")

    assert wrong.returncode == 78
    assert "AQUACIS_HTTP_PORT" in wrong.stderr
    assert installation.run("no-such-command").returncode == 2


def test_help_teaches_what_there_is_and_every_exit_code(installation: Installation) -> None:
    told = installation.run("--help")

    assert told.returncode == 0
    for word in ("serve", "intake", "users", "keys", "config", "exit codes", "69", "78"):
        assert word in told.stdout


def test_the_settings_are_one_json_object_for_programs(installation: Installation) -> None:
    for order in (("--json", "config", "show"), ("config", "show", "--json")):
        shown = installation.run(*order, AQUACIS_BROKER_PASSWORD="planted-secret")

        assert json.loads(shown.stdout)["broker_password"] == "***"
        assert "planted-secret" not in shown.stdout + shown.stderr
