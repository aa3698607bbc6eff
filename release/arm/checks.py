"""What is asked of a gateway's processor: the same answers, a selftest, memory, instructions."""

from __future__ import annotations

import datetime
import json
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from decoders.value import value
from field_sim.bench.decode import key_of, meter_id, telegrams
from release.arm.emulator import (
    BASE,
    Machine,
    guest_environment,
    guest_kib,
    instruction_counter,
)
from release.arm.roots import CannotEmulate
from release.arm.tls_broker import ECHO_TOPIC, GATEWAY, TlsBroker, tls_broker

ROOT: Final = Path(__file__).parents[2]
VECTORS: Final = ROOT / "tests" / "vectors"
DIGEST: Final = ROOT / "release" / "vector_digest.py"
WORKLOAD: Final = Path(__file__).with_name("workload.py")
TIMEOUT_S: Final = 600.0
COUNTED: Final = 500  # telegrams, less what none costs
METERS: Final = 4_000
FILL_S: Final = 600.0
STOP_S: Final = 60.0


class NotAsExpected(Exception):
    """A check came out otherwise than it must; says how."""


@value
class Memory:
    """Of the real agent with 4,000 meters, in KiB: resident, and of it written to."""

    resident_kib: int
    private_kib: int
    telegrams: int


def answers(machine: Machine, pyz: Path, *, libcrypto: Path | None = None) -> dict[str, Any]:
    """Return the digest of all that the decoders answer, and what computed it."""
    more = ["--libcrypto", str(libcrypto)] if libcrypto else []
    command = machine.command(str(DIGEST), str(VECTORS), *more)
    said: dict[str, Any] = json.loads(_run(command, pyz))
    return said


def selftest(machine: Machine, pyz: Path) -> dict[str, Any]:
    """Run the agent's own selftest, with mutual TLS to a real broker. Raises NotAsExpected."""
    with tempfile.TemporaryDirectory(prefix="aquacis-arm-") as folder:
        try:
            with tls_broker(Path(folder), now=_now()) as broker:
                return _selftest(machine, pyz, broker)
        except CannotEmulate as missing:
            said = _selftest(machine, pyz, None)
            said["with"]["broker"] = f"not run: {missing}"
            return said


def _selftest(machine: Machine, pyz: Path, broker: TlsBroker | None) -> dict[str, Any]:
    arguments = [str(pyz), "selftest", "--json"]
    if broker is not None:
        arguments += ["--broker", broker.url, "--gateway", GATEWAY, "--echo", ECHO_TOPIC]
        arguments += ["--ca-file", str(broker.ca_file), "--cert-file", str(broker.cert_file)]
        arguments += ["--key-file", str(broker.key_file)]
    said: dict[str, Any] = json.loads(_run(machine.command(*arguments), None, fails=True))
    if not said["ok"]:
        raise NotAsExpected(f"selftest on {machine.name}: {said['checks']}")
    return said


def instructions(machine: Machine, pyz: Path) -> dict[str, int]:
    """Return the guest's instructions per telegram: to decode one, and to take one whole."""
    with tempfile.TemporaryDirectory(prefix="aquacis-arm-") as folder:
        plugin = instruction_counter(Path(folder))
        frames = Path(folder) / "telegrams"
        frames.write_text(
            "".join(
                f"{key_of(number % METERS).hex()} {frame.hex()}\n"
                for number, frame in enumerate(telegrams(METERS)[:COUNTED])
            )
        )
        found = {}
        for what in ("decode", "take"):
            many, none = (
                _count(machine, pyz, plugin, [str(frames), what, str(count)])
                for count in (COUNTED, 0)
            )
            found[what] = (many - none) // COUNTED
    return found


def _count(machine: Machine, pyz: Path, plugin: Path, arguments: Sequence[str]) -> int:
    counted = plugin.with_name("count")
    options = ["-plugin", f"{plugin},out={counted}"]
    _run(machine.command(str(WORKLOAD), *arguments, options=options), pyz)
    return int(counted.read_text())


def memory(machine: Machine, pyz: Path) -> Memory:
    """Run the real agent on an hour of 4,000 meters, one telegram each, and look at it."""
    with tempfile.TemporaryDirectory(prefix="aquacis-arm-") as folder:
        place = Path(folder)
        with tls_broker(place, now=_now()) as broker:
            config = _settings(place, broker)
            command = machine.command(
                str(pyz), "run", "--config", str(config), options=["-B", hex(BASE)]
            )
            with (place / "agent.log").open("wb") as log:
                agent = subprocess.Popen(
                    command, stdout=log, stderr=log, env=guest_environment(), cwd="/"
                )
                try:
                    rows = _filled(place / "state" / "outbox.db", agent, place / "agent.log")
                    resident, private = (
                        guest_kib(agent.pid, private=only) for only in (False, True)
                    )
                finally:
                    agent.terminate()
                    agent.wait(STOP_S)
    return Memory(resident_kib=resident, private_kib=private, telegrams=rows)


def _settings(place: Path, broker: TlsBroker) -> Path:
    """Write settings, keys and one telegram of each meter."""
    keys = place / "keys.jsonl"
    keys.touch(0o600)
    keys.write_text(
        "".join(
            json.dumps({"meter": str(meter_id(number)), "key_hex": key_of(number).hex()}) + "\n"
            for number in range(METERS)
        )
    )
    lines = place / "lines"
    lines.write_text("".join(f"{frame.hex()}\n" for frame in telegrams(METERS)[:METERS]))
    config = place / "gateway.json"
    settings = {
        "gateway": GATEWAY,
        "broker": broker.url,
        "ca_file": str(broker.ca_file),
        "cert_file": str(broker.cert_file),
        "key_file": str(broker.key_file),
        "state": str(place / "state"),
        "clock": "system",
        "keys": str(keys),
        "sources": [{"kind": "lines", "path": str(lines)}],
    }
    config.write_text(json.dumps(settings))
    return config


def _filled(outbox: Path, agent: subprocess.Popen[bytes], log: Path) -> int:
    """Wait until the first telegram of every meter is in the outbox; return its rows."""
    until_s = time.monotonic() + FILL_S
    while time.monotonic() < until_s and agent.poll() is None:
        time.sleep(1.0)
        rows = _rows(outbox)
        if rows >= METERS:
            return rows
    said = log.read_text("utf-8", "replace").splitlines()[-3:]
    raise NotAsExpected(f"the agent stored {_rows(outbox)} rows of {METERS}: {said}")


def _rows(outbox: Path) -> int:
    try:
        with sqlite3.connect(f"file:{outbox}?mode=ro", uri=True, timeout=5) as database:
            return int(database.execute("SELECT head FROM stream").fetchone()[0])
    except (sqlite3.Error, TypeError):
        return 0


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)  # noqa: TID251  certificates begin today


def _run(command: Sequence[str], pyz: Path | None, *, fails: bool = False) -> str:
    """Run on a machine; return its stdout. `fails`: an exit code is an answer too."""
    more = {"PYTHONPATH": str(pyz)} if pyz else {}
    ran = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
        env=guest_environment(**more),
        cwd="/",
    )
    if ran.returncode != 0 and not (fails and ran.stdout):
        said = ran.stderr.strip().splitlines()[-3:]
        raise NotAsExpected(f"exit code {ran.returncode}: {said}")
    return ran.stdout
