"""The outbox through kill -9 and power cuts: what was committed is there, whole groups or nothing.

The power cuts are `soak power` in short: see field_sim/soak/power.py.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_agent.outbox import Outbox
from field_sim.soak import power

ROOT = Path(__file__).parents[2]
STREAM = bytes(range(16))


@pytest.mark.parametrize("seed", range(2))
def test_a_power_cut_takes_nothing_that_was_committed(seed: int, tmp_path: Path) -> None:
    verdict = power.run(tmp_path, n=100, seed=seed)

    assert verdict.holds, verdict
    assert verdict.counts["rows whose commit had returned"] > 1000
    assert verdict.counts["of them given up for newer ones"] > 50


def test_this_disk_does_take_what_was_not_synced() -> None:
    """Otherwise the test above would prove nothing."""
    assert power.without_sync(99) > 0


WRITER = """
import sys
from pathlib import Path
from decoders.uplink import RowKind
from edge_agent.outbox import Draft, Outbox
outbox = Outbox(Path(sys.argv[1]), new_stream=lambda: bytes(16), now_us=1)
while True:
    drafts = [Draft(heard_at=1, kind=RowKind.WMBUS, payload=b"%d" % (outbox.head + 1 + i))
              for i in range(7)]
    outbox.append(drafts, {"m/x": b"%d" % (outbox.head + 7)})
    print(outbox.head, flush=True)
"""


def test_kill_9_takes_nothing_that_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    chance = random.Random(7)
    told = 0
    for _ in range(15):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ) as writer:
            assert writer.stdout is not None
            told = max(told, int(writer.stdout.readline()))
            time.sleep(chance.random() * 0.1)
            writer.send_signal(signal.SIGKILL)
            said = [int(line) for line in writer.stdout.read().splitlines() if line]
            told = max([told, *said[:-1]])  # the last line may be cut off

        outbox = Outbox(path, new_stream=lambda: STREAM, now_us=1)
        assert outbox.head >= told
        assert outbox.head % 7 == 0
        held = outbox.read(1, rows=1_000_000, max_bytes=1 << 30)
        assert [row.payload for row in held] == [b"%d" % n for n in range(1, outbox.head + 1)]
        assert dict(outbox.checkpoints())["m/x"] == b"%d" % outbox.head
        outbox.close()
