"""The real platform in a folder of its own, with a city whose words we hand out ourselves."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import takewhile
from pathlib import Path

from decoders.value import value
from field_sim import city
from field_sim.broker import CITY, free_port
from field_sim.clock_file import ClockFile
from field_sim.enrolment import city_agents, registered
from field_sim.links import ChirpStacks, Lines
from field_sim.meters import HOUR_US
from field_sim.radio import Gateway
from field_sim.sandbox import Sandbox
from field_sim.supervisor import Child
from field_sim.town import Emission, Plan, Town, build

SETTLE_TIMEOUT_S = 180.0
QUIET_S = 3.0  # nothing new for so long: the broker has no more for the agents
CLOCKS_TIMEOUT_S = 60.0
RESEND_TIMEOUT_S = 60.0
POLL_S = 0.1


class SoakFailed(Exception):
    """The platform did not get where it must."""


@value
class Outbox:
    """How far an agent's outbox has got. `rows`: still in the file."""

    gateway: str
    stream: bytes
    head: int
    acked: int
    rows: int


class Stage:
    """A context manager: started on entry, everything stopped on exit."""

    def __init__(
        self,
        folder: Path,
        *,
        seed: int,
        meters: int,
        hours: int,
        stations: tuple[Gateway, ...] | None = None,
    ) -> None:
        self.folder = folder
        end_h = city.wall_us() // HOUR_US
        plan = Plan(seed=seed, meters=meters, first_h=end_h - hours, end_h=end_h)
        self.town: Town = build(plan, stations=stations)
        self.emissions: list[Emission] = list(self._history())
        self.sandbox = Sandbox(
            state=folder,
            agents=city_agents(folder, self.town),
            meters=registered(self.town),
            http_port=free_port(),
            clock=f"file:{folder / 'clock.json'}",
            city=None,
        )
        self._lines: list[Lines] = []
        self._chirpstacks: ChirpStacks | None = None

    def _history(self) -> Iterator[Emission]:
        plan = self.town.plan
        emitted = self.town.emissions(plan.first_h * HOUR_US)
        return takewhile(lambda emission: emission.at_us < plan.end_h * HOUR_US, emitted)

    @property
    def gateways(self) -> list[str]:
        return [gateway.id for gateway in self.town.gateways]

    def __enter__(self) -> Stage:
        self.folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        ClockFile(self.folder / "clock.json").resume(wall_us=city.wall_us(), speed=1)
        try:
            self.sandbox.start()
            assert self.sandbox.broker is not None
            broker = self.sandbox.broker
            self._chirpstacks = ChirpStacks(broker.port, broker.passwords[CITY], self.gateways)
            self._lines = [Lines(self.folder / "agents" / g / "wmbus.fifo") for g in self.gateways]
            self._until(self._all_spoke, CLOCKS_TIMEOUT_S)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._chirpstacks is not None:
            self._chirpstacks.close()
        for line in self._lines:
            line.close()
        self.sandbox.stop()

    def _all_spoke(self) -> bool:
        assert self._chirpstacks is not None
        health = self._chirpstacks.health
        return all(health.knows(number) for number in range(len(self.gateways)))

    def feed(self, emissions: Sequence[Emission], *, per_s: float = 2000.0) -> None:
        """Hand out emissions, so many a second."""
        assert self._chirpstacks is not None
        began = time.monotonic()
        for number, emission in enumerate(emissions):
            ahead_s = number / per_s - (time.monotonic() - began)
            if ahead_s > 0:
                time.sleep(ahead_s)
            if emission.topic is None:
                self._lines[emission.gateway].write(emission.payload, patience_s=2.0)
            else:
                self._chirpstacks.publish(emission.gateway, emission.topic, emission.payload)

    def feeding(self, emissions: Sequence[Emission], *, per_s: float) -> threading.Thread:
        """Hand them out in the background."""
        thread = threading.Thread(target=self.feed, args=(emissions,), kwargs={"per_s": per_s})
        thread.start()
        return thread

    def child(self, name: str) -> Child:
        return next(child for child in self.sandbox.children if child.name == name)

    def kill(self, name: str) -> None:
        """End a child as a power cut would: no handler runs."""
        child = self.child(name)
        assert child.process is not None
        os.kill(child.process.pid, signal.SIGKILL)
        child.process.wait()

    def start(self, name: str) -> None:
        self.child(name).launch()

    def outbox(self, gateway: str) -> Outbox:
        """Read how far an agent has got, from its file."""
        path = self.folder / "agents" / gateway / "outbox.db"
        deadline = time.monotonic() + CLOCKS_TIMEOUT_S
        while True:
            try:
                return _outbox(gateway, path)
            except (sqlite3.OperationalError, TypeError):  # an agent that begins anew makes it now
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_S)

    def outboxes(self) -> list[Outbox]:
        return [self.outbox(gateway) for gateway in self.gateways]

    def settle(self) -> None:
        """Wait until every agent has everything and the cloud has acknowledged it.

        Raises SoakFailed when that does not happen.
        """
        assert self._chirpstacks is not None
        self._chirpstacks.confirmed(30.0)
        seen: list[tuple[int, int]] = []
        since = time.monotonic()
        deadline = since + SETTLE_TIMEOUT_S
        while time.monotonic() < deadline:
            now = [(outbox.head, outbox.acked) for outbox in self.outboxes()]
            if now != seen:
                seen, since = now, time.monotonic()
            all_acked = all(head == acked for head, acked in now)
            if all_acked and time.monotonic() - since >= QUIET_S:
                return
            time.sleep(POLL_S)
        raise SoakFailed(f"not acknowledged after {SETTLE_TIMEOUT_S:g} s: {self.outboxes()}")

    def wait_clocks(self) -> None:
        """Wait until the cloud trusts its estimate of every gateway's clock."""
        assert self.sandbox.platform is not None
        platform = self.sandbox.platform

        def trusted() -> bool:
            with platform.pool("metering").connection() as connection:
                row = connection.execute(
                    "SELECT count(*) FROM gateways WHERE clock_quality = 'trusted'"
                ).fetchone()
            assert row is not None
            return bool(row[0] >= len(self.gateways))

        self._until(trusted, CLOCKS_TIMEOUT_S)

    def wait_resent(self) -> None:
        """Wait until every agent was asked to send again from an earlier row."""
        before = {outbox.gateway: outbox.acked for outbox in self.outboxes()}
        self._until(
            lambda: any(o.acked < before[o.gateway] for o in self.outboxes()), RESEND_TIMEOUT_S
        )

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def _until(self, met: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not met():
            if time.monotonic() > deadline:
                raise SoakFailed(f"waited {timeout_s:g} s in vain: {getattr(met, '__name__', '')}")
            time.sleep(POLL_S)


def _outbox(gateway: str, path: Path) -> Outbox:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10.0)) as file:
        stream, head, acked = file.execute(
            "SELECT id, head - base, acked - base FROM stream"
        ).fetchone()
        (rows,) = file.execute(
            "SELECT (SELECT count(*) FROM fresh) + (SELECT coalesce(sum(rows), 0) FROM page)"
        ).fetchone()
    return Outbox(gateway=gateway, stream=stream, head=head, acked=acked, rows=rows)
