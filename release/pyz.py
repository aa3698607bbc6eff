"""`aquacis-edge.pyz`: the whole agent in one file that any Python from 3.10 on runs.

Beside each `x.py` lies `x.pyc`, because zipimport looks into no `__pycache__`: compiled for the
gateway's Python 3.10 it halves the start there and saves 4 MiB; another Python finds a strange
magic number and takes the source. The same sources give the same bytes: entries are sorted, stored
without compression and dated 1980, and the compiling interpreter starts fresh.
"""

from __future__ import annotations

import glob
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
NAME: Final = "aquacis-edge.pyz"
PACKAGES: Final = ("decoders", "edge_agent")
# what a gateway has no numpy or construct for
LEFT_OUT: Final = ("decoders/batch", "decoders/spec/")
GATEWAY_PYTHON: Final = (3, 10)
OLDEST: Final = (1980, 1, 1, 0, 0, 0)  # that zip can say
SHEBANG: Final = b"#!/usr/bin/env python3\n"
FILE: Final = 0o644 << 16
# of a wheel: code, and what its licence asks to go with it; not what only pip reads
PIP_ONLY: Final = ("/RECORD", "/WHEEL", "/top_level.txt")

MAIN: Final = b'''"""Starts the agent; see `aquacis-edge.pyz --help`."""

import importlib.util
import sys
import types

if sys.version_info < (3, 10):  # noqa: UP036  whoever has an older one should read why
    sys.exit("aquacis-edge needs Python 3.10 or newer, this is " + sys.version.split()[0])

# a machine's own cbor2 may have left its C extension: of another version, and its answers differ
sys.modules["_cbor2"] = None

# paho loads a web client, 2 MiB, for proxies that it reaches with PySocks alone
if importlib.util.find_spec("socks") is None and "urllib.request" not in sys.modules:
    sys.modules["urllib.request"] = types.ModuleType("urllib.request")
    import paho.mqtt.client

    del sys.modules["urllib.request"]

from edge_agent.__main__ import main

raise SystemExit(main())
'''

# run by the compiling interpreter: one folder, every .py → .pyc beside it
COMPILE: Final = """
import pathlib, py_compile, sys
root = pathlib.Path(sys.argv[1])
for path in sorted(root.rglob("*.py")):
    py_compile.compile(
        str(path), cfile=str(path) + "c", dfile=str(path.relative_to(root)), doraise=True,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""


class NotCompiled(Exception):
    """The interpreter that should compile the sources did not."""


def build(target: Path, wheels: Sequence[Path], *, python: str | None = None) -> None:
    """Write the `.pyz`.

    python   compiles; None = Python 3.10 where this machine has one, else the one running
    """
    sources = {"__main__.py": MAIN, **ours(), **vendored(wheels)}
    contents = {**sources, **compiled(sources, python or compiling_python())}
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_name(f"{target.name}.{os.getpid()}")
    scratch.write_bytes(zipped(contents, after=SHEBANG))
    scratch.chmod(0o755)
    scratch.replace(target)


def ours() -> dict[str, bytes]:
    """Return our own files by their path in the archive."""
    found = {"LICENSE": (ROOT / "LICENSE").read_bytes(), "NOTICE": (ROOT / "NOTICE").read_bytes()}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            if not name.startswith(LEFT_OUT):
                found[name] = path.read_bytes()
    return found


def vendored(wheels: Sequence[Path]) -> dict[str, bytes]:
    """Return the libraries' files by their path in the archive."""
    found = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as packed:
            for name in packed.namelist():
                if not name.endswith((*PIP_ONLY, "/", ".pyi")):
                    found[name] = packed.read(name)
    return found


def compiled(sources: Mapping[str, bytes], python: str) -> dict[str, bytes]:
    """Return the `.pyc` of every `.py`. Raises NotCompiled."""
    with tempfile.TemporaryDirectory(prefix="aquacis-pyz-") as folder:
        for name, source in sources.items():
            if name.endswith(".py"):
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(source)
        # nothing of this machine is loaded, and sets of constants are written in a fixed order
        ran = subprocess.run(
            [python, "-s", "-S", "-c", COMPILE, folder],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={"PYTHONHASHSEED": "0"},
        )
        if ran.returncode != 0:
            raise NotCompiled(f"{python} does not compile the agent: {ran.stderr.strip()}")
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in Path(folder).rglob("*.pyc")
        }


def zipped(contents: Mapping[str, bytes], *, after: bytes = b"") -> bytes:
    """Return a zip archive behind the bytes `after` that depends on nothing but its contents.

    Stored and not deflated: another zlib packs otherwise, and the gateway would unpack at every
    start what its flash file system (UBIFS) compresses by itself.
    """
    into = io.BytesIO()
    into.write(after)
    with zipfile.ZipFile(into, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(name, OLDEST)
            entry.external_attr = FILE
            entry.create_system = 3  # Unix, whatever this machine is
            archive.writestr(entry, contents[name])
    return into.getvalue()


def compiling_python() -> str:
    """Return the gateway's Python where this machine has one that runs, else the running one."""
    major, minor = GATEWAY_PYTHON
    if sys.version_info[:2] == GATEWAY_PYTHON:
        return sys.executable
    folder = f"~/.pyenv/versions/{major}.{minor}.*/bin/python"
    homes = sorted(glob.glob(os.path.expanduser(folder)))
    probe = f"import sys; sys.exit(sys.version_info[:2] != {GATEWAY_PYTHON!r})"
    for python in (shutil.which(f"python{major}.{minor}"), *homes):
        if python is None:
            continue
        try:  # a version manager's shim may not run
            asked = subprocess.run([python, "-c", probe], capture_output=True, check=False)
        except OSError:
            continue
        if asked.returncode == 0:
            return python
    return sys.executable
