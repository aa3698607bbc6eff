"""One night of the scan, in a process of its own: what 4,000 meters' memories take ends with it.

    python -m edge_agent.scan_night OUTBOX NIGHTS > answer

Reads the rules' memory of every meter from the checkpoints of a running agent, which it does not
change; adds a night to the file NIGHTS; answers as `scan_child` does.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

from edge_agent import memory, scan, scan_child

MEMORIES = "SELECT name, state FROM checkpoint WHERE name GLOB 'm/*'"


def remembered(outbox: Path) -> Iterator[tuple[str, bytes]]:
    """Yield what the rules remember of each meter."""
    connection = sqlite3.connect(f"{outbox.resolve().as_uri()}?mode=ro", uri=True)
    try:
        for name, packed in connection.execute(MEMORIES).fetchall():
            meter = memory.unpack(packed)
            if meter is not None and meter.flow is not None:
                yield name[2:], meter.flow.memory
    finally:
        connection.close()


def main() -> int:
    outbox, nights = map(Path, sys.argv[1:3])
    try:
        scan_child.statistics()  # asked first: without it 4,000 memories would be read for nothing
    except ImportError as error:
        json.dump({"unavailable": str(error)}, sys.stdout)
        return 0
    json.dump(scan_child.scanned(scan.tonight(remembered(outbox), nights)), sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
