"""No key leaves the process: each way out is really tried, on real agents with known keys."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from edge_agent.keys import Given, LorawanKeys
from edge_agent.keys_sealed import sealed, write_sealed
from edge_agent.masking import masked, without_keys
from edge_agent.private_key import read_private_key

ROOT = Path(__file__).parents[3]
TELEGRAM = "2A442D2C998734761B168D2091D37CAC21E1D68CDAFFCD3DC452BD802913FF7B1706CA9E355D6C2701CC24"
METER, KEY = "KAM-76348799", bytes.fromhex("28F64A24988064A079AA2C807D6102AE")
SESSION_KEY, LINE_KEY = bytes.fromhex("C0FFEE" + "5A" * 13), bytes.fromhex("BADCAB" + "E1" * 13)
SECRETS = (KEY, SESSION_KEY, LINE_KEY)
SEC1 = """-----BEGIN EC PRIVATE KEY-----
MDECAQEEIPI2Ep7H277Y+KgrDGaEDyobCKnhhH4n8q5buzklkFxdoAoGCCqGSM49
AwEH
-----END EC PRIVATE KEY-----
"""
STARTED_S = 20.0
LETS_CORES_BE = """
import resource, sys
from edge_agent import __main__ as cli
hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
"""


def assert_no_key(shown: bytes, where: str) -> None:
    """Look for every form that bytes take when somebody prints them."""
    for key in SECRETS:
        escaped = json.dumps(repr(key)[2:-1]).strip('"').encode()
        forms = (key, key.hex().encode(), base64.b64encode(key), repr(key)[2:-1].encode(), escaped)
        for form in (*forms, key.hex(" ").encode(), str(list(key)).encode()):
            assert form.lower() not in shown.lower(), f"a key stands in {where}"


class Running:
    """An agent in a process of its own, with sealed keys and a file of lines to hear."""

    def __init__(self, folder: Path, *, before: str = "") -> None:
        """`before`: Python that runs in the process first, to break something in it."""
        self.folder, self.state = folder, folder / "state"
        key_file = folder / "gateway.key"
        key_file.write_text(SEC1)
        key_file.chmod(0o600)
        given = Given(
            assigned=frozenset({METER}),
            meters={METER: {1: KEY}},
            lorawan={"0013EA0001020304": LorawanKeys(dev_eui=1, app_s_key=SESSION_KEY)},
        )
        own = read_private_key(key_file)
        write_sealed(folder / "keys.sealed", sealed(given, gateway="norte", private_keys=[own]))
        (folder / "lines").write_text(
            TELEGRAM
            + "\n"
            + json.dumps({"telegram_hex": TELEGRAM, "key_hex": LINE_KEY.hex()})
            + "\n"
            + json.dumps({"telegram_hex": "xyz", "key_hex": LINE_KEY.hex()})
            + f'\n{{"telegram_hex": "{TELEGRAM}", "key_hex": "{LINE_KEY.hex().upper()}\n'
        )
        self.settings = folder / "gateway.json"
        self.settings.write_text(
            json.dumps(
                {
                    "gateway": "norte",
                    "broker": "mqtt://127.0.0.1:9",
                    "env": "production",
                    "local_port": 0,
                    "state": str(self.state),
                    "keys": str(folder / "keys.sealed"),
                    "private_key": str(key_file),
                    "sources": [{"kind": "lines", "path": str(folder / "lines")}],
                }
            )
        )
        program = f"{LETS_CORES_BE}\n{before}\nsys.exit(cli.main())"
        self.stderr = folder / "stderr"
        with self.stderr.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", program, "run", "--config", str(self.settings)],
                cwd=folder,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stderr.read_text().splitlines()]

    def wait_for(self, event: str) -> dict[str, Any]:
        until = time.monotonic() + STARTED_S
        while time.monotonic() < until:
            for said in self.events():
                if said["event"] == event:
                    return said
            time.sleep(0.05)
        raise AssertionError(f"no {event} in {self.stderr.read_text()}")

    def wait_for_rows(self, least: int) -> dict[str, Any]:
        until = time.monotonic() + STARTED_S
        while time.monotonic() < until:
            shown = self.inspected("--json")
            if shown and json.loads(shown)["rows"] >= least:
                return dict(json.loads(shown))
            time.sleep(0.1)
        raise AssertionError(self.stderr.read_text())

    def inspected(self, *options: str) -> bytes:
        command = [sys.executable, "-m", "edge_agent", "inspect", *options]
        done = subprocess.run(
            [*command, "--config", str(self.settings)], cwd=ROOT, capture_output=True, check=False
        )
        return done.stdout

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    agent = Running(tmp_path)
    yield agent
    agent.stop(signal.SIGKILL)


def test_a_working_agent_shows_no_key_anywhere_that_can_be_looked_at(running: Running) -> None:
    told = running.wait_for_rows(3)
    keys = running.wait_for("keys")

    process = Path(f"/proc/{running.process.pid}")
    assert (keys["sealed"], keys["meters"], keys["lorawan"]) == (True, 1, 1)
    assert told["meters"] == 1  # the telegram was opened: the key was there to be lost
    for name in ("cmdline", "environ", "status", "limits", "maps"):
        assert_no_key((process / name).read_bytes(), f"/proc/PID/{name}")
    assert_no_key(running.inspected(), "inspect")
    assert_no_key(running.inspected("--json", "--tables"), "inspect --json --tables")
    url = running.wait_for("local_page")["url"]
    for path in ("", "metrics"):
        with urlopen(url + path, timeout=5) as answer:
            assert_no_key(answer.read(), f"/{path}")
    assert running.stop() == 0
    assert_no_key(running.stderr.read_bytes(), "the log")
    for left in (*running.state.rglob("*"), running.folder / "keys.sealed"):
        assert_no_key(left.read_bytes(), left.name)


def test_an_agent_that_is_killed_by_a_fault_leaves_no_core(running: Running) -> None:
    running.wait_for("keys")
    limits = Path(f"/proc/{running.process.pid}/limits").read_text()

    running.process.send_signal(signal.SIGSEGV)
    _, status = os.waitpid(running.process.pid, 0)
    running.process.returncode = -os.WTERMSIG(status)

    assert os.WTERMSIG(status) == signal.SIGSEGV
    assert not os.WCOREDUMP(status)
    assert not list(running.folder.glob("core*"))
    assert next(line for line in limits.splitlines() if "core" in line).split()[4:6] == ["0", "0"]
    assert_no_key(running.stderr.read_bytes(), "the log")


def test_what_is_hardened_belongs_to_root_for_whoever_looks_from_outside() -> None:
    """As one user that is not root, who could trace its own processes before."""
    program = """
