"""Children are revived, ended, and never confused with somebody else's process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from field_sim.supervisor import Child, Pids, start, started_ticks, wait_or_kill

SLEEPER = (sys.executable, "-c", "import time; time.sleep(600)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, lambda *_: None); print('up', flush=True);"
    " [time.sleep(1) for _ in range(600)]",
)


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    made = Child(name="sleeper", command=SLEEPER, log=tmp_path / "logs" / "sleeper.log")
    made.launch()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.kill()
        made.process.wait()


def test_a_dead_child_is_reported_once_and_started_again_after_its_back_off(child: Child) -> None:
    assert child.process is not None
    assert child.revive() is None
    first = child.process.pid
    child.process.kill()
    child.process.wait()

    died = child.revive()

    assert died == (-signal.SIGKILL, 0.5)
    assert child.revive() is None
    assert not child.alive()
    time.sleep(0.6)
    assert child.revive() is None
    assert child.alive()
    assert child.just_revived
    assert child.process.pid != first


def test_a_child_that_dies_at_once_waits_longer_each_time(tmp_path: Path) -> None:
    crashing = Child(name="c", command=(sys.executable, "-c", "exit(3)"), log=tmp_path / "c.log")
    waits = []
    for _ in range(2):
        crashing.launch()
        assert crashing.process is not None
        crashing.process.wait()
        died = crashing.revive()
        assert died is not None
        waits.append(died)
        crashing._not_before = 0.0  # as if the wait were over

    assert waits == [(3, 0.5), (3, 1.0)]


def test_a_child_that_does_not_obey_is_killed(tmp_path: Path) -> None:
    process = start(STUBBORN, log=tmp_path / "out")
    while not (tmp_path / "out").read_text():
        time.sleep(0.02)
    process.terminate()

    assert not wait_or_kill(process, timeout_s=0.3)
    assert process.poll() == -signal.SIGKILL


def test_an_impatient_person_need_not_wait(tmp_path: Path) -> None:
    process = start(STUBBORN, log=tmp_path / "out")
    began = time.monotonic()

    assert not wait_or_kill(process, timeout_s=60, impatient=lambda: True)
    assert time.monotonic() - began < 5


def test_children_end_with_their_supervisor_however_it_ends(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from field_sim.supervisor import start;"
        f"p = start({list(SLEEPER)!r}, log=Path({str(tmp_path / 'log')!r}));"
        "print(p.pid, flush=True); time.sleep(600)"
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert supervisor.stdout is not None
    grandchild = int(supervisor.stdout.readline())
    assert started_ticks(grandchild) is not None

    supervisor.kill()
    supervisor.wait()

    deadline = time.monotonic() + 10
    while started_ticks(grandchild) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert started_ticks(grandchild) is None
    supervisor.stdout.close()


def test_what_a_killed_supervisor_left_is_ended_and_named(tmp_path: Path, child: Child) -> None:
    pids = Pids(tmp_path / "processes.json")
    pids.write([child])
    assert child.process is not None

    ended = pids.end_leftovers()

    assert ended == ["sleeper"]
    assert child.process.wait(5) == -signal.SIGTERM
    assert not pids.path.exists()
    assert pids.end_leftovers() == []


def test_a_pid_that_was_used_again_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "processes.json"
    ticks = started_ticks(os.getpid())
    assert ticks is not None
    path.write_text(json.dumps({"agent": [os.getpid(), ticks - 1], "gone": [2**22 - 1, 5]}))

    assert Pids(path).end_leftovers() == []
