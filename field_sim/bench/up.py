"""How long the sandbox takes until it answers, and what each of its processes holds in memory.

Started as people start it, `python -m field_sim.up`, in an empty folder; ready is when the URL is
printed. Memory (VmRSS of /proc, shared pages counted in each) is read after the city has had some
time to run its history. There is no bare limit to compare with: the issue asks < 60 s.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from field_sim.sandbox import ROOT

ASKED_READY_S = 60.0
ASKED_AGENT_MIB = 40.0  # decision 19
STARTS = ("first start", "second start")
RUN_S = 30.0  # of history, before memory is read
STOP_TIMEOUT_S = 90.0
URL = re.compile(r"http://\S+/")


class DidNotStart(Exception):
    """`up` ended before it was ready; the message is its output."""


def run(progress: Callable[[str], None]) -> list[dict[str, Any]]:
    """Start twice in one folder; return the times of both and the memory of the second."""
    state = Path(tempfile.mkdtemp(prefix="aquacis-bench-", dir="/var/tmp"))
    state.chmod(0o711)
    figures = []
    try:
        for start in STARTS:
            progress(f"up: {start}")
            process, took_s = started(state)
            try:
                figures.append(
                    figure(start, took_s, "s", asked=ASKED_READY_S, holds=took_s < ASKED_READY_S)
                )
                if start == STARTS[-1]:
                    progress(f"up: {RUN_S:.0f} s of history")
                    time.sleep(RUN_S)
                    figures += memory(state, process.pid)
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(STOP_TIMEOUT_S)
    finally:
        shutil.rmtree(state, ignore_errors=True)
    return figures


def started(state: Path) -> tuple[subprocess.Popen[str], float]:
    """Start `up` and wait for its URL; return it and the seconds that took."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "field_sim.up"],
        cwd=ROOT,
        env={**os.environ, "AQUACIS_STATE": str(state), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if URL.search(line):
            return process, time.monotonic() - began
    raise DidNotStart("".join(said))


def memory(state: Path, supervisor: int) -> list[dict[str, Any]]:
    """Return the resident memory of every process of the sandbox, in MiB."""
    pids = {
        name: pid for name, (pid, _) in json.loads((state / "processes.json").read_text()).items()
    }
    figures = [figure("memory of up", resident_mib(supervisor), "MiB")]
    for name, pid in sorted(pids.items()):
        mib = resident_mib(pid)
        limit = ASKED_AGENT_MIB if name.startswith("agent-") else None
        figures.append(
            figure(
                f"memory of {name}",
                mib,
                "MiB",
                asked=limit,
                holds=None if limit is None else mib <= limit,
            )
        )
    postmaster = int((state / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
    servers = [postmaster, *children(postmaster)]
    total = sum(resident_mib(pid, own=True) for pid in servers)
    figures.append(figure("memory of PostgreSQL's processes, without shared pages", total, "MiB"))
    return figures


def resident_mib(pid: int, *, own: bool = False) -> float:
    """Return VmRSS in MiB; `own`: without the pages it shares. 0 for a process that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    kib = re.search(rf"^{'RssAnon' if own else 'VmRSS'}:\s+(\d+)", status, re.MULTILINE)
    return 0.0 if kib is None else int(kib[1]) / 1024


def children(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(after_name[1]) == parent:
            found.append(int(path.parent.name))
    return found


def figure(
    name: str, held: float, unit: str, *, asked: float | None = None, holds: bool | None = None
) -> dict[str, Any]:
    return {
        "bench": "up",
        "figure": name,
        "value": round(held, 2),
        "unit": unit,
        "limit": None,
        "ratio": None,
        "asked": asked,
        "holds": holds,
    }
