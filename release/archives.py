"""tar.gz and ar archives that depend on nothing but what is put in: no owner, no date, sorted."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping, Sequence
from typing import Final

from decoders.value import value

AR_MAGIC: Final = b"!<arch>\n"
PROGRAM, TEXT, PRIVATE, FOLDER = 0o755, 0o644, 0o600, 0o755


@value
class File:
    """Something to pack. mode: permission bits."""

    content: bytes
    mode: int = TEXT


def tar_gz(files: Mapping[str, File]) -> bytes:
    """Return a gzipped ustar archive of `files` by their path, each parent folder before them."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for folder in sorted({parent for path in files for parent in _parents(path)}):
            entry = tarfile.TarInfo(f"./{folder}" if folder else ".")
            entry.type, entry.mode = tarfile.DIRTYPE, FOLDER
            archive.addfile(_anonymous(entry))
        for path in sorted(files):
            entry = tarfile.TarInfo(f"./{path}")
            entry.mode, entry.size = files[path].mode, len(files[path].content)
            archive.addfile(_anonymous(entry), io.BytesIO(files[path].content))
    return gzip.compress(packed.getvalue(), mtime=0)


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[:count]) for count in range(len(parts) + 1)]


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = "root"
    return entry


def ar(members: Sequence[tuple[str, bytes]]) -> bytes:
    """Return an ar archive as Debian's packages and opkg's are: the given order, short names."""
    packed = bytearray(AR_MAGIC)
    for name, content in members:
        assert len(name) <= 16, name
        packed += f"{name:<16}{0:<12}{0:<6}{0:<6}{0o100644:<8o}{len(content):<10}`\n".encode()
        packed += content + b"\n" * (len(content) % 2)
    return bytes(packed)
