"""`soak halfopen`: the line dies without a word, again and again; how soon is there a new one?

The shipped agent hears telegrams all the while. Each time at a random moment every present
connection goes dead (nothing passes, nothing is closed or reset); new ones pass, as after a NAT has
forgotten. A new one must come within one and a half keep-alives.
"""

from __future__ import annotations

import random
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

DEATHS: Final = 20
KEEPALIVE_S: Final = 10
METERS: Final = 500
PER_S: Final = 5.0
ALLOWED: Final = 1.5  # keep-alives until there is a new connection
PATIENCE_S: Final = 60.0


def run(folder: Path, *, n: int, seed: int, keepalive_s: int = KEEPALIVE_S) -> Verdict:
    """Let the line die n times; print how long it took to notice, as shares of the keep-alive."""
    draw = random.Random(seed)
    with (
        a_broker(folder) as broker,
        RoughLine(broker.port) as line,
        Sink(port=broker.port, password=broker.passwords[CLOUD], seed=seed) as sink,
    ):
        pipe = Pipe(folder / "lines.fifo")
        agent = OneAgent(
            folder / "agent",
            broker=f"mqtt://127.0.0.1:{line.port}",
            password=broker.passwords[GATEWAY],
            keys=str(month.keys_file(folder / "keys.jsonl", METERS)),
            keepalive_s=keepalive_s,
            sources=[{"kind": "lines", "path": str(pipe.path)}],
        )
        agent.start()
        try:
            return _died(agent, line, sink, pipe, draw, deaths=n, keepalive_s=keepalive_s)
        finally:
            agent.end()
            pipe.close()


def _died(
    agent: OneAgent,
    line: RoughLine,
    sink: Sink,
    pipe: Pipe,
    draw: random.Random,
    *,
    deaths: int,
    keepalive_s: int,
) -> Verdict:
    lines = month.live_lines(METERS, since_h=0, clock=month.hours_of(METERS))
    said, took = 0, list[float]()

    def speak(until_s: float, *, met: int = 0) -> None:
        """Let meters talk until then, or until there are more than `met` connections."""
        nonlocal said
        while time.monotonic() < until_s and (not met or line.accepted <= met):
            pipe.write(next(lines))
            said += 1
            time.sleep(1 / PER_S)

    for _ in range(deaths):
        speak(time.monotonic() + draw.uniform(0.2, 1.0) * keepalive_s)
        known = line.accepted
        line.die(new_ones_pass=True)
        died_s = time.monotonic()
        speak(died_s + PATIENCE_S, met=known)
        if line.accepted <= known:
            raise SoakFailed("a dead line was never given up")
        took.append((line.connected_at[known] - died_s) / keepalive_s)
    return _judged(agent, sink, said=said, took=took, keepalive_s=keepalive_s)


def _judged(
    agent: OneAgent, sink: Sink, *, said: int, took: list[float], keepalive_s: int
) -> Verdict:
    """Wait until everything is there, and count. took: for each death, in keep-alives."""
    end_s = time.monotonic() + PATIENCE_S
    while sink.last is None or sink.upto < sink.last.head or sink.upto < said:
        if time.monotonic() > end_s:
            raise SoakFailed(f"not caught up: row {sink.upto:,}, {said:,} telegrams said")
        time.sleep(0.2)
    code = agent.stop()
    taken, verdict = sink.last_taken, Verdict()
    verdict.counts |= {
        "deaths": len(took),
        "telegrams heard": said,
        "rows stored": taken.rows,
        "rows sent": sink.counts.rows,
    }
    verdict.must_be_zero |= {
        "rows not stored": taken.stream.upto - taken.rows + taken.lost,
        "telegrams without a row": max(0, said - taken.stream.upto),
        "slower than 1.5 keep-alives": sum(each > ALLOWED for each in took),
        "agent's exit code": code,
    }
    verdict.notes.append(
        f"keep-alive {keepalive_s} s; a new connection after {sorted(took)[len(took) // 2]:.2f} "
        f"of it in the middle, {max(took):.2f} at most"
    )
    return verdict
