"""The nightly scan: what weeks of nights say that hours do not, worked out by a child that exits.

The agent stays small: a child (`scan_night`) reads the meters' memories, keeps a night's floor of
each in a file of its own, hands all of them to `scan_child`, which loads SciPy, and ends. Where
SciPy is not installed (profile `lean`) the scan is the cloud's, which has every reading: the answer
says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import cbor2

from edge_agent import leaks_hours
from edge_agent.inputs import NightFinding, Scanned
from edge_agent.leaks_episodes import Kind
from edge_agent.leaks_limits import DEFAULT_LIMITS
from edge_agent.leaks_memory import NEVER, Memory
from edge_agent.leaks_memory import unpack as memory_of
from edge_agent.scan_findings import KINDS

NIGHTS: Final = 56  # remembered for each meter
TIMEOUT_S: Final = 900.0  # for 4,000 meters on an ARMv7
ANSWER_BYTES: Final = 16 << 20
NIGHT_MODULE: Final = "edge_agent.scan_night"
THE_CLOUDS: Final = "the scan is the cloud's"

Nights = dict[str, bytes]
Begun = Callable[["subprocess.Popen[bytes]"], None]


class ScanFailed(RuntimeError):
    """The child ended badly, said nothing readable, or took too long; says which."""


def with_night(nights: Nights, floors: Mapping[str, int]) -> Nights:
    """Return `nights` (code of each night's floor, oldest first) with one more night.

    A meter without a floor tonight has an unknown night; one never heard again runs out.
    """
    names = set(nights) | set(floors)
    longer: Nights = {}
    for name in names:
        code = floors.get(name, leaks_hours.UNKNOWN)
        kept = (nights.get(name, b"") + bytes([code]))[-NIGHTS:]
        if kept.count(leaks_hours.UNKNOWN) < len(kept):
            longer[name] = kept
    return longer


def floor_tonight(memory: Memory) -> int | None:
    """Return the code of the last day's floor, its second lowest hour; None: half unknown."""
    if memory.newest_hour == NEVER:
        return None
    day = memory.hours[-leaks_hours.DAY_H :]
    known = sorted([code for code in day if code != leaks_hours.UNKNOWN])
    return known[1] if 2 * len(known) >= leaks_hours.DAY_H else None


def question(nights: Nights, memories: Mapping[str, Memory]) -> dict[str, Any]:
    """Return what the child is asked."""
    return {
        "meters": {
            name: {
                "nights": _rates(kept),
                "hours": _rates(memories[name].hours),
                "open": _open(memories[name]),
            }
            for name, kept in sorted(nights.items())
            if name in memories
        }
    }


def _rates(codes: bytes) -> list[int | None]:
    return [None if c == leaks_hours.UNKNOWN else leaks_hours.RATES[c] for c in codes]


def _open(memory: Memory) -> list[str]:
    """Return the kinds of a meter's open episodes that are the scan's."""
    return [kind for kind in KINDS if kind in memory.episodes and memory.episodes[kind].is_open]


def in_child(outbox: Path, nights: Path, *, begun: Begun | None = None) -> Scanned:
    """Scan what an outbox remembers, all of it in a child. Raises ScanFailed.

    In the agent itself, the memories of 4,000 meters as objects would leave it 13 MiB larger.
    """
    command = [sys.executable, "-m", NIGHT_MODULE, str(outbox), str(nights)]
    return ask({}, command=command, begun=begun)


def ask(
    asked: Mapping[str, Any],
    *,
    command: Sequence[str] | None = None,
    begun: Begun | None = None,
) -> Scanned:
    """Let a child answer; it has ended when this returns. Raises ScanFailed.

    begun   is given the child, and may end it from another thread
    """
    child = command or [sys.executable, "-m", "edge_agent.scan_child"]
    ours = str(Path(__file__).parents[1])  # a folder, or the .pyz
    paths = [ours, *filter(None, [os.environ.get("PYTHONPATH")])]
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    pipe = subprocess.PIPE
    try:
        with subprocess.Popen(  # noqa: S603  this interpreter and a module of ours
            child, stdin=pipe, stdout=pipe, stderr=pipe, env=where
        ) as running:
            if begun is not None:
                begun(running)
            try:
                said, errors = running.communicate(json.dumps(asked).encode(), TIMEOUT_S)
            finally:
                running.kill()  # nothing happens to one that has ended
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ScanFailed(f"scan: {error}") from None
    if running.returncode != 0:
        raise ScanFailed(f"scan: the child ended with {running.returncode}: {errors[-200:]!r}")
    return _answer(said)


def _answer(said: bytes) -> Scanned:
    try:
        answer = json.loads(said[:ANSWER_BYTES])
        if "unavailable" in answer:
            return Scanned(unavailable=f"{THE_CLOUDS}: {answer['unavailable']}")
        return Scanned(
            found=tuple([_finding(said) for said in answer["found"]]),
            ended=tuple([(str(name), _kind(kind)) for name, kind in answer["ended"]]),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ScanFailed(f"scan: the child's answer is unreadable: {error}") from None


def _finding(said: Mapping[str, Any]) -> NightFinding:
    return NightFinding(
        meter=str(said["meter"]),
        kind=_kind(said["kind"]),
        rate_lph=round(said["rate_lph"]),
        days=int(said["days"]),
    )


def _kind(said: str) -> Kind:
    return {str(kind): kind for kind in KINDS}[said]


def tonight(memories: Iterable[tuple[str, bytes]], kept: Path) -> dict[str, Any]:
    """Take one more night of every meter into the file `kept`; return the child's question.

    memories   (natural id, `leaks.Flow.memory`)
    """
    read = {name: memory_of(packed, DEFAULT_LIMITS) for name, packed in memories}
    floors = {}
    for name, memory in read.items():
        floor = floor_tonight(memory)
        if floor is not None:
            floors[name] = floor
    nights = with_night(read_nights(kept), floors)
    write_nights(kept, nights)
    return question(nights, read)


def read_nights(path: Path) -> Nights:
    """Return the nights of a file; none where it is not there or not readable: it fills again."""
    try:
        held = cbor2.loads(path.read_bytes())
    except (OSError, ValueError, cbor2.CBORDecodeError):
        return {}
    if not isinstance(held, dict):
        return {}
    return {k: v for k, v in held.items() if isinstance(k, str) and isinstance(v, bytes)}


def write_nights(path: Path, nights: Nights) -> None:
    """Replace the file as a whole, for its owner alone."""
    beside = path.with_suffix(".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(cbor2.dumps(nights))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
