"""Who wrote `postmaster.pid`: our server, an orphan of an earlier life, or a stranger by now."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from cloud.kernel.postgres_cluster import Folders
from cloud.kernel.postgres_errors import ServerFailed

QUIT_AFTER_S = 30  # how long an orphan gets for a fast shutdown
_PROCESSES = Path("/proc")
_STATUS_LINE = 7  # miscadmin.h, LOCK_FILE_LINE_PM_STATUS, from 0
_POLL_S = 0.05

_log = logging.getLogger(__name__)


def is_ready(pid_file: Path, pid: int) -> bool:
    """Say whether server `pid` wrote that it takes connections. No connection is made."""
    try:
        lines = pid_file.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return (
        len(lines) > _STATUS_LINE
        and lines[0] == str(pid)
        and lines[_STATUS_LINE].strip() == "ready"
    )


def clear(folders: Folders, *, deadline_s: float) -> None:
    """Leave neither a server on this data directory nor a pid file that would refuse ours.

    The caller holds the launcher's lock, so whoever still works here is an orphan. It is
    stopped, not adopted: adopted, it would not die with us. Only once no process works in the
    directory is the file removed, because it also leads the next server to the shared memory
    of the last one. `deadline_s` is monotonic. Raises `ServerFailed`.
    """
    began_s = time.monotonic()
    signalled: set[tuple[int, signal.Signals]] = set()
    while orphans := list(_servers_on(folders.data)):
        now_s = time.monotonic()
        if now_s > deadline_s:
            raise ServerFailed(f"processes {orphans} still work in {folders.data}", "")
        main = _written_pid(folders.pid_file)
        for pid in orphans:
            # the postmaster takes INT as "fast shutdown"; a child without one takes TERM
            chosen = signal.SIGINT if pid == main else signal.SIGTERM
            if main in orphans and pid != main:
                continue
            if pid == main and now_s - began_s > QUIT_AFTER_S:
                chosen = signal.SIGQUIT
            if (pid, chosen) not in signalled:
                _log.warning("POSTGRES_ORPHAN", extra={"pid": pid, "signal": chosen.name})
                signalled.add((pid, chosen))
                _send(pid, chosen)
        time.sleep(_POLL_S)
    folders.pid_file.unlink(missing_ok=True)


def _written_pid(pid_file: Path) -> int | None:
    try:
        return int(pid_file.read_text(errors="replace").splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None


def _servers_on(data: Path) -> Iterator[int]:
    """Yield the processes of PostgreSQL that work in `data`: it is their working directory.

    Processes we may not look at belong to others, and none of theirs can work in our
    directory; a zombie has no directory any more.
    """
    for entry in _PROCESSES.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            works_here = (entry / "cwd").samefile(data)
            if works_here and Path(os.readlink(entry / "exe")).name.startswith("postgres"):
                yield int(entry.name)
        except OSError:
            continue


def _send(pid: int, chosen: signal.Signals) -> None:
    try:
        os.kill(pid, chosen)
    except ProcessLookupError:
        return
