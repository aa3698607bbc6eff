"""Who wrote `postmaster.pid`: our server, an orphan of an earlier life, or a stranger by now."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from cloud.kernel.postgres_errors import ServerFailed

FILE = "postmaster.pid"
QUIT_AFTER_S = 30  # how long an orphan gets for a fast shutdown
_PROCESSES = Path("/proc")
_STATUS_LINE = 7  # miscadmin.h, LOCK_FILE_LINE_PM_STATUS, from 0
_POLL_S = 0.05

_log = logging.getLogger(__name__)


def is_ready(data: Path, pid: int) -> bool:
    """Say whether server `pid` wrote that it takes connections. No connection is made."""
    try:
        lines = (data / FILE).read_text(errors="replace").splitlines()
    except OSError:
        return False
    return (
        len(lines) > _STATUS_LINE
        and lines[0] == str(pid)
        and lines[_STATUS_LINE].strip() == "ready"
    )


def clear(data: Path, *, timeout_s: float) -> None:
    """Leave neither a server on directory `data` nor a pid file that would refuse ours.

    The caller holds the launcher's lock, so whoever still works there is an orphan. It is
    stopped, not adopted: adopted, it would not die with us. Only once no process works in the
    directory is the file removed, because it also leads the next server to the shared memory
    of the last one. Raises `ServerFailed` when orphans outlast `timeout_s`.
    """
    began_s = time.monotonic()
    signalled: set[tuple[int, signal.Signals]] = set()
    while orphans := list(_servers_on(data)):
        waited_s = time.monotonic() - began_s
        if waited_s > timeout_s:
            raise ServerFailed(f"processes {orphans} still work in {data}", "")
        # a child whose postmaster lives is the postmaster's to end
        postmaster = _written_pid(data)
        targets = [postmaster] if postmaster in orphans else orphans
        for pid in targets:
            chosen = _farewell(pid == postmaster, waited_s)
            if (pid, chosen) not in signalled:
                _log.warning("POSTGRES_ORPHAN", extra={"pid": pid, "signal": chosen.name})
                signalled.add((pid, chosen))
                _send(pid, chosen)
        time.sleep(_POLL_S)
    (data / FILE).unlink(missing_ok=True)


def _farewell(is_postmaster: bool, waited_s: float) -> signal.Signals:
    """Return the signal that ends an orphan: to a postmaster INT is "fast", QUIT "immediate"."""
    if is_postmaster and waited_s < QUIT_AFTER_S:
        return signal.SIGINT
    return signal.SIGQUIT if is_postmaster else signal.SIGTERM


def _written_pid(data: Path) -> int | None:
    try:
        return int((data / FILE).read_text(errors="replace").splitlines()[0])
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
