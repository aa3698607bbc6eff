"""Where a clone keeps what outlives its processes, and that nobody else put it there."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

from cloud.kernel.postgres_errors import StateOpen, StateUnusable, WrongOwner

VARIABLE = "AQUACIS_STATE"
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def state_folder(root: Path) -> Path:
    """Return the state folder of the clone at `root`; it need not exist yet.

    `AQUACIS_STATE` wins. Otherwise it is `.aquacis/` in the clone; as root a folder under
    /var/tmp named by the clone's path, because PostgreSQL refuses to run as root and the
    ordinary user it then runs as can rarely walk into root's clone. That name is easy to
    guess: whoever uses the folder calls `prepare` first.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    clone = root.resolve()
    if os.geteuid() != 0:
        return clone / ".aquacis"
    return Path("/var/tmp") / f"aquacis-{_short_hash(clone)}"  # noqa: S108  it must survive a reboot


def prepare(state: Path) -> None:
    """Make the state folder, or make sure that the one there is ours. Before anything in it.

    A folder made here is closed to others; as root others may walk through it, as the
    server's user must. Raises `WrongOwner` for another user's folder or link, `StateOpen` for
    one that others may write in: keys and passwords are trusted because of where they lie.
    And `StateUnusable`.
    """
    try:
        if not make_folder(state, mode=_mode()):
            _require_ours(state)
    except OSError as error:
        raise StateUnusable(state, error.strerror or str(error)) from error


def make_folder(folder: Path, *, mode: int) -> bool:
    """Make a folder, and those above it, with `mode` whatever the umask; False if it exists."""
    if os.path.lexists(folder):
        return False
    make_folder(folder.parent, mode=mode)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return False
    folder.chmod(mode)
    return True


def _require_ours(state: Path) -> None:
    for found in (state.lstat(), state.stat()):  # a link laid by another, and where it leads
        if found.st_uid != os.geteuid():
            raise WrongOwner(state, found.st_uid, os.geteuid())
    mode = state.stat().st_mode
    if not stat.S_ISDIR(mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(state))
    if mode & OTHERS_WRITE:
        raise StateOpen(state)


def _mode() -> int:
    return 0o711 if os.geteuid() == 0 else 0o700


def _short_hash(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