import ctypes, os
if os.geteuid() == 0:
    from edge_agent import hardening
    os.setgid(65534); os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # changing the user took it
print(os.stat("/proc/self/mem").st_uid, flush=True)
from edge_agent.hardening import harden
harden(print)
print(os.stat("/proc/self/mem").st_uid, ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    before, after = done.stdout.splitlines()
    assert before == str(os.geteuid() or 65534)
    assert after == "0 0"


BREAKS_LOOP = """
from edge_agent import shell
def broken(self):
    key = next(iter(self._state.reduction.policy.keys.values()))[0]
    line = f"{self._state!r}"
    try:
        raise KeyError(bytearray(key), key.hex(" "), list(key))
    except KeyError:
        raise RuntimeError(f"cannot go on with {key!r}, {key.hex()}, {line}")
shell.Agent._converse = broken
"""
BREAKS_THREAD = """
import threading
from edge_agent import shell
begin = shell.Agent.run
def run(self):
    key = next(iter(self._state.reduction.policy.keys.values()))[0]
    def broken():
        raise ValueError(key, key.hex())
    threading.Thread(target=broken, name="receiver").start()
    class Gone:
        def __del__(self):
            raise ValueError(key.hex().upper())
    Gone()
    return begin(self)
shell.Agent.run = run
"""
BREAKS_FRAME = """
from edge_agent import opening
def broken(frame, *, key, **_):
    raise RuntimeError(f"{key!r} {key.hex()}")
opening.decode_wmbus = broken
"""


def crashes(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == "crashed"]


def test_a_crash_says_where_and_shows_no_key(tmp_path: Path) -> None:
    agent = Running(tmp_path, before=BREAKS_LOOP)
    try:
        assert agent.process.wait(STARTED_S) == 1
    finally:
        agent.stop(signal.SIGKILL)

    (crash,) = crashes(agent.events())
    assert crash["error"] == "RuntimeError"
    assert crash["reason"].startswith("cannot go on with •••, •••")
    assert crash["cause"]["error"] == "KeyError"
    assert any("shell.py" in line and line.endswith(" run") for line in crash["stack"])
    assert_no_key(agent.stderr.read_bytes(), "the crash report")


def test_a_thread_and_a_destructor_that_fail_show_no_key(tmp_path: Path) -> None:
    agent = Running(tmp_path, before=BREAKS_THREAD)
    try:
        agent.wait_for_rows(3)
    finally:
        code = agent.stop()

    destructor, thread = sorted(crashes(agent.events()), key=lambda said: "thread" in said)
    assert (thread["thread"], destructor["within"]) == ("receiver", "destructor")
    assert code == 0
    assert_no_key(agent.stderr.read_bytes(), "the crash report")


def test_a_frame_that_breaks_the_decoder_is_reported_without_its_key(tmp_path: Path) -> None:
    agent = Running(tmp_path, before=BREAKS_FRAME)
    try:
        broke = agent.wait_for("frame_broke_us")
        agent.wait_for_rows(3)
    finally:
        agent.stop()

    assert broke["error"].strip("'\")").endswith("••• •••")
    assert_no_key(agent.stderr.read_bytes(), "the log")
    for left in agent.state.rglob("*"):
        assert_no_key(left.read_bytes(), left.name)


@pytest.mark.parametrize(
    "shown",
    [
        KEY.hex(),
        KEY.hex(":"),
        KEY.hex(" ").upper(),
        f"key={KEY.hex()};",
        repr(KEY),
        repr(bytearray(KEY)),
        repr({"key": KEY}),
        str(list(KEY)),
        SEC1,
        str(int.from_bytes(KEY, "big")),
    ],
)
def test_whatever_looks_like_a_key_is_masked(shown: str) -> None:
    left = masked(f"before {shown} after")

    assert "•••" in left
    assert not any(part in left for part in (KEY.hex()[4:20], KEY.hex(":")[3:20], "7H277Y", "0xae"))
    assert left.startswith("before ")


def test_what_a_person_needs_to_read_stays() -> None:
    for said in (
        "[Errno 28] No space left on device: '/var/lib/aquacis/outbox.db'",
        "meter KAW-53885758: register fell from 123456 to 99 litres",
        "/etc/aquacis/keys.sealed: others can read it; chmod 600",
    ):
        assert masked(said) == said


@pytest.mark.parametrize(
    "line",
    [
        b'{"key_hex": "%s"}',
        b'{"key_hex":"%s',
        b"{'app_s_key': '%s', 'f_cnt': 1}",
        b"telegram;KEY=%s;rest",
        b'{"appSKey" : "%s"}',
    ],
)
def test_a_line_with_a_key_is_kept_without_it(line: bytes) -> None:
    assert KEY.hex().encode() not in without_keys(line % KEY.hex().encode())
    assert b"***" in without_keys(line % KEY.hex().encode())
