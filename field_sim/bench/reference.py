"""Our batch decoder beside the C++ reference decoder, where one is on this machine.

`wmbusmeters` is a program of its own under the GPL: it is run and timed, nothing of it is in here.
Both get the same telegrams of as many meters, each with its own key, and tell every one's total.
Rates are per core: processor seconds, and of the program only those that telegrams cost beyond its
start. It looks through all meters it was told of for each telegram; ours looks the key up.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from decoders.batch import decode_rows
from decoders.drivers.registry import known_formats
from decoders.uplink import Rows

EXECUTABLE: Final = "AQUACIS_REFERENCE_DECODER"  # its path; else `wmbusmeters` on PATH
# meters → telegrams: at a thousand meters it reads some hundred a second
SIZES: Final = {1: 5_000, 50: 3_000, 1_000: 1_000}
ASKED_MULTIPLE: Final = 10.0  # ARCHITECTURE, part 5
ROUNDS: Final = 5
TIMEOUT_S: Final = 120.0
LITRES_PER_M3: Final = 1000
Progress = Callable[[str], None]
Figure = dict[str, Any]


class ReferenceFailed(Exception):
    """The program ended otherwise than it should, or did not tell what we tell."""


def executable() -> str | None:
    """Return the reference decoder of this machine, if there is one."""
    return os.environ.get(EXECUTABLE) or shutil.which("wmbusmeters")


def figures(
    program: str,
    progress: Progress,
    *,
    frames_of: Callable[[int], Sequence[bytes]],
    meter_of: Callable[[int], tuple[str, bytes]],
    rows_of: Callable[[Sequence[bytes]], Rows],
) -> list[Figure]:
    """Measure both at 1, 50 and 1,000 meters. Raises ReferenceFailed.

    frames_of   encrypted telegrams of so many meters
    meter_of    (natural id, key) of a meter by its number
    """
    found = []
    for meters, telegrams in SIZES.items():
        frames = frames_of(meters)[:telegrams]
        told = [meter_of(number) for number in range(meters)]
        theirs, their_litres = _theirs(program, frames, told)
        ours, our_litres = _ours(rows_of(frames), dict(told))
        if their_litres != our_litres:
            raise ReferenceFailed(f"{meters} meters: the two read other totals")
        progress(f"reference decoder, {meters} meters: {theirs:,.0f} telegrams/s, ours {ours:,.0f}")
        multiple = ours / theirs
        found.append(
            {
                "bench": "decode",
                "figure": f"batch_to_reference_{meters}_meters",
                "value": round(ours, 1),
                "unit": "telegrams/s",
                "limit": round(theirs, 1),
                "ratio": round(multiple, 1),
                "asked": ASKED_MULTIPLE,
                "holds": multiple >= ASKED_MULTIPLE,
            }
        )
    return found


def _ours(rows: Rows, keys: dict[str, bytes]) -> tuple[float, list[int]]:
    rates, litres = [], []
    for _ in range(ROUNDS):
        begun_s = time.process_time()
        decoded = decode_rows(rows, keys=keys.get, formats=known_formats())
        rates.append(len(rows) / (time.process_time() - begun_s))
        litres = decoded.register_l.tolist()
    return statistics.median(rates), litres


def _theirs(
    program: str, frames: Sequence[bytes], meters: Sequence[tuple[str, bytes]]
) -> tuple[float, list[int]]:
    start_s, _ = _run(program, frames[:1], meters)
    taken_s, lines = _run(program, frames, meters)
    try:
        litres = [round(json.loads(line)["total_m3"] * LITRES_PER_M3) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise ReferenceFailed(f"{program} says what we cannot read: {error!r}") from None
    return (len(frames) - 1) / max(taken_s - start_s, 1e-9), litres


def _run(
    program: str, frames: Sequence[bytes], meters: Sequence[tuple[str, bytes]]
) -> tuple[float, list[str]]:
    """Let it decode the frames; return the processor seconds it took and what it printed."""
    with tempfile.TemporaryDirectory(prefix="aquacis-bench-") as folder:
        heard = Path(folder) / "simulation_bench.txt"  # it knows a file of telegrams by its name
        heard.write_text("".join(f"telegram=|{frame.hex()}|+0\n" for frame in frames))
        named = [
            part
            for name, key in meters
            for part in (name, "kamwater", name.partition("-")[2], key.hex())
        ]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ended = subprocess.run(
            [program, "--format=json", str(heard), *named],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ended.returncode:
        raise ReferenceFailed(f"{program} ended with {ended.returncode}: {ended.stderr[-200:]}")
    taken_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return taken_s, [line for line in ended.stdout.splitlines() if line.startswith("{")]
