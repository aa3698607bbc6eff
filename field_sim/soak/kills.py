"""`soak kills`: agents and cloud killed at random points while telegrams come in."""

from __future__ import annotations

import random
import time
from pathlib import Path

from field_sim.radio import gateways, without_clock_errors
from field_sim.soak.replay import differences, replayed
from field_sim.soak.stage import Stage
from field_sim.soak.truth import Verdict, judge, sent_rows

METERS = 60
HOURS = 48
PAUSE_S = (0.3, 2.5)  # between kills
DOWN_S = (0.0, 1.0)  # before the killed process starts again
CATCH_UP_S = 60.0  # for the bus's consumers


def run(folder: Path, *, n: int, seed: int) -> Verdict:
    """Kill n times; then `sent ⊆ stored`, each reading once and true, projections as replayed."""
    draw = random.Random(seed)
    stations = without_clock_errors(gateways(seed))
    verdict = Verdict()
    with Stage(folder, seed=seed, meters=METERS, hours=HOURS, stations=stations) as stage:
        seconds = n * (sum(PAUSE_S) + sum(DOWN_S)) / 2
        traffic = stage.feeding(stage.emissions, per_s=len(stage.emissions) / max(seconds, 5.0))
        agents = [f"agent-{gateway}" for gateway in stage.gateways]
        cloud = ["intake", "intake", "serve"]
        killed = [kill_one(stage, draw, cloud if i % 2 else agents) for i in range(n)]
        traffic.join()
        stage.settle()
        platform = stage.sandbox.platform
        assert platform is not None
        sent = [
            row
            for gateway in stage.gateways
            for row in sent_rows(
                stage.town, gateway, stage.folder / "agents" / gateway / "outbox.db"
            )
        ]
        verdict.counts["kills"] = len(killed)
        verdict.counts["of them the cloud's"] = sum(name in ("intake", "serve") for name in killed)
        verdict.counts["events handed out"] = len(stage.emissions)
        judge(stage.town, platform, sent, verdict)
        clean = replayed(platform, stage.sandbox.meters)
        try:
            deadline = time.monotonic() + CATCH_UP_S
            unlike = differences(platform, clean)
            while any(unlike.values()) and time.monotonic() < deadline:
                time.sleep(1.0)
                unlike = differences(platform, clean)
        finally:
            clean.pools.close()
        verdict.must_be_zero |= unlike
    return verdict


def kill_one(stage: Stage, draw: random.Random, targets: list[str]) -> str:
    """Kill one process, start it again a little later; return its name."""
    time.sleep(draw.uniform(*PAUSE_S))
    name = draw.choice(targets)
    stage.kill(name)
    time.sleep(draw.uniform(*DOWN_S))
    stage.start(name)
    return name
