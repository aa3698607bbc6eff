"""Real programs beside ours that a test may need: it is skipped, naming them, where one is missing.

What a test needs it says with `@pytest.mark.real_part("mosquitto")`. The NATS server comes as a
wheel and is always there, so what runs on any broker never skips.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

import pytest

# name → where Debian puts it, whatever PATH says
PROGRAMS: Mapping[str, str] = {
    "mosquitto": "/usr/sbin/mosquitto",
    "chromium": "/usr/bin/chromium",
}
BROKERS = (pytest.param("mosquitto", marks=pytest.mark.real_part("mosquitto")), "nats")


def missing(name: str, programs: Mapping[str, str] = PROGRAMS) -> str | None:
    """Say why a test that needs the part cannot run, None when it can. KeyError: no such part."""
    usual = programs[name]
    if os.access(usual, os.X_OK) or shutil.which(name):
        return None
    return f"{name} is not installed here ({usual}); on Debian: apt-get install {name}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose real part is not on this machine."""
    for marker in item.iter_markers("real_part"):
        for name in marker.args:
            if (reason := missing(name)) is not None:
                pytest.skip(reason)
