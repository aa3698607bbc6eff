"""Runs on the guest: decode telegrams, or take them as the agent does. Counted from outside.

    PYTHONPATH=dist/aquacis-edge.pyz python3 release/arm/workload.py FILE decode|take COUNT

FILE has a key and a telegram a line, in hex. The same file is read whatever COUNT is, so what a
count of 0 costs is what all the rest costs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from decoders.decode import decode_wmbus
from decoders.drivers.registry import known_formats
from decoders.uplink import RowKind
from edge_agent import reduction
from edge_agent.inputs import Heard, Now

START_US = 1_772_323_200_000_000  # 2026-03-01
STEP_US = 4_000  # 250 telegrams a second


def main() -> int:
    path, what, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    lines = [line.split() for line in Path(path).read_text("ascii").splitlines()]
    telegrams = [(bytes.fromhex(key), bytes.fromhex(frame)) for key, frame in lines]
    {"decode": decode, "take": take}[what](telegrams[:count])
    return 0


def decode(telegrams: list[tuple[bytes, bytes]]) -> None:
    """Decode, all fields named."""
    formats = known_formats()
    for key, frame in telegrams:
        assert decode_wmbus(frame, key=key, formats=formats).register_l is not None


def take(telegrams: list[tuple[bytes, bytes]]) -> None:
    """Decode, feed the leak rules, decide what is stored: all but the disk and the network."""
    keys = {frame[2:8]: (key,) for key, frame in telegrams}
    state = reduction.State(policy=reduction.Policy(keys=keys))
    for number, (_, frame) in enumerate(telegrams):
        at = START_US + number * STEP_US
        heard = Heard(kind=RowKind.WMBUS, frame=frame, heard_at=at)
        state, _ = reduction.heard(state, heard, Now(at=at, wall_s=0.0))
    assert state.figures.get("heard", 0) == len(telegrams)


if __name__ == "__main__":
    raise SystemExit(main())
