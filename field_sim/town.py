"""The city put together: who says what, when, and which gateway hands it on. Pure.

Everything is a function of the plan (seed, size, first and last hour of history) and of time: a
city that starts again says the very same things, to the byte.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from decoders.value import value
from field_sim import chirpstack, telegrams
from field_sim.chirpstack import Reception
from field_sim.households import Households
from field_sim.meters import (
    FULL_FRAME_EACH,
    HOUR_US,
    WMBUS_INTERVAL_US,
    LorawanMeter,
    WmbusMeter,
    lorawan_meters,
    wmbus_meters,
)
from field_sim.plants import plant
from field_sim.radio import DAY_H, SECOND_US, Air, Gateway, Outage, gateways, outages

HISTORY_H = 40 * DAY_H
BEFORE_H = 49  # hours of registers before the first uplink: it reaches 32 h back, the daily 48 h
WMBUS_SHARE = 20  # every twentieth meter speaks wM-Bus
LONGEST_DELAY_H = 11  # of an event: the cut link and its backlog; so far back a restart looks
BACKLOG_SPEED = 60  # how much faster than it was heard a cut gateway's backlog comes
HOURLY, DAILY = 0, 1  # what a draw is for

# (households, gateways): heard at all; µs to the event; handed out twice
Draws = tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64], npt.NDArray[np.bool_]]


@value
class Plan:
    """What a city is made of; kept in city.json. Hours since 1970 UTC."""

    seed: int
    meters: int
    first_h: int
    end_h: int  # of history


@value
class Emission:
    """Something to hand to a gateway's agent at `at_us` (true time, µs UTC).

    topic   MQTT topic of a ChirpStack event; None: a line of the wM-Bus receiver
    """

    at_us: int
    gateway: int
    topic: str | None
    payload: bytes


@value
class Town:
    plan: Plan
    gateways: tuple[Gateway, ...]
    households: Households
    lorawan: tuple[LorawanMeter, ...]
    wmbus: tuple[WmbusMeter, ...]
    air: Air

    def emissions(self, from_us: int) -> Iterator[Emission]:
        """Yield what agents are handed from `from_us` on, in order, without end."""
        waiting: list[tuple[int, int, Emission]] = []
        hour = max(self.plan.first_h, from_us // HOUR_US - LONGEST_DELAY_H)
        number = 0
        while True:
            for emission in self._hour(hour):
                if emission.at_us >= from_us:
                    heapq.heappush(waiting, (emission.at_us, number, emission))
                    number += 1
            hour += 1
            while waiting and waiting[0][0] < hour * HOUR_US:
                yield heapq.heappop(waiting)[2]

    def _hour(self, hour: int) -> Iterator[Emission]:
        """Yield everything sent within this hour, in no order; some of it arrives much later."""
        known = outages(self.plan.seed, end_h=self.plan.end_h, now_h=hour + 1)
        present = {o.gateway: o for o in known if o.from_h <= hour < o.to_h}
        for emission in (*self._uplinks(hour), *self._telegrams(hour)):
            outage = present.get(emission.gateway)
            if outage is None or (not outage.off and emission.topic is None):
                yield emission  # a receiver on the gateway needs no link to reach its agent
            elif not outage.off:
                yield _delayed(emission, outage)

    def _uplinks(self, hour: int) -> Iterator[Emission]:
        registers = self.households.registers(hour - telegrams.PROFILE_H, telegrams.PROFILE_H + 1)
        draws = {what: self._draws(hour, what) for what in (HOURLY, DAILY)}
        since = hour - self.plan.first_h
        midnight_h = telegrams.last_midnight_h(hour)
        midnight = self.households.registers(midnight_h - DAY_H, DAY_H + 1)
        for meter in self.lorawan:
            row = registers[meter.household]
            payload = telegrams.hourly(hour, row.tolist())
            counter = meter.counter(since)
            yield from self._heard(meter, (hour, HOURLY), (counter, payload), draws[HOURLY])
            if meter.sends_daily(since):
                payload = telegrams.daily(midnight_h, midnight[meter.household].tolist())
                yield from self._heard(meter, (hour, DAILY), (counter + 1, payload), draws[DAILY])

    def _draws(self, hour: int, what: int) -> Draws:
        air = self.air
        return air.heard(hour, what), air.delays(hour, what), air.twice(hour, what)

    def _heard(
        self,
        meter: LorawanMeter,
        sent: tuple[int, int],
        message: tuple[int, bytes],
        draws: Draws,
    ) -> Iterator[Emission]:
        """Yield the receptions of a `message` (counter, payload) `sent` in (hour, what)."""
        heard, delays, twice = draws
        (hour, what), (counter, payload) = sent, message
        sent_us = hour * HOUR_US + meter.after_hour_us + what * 20 * SECOND_US
        for number in np.flatnonzero(heard[meter.household]).tolist():
            reception = Reception(
                gateway=self.gateways[number],
                meter=meter,
                counter=counter,
                port=telegrams.FPORT,
                payload=payload,
                at_us=sent_us + number * 731,  # the wave reaches each at its own microsecond
                rssi=self.air.rssi_dbm(meter.household, number),
            )
            event = chirpstack.up_event(reception, self.plan.seed)
            at_us = sent_us + int(delays[meter.household, number])
            topic = chirpstack.topic(reception)
            emission = Emission(at_us=at_us, gateway=number, topic=topic, payload=event)
            yield emission
            if twice[meter.household, number]:
                yield Emission(at_us=at_us + SECOND_US, gateway=number, topic=topic, payload=event)

    def _telegrams(self, hour: int) -> Iterator[Emission]:
        """Yield the wM-Bus telegrams of an hour: one in history, else each 16 seconds."""
        ticks = HOUR_US // WMBUS_INTERVAL_US
        first = hour * ticks
        for tick in range(first, first + (1 if hour < self.plan.end_h else ticks)):
            random = np.random.default_rng([self.plan.seed, 9, tick])
            drawn = random.random((len(self.wmbus), len(self.gateways)))
            for index, meter in enumerate(self.wmbus):
                numbers = np.flatnonzero(drawn[index] < self.air.chance[meter.household])
                if len(numbers):
                    yield from self._lines(meter, tick, numbers.tolist())

    def _lines(self, meter: WmbusMeter, tick: int, numbers: list[int]) -> Iterator[Emission]:
        at_us = tick * WMBUS_INTERVAL_US + meter.phase_us
        hour = at_us // HOUR_US
        past = hour < self.plan.end_h
        midnight_l = self.households.registers(hour // DAY_H * DAY_H, 1)[meter.household, 0]
        frame = telegrams.wmbus(
            meter,
            counter=tick,
            register_l=self.households.register_at(meter.household, at_us),
            target_l=int(midnight_l),
            full=past or (tick + meter.serial) % FULL_FRAME_EACH == 0,
        )
        for number in numbers:
            rssi = self.air.rssi_dbm(meter.household, number)
            if past:  # only this form says when it was heard
                heard_us = at_us + self.gateways[number].clock_error_us
                line = telegrams.recorded_line(frame, heard_us, rssi)
            else:
                line = telegrams.rtl_wmbus_line(frame, meter.serial, at_us, rssi)
            yield Emission(at_us=at_us, gateway=number, topic=None, payload=line)


def _delayed(emission: Emission, cut: Outage) -> Emission:
    """Keep an event back until the gateway's link stands again; the backlog comes in its order."""
    into_us = emission.at_us - cut.from_h * HOUR_US
    return Emission(
        at_us=max(emission.at_us, cut.to_h * HOUR_US + into_us // BACKLOG_SPEED),
        gateway=emission.gateway,
        topic=emission.topic,
        payload=emission.payload,
    )


def build(plan: Plan, *, stations: tuple[Gateway, ...] | None = None) -> Town:
    """Build the city of a plan; `stations` instead of its four gateways."""
    wmbus_count = plan.meters // WMBUS_SHARE
    lorawan_houses = range(plan.meters - wmbus_count)
    wmbus_houses = range(plan.meters - wmbus_count, plan.meters)
    before_h = plan.first_h - BEFORE_H
    households = Households(seed=plan.seed, count=plan.meters, first_h=before_h)
    order = households.order.tolist()
    households.plants = plant(
        lorawan=[house for house in order if house in lorawan_houses],
        wmbus=[house for house in order if house in wmbus_houses],
        end_h=plan.end_h,
        natural=households.natural(before_h, plan.end_h - before_h),
        first_h=before_h,
    )
    early = frozenset(leak.meter for leak in households.plants)
    stations = stations or gateways(plan.seed)
    return Town(
        plan=plan,
        gateways=stations,
        households=households,
        lorawan=lorawan_meters(plan.seed, lorawan_houses, early=early),
        wmbus=wmbus_meters(plan.seed, wmbus_houses),
        air=Air(plan.seed, plan.meters, stations),
    )
