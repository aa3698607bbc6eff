"""The agent on a gateway of 4,000 meters: memory over a month, processor for each telegram.

The shipped command runs on a FIFO with real broker and acks (`edge_stage`). First a month passes on
a simulated clock, each meter heard twice a day; then an hour at five-minute steps, which fills
what the leak rules remember; then 250 telegrams a second, one line each four milliseconds, as 4,000
meters send that are heard every 16 s: once in the first seconds of an hour, when each becomes a
row, and once later in it, when hardly one does. Memory is VmRSS, processor time is user and
system of /proc. Beside it stands what `decode_wmbus` alone takes of such telegrams in the same run.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from decoders.decode import decode_wmbus
from decoders.drivers.registry import known_formats
from field_sim.bench.decode import key_of
from field_sim.bench.edge_stage import MINUTE_US, Stage, profile, stage, telegram

METERS: Final = 4_000
LORAWAN: Final = 800  # more, beside them
DAYS: Final = 30
ROUNDS_A_DAY: Final = 2
DENSE_ROUNDS: Final = 12
DENSE_STEP_US: Final = 5 * MINUTE_US
PER_SECOND: Final = 250
WARM: Final = 8  # the first eighth of them is not measured
DAY_US: Final = 24 * 60 * MINUTE_US
BEGIN_US: Final = 1_772_323_200_000_000  # 2026-03-01
SETTLED_DAY: Final = 7  # all meters, the memory of uplinks and SQLite's cache are full by then
ASKED_MIB: Final = 40.0
ASKED_FLAT: Final = 1.05
ASKED_SHARE: Final = 0.10  # of one core
BARE: Final = 4_000  # telegrams decoded alone

Figure = dict[str, Any]
Progress = Callable[[str], None]


def run(progress: Progress) -> list[Figure]:
    """Measure; return the figures. Takes two to four minutes."""
    folder = Path(tempfile.mkdtemp(prefix="aquacis-bench-", dir="/var/tmp"))
    folder.chmod(0o711)
    try:
        with stage(folder, meters=METERS, at_us=BEGIN_US) as running:
            curve, used_s, telegrams = month(running, progress)
            dense(running, progress)
            after = running.resident_mib()
            first, later = (paced(running, turn, progress) for turn in range(2))
            most = running.resident_mib("VmHWM")
            progress(f"edge: {running.cloud.rows:,} rows acknowledged")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    bare_us = bare()
    return [
        memory("memory after a month, 4,000 meters", curve[-1]),
        memory("memory after an hour of dense telegrams", after),
        memory("memory at its most", most),
        at_most(f"memory, day {DAYS} to day {SETTLED_DAY}", curve[-1] / curve[SETTLED_DAY - 1],
                "times", 1.0, ASKED_FLAT),
        at_most("share of a core at 250 telegrams/s", later, "of a core", ASKED_SHARE, 1.0),
        told("... in the first 16 s of an hour", first, "of a core", ASKED_SHARE),
        told("processor for each telegram at 250/s, beside decoding alone",
             later / PER_SECOND * 1e6, "us", bare_us),
        told("... where each becomes a row", used_s / telegrams * 1e6, "us", bare_us),
    ]  # fmt: skip


def month(running: Stage, progress: Progress) -> tuple[list[float], float, int]:
    """Return the resident memory at the end of each day, processor seconds used, telegrams."""
    curve: list[float] = []
    before_s, telegrams = running.processor_s(), 0
    for day in range(DAYS):
        for turn in range(ROUNDS_A_DAY):
            number = day * ROUNDS_A_DAY + turn
            at_us = BEGIN_US + day * DAY_US + turn * DAY_US // ROUNDS_A_DAY
            running.set_clock(at_us)
            running.write(
                telegram(meter, number, at_us + meter, since_us=BEGIN_US) for meter in range(METERS)
            )
            running.write(
                profile(meter, number, at_us + meter, since_us=BEGIN_US) for meter in range(LORAWAN)
            )
            telegrams += METERS + LORAWAN
        curve.append(running.resident_mib())
        progress(f"edge: day {day + 1}/{DAYS}: {curve[-1]:.1f} MiB")
    running.wait_until_taken()
    curve[-1] = running.resident_mib()
    return curve, running.processor_s() - before_s, telegrams


def dense(running: Stage, progress: Progress) -> None:
    """Feed an hour in which every meter is heard every five minutes."""
    for turn in range(DENSE_ROUNDS):
        at_us = BEGIN_US + DAYS * DAY_US + turn * DENSE_STEP_US
        running.set_clock(at_us)
        running.write(
            telegram(meter, DAYS * ROUNDS_A_DAY + turn, at_us + meter, since_us=BEGIN_US)
            for meter in range(METERS)
        )
    running.wait_until_taken()
    progress(f"edge: after an hour of dense telegrams: {running.resident_mib():.1f} MiB")


def paced(running: Stage, turn: int, progress: Progress) -> float:
    """Return the share of a core used while 250 telegrams come each second, one by one.

    turn   0: each is the first of its hour; 1: all others
    """
    at_us = BEGIN_US + (DAYS + 1) * DAY_US + turn * 10 * MINUTE_US
    running.set_clock(at_us)
    count = METERS
    lines = [telegram(n, 500 + turn, at_us + n * 4_000, since_us=BEGIN_US) for n in range(count)]
    began_s, before_s, measured_from_s = time.monotonic(), 0.0, 0.0
    for number, line in enumerate(lines):
        due_s = began_s + number / PER_SECOND
        time.sleep(max(0.0, due_s - time.monotonic()))
        if number == count // WARM:
            before_s, measured_from_s = running.processor_s(), time.monotonic()
        running.write((line,))
    took_s = time.monotonic() - measured_from_s
    share = (running.processor_s() - before_s) / took_s
    behind_s = time.monotonic() - began_s - count / PER_SECOND
    progress(
        f"edge: {PER_SECOND}/s for {took_s:.0f} s: {share:.1%} of a core, {behind_s:.2f} s late"
    )
    return share


def bare() -> float:
    """Return the microseconds that decoding alone takes of such a telegram."""
    frames = [
        bytes.fromhex(json.loads(telegram(n, n, BEGIN_US, since_us=BEGIN_US))["telegram_hex"])
        for n in range(BARE)
    ]
    formats = known_formats()
    began_s = time.process_time()
    for number, frame in enumerate(frames):
        decode_wmbus(frame, key=key_of(number), formats=formats)
    return (time.process_time() - began_s) / BARE * 1e6


def memory(name: str, mib: float) -> Figure:
    return at_most(name, mib, "MiB", ASKED_MIB, 1.0)


def at_most(name: str, held: float, unit: str, limit: float, asked: float) -> Figure:
    """Return a figure whose ratio to `limit` may be at most `asked`."""
    ratio = held / limit
    return {
        "bench": "edge",
        "figure": name,
        "value": round(held, 3),
        "unit": unit,
        "limit": round(limit, 3),
        "ratio": round(ratio, 3),
        "asked": round(asked, 3),
        "holds": ratio <= asked,
    }


def told(name: str, held: float, unit: str, limit: float) -> Figure:
    """Return a figure of which nothing is asked."""
    return {**at_most(name, held, unit, limit, 1.0), "asked": None, "holds": None}
