"""The data directory: made whole or not at all, checked before each start, configured."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloud.kernel import postgres_pidfile, private_files
from cloud.kernel.postgres_disk import Disk
from cloud.kernel.postgres_errors import MEBIBYTE, DataLost, OtherVersion, ServerFailed
from cloud.kernel.postgres_install import Programs
from cloud.kernel.private_files import sync_folder

ADMIN = "aquacis_admin"
MARKER = "aquacis.json"
VERSION = "18"  # major version of the wheel's programs
INITDB_TIMEOUT_S = 120
_GIBIBYTE = 1024 * MEBIBYTE


@dataclass(frozen=True)
class Folders:
    """Where things lie under `<state>/postgres`."""

    home: Path

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def new_data(self) -> Path:
        return self.home / "data.new"

    @property
    def marker(self) -> Path:
        """Says that `data` was made to the end: what a killed initdb leaves also starts."""
        return self.data / MARKER

    @property
    def passwords(self) -> Path:
        return self.home / "passwords.json"

    @property
    def settings(self) -> Path:
        return self.home / "aquacis.conf"

    @property
    def log(self) -> Path:
        return self.home / "server.log"

    @property
    def endpoint(self) -> Path:
        return self.home / "endpoint.json"

    @property
    def failure(self) -> Path:
        """Why the launcher gave the server up, for those who only attached to it."""
        return self.home / "failure.json"

    @property
    def lock(self) -> Path:
        return self.home / "launcher.lock"

    @property
    def runtime(self) -> Path:
        return self.home / "runtime"


def prepare(folders: Folders, programs: Programs, disk: Disk) -> None:
    """Make the data directory if there is none yet; check the one there is.

    Raises `DiskFull`, `OtherVersion`, `DataLost`, `ServerFailed`.
    """
    if not folders.data.exists():
        disk.require_start()
        _initialise(folders, programs)
    try:
        found = (folders.data / "PG_VERSION").read_text().strip()
    except FileNotFoundError as error:
        raise DataLost(folders.data) from error
    if not folders.marker.exists():
        raise DataLost(folders.data)
    if found != VERSION:
        raise OtherVersion(folders.data, found, VERSION)
    folders.data.chmod(0o700)  # what a copy or an unpacked archive may have lost; else it refuses


def _initialise(folders: Folders, programs: Programs) -> None:
    """Make the data directory beside its name, mark it, then move it in.

    What a killed attempt left would start, answer "ready" and lack a database: it never got
    its name, and is thrown away here. A folder that has the name is never thrown away.
    """
    postgres_pidfile.clear(folders.new_data, timeout_s=INITDB_TIMEOUT_S)
    shutil.rmtree(folders.new_data, ignore_errors=True)
    user = programs.user
    folders.new_data.mkdir(mode=0o700)
    password = read_passwords(folders.passwords).get(ADMIN) or secrets.token_urlsafe(24)
    password_file = folders.home / "initdb.password"
    owner_uid = user.uid if user.switch else None
    private_files.write(password_file, password.encode(), owner_uid=owner_uid)
    try:
        if user.switch:
            os.chown(folders.new_data, user.uid, user.gid)
        _run_initdb(folders, programs, password_file)
    finally:
        password_file.unlink()
    write_passwords(folders.passwords, {ADMIN: password})
    with (folders.new_data / "postgresql.conf").open("a") as file:
        file.write(f"\ninclude '../{folders.settings.name}'\n")
    private_files.write(folders.new_data / MARKER, json.dumps({"postgresql": VERSION}).encode())
    folders.new_data.rename(folders.data)
    sync_folder(folders.home)


def _run_initdb(folders: Folders, programs: Programs, password_file: Path) -> None:
    options = [
        f"--pgdata={folders.new_data}",
        f"--username={ADMIN}",
        f"--pwfile={password_file}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
    ]
    output = folders.home / "initdb.log"
    with output.open("wb") as file:
        running = programs.start("initdb", *options, death_signal=signal.SIGKILL, output=file)
        try:
            code = running.wait(INITDB_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            running.kill()
            code = running.wait()
    if code != 0:
        raise ServerFailed(f"initdb ended with {code}", output.read_text(errors="replace")[-2000:])


def write_settings(folders: Folders, disk: Disk, extra: Mapping[str, str]) -> None:
    """Write the file that the server's configuration includes; `extra` wins."""
    settings = {**defaults(memory_bytes(), disk.free_bytes()), **extra}
    quoted = {name: setting.replace("'", "''") for name, setting in settings.items()}
    lines = [f"{name} = '{setting}'" for name, setting in quoted.items()]
    header = "# Written at every start. Your own settings: data/postgresql.conf, after the include."
    private_files.write(folders.settings, "\n".join([header, *lines, ""]).encode(), mode=0o644)


def defaults(memory: int, free: int) -> dict[str, str]:
    """Return settings for a machine with `memory` and `free` disk, both in bytes.

    Measured: reference/postgres.md §5. Durability (fsync, full_page_writes,
    synchronous_commit) stays as PostgreSQL has it: on.
    """
    wal = min(4 * _GIBIBYTE, max(64 * MEBIBYTE, free // 10))
    shared = min(512 * MEBIBYTE, max(64 * MEBIBYTE, memory // 4))
    return {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "max_connections": "100",
        "password_encryption": "scram-sha-256",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "shared_buffers": _megabytes(shared),
        "effective_cache_size": _megabytes(memory // 2),
        "work_mem": "32MB",
        "maintenance_work_mem": "256MB",
        "wal_buffers": "16MB",
        "wal_compression": "pglz",  # the wheel has neither lz4 nor zstd
        "max_wal_size": _megabytes(wal),
        "min_wal_size": _megabytes(min(512 * MEBIBYTE, max(32 * MEBIBYTE, wal // 4))),
        "checkpoint_timeout": "15min",
        "random_page_cost": "1.1",
        "jit": "off",
        # an open write transaction anywhere holds the event log back for everybody
        "idle_in_transaction_session_timeout": "60s",
        "client_connection_check_interval": "2s",  # a killed client's query ends, too
        "log_line_prefix": "%m [%p] %q%u@%d ",
    }


def memory_bytes() -> int:
    """Return this machine's memory, or the container's share of it if that is smaller."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return machine
    return min(machine, int(limit)) if limit.isdigit() else machine


def read_passwords(path: Path) -> dict[str, str]:
    """Return role name → password; empty when none was written yet."""
    try:
        passwords: dict[str, str] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return passwords


def write_passwords(path: Path, added: Mapping[str, str]) -> None:
    """Add roles' passwords to the file; those it holds for other roles stay."""
    held = {**read_passwords(path), **added}
    private_files.write(path, json.dumps(held, indent=1).encode())


def _megabytes(size: int) -> str:
    return f"{size // MEBIBYTE}MB"
