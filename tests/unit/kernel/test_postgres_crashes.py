"""Whatever died, the next start has the data and a server of its own.

The cases are those of reference/postgres.md §1, each made to happen to real servers.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from cloud.kernel import postgres, postgres_child
from cloud.kernel.postgres import OurServer
from cloud.kernel.postgres_cluster import Folders
from cloud.kernel.postgres_disk import Reserve
from cloud.kernel.postgres_errors import (
    DataLost,
    DiskFull,
    OtherVersion,
    ServerFailed,
    ServerGivenUp,
)
from cloud.kernel.postgres_install import choose_user, find_programs

if TYPE_CHECKING:
    from tests.unit.kernel.conftest import Keep

SMALL = Reserve(ballast_bytes=1 << 20, low_water_bytes=1 << 20, start_bytes=1 << 20)
PATIENCE_S = 60  # a loaded machine; what is waited for takes a tenth of a second on an idle one


def ours(state: Path, reserve: Reserve = SMALL) -> OurServer:
    server = postgres.ensure(state, reserve=reserve)
    assert isinstance(server, OurServer)
    return server


def postmaster_of(server: OurServer) -> int:
    assert server.keeper is not None
    assert server.keeper.process is not None
    return server.keeper.process.pid


def keep_a_row(server: OurServer) -> None:
    with psycopg.connect(server.dsn()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")


def kept_row(server: OurServer) -> object:
    with psycopg.connect(server.dsn()) as connection:
        return connection.execute("SELECT answer FROM kept").fetchone()


def is_alive(pid: int) -> bool:
    """Say whether the process runs; a zombie does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rsplit(") ", 1)[1][0] != "Z"


