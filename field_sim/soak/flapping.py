"""`soak flapping`: the line is up for thirty seconds and cut for thirty, again and again.

The shipped agent hears ten telegrams a second all the while and sends to an ack-faithful sink over
a real broker; the line between is `RoughLine`. Bounded means: what is sent again is a small part of
what is sent once, however often the line goes.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from field_sim.broker import CLOUD
from field_sim.rough_line import RoughLine
from field_sim.sink import Sink
from field_sim.soak import month
from field_sim.soak.one_agent import GATEWAY, OneAgent, Pipe, a_broker
from field_sim.soak.stage import SoakFailed
from field_sim.soak.truth import Verdict

CYCLES: Final = 10
HALF_S: Final = 30.0
PER_S: Final = 10.0
METERS: Final = 4_000
BACKLOG: Final = 20_000  # rows that wait when it begins, so that every cut is in the middle of it
LINE_BYTES_PER_S: Final = 30_000.0  # about 250 rows a second: a modest mobile uplink
MOST_AGAIN: Final = 0.25  # of the rows stored
CAUGHT_UP_S: Final = 300.0


def run(folder: Path, *, n: int, seed: int, half_s: float = HALF_S) -> Verdict:
    """Cut the line n times; then everything heard is stored once, and little was sent twice."""
    with (
        a_broker(folder) as broker,
        RoughLine(broker.port, bytes_per_s=LINE_BYTES_PER_S) as line,
        Sink(port=broker.port, password=broker.passwords[CLOUD], seed=seed) as sink,
    ):
        pipe = Pipe(folder / "lines.fifo")
        agent = OneAgent(
            folder / "agent",
            broker=f"mqtt://127.0.0.1:{line.port}",
            password=broker.passwords[GATEWAY],
            keys=str(month.keys_file(folder / "keys.jsonl", METERS)),
            sources=[{"kind": "lines", "path": str(pipe.path)}],
        )
        agent.start()
        try:
            return _flapped(agent, line, sink, pipe, cycles=n, half_s=half_s)
        finally:
            agent.end()
            pipe.close()


def _flapped(
    agent: OneAgent, line: RoughLine, sink: Sink, pipe: Pipe, *, cycles: int, half_s: float
) -> Verdict:
    lines = month.live_lines(METERS, since_h=0, clock=month.hours_of(METERS))
    said = 0
    for _ in range(min(BACKLOG, int(cycles * half_s * PER_S * 10))):
        pipe.write(next(lines))
        said += 1
    for cycle in range(2 * cycles):
        (line.cut if cycle % 2 else line.heal)()
        end_s = time.monotonic() + half_s
        while time.monotonic() < end_s:
            pipe.write(next(lines))
            said += 1
            time.sleep(1 / PER_S)
    line.heal()
    since_s = time.monotonic()
    while sink.last is None or sink.upto < sink.last.head or sink.upto < said:
        if time.monotonic() - since_s > CAUGHT_UP_S:
            raise SoakFailed(f"not caught up: row {sink.upto:,}, {said:,} telegrams said")
        time.sleep(0.2)
    code = agent.stop()
    taken, counts, verdict = sink.last_taken, sink.counts, Verdict()
    again = counts.rows - counts.rows_early - taken.rows
    verdict.counts |= {
        "cuts": cycles,
        "telegrams heard": said,
        "rows stored": taken.rows,
        "rows sent": counts.rows,
        "rows sent ahead of their turn": counts.rows_early,
        "connections": line.accepted,
    }
    verdict.must_be_zero |= {
        "rows not stored": taken.stream.upto - taken.rows + taken.lost,
        "telegrams without a row": max(0, said - taken.stream.upto),
        "agent's exit code": code,
        "resent more than a quarter": int(again > MOST_AGAIN * taken.rows),
    }
    verdict.notes.append(
        f"resend ratio {counts.rows / taken.rows:.3f} (rows sent / rows stored); "
        f"caught up {time.monotonic() - since_s:.1f} s after the last cut"
    )
    return verdict
