"""Who the meters are: identities, keys, when they send. All of it a pure function of the seed."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from decoders.value import value

HOUR_US = 3_600_000_000
DAY_H = 24
DEV_EUI_PREFIX = 0x0013EA << 40  # Kamstrup's block
WMBUS_SERIALS_FROM = 53_000_000
LORAWAN_SERIALS_FROM = 78_000_000
WMBUS_INTERVAL_US = 16_000_000  # flowIQ 2200 in mode C1
FULL_FRAME_EACH = 8  # a full telegram at the latest every eighth
EARLY_MINUTES = 5  # the meters of planted leaks report soon after the hour


@value
class LorawanMeter:
    """household   index into the city's households; hourly uplink `after_hour_us` past the hour."""

    household: int
    serial: int
    dev_eui: int
    dev_addr: int
    first_counter: int
    after_hour_us: int
    daily_hour: int  # of the day, UTC, in which the daily message goes out too

    def counter(self, hours: int) -> int:
        """Return the frame counter of the hourly uplink, `hours` since the city was built."""
        dailies = (hours - self.daily_hour + DAY_H - 1) // DAY_H
        return self.first_counter + hours + dailies

    def sends_daily(self, hours: int) -> bool:
        return hours % DAY_H == self.daily_hour


@value
class WmbusMeter:
    """phase_us   when within its 16 seconds it sends."""

    household: int
    serial: int
    key: bytes
    phase_us: int

    @property
    def name(self) -> str:
        return f"KAW-{self.serial:08d}"


def seeded(seed: int, *names: object, size: int = 16) -> bytes:
    """Return bytes that depend on the seed and the names, and on nothing else."""
    text = "|".join(map(str, (seed, *names)))
    return blake2b(text.encode(), digest_size=size).digest()


def lorawan_meters(
    seed: int, households: range, *, early: frozenset[int] = frozenset()
) -> tuple[LorawanMeter, ...]:
    """Return one meter for each household; those in `early` send within minutes of the hour."""
    random = np.random.default_rng([seed, 2])
    meters = []
    for household in households:
        latest_s = EARLY_MINUTES * 60 if household in early else 3_300
        meters.append(
            LorawanMeter(
                household=household,
                serial=LORAWAN_SERIALS_FROM + household,
                dev_eui=DEV_EUI_PREFIX | seed % 4096 << 24 | household + 1,
                dev_addr=int.from_bytes(seeded(seed, "addr", household, size=4), "big") >> 7,
                first_counter=int(random.integers(0, 40_000)),
                after_hour_us=int(random.integers(20, latest_s)) * 1_000_000
                + int(random.integers(0, 1_000_000)),
                daily_hour=int(random.integers(0, DAY_H)),
            )
        )
    return tuple(meters)


def wmbus_meters(seed: int, households: range) -> tuple[WmbusMeter, ...]:
    random = np.random.default_rng([seed, 3])
    return tuple(
        WmbusMeter(
            household=household,
            serial=WMBUS_SERIALS_FROM + household,
            key=seeded(seed, "key", household),
            phase_us=int(random.integers(0, WMBUS_INTERVAL_US)),
        )
        for household in households
    )
