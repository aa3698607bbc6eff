"""`python -m field_sim.city`: the process that lets the city live.

History first: forty days of events with past times, as fast as the agents take them, with the
clock at the speed of the wall, like a backlog after an outage. Then the clock runs at the
city's speed and everything comes when it is due. It is started by `field_sim.up` and reads what it
needs from the state folder; how far it has got is in `city.json`, so that it may be killed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from field_sim.clock_file import ClockFile
from field_sim.links import AGENT_WINDOW, ChirpStacks, Lines
from field_sim.meters import HOUR_US
from field_sim.surroundings import CITY_PASSWORD
from field_sim.texts import replace_text
from field_sim.town import Emission, Plan, Town, build

NOTE_EACH_S = 1.0  # progress and clock are written down
LONGEST_SLEEP_S = 0.05
STALE_US = 60_000_000  # a live wM-Bus telegram older than this went unheard
FIFO_PATIENCE_S = 5.0  # in history, for a line
CONFIRM_S = 10.0

log = logging.getLogger("field_sim.city")


def wall_us() -> int:
    return time.time_ns() // 1000


def plan_of(state: Path) -> Plan:
    """Read the plan that `up` laid down."""
    told = json.loads((state / "city.json").read_text())
    return Plan(
        seed=told["seed"], meters=told["meters"], first_h=told["first_h"], end_h=told["end_h"]
    )


@dataclass
class Progress:
    """How far the city has got: city.json."""

    path: Path
    plan: Plan
    until_us: int  # every emission before it has reached the broker
    total: int = 0
    done: int = 0
    eta_s: int | None = None

    @property
    def in_history(self) -> bool:
        return self.until_us < self.plan.end_h * HOUR_US

    def write(self) -> None:
        history = None
        if self.in_history:
            history = {"done": self.done, "total": self.total, "eta_s": self.eta_s}
        told = {
            "seed": self.plan.seed,
            "meters": self.plan.meters,
            "first_h": self.plan.first_h,
            "end_h": self.plan.end_h,
            "until_us": self.until_us,
            "history": history,
        }
        replace_text(self.path, json.dumps(told))


def lay_down(state: Path, plan: Plan) -> None:
    """Begin a city: write its plan."""
    progress = Progress(path=state / "city.json", plan=plan, until_us=plan.first_h * HOUR_US)
    progress.total = plan.end_h - plan.first_h
    progress.write()


def progress_of(state: Path) -> Progress:
    told = json.loads((state / "city.json").read_text())
    plan = plan_of(state)
    total = plan.end_h - plan.first_h
    return Progress(path=state / "city.json", plan=plan, until_us=told["until_us"], total=total)


class Life:
    """Hands the town's emissions to the agents, each when it is due."""

    def __init__(
        self,
        *,
        town: Town,
        progress: Progress,
        clock: ClockFile,
        chirpstacks: ChirpStacks,
        lines: list[Lines],
        speed: int,
    ) -> None:
        self.town = town
        self.progress = progress
        self.clock = clock
        self.chirpstacks = chirpstacks
        self.lines = lines
        self.speed = speed
        self.stopping = False
        self._reached_us = progress.until_us
        self._mark = (0, progress.until_us)  # (events published, time reached) at an earlier note
        self._noted = 0.0
        self._began = (time.monotonic(), progress.until_us)

    def run(self) -> None:
        """Live until told to stop."""
        end_us = self.progress.plan.end_h * HOUR_US
        past = self.progress.in_history
        if not past:
            self.clock.tick(wall_us(), speed=self.speed)
        for emission in self.town.emissions(self.progress.until_us):
            if past and emission.at_us >= end_us:
                past = False
                self._end_history()
            self._wait_for(emission, past=past)
            if self.stopping:
                return
            self._hand_over(emission, past=past)
            self._reached_us = emission.at_us
            self._note()

    def _end_history(self) -> None:
        """Let the city's clock run once the agents have what there is of the past."""
        self._wait(lambda: all(self._behind(g) <= 0 for g in range(len(self.lines))))
        if self.stopping:
            return
        self.progress.until_us = self._reached_us = self.progress.plan.end_h * HOUR_US
        self._mark = (0, self.progress.until_us)
        self.progress.write()
        self.clock.tick(wall_us(), speed=self.speed)
        log.info("history_ended", extra={"seconds": round(time.monotonic() - self._began[0])})

    def _wait_for(self, emission: Emission, *, past: bool) -> None:
        if past:
            self._wait(lambda: self._behind(emission.gateway) < AGENT_WINDOW)
            return
        self._wait(lambda: self._now_us() >= emission.at_us)

    def _behind(self, gateway: int) -> int:
        if not self.chirpstacks.health.knows(gateway):
            return AGENT_WINDOW  # nothing goes out before its agent has said where it stands
        return self.chirpstacks.behind(gateway)

    def _wait(self, met: Callable[[], bool]) -> None:
        while not self.stopping and not met():
            time.sleep(LONGEST_SLEEP_S)
            self._note()

    def _now_us(self) -> int:
        assert self.clock.course is not None
        return self.clock.course.at(wall_us())

    def _hand_over(self, emission: Emission, *, past: bool) -> None:
        if emission.topic is not None:
            self.chirpstacks.publish(emission.gateway, emission.topic, emission.payload)
        elif past:
            self.lines[emission.gateway].write(emission.payload, patience_s=FIFO_PATIENCE_S)
            self.chirpstacks.count(emission.gateway)
        elif self._now_us() - emission.at_us < STALE_US + self.speed * 1_000_000:
            self.lines[emission.gateway].write(emission.payload)

    def _note(self) -> None:
        """Each second, write down clock and progress."""
        now = time.monotonic()
        if now - self._noted < NOTE_EACH_S:
            return
        self._noted = now
        self.clock.tick(wall_us())
        progress = self.progress
        if self.chirpstacks.confirmed_count >= self._mark[0]:
            # all that was published up to the mark is the broker's now
            progress.until_us = max(progress.until_us, self._mark[1])
            self._mark = (self.chirpstacks.published_count, self._reached_us)
        done_us = self._reached_us - progress.plan.first_h * HOUR_US
        progress.done = min(progress.total, done_us // HOUR_US)
        gone_us = self._reached_us - self._began[1]
        if gone_us > 0:
            left_us = progress.plan.end_h * HOUR_US - self._reached_us
            progress.eta_s = round(max(0, left_us) / gone_us * (now - self._began[0]))
        progress.write()

    def close(self) -> None:
        """Stop the clock where it is."""
        if self.chirpstacks.confirmed(CONFIRM_S):
            self.progress.until_us = max(self.progress.until_us, self._reached_us)
        self.clock.tick(wall_us())
        self.progress.write()
        self.chirpstacks.close()
        for line in self.lines:
            line.close()


def main() -> int:
    arguments = argparse.ArgumentParser(prog="field_sim.city", description=__doc__)
    arguments.add_argument("--state", type=Path, required=True)
    arguments.add_argument("--broker-port", type=int, required=True)
    arguments.add_argument("--speed", type=int, required=True)
    told = arguments.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    state: Path = told.state
    town = build(plan_of(state))
    names = [gateway.id for gateway in town.gateways]
    life = Life(
        town=town,
        progress=progress_of(state),
        clock=ClockFile(state / "clock.json"),
        chirpstacks=ChirpStacks(told.broker_port, os.environ[CITY_PASSWORD], names),
        lines=[Lines(state / "agents" / name / "wmbus.fifo") for name in names],
        speed=told.speed,
    )

    def stop(*_: object) -> None:
        life.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        life.run()
    finally:
        life.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
