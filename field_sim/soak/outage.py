"""`soak outage`: the broker is away for days; 4,000 meters are heard all the while; then it drains.

What is heard goes through the real core, rules, outbox and loop in this process (`month`). Then the
shipped command starts on that outbox, with a real broker, and drains it to an ack-faithful sink,
while the meters go on talking. Printed: rows heard, stored, shed, resend ratio, sizes, times.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from edge_agent.leaks import HOUR_US
from field_sim.broker import CLOUD
from field_sim.sink import Sink
from field_sim.soak import month
from field_sim.soak.bar import bar
from field_sim.soak.one_agent import GATEWAY, OneAgent, Pipe, a_broker
from field_sim.soak.stage import SoakFailed
from field_sim.soak.truth import Verdict

METERS: Final = 4_000
DAYS: Final = 7
CAPACITY_DAYS: Final = {"full": 30, "lean": 9}
CAPACITY_MIB: Final = {"full": 1024, "lean": 64}
RESIDENT_MIB: Final = 40.0
LIVE_EACH_S: Final = 0.9  # 4,000 meters once an hour
LIVE_SOON_S: Final = 30.0  # what is heard during the drain is in the cloud within this
STALLED_S: Final = 300.0  # no progress of the drain
AWAY: Final = "mqtt://127.0.0.1:9"  # the discard port: nobody listens
PROFILES: Final = ("full", "lean")


def run(folder: Path, *, n: int, seed: int, profile: str = "full", meters: int = METERS) -> Verdict:
    """Be without a broker for n days, then drain."""
    clock_file = folder / "clock.json"
    keys = month.keys_file(folder / "keys.jsonl", meters)
    settings = {"keys": str(keys), "clock": f"file:{clock_file}", "profile": profile}
    agent = OneAgent(folder / "agent", broker=AWAY, **settings)
    hours, verdict = 24 * n, Verdict()
    began_s = time.monotonic()
    with bar() as shown:
        task = shown.add_task("hours without a broker", total=hours)
        lived = month.lived(
            agent.config,
            clock_file,
            meters=meters,
            hours=hours,
            seed=seed,
            told=lambda done: shown.update(task, completed=done),
        )
    verdict.counts["days"] = n
    verdict.counts["telegrams heard"] = lived.heard
    verdict.notes.append(f"profile {profile}; lived in {time.monotonic() - began_s:.0f} s")
    verdict.notes.append(f"outbox {agent.disk_mib():.1f} MiB before the drain")
    with a_broker(folder) as broker:
        pipe = Pipe(folder / "lines.fifo")
        agent = OneAgent(
            agent.folder,
            broker=broker.url,
            password=broker.passwords[GATEWAY],
            sources=[{"kind": "lines", "path": str(pipe.path)}],
            **settings,
        )
        try:
            with Sink(port=broker.port, password=broker.passwords[CLOUD]) as sink:
                _drain(agent, sink, pipe, verdict, clock_file, hours=hours, meters=meters)
        finally:
            agent.end()
            pipe.close()
    _judge(verdict, days=n, profile=profile)
    return verdict


def _drain(
    agent: OneAgent,
    sink: Sink,
    pipe: Pipe,
    verdict: Verdict,
    clock_file: Path,
    *,
    hours: int,
    meters: int,
) -> None:
    end_us = month.BEGIN_US + hours * HOUR_US
    month.set_clock(clock_file, end_us)
    begun_s = time.monotonic()

    def now_us() -> int:
        return end_us + int((time.monotonic() - begun_s) * 1e6)

    lines = month.live_lines(meters, since_h=hours, clock=now_us)
    sink.live_since_us = end_us
    agent.start()
    with bar() as shown:
        task = shown.add_task("rows drained", total=None)

        def told(done: int, of: int | None) -> None:
            shown.update(task, completed=done, total=of)

        resident = _drained(agent, sink, pipe, lines, told)
    took_s = time.monotonic() - begun_s
    most = agent.resident_mib("VmHWM")
    verdict.must_be_zero["memory above 40 MiB"] = int(most > RESIDENT_MIB)
    verdict.must_be_zero["agent's exit code"] = agent.stop()
    verdict.notes.append(f"resident {resident:.1f} MiB at most while it drained (VmHWM {most:.1f})")
    _count(sink, verdict, begun_s=begun_s, end_us=end_us, took_s=took_s)


def _count(sink: Sink, verdict: Verdict, *, begun_s: float, end_us: int, took_s: float) -> None:
    """Say what came. begun_s: when the drain began, monotonic; end_us: the gateway's clock then."""
    taken, counts = sink.last_taken, sink.counts
    delays = [came_s - begun_s - (at - end_us) / 1e6 for at, came_s in counts.live]
    verdict.counts |= {
        "rows in the stream": taken.stream.upto,
        "rows stored": taken.rows,
        "rows shed and declared lost": taken.lost,
        "rows sent": counts.rows,
        "rows sent ahead of their turn": counts.rows_early,
        "messages": counts.messages,
        "alerts": len(counts.alerts_s),
        "live rows during the drain": len(delays),
    }
    verdict.must_be_zero |= {
        "rows neither stored nor declared lost": taken.stream.upto - taken.rows - taken.lost,
        "live rows later than 30 s": sum(delay > LIVE_SOON_S for delay in delays),
    }
    if not taken.lost:
        head = taken.stream.upto
        verdict.must_be_zero["row numbers wrong"] = abs(taken.seq_sum - head * (head + 1) // 2)
    verdict.notes += [
        f"drained in {took_s:.1f} s, {taken.rows / took_s:,.0f} rows/s",
        f"resend ratio {counts.rows / max(1, taken.rows):.4f} (rows sent / rows stored)",
        f"last alert of the backlog after {_last_alert_s(counts.alerts_s, begun_s):.1f} s",
    ]
    if delays:
        middle = sorted(delays)[len(delays) // 2]
        verdict.notes.append(
            f"live rows: {middle:.1f} s in the middle, {max(delays):.1f} s at most"
        )


def _drained(
    agent: OneAgent,
    sink: Sink,
    pipe: Pipe,
    lines: Iterator[str],
    told: Callable[[int, int | None], None],
) -> float:
    """Wait for the end of the drain, the meters talking meanwhile; return the most memory, MiB."""
    most, before, since_s, next_live_s = 0.0, -1, time.monotonic(), time.monotonic()
    while True:
        now_s = time.monotonic()
        if now_s >= next_live_s:
            next_live_s += LIVE_EACH_S
            pipe.write(next(lines))
        most = max(most, agent.resident_mib())
        if sink.upto != before:
            before, since_s = sink.upto, now_s
        if now_s - since_s > STALLED_S:
            raise SoakFailed(f"the drain stands still at row {sink.upto:,}")
        head = sink.last.head if sink.last else 0
        told(sink.upto, head or None)
        if head and sink.upto >= head and now_s - since_s > 1.0:
            return most
        if head and head - sink.upto < 10:  # live rows alone: that is the end of it
            return most
        time.sleep(0.1)


def _last_alert_s(alerts_s: list[float], begun_s: float) -> float:
    return max(alerts_s, default=begun_s) - begun_s


def _judge(verdict: Verdict, *, days: int, profile: str) -> None:
    lost = verdict.counts["rows shed and declared lost"]
    if days <= CAPACITY_DAYS[profile]:
        verdict.must_be_zero[f"rows lost within {CAPACITY_DAYS[profile]} days"] = lost
