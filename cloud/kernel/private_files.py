"""Files that only their owner may read, replaced whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

OWNER_ONLY = 0o600


def write(
    path: Path, content: bytes, *, mode: int = OWNER_ONLY, owner_uid: int | None = None
) -> None:
    """Replace `path` by `content`: on the disk before it has its name, and the name with it.

    mode       of the file, whatever the umask says
    owner_uid  whose it becomes; None: this process's

    Raises OSError and leaves what was there.
    """
    scratch, descriptor = make_scratch(path)
    try:
        with open(descriptor, "wb") as file:
            if owner_uid is not None:
                os.fchown(descriptor, owner_uid, -1)
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def make_scratch(path: Path) -> tuple[Path, int]:
    """Make an empty file beside `path`, to become it; return its name and open descriptor.

    Nobody can guess the name and it must not exist yet: no link laid in its way is followed.
    """
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    return scratch, os.open(scratch, flags, OWNER_ONLY)


def sync_folder(folder: Path) -> None:
    """Put a folder's names on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