def wait_until(holds: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up_s, "it did not happen"
        time.sleep(0.02)


def answers(server: OurServer) -> bool:
    try:
        psycopg.connect(server.dsn(), connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_the_server_dies_with_its_killed_launcher(filled_state: Path, keep: Keep) -> None:
    launcher = keep(filled_state)
    postmaster = launcher.said()["server"]

    launcher.kill()

    wait_until(lambda: not is_alive(postmaster))
    assert not (filled_state / "postgres" / "data" / "postmaster.pid").exists()  # a clean end
    with ours(filled_state) as server:
        assert answers(server)


def test_the_server_outlives_the_thread_that_asked_for_it(filled_state: Path) -> None:
    """The kernel's death signal follows the forking *thread*; ours is one that stays."""
    asked: list[OurServer] = []
    thread = threading.Thread(target=lambda: asked.append(ours(filled_state)))
    thread.start()
    thread.join()

    with asked[0] as server:
        time.sleep(0.5)
        assert answers(server)


def test_an_orphan_server_is_stopped_and_replaced(filled_state: Path) -> None:
    """As when the death signal was lost: the launcher is gone, the server still answers."""
    folders = Folders(filled_state / "postgres")
    user = choose_user(folders.data)
    programs = find_programs(folders.runtime, user)
    uid, gid = (user.uid, user.gid) if user.switch else (-1, -1)
    no_signal = "0"
    script = (
        "import os, subprocess, sys\n"
        "command = [sys.executable, '-I', '-S', sys.argv[1], str(os.getpid()), *sys.argv[2:]]\n"
        "child = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True)\n"
        "child.wait()"
    )
    program = [str(programs.folder / "bin" / "postgres"), "-D", str(folders.data)]
    as_whom = [no_signal, str(uid), str(gid)]
    command = [postgres_child.__file__, *as_whom, *program, "-p", free_port()]
    launcher = subprocess.Popen(
        [sys.executable, "-c", script, *command],
        stdout=subprocess.PIPE,
        text=True,
        env={"LC_ALL": "C"},
    )
    assert launcher.stdout is not None
    orphan = int(launcher.stdout.readline())
    pid_file = folders.data / "postmaster.pid"
    wait_until(lambda: pid_file.exists() and "ready" in pid_file.read_text())
    launcher.kill()
    launcher.communicate(timeout=PATIENCE_S)
    assert is_alive(orphan)

    with ours(filled_state) as server:
        assert not is_alive(orphan)
        assert answers(server)


def test_a_killed_server_comes_back_on_the_same_port_with_its_data(filled_state: Path) -> None:
    """The dead postmaster is our zombie until it is reaped, and would count as alive."""
    with ours(filled_state) as server:
        keep_a_row(server)
        port, first = server.port, postmaster_of(server)

        os.kill(first, signal.SIGKILL)

        wait_until(lambda: postmaster_of(server) != first and answers(server))
        assert (server.port, kept_row(server)) == (port, (42,))


def test_a_killed_server_s_running_query_does_not_hold_up_the_next(filled_state: Path) -> None:
    """A backend in a loop outlives its postmaster and keeps the shared memory in use."""
    with ours(filled_state) as server, psycopg.connect(server.dsn()) as busy:
        backend, first = busy.info.backend_pid, postmaster_of(server)
        loop = threading.Thread(target=lambda: run_forever(busy))
        loop.start()
        wait_until(lambda: is_busy(backend))

        os.kill(first, signal.SIGKILL)

        wait_until(lambda: postmaster_of(server) != first and answers(server))
        assert not is_alive(backend)
        loop.join()


def run_forever(connection: psycopg.Connection) -> None:
    with pytest.raises(psycopg.OperationalError):
        connection.execute("DO $$ BEGIN LOOP END LOOP; END $$")


def is_busy(pid: int) -> bool:
    spent = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[11]
    return int(spent) > 20  # hundredths of a second


def test_a_server_that_keeps_dying_is_given_up_and_says_so(filled_state: Path) -> None:
    with ours(filled_state) as server:
        attached, died = ours(filled_state), set[int]()
        while server.failure is None:
            pid = postmaster_of(server)
            if pid not in died and is_alive(pid):
                os.kill(pid, signal.SIGKILL)
                died.add(pid)
            time.sleep(0.02)

        assert isinstance(server.failure, ServerFailed)
        wait_until(lambda: attached.failure is not None)
        assert attached.failure is not None
        assert attached.failure.spanish == server.failure.spanish
        with pytest.raises(
            ServerGivenUp, match="does not stay up"
        ):  # at once: it is not waited for
            ours(filled_state)
        assert len(died) == 4  # three restarts within a minute, and then no more
    with ours(filled_state) as server:
        assert not [each.failure for each in (server, attached) if each.failure is not None]


@pytest.mark.parametrize("pid", ["gone", "zombie", "reused"])
def test_a_pid_file_left_behind_does_not_refuse_the_start(filled_state: Path, pid: str) -> None:
    """For the re-used one PostgreSQL itself would say 'lock file already exists' for ever."""
    data = filled_state / "postgres" / "data"
    owner = data.stat().st_uid
    stranger = subprocess.Popen(["sleep", "600" if pid == "reused" else "0"], user=owner)
    if pid == "gone":
        stranger.wait()
    elif pid == "zombie":
        wait_until(lambda: not is_alive(stranger.pid))
    left_behind = f"{stranger.pid}\n{data}\n1760000000\n5432\n\n127.0.0.1\n  1234567  1234\nready\n"
    (data / "postmaster.pid").write_text(left_behind)

    with ours(filled_state) as server:
        assert answers(server)

    if pid == "reused":
        assert stranger.poll() is None, "a stranger's process is not ours to end"
        stranger.kill()
    stranger.wait()


@pytest.mark.parametrize("killed_at", ["PG_VERSION", "base/1", "global/pg_control"])
def test_a_killed_initdb_is_begun_anew(state: Path, keep: Keep, killed_at: str) -> None:
    """What it leaves would start, report "ready" and lack a database."""
    making = keep(state)
    half_made = state / "postgres" / "data.new" / killed_at
    wait_until(half_made.exists)
    making.kill()
    assert not (state / "postgres" / "data").exists()

    with ours(state) as server:
        keep_a_row(server)
        assert kept_row(server) == (42,)
    assert not (state / "postgres" / "data.new").exists()


def test_another_major_version_s_data_is_refused_untouched(filled_state: Path) -> None:
    version = filled_state / "postgres" / "data" / "PG_VERSION"
    version.write_text("16\n")

    with pytest.raises(OtherVersion, match="written by PostgreSQL 16, this is PostgreSQL 18") as no:
        ours(filled_state)
    assert no.value.code == "postgres-otra-version"
    assert "son de PostgreSQL 16 y este es PostgreSQL 18" in no.value.spanish

    version.write_text("18\n")
    with ours(filled_state) as server:
        assert answers(server)


@pytest.mark.parametrize("missing", ["PG_VERSION", "aquacis.json"])
def test_a_data_directory_with_parts_missing_is_never_thrown_away(
    filled_state: Path, missing: str
) -> None:
    data = filled_state / "postgres" / "data"
    (data / missing).unlink()

    with pytest.raises(DataLost):
        ours(filled_state)
    assert (data / "global" / "pg_control").exists()


def test_without_room_for_a_database_none_is_begun(state: Path) -> None:
    with pytest.raises(DiskFull, match="MiB needed") as refusal:
        ours(state, Reserve(start_bytes=1 << 60))
    assert refusal.value.spanish.startswith("No hay espacio en disco")
    assert not (state / "postgres" / "data").exists()
