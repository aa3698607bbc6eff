"""`soak kills`: agents and cloud killed at random points while telegrams come in.

Each process has its own random rhythm of living and lying dead, so several may be down at once and
every stage of a start is hit too. Five kills of an agent go with one of the cloud.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from field_sim.radio import gateways, without_clock_errors
from field_sim.soak.bar import bar
from field_sim.soak.replay import differences, replayed
from field_sim.soak.stage import Stage
from field_sim.soak.truth import Verdict, judge, sent_rows

METERS: Final = 60
HOURS: Final = 48
MANY: Final = 200  # from so many kills on, weeks of telegrams, so that they go on all the while
MANY_HOURS: Final = 14 * 24
AGENT_LIVES_S: Final = (0.3, 5.0)
CLOUD_LIVES_S: Final = (1.0, 9.0)  # its start takes longer, and it should get to take something
DOWN_S: Final = (0.0, 1.0)  # before the killed process starts again
KILLS_PER_S: Final = 1.5  # about what the above comes to: how thinly the telegrams are spread
CLOUD_SHARE: Final = 6  # one kill in so many is the cloud's
CLOUD: Final = ("intake", "serve")
CATCH_UP_S: Final = 60.0  # for the bus's consumers


def run(folder: Path, *, n: int, seed: int) -> Verdict:
    """Kill n times; then `sent ⊆ stored`, each reading once and true, projections as replayed."""
    draw = random.Random(seed)
    stations = without_clock_errors(gateways(seed))
    hours = MANY_HOURS if n >= MANY else HOURS
    verdict = Verdict()
    with Stage(folder, seed=seed, meters=METERS, hours=hours, stations=stations) as stage:
        per_s = len(stage.emissions) * KILLS_PER_S / max(n, 8)
        traffic = stage.feeding(stage.emissions, per_s=per_s)
        cloud = max(1, n // CLOUD_SHARE)
        killing = Killing(stage, draw, agents=n - cloud, cloud=cloud)
        killing.run()
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
        verdict.counts["kills of an agent"] = killing.done["agents"]
        verdict.counts["kills of the cloud"] = killing.done["cloud"]
        verdict.counts["events handed out"] = len(stage.emissions)
        verdict.must_be_zero["processes that ended by themselves"] = killing.ended
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


@dataclass
class Life:
    """One process's rhythm. `at_s`: when it is killed next, or started again."""

    name: str
    side: str
    lives_s: tuple[float, float]
    at_s: float
    is_up: bool = True


class Killing:
    """Kills and starts, in the thread that calls `run`: the kernel ties children to it."""

    def __init__(self, stage: Stage, draw: random.Random, *, agents: int, cloud: int) -> None:
        self.done = {"agents": 0, "cloud": 0}
        self.ended = 0
        self._wanted = {"agents": agents, "cloud": cloud}
        self._stage = stage
        self._draw = draw
        names = [f"agent-{gateway}" for gateway in stage.gateways]
        self._lives = [
            *self._begun(names, "agents", AGENT_LIVES_S),
            *self._begun(CLOUD, "cloud", CLOUD_LIVES_S),
        ]

    def _begun(self, names: Sequence[str], side: str, lives_s: tuple[float, float]) -> list[Life]:
        now_s = time.monotonic()
        return [
            Life(name=name, side=side, lives_s=lives_s, at_s=now_s + self._draw.uniform(*lives_s))
            for name in names
        ]

    def run(self) -> None:
        """Kill until there are enough; everything is up again then."""
        with bar() as shown:
            task = shown.add_task("kills", total=sum(self._wanted.values()))
            while due := [life for life in self._lives if not life.is_up or self._wants(life)]:
                life = min(due, key=lambda one: one.at_s)
                time.sleep(max(0.0, life.at_s - time.monotonic()))
                self._turn(life)
                shown.update(task, completed=sum(self.done.values()))

    def _wants(self, life: Life) -> bool:
        return self.done[life.side] < self._wanted[life.side]

    def _turn(self, life: Life) -> None:
        if life.is_up:
            process = self._stage.child(life.name).process
            assert process is not None
            self.ended += process.poll() is not None
            self._stage.kill(life.name)
            self.done[life.side] += 1
            pause_s = self._draw.uniform(*DOWN_S)
        else:
            self._stage.start(life.name)
            pause_s = self._draw.uniform(*life.lives_s)
        life.is_up = not life.is_up
        life.at_s = time.monotonic() + pause_s
