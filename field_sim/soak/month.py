"""A gateway's own days while nobody answers: 4,000 meters heard each hour, into a real agent.

The agent is the real one (core, rules, outbox, loop) in this process, its clock a simulation's file
that follows what it is fed, its broker a port where nobody listens. One telegram a meter and hour
is fed: of the 225 that a meter sends, the reduction keeps the first, which is what fills the disk.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cloud.kernel.clock import Course, write_course
from decoders.encode import encode_wmbus, kamstrup_multical_records, session_number
from decoders.uplink import RowKind
from edge_agent.clock import Clock
from edge_agent.config import read_config
from edge_agent.inputs import Heard
from edge_agent.leaks import HOUR_US
from edge_agent.shell import Agent
from edge_agent.sources.port import Inbox
from edge_agent.wiring import agent_of
from field_sim.bench.decode import key_of, meter_id

BEGIN_US: Final = 1_772_323_200_000_000  # 2026-03-01
SECOND_US: Final = 1_000_000
LEAKING_EACH: Final = 200  # every so many meters one has a leak, of 12 litres an hour
LEAK_LPH: Final = 12
# litres a household draws in each hour of its day: nothing at night
DAY_L: Final = (0, 0, 0, 0, 0, 2, 30, 45, 20, 8, 5, 5, 12, 18, 10, 5, 5, 8, 20, 30, 25, 12, 4, 0)
FULL_EACH: Final = 8  # one telegram in so many says its layout
FED_S: Final = 600.0


class Households:
    """What 4,000 registers say, hour by hour."""

    def __init__(self, meters: int, seed: int) -> None:
        draw = random.Random(seed)
        self.registers = [draw.randrange(10_000, 900_000) for _ in range(meters)]
        self._shift_h = [draw.randrange(-2, 3) for _ in range(meters)]

    def pass_hour(self, hour: int) -> None:
        for number, shift_h in enumerate(self._shift_h):
            drawn = DAY_L[(hour + shift_h) % 24]
            leaks = LEAK_LPH if number % LEAKING_EACH == 0 else 0
            self.registers[number] += drawn + leaks


def telegram(number: int, *, hour: int, register_l: int) -> bytes:
    """Return one encrypted telegram of a meter, another one each hour."""
    return encode_wmbus(
        kamstrup_multical_records(total_l=register_l, water_c=17, ambient_c=21),
        meter=meter_id(number),
        session_number=session_number(session=1, minutes=hour & 0xFFFF, encrypted=True),
        access_number=hour & 0xFF,
        key=key_of(number),
        compact=hour % FULL_EACH != 0,
    )


class Month:
    """A source that hears `hours` hours of all meters and then has nothing more."""

    name = "month"

    def __init__(
        self, inbox: Inbox, *, clock_file: Path, meters: int, hours: int, seed: int
    ) -> None:
        self._inbox = inbox
        self._clock_file = clock_file
        self._households = Households(meters, seed)
        self._hours = hours
        self.heard = 0
        self.settled = 0
        self.hours_done = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def settle(self, tokens: list[object]) -> None:
        self.settled += len(tokens)

    def stop(self) -> None:
        """It has ended, or ends with us."""

    @property
    def is_done(self) -> bool:
        return self.hours_done == self._hours and self.settled == self.heard

    def _run(self) -> None:
        for hour in range(self._hours):
            begin_us = BEGIN_US + hour * HOUR_US
            set_clock(self._clock_file, begin_us)
            self._households.pass_hour(hour)
            registers = self._households.registers
            step_us = 3_000 * SECOND_US // len(registers)
            for number, register_l in enumerate(registers):
                self._inbox.put(
                    Heard(
                        kind=RowKind.WMBUS,
                        frame=telegram(number, hour=hour, register_l=register_l),
                        heard_at=begin_us + 5 * SECOND_US + number * step_us,
                        rssi=-80,
                        token=number,
                    )
                )
                self.heard += 1
            self.hours_done += 1


def set_clock(path: Path, at_us: int) -> None:
    """Let it be `at_us` from now on; time goes on at its usual speed."""
    write_course(path, Course(wall_us=time.time_ns() // 1000, sim_us=at_us, speed=1.0))


def keys_file(path: Path, meters: int) -> Path:
    """Write the meters' keys as an agent reads them."""
    lines = (
        f'{{"meter":"{meter_id(number)}","key_hex":"{key_of(number).hex()}"}}\n'
        for number in range(meters)
    )
    path.touch(mode=0o600)
    path.write_text("".join(lines))
    return path


def lived(
    config: Path,
    clock_file: Path,
    *,
    meters: int,
    hours: int,
    seed: int,
    told: Callable[[int], None],
) -> Month:
    """Let an agent of this configuration live through the hours; return what it heard."""
    made: list[Month] = []

    def source(inbox: Inbox, _clock: Clock) -> Month:
        made.append(Month(inbox, clock_file=clock_file, meters=meters, hours=hours, seed=seed))
        return made[0]

    set_clock(clock_file, BEGIN_US)
    agent: Agent = agent_of(read_config(config), log=_silent, instead=source)
    thread = threading.Thread(target=agent.run, daemon=True)
    thread.start()
    month = made[0]
    before, since_s = -1, time.monotonic()
    while not month.is_done:
        time.sleep(0.2)
        if month.settled != before:
            before, since_s = month.settled, time.monotonic()
        if not thread.is_alive() or time.monotonic() - since_s > FED_S:
            raise RuntimeError(f"the agent takes nothing more after {month.settled:,} telegrams")
        told(month.hours_done)
    agent.stop()
    thread.join(FED_S)
    return month


def hours_of(meters: int) -> Callable[[], int]:
    """Return a clock that goes on by an hour each time all meters were heard: all become rows."""
    heard = itertools.count()
    return lambda: BEGIN_US + next(heard) // meters * HOUR_US


def live_lines(meters: int, *, since_h: int, clock: Callable[[], int]) -> Iterator[str]:
    """Return what is heard from then on, a line for each telegram, without end."""
    number = 0
    while True:
        hour = since_h + number // meters
        frame = telegram(number % meters, hour=hour, register_l=2_000_000 + number)
        yield f'{{"telegram_hex":"{frame.hex()}","heard_at":{clock()}}}'
        number += 1


def _silent(_event: str, **_said: object) -> None:
    """The agent's log is not wanted here."""
