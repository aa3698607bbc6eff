"""The agent's two libraries as the lock names them: pure-Python wheels, checked by their hashes.

Vendored from the wheel and not from an environment: what pip installs on x86-64 has a C extension
that a gateway cannot load, and whose canonical CBOR differs in some floats.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

RUNTIME: Final = ("cbor2", "paho-mqtt")  # of requirements/edge.txt; the rest are its tests' tools
PURE: Final = ("--platform", "any", "--implementation", "py", "--abi", "none")
GATEWAY_PYTHON: Final = "3.10"


class WheelsUnavailable(Exception):
    """The package index did not deliver what the lock names, or no Python here has pip."""


def runtime_lock(lock: str) -> str:
    """Return the part of `requirements/edge.txt` that runs on a gateway, hashes included."""
    wanted, kept = False, []
    for line in lock.splitlines():
        if line and not line.startswith((" ", "#")):
            wanted = line.split("==")[0].strip().lower() in RUNTIME
        if wanted:
            kept.append(line)
    missing = [name for name in RUNTIME if f"{name}==" not in "\n".join(kept)]
    assert not missing, f"requirements/edge.txt does not lock {missing}"
    return "\n".join(kept) + "\n"


def fetched(root: Path) -> tuple[Path, ...]:
    """Return the wheels, downloaded once for each lock into `.venv/`. Raises WheelsUnavailable."""
    lock = runtime_lock((root / "requirements" / "edge.txt").read_text("utf-8"))
    folder = root / ".venv" / f"wheels-{hashlib.sha256(lock.encode()).hexdigest()[:12]}"
    if not folder.exists():
        scratch = folder.with_name(f"{folder.name}.{os.getpid()}")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        (scratch / "lock.txt").write_text(lock)
        _download(scratch)
        try:
            scratch.rename(folder)
        except OSError:  # another build was faster
            shutil.rmtree(scratch)
    wheels = tuple(sorted(folder.glob("*-none-any.whl")))
    assert len(wheels) == len(RUNTIME), wheels
    return wheels


def _download(folder: Path) -> None:
    python = next(_with_pip(), None)
    if python is None:
        raise WheelsUnavailable(
            "no Python with pip was found; on Debian: apt-get install python3-pip"
        )
    command = [python, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", GATEWAY_PYTHON, *PURE]
    command += ["--require-hashes", "-r", str(folder / "lock.txt"), "-d", str(folder)]
    got = subprocess.run(command, capture_output=True, text=True, check=False)
    if got.returncode != 0:
        shutil.rmtree(folder)
        raise WheelsUnavailable(f"pip could not fetch the agent's libraries: {got.stderr.strip()}")


def _with_pip() -> Iterator[str]:
    """Yield interpreters that have pip: an environment of ours is made without it."""
    known = (sys.executable, getattr(sys, "_base_executable", None), shutil.which("python3"))
    for python in (*known, "/usr/bin/python3"):
        if python is None or not Path(python).exists():
            continue
        asked = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False)
        if asked.returncode == 0:
            yield python
