"""Who hears whom: distances, losses, outages and clocks of the city's gateways.

Seeded by hour and not by order, so that a city which starts again hears the same.
"""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import numpy as np
import numpy.typing as npt

from decoders.value import value
from field_sim.meters import seeded

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_H = 24

REACH = 0.34  # of the city's side: where a gateway hears every second uplink
SHARPNESS = 14.0  # with REACH and NEAREST: 1.6 receptions an uplink, 2 % heard by nobody
NEAREST = 0.975  # the least chance at the nearest gateway: sites are planned so
TWICE = 0.005  # of the events: the ChirpStack's broker hands them out again
LATE, LATEST_US = 0.01, 20 * MINUTE_US  # of the events: delayed, so that later ones overtake
OUTAGE_A_DAY = 0.12  # chance of a gateway's outage in a day after history

Floats = npt.NDArray[np.float64]


@value
class Gateway:
    """A gateway of the city, with the ChirpStack that runs on it.

    clock_error_us   how far its clock is ahead of the true time
    """

    id: str
    name: str
    eui: str
    application: str
    position: tuple[float, float]
    latitude: float
    longitude: float
    clock_error_us: int


@value
class Outage:
    """Hours (since 1970) in which a gateway hears nothing (`off`) or cannot deliver (`cut`)."""

    gateway: int
    from_h: int
    to_h: int
    off: bool


# id, name, place in the unit square, clock error in milliseconds: one is minutes off
PLACES = (
    ("gw-centro", "Centro Histórico", (0.35, 0.40), 900),
    ("gw-corregidora", "Corregidora", (0.30, 0.70), -2_300),
    ("gw-juriquilla", "Juriquilla", (0.68, 0.28), 7 * 60_000),
    ("gw-marques", "El Marqués", (0.70, 0.68), 1_700),
)
LATITUDE, LONGITUDE, DEGREES = 20.54, -100.46, 0.14  # south-west corner and side of the city


def gateways(seed: int) -> tuple[Gateway, ...]:
    """Return the four gateways."""
    return tuple(
        Gateway(
            id=gateway,
            name=name,
            eui=f"0016c001f1{number + 1:06x}",
            application=str(UUID(bytes=seeded(seed, "application", gateway), version=4)),
            position=place,
            latitude=round(LATITUDE + place[1] * DEGREES, 5),
            longitude=round(LONGITUDE + place[0] * DEGREES, 5),
            clock_error_us=error_ms * 1000,
        )
        for number, (gateway, name, place, error_ms) in enumerate(PLACES)
    )


def without_clock_errors(stations: tuple[Gateway, ...]) -> tuple[Gateway, ...]:
    """Return the same gateways with clocks that are right."""
    return tuple(replace(station, clock_error_us=0) for station in stations)


class Air:
    """What reaches which gateway. Households live at seeded places of the unit square."""

    def __init__(self, seed: int, households: int, stations: tuple[Gateway, ...]) -> None:
        self._seed = seed
        places = np.random.default_rng([seed, 4]).random((households, 2))
        towers = np.array([station.position for station in stations])
        self.distance: Floats = np.linalg.norm(places[:, None] - towers[None], axis=2)
        chance: Floats = 1 / (1 + np.exp((self.distance - REACH) * SHARPNESS))
        nearest = self.distance == self.distance.min(axis=1, keepdims=True)
        self.chance: Floats = np.where(nearest, np.maximum(chance, NEAREST), chance)

    def heard(self, hour: int, what: int) -> npt.NDArray[np.bool_]:
        """Return (households, gateways): who hears the message `what` of each meter this hour."""
        random = np.random.default_rng([self._seed, 5, hour, what])
        drawn: npt.NDArray[np.bool_] = random.random(self.chance.shape) < self.chance
        return drawn

    def delays(self, hour: int, what: int) -> npt.NDArray[np.int64]:
        """Return (households, gateways) µs from radio to event: 200 ms, or much later."""
        random = np.random.default_rng([self._seed, 6, hour, what])
        late = random.random(self.chance.shape) < LATE
        extra = np.where(late, random.integers(0, LATEST_US, self.chance.shape), 0)
        return 208_000 + extra

    def twice(self, hour: int, what: int) -> npt.NDArray[np.bool_]:
        """Return (households, gateways): which events are handed out a second time."""
        random = np.random.default_rng([self._seed, 7, hour, what])
        again: npt.NDArray[np.bool_] = random.random(self.chance.shape) < TWICE
        return again

    def rssi_dbm(self, household: int, gateway: int) -> int:
        """Return a plausible signal for this distance."""
        return round(-72 - 85 * float(self.distance[household, gateway]))


def outages(seed: int, *, end_h: int, now_h: int) -> tuple[Outage, ...]:
    """Return the outages up to the day of hour `now_h`; `end_h` is the end of history.

    History has two of note: a link cut for nine hours, whose backlog comes late, and a gateway
    without power for five, which its neighbours partly cover.
    """
    known = [
        Outage(gateway=1, from_h=end_h - 6 * DAY_H, to_h=end_h - 6 * DAY_H + 9, off=False),
        Outage(gateway=3, from_h=end_h - 3 * DAY_H, to_h=end_h - 3 * DAY_H + 5, off=True),
    ]
    for day in range(1, (now_h - end_h) // DAY_H + 1):
        random = np.random.default_rng([seed, 8, day])
        for gateway in range(len(PLACES)):
            happens, is_off = random.random(2) < (OUTAGE_A_DAY, 0.5)
            start, length = int(random.integers(0, 20)), int(random.integers(1, 4))
            if happens:
                from_h = end_h + day * DAY_H + start
                known.append(
                    Outage(gateway=gateway, from_h=from_h, to_h=from_h + length, off=bool(is_off))
                )
    return tuple(known)
