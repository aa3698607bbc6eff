"""What supervisors are told: a server that was given up, a disk that is nearly full."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
from fastapi.testclient import TestClient

from cloud import app as composition
from cloud.kernel import config
from cloud.kernel.db import Database
from cloud.kernel.postgres_disk import Disk, Reserve
from cloud.kernel.postgres_errors import DiskNearlyFull, ServerError, ServerFailed

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_S = 90.0  # a start, four restarts and a stop, on a machine busy with other tests


@dataclass
class Kept:
    """A server of ours whose disk and fate a test decides."""

    database: Database
    disk: Disk
    failure: ServerError | None = None
    stopped: list[bool] = field(default_factory=list)

    @property
    def passwords_path(self) -> Path:
        return self.database.passwords_path

    def dsn(self, database: str | None = None) -> str:
        assert database is None
        return self.database.admin_dsn

    def free_bytes(self) -> int | None:
        return self.disk.free_bytes()

    def require_intake(self) -> None:
        self.disk.require_intake()

    def stop(self) -> None:
        self.stopped.append(True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@pytest.fixture
def kept(database: Database, tmp_path: Path) -> Kept:
    nothing = Reserve(ballast_bytes=0, low_water_bytes=0, start_bytes=0)
    return Kept(database=database, disk=Disk(tmp_path, nothing))


@contextmanager
def asking(kept: Kept, state: Path) -> Iterator[TestClient]:
    settings = config.load(Path(), {"AQUACIS_STATE": str(state), "AQUACIS_HTTP_PORT": "8080"})
    platform = composition.assemble(settings, kept.database, server=kept)
    try:
        yield TestClient(composition.create_app(platform), base_url=settings.base_url)
    finally:
        platform.close()


def readiness(client: TestClient) -> tuple[int, dict[str, Any]]:
    answer = client.get("/readyz")
    told: dict[str, Any] = answer.json()
    return answer.status_code, told


def test_all_is_well(kept: Kept, tmp_path: Path) -> None:
    with asking(kept, tmp_path) as client:
        assert readiness(client) == (
            200,
            {"ready": True, "checks": {"database": "ok", "server": "ok", "disk": "ok"}},
        )
    assert kept.stopped == [True]


def test_a_disk_below_its_low_water_is_told_by_code_and_the_pages_still_answer(
    kept: Kept, tmp_path: Path
) -> None:
    kept.disk = Disk(tmp_path, Reserve(low_water_bytes=1 << 60))

    with asking(kept, tmp_path) as client:
        status, told = readiness(client)

    assert (status, told["ready"]) == (200, True)
    assert told["checks"]["disk"] == DiskNearlyFull.code == "disco-casi-lleno"


def test_a_server_that_was_given_up_is_told_by_code(kept: Kept, tmp_path: Path) -> None:
    with asking(kept, tmp_path) as client:
        kept.failure = ServerFailed("postgres does not stay up", "PANIC")
        status, told = readiness(client)

    assert (status, told["ready"]) == (503, False)
    assert told["checks"]["server"] == "postgres-fallo"


def test_intake_may_ask_the_platform_for_room(kept: Kept, tmp_path: Path) -> None:
    kept.disk = Disk(tmp_path, Reserve(low_water_bytes=1 << 60))
    settings = config.load(Path(), {"AQUACIS_STATE": str(tmp_path)})
    platform = composition.assemble(settings, kept.database, server=kept)

    with pytest.raises(DiskNearlyFull):
        platform.require_intake()
    platform.close()


@pytest.mark.parametrize(
    ("command", "published"), [("serve", "endpoints.json"), ("intake", "intake.json")]
)
def test_a_process_whose_server_was_given_up_ends_and_says_why(
    filled_state: Path, command: str, published: str
) -> None:
    log = filled_state / f"{command}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cloud", command],
            cwd=ROOT,
            env=environment(filled_state),
            stderr=output,
        )
    give_up_s = time.monotonic() + PATIENCE_S
    try:
        while process.poll() is None and time.monotonic() < give_up_s:
            if (filled_state / published).exists():  # it runs
                kill_database(filled_state)
            time.sleep(0.05)
        assert process.poll() is not None, "it runs on without a database"
    finally:
        process.kill()
        process.wait()

    words = log.read_text()
    assert process.returncode == 69, words
    assert "La base de datos no arrancó" in words
    assert "[postgres-fallo]" in words


@pytest.mark.parametrize("process", ["serve", "intake"])
def test_what_a_process_makes_is_closed_to_others(tmp_path: Path, process: str) -> None:
    program = f"import os\nfrom cloud import serve\nserve.prepared({process!r})\nprint(os.umask(0))"

    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment(tmp_path / "state"),
        stdout=subprocess.PIPE,
        umask=0,
        check=True,
    )

    assert int(ran.stdout) == 0o077


def environment(state: Path) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("AQUACIS_")}
    given = {"AQUACIS_STATE": str(state), "AQUACIS_BROKER_URL": "mqtt://127.0.0.1:1"}
    packages = os.pathsep.join([str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    return {**kept, **given, "PYTHONPATH": packages}


def kill_database(state: Path) -> None:
    """Kill the server of `state`, if one is ready, as often as it comes back."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = (state / "postgres" / "data" / "postmaster.pid").read_text().splitlines()
        if lines[7].strip() == "ready":
            os.kill(int(lines[0]), signal.SIGKILL)
