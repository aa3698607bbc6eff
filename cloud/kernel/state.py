"""Where a clone keeps what outlives its processes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

VARIABLE = "AQUACIS_STATE"


def state_folder(root: Path) -> Path:
    """Return the state folder of the clone at `root`; it need not exist yet.

    `AQUACIS_STATE` wins. Otherwise it is `.aquacis/` in the clone; as root a folder under
    /var/tmp named by the clone's path, because PostgreSQL refuses to run as root and the
    ordinary user it then runs as can rarely walk into root's clone.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    clone = root.resolve()
    if os.geteuid() != 0:
        return clone / ".aquacis"
    return Path("/var/tmp") / f"aquacis-{_short_hash(clone)}"  # noqa: S108  it must survive a reboot


def _short_hash(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
