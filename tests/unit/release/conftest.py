"""The agent and its packages, built once for all tests of a worker."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from release import __main__ as command
from release import pyz


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `tasks.py pyz`."""
    folder = tmp_path_factory.mktemp("dist")
    command.build(folder)
    return folder


@pytest.fixture(scope="session")
def archive(built: Path) -> Path:
    return built / pyz.NAME


def interpreters() -> list[str]:
    """Return every Python from 3.10 on that runs here, one of each version."""
    found = {sys.version_info[:2]: sys.executable}
    named = [shutil.which(f"python3.{minor}") for minor in range(10, 16)]
    homes = sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/3.*/bin/python")))
    for python in [*named, "/usr/bin/python3", *homes]:
        if python is None or not Path(python).exists():
            continue
        asked = subprocess.run(
            [python, "-c", "import sqlite3, ssl, sys; print(*sys.version_info[:2])"],
            capture_output=True,
            check=False,
            text=True,
        )
        if asked.returncode == 0:  # a version manager's shim may not run
            major, minor = map(int, asked.stdout.split())
            if (major, minor) >= (3, 10):
                found.setdefault((major, minor), python)
    return [found[version] for version in sorted(found)]
