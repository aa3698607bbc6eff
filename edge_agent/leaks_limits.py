"""When a flow is a finding: thresholds with their units, by class of meter. Pure.

A rate alone or a duration alone is no leak: 10 l/h for an hour is a tap, any flow for a day is a
busy house. Each rule is therefore a table of (rate, duration), and a second test asks whether the
flow *stands still* (see `leaks_hours.floor_of`), since a leak does and people do not.

Sources: Kamstrup MULTICAL 21 / flowIQ 2102 (leak surveillance from 0.1 % of Q3; burst 20 % of Q3
for 30 min); Sensus iPERL+ (tiers of 24/48/72 h); Badger BEACON (3.8 l/h for 24 h); Neptune E-CODER
(intermittent: 50 to 95 quarter hours of 96; backflow by digits of the register).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, fields, replace
from typing import Any, Final

from decoders.value import value

MINUTE_US: Final = 60_000_000
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US

MOST_TIERS: Final = 8  # one byte says how many, in a checkpoint
LONGEST_TIER_H: Final = 168  # the hours that are remembered (`leaks_hours.HOURS`)


class LimitsRefused(ValueError):
    """A threshold that is unknown or not what it must be; names the setting."""


@value
class Tier:
    """At least `lph` litres an hour for `hours` hours."""

    lph: float
    hours: int


@value
class Limits:
    """The thresholds of one class of meters. Defaults: a household, Q3 = 2.5 m³/h.

    Units are the last word of each name: lph litres an hour, l litres, h hours, days, us µs.
    """

    # Continuous flow. One litre is taken off what an interval must show: registers are floored.
    continuous: tuple[Tier, ...] = (
        Tier(lph=100, hours=12),
        Tier(lph=10, hours=24),
        Tier(lph=5, hours=48),
        Tier(lph=2.5, hours=72),
        Tier(lph=1, hours=168),
    )
    standing_share: float = 0.25  # of a tier's known hours must lie at its floor …
    standing_hours: int = 5  # … and so many at least: what runs when nobody draws water
    quiet_us: int = HOUR_US  # below the tier's rate, to close
    gap_us: int = 3 * HOUR_US  # a longer silence is weak evidence …
    gap_credit: float = 0.25  # … and counts for so much of itself, if its mean reaches the tier
    longest_gap_us: int = 48 * HOUR_US  # no evidence at all beyond it

    # Burst.
    burst_lph: float = 750.0  # 30 % of Q3, mean of …
    burst_window_us: int = 30 * MINUTE_US
    long_burst_lph: float = 600.0  # more than a garden hose, in each of …
    long_burst_hours: int = 2

    # Intermittent: a toilet that runs some hours of most days.
    intermittent_lph: float = 4.0
    intermittent_days: int = 6  # looked back
    folded_hours: int = 6  # the same hours of every day …
    folded_reads: int = 3  # … with so many days read at each
    loose_hours: int = 6  # any hours in a row …
    loose_days: int = 3  # … on so many days, at one rate

    # Ramp: a leak that grows while it is still below the tiers.
    ramp_days: int = 4
    ramp_lph: float = 2.0  # its floor now

    # Backflow: a register that stays lower, by more than a slip and less than a new register.
    backflow_l: int = 20
    backflow_lph: float = 500.0

    # Silence, of a meter that spoke in so many of its last 168 hours.
    silent_us: int = 14 * DAY_US
    spoken_hours: int = 120

    plausible_lph: float = 5000.0  # 2 × Q3; faster is a wrong value, not water
    slack_us: int = 10 * MINUTE_US  # "hourly" reads come up to minutes early

    # Who is told again, and when.
    again_days: int = 60  # the same trouble back after less than this is no news …
    again_flow_days: int = 21  # … continuous flow, which is more certain: less than this …
    again_level_h: int = 168  # … unless it flows for so long at no less than 1/grown_factor …
    again_l: int = 1000  # … or, flowing less than that, has cost so much: it is another water
    known_level_h: int = 72  # continuous flow that was told of as a weaker kind: news after this
    habit_level_h: int = 24  # … and where bursts are a habit (a pool takes half a day)
    habit_days: int = 365  # … for bursts, backflow and silence: some houses fill a pool each May
    grown_factor: float = 2.0  # unless it is so many times as large
    grown_days: int = 7  # … and an open episode was told so long ago
    remind_days: int = 30  # an episode that goes on


DEFAULT_LIMITS: Final = Limits()

# What flows all day is use where many families share a meter or a shop is open: EyeOnWater asks
# 15 to 40 gal/h (57 to 150 l/h) of shared meters, WaterSmart 10 gal/h for 168 h of commerce.
CLASSES: Final[Mapping[str, Limits]] = {
    "household": DEFAULT_LIMITS,
    "shared": Limits(
        continuous=(Tier(lph=300, hours=12), Tier(lph=100, hours=48), Tier(lph=60, hours=168)),
        intermittent_lph=60.0,
        ramp_lph=60.0,
        burst_lph=3000.0,
        long_burst_lph=2000.0,
        backflow_l=100,
        backflow_lph=2000.0,
        plausible_lph=20_000.0,
    ),
    "commerce": Limits(
        continuous=(Tier(lph=1000, hours=24), Tier(lph=200, hours=72), Tier(lph=38, hours=168)),
        intermittent_lph=100.0,
        ramp_lph=40.0,
        burst_lph=5000.0,
        long_burst_lph=3200.0,
        backflow_l=200,
        backflow_lph=3200.0,
        plausible_lph=32_000.0,
    ),
}


@value
class Thresholds:
    """Which limits a meter has: its class's, else a household's."""

    household: Limits = DEFAULT_LIMITS
    of_meters: Mapping[str, Limits] = field(default_factory=dict)  # by natural id

    def of(self, meter: str) -> Limits:
        return self.of_meters.get(meter, self.household) if self.of_meters else self.household


def thresholds_of(said: Mapping[str, Any]) -> Thresholds:
    """Read the settings' section `leaks`. Raises LimitsRefused.

    {"continuous": [[10, 24], …], …,              thresholds of households
     "classes": {"shared": {"burst_lph": 4000}},  … of other classes, where they are not CLASSES'
     "meters": {"KAW-53885758": "shared"}}        who is of another class
    """
    own = {name: given for name, given in said.items() if name not in {"classes", "meters"}}
    classes: dict[str, Limits] = dict(CLASSES)
    classes["household"] = limits_of(own)
    changed, members = said.get("classes") or {}, said.get("meters") or {}
    if not isinstance(changed, dict) or not isinstance(members, dict):
        raise LimitsRefused("leaks: classes and meters are expected to be objects")
    for name, given in changed.items():
        if not isinstance(given, dict):
            raise LimitsRefused(f"leaks: classes: {name} is expected to be an object")
        classes[name] = limits_of(given, classes.get(name, classes["household"]))
    for meter, name in members.items():
        if name not in classes:
            raise LimitsRefused(f"leaks: meters: {meter} is of no known class: {name!r}")
    return Thresholds(
        household=classes["household"],
        of_meters={meter.upper(): classes[name] for meter, name in members.items()},
    )


def limits_of(said: Mapping[str, Any], base: Limits = DEFAULT_LIMITS) -> Limits:
    """Return `base` with the settings that `said` names. Raises LimitsRefused.

    >>> limits_of({"continuous": [[20, 24]], "silent_us": 0}).continuous
    (Tier(lph=20.0, hours=24),)
    """
    known = {f.name: getattr(base, f.name) for f in fields(Limits)}
    changed: dict[str, Any] = {}
    for name, given in said.items():
        if name not in known:
            raise LimitsRefused(f"leaks: unknown setting {name}")
        changed[name] = _tiers(given) if name == "continuous" else _number(name, given, known[name])
    return replace(base, **changed)


def _tiers(given: Any) -> tuple[Tier, ...]:  # noqa: ANN401  whatever the JSON holds
    if not isinstance(given, list) or not 0 < len(given) <= MOST_TIERS:
        raise LimitsRefused(f"leaks: continuous: 1 to {MOST_TIERS} pairs [l/h, hours] are expected")
    tiers = []
    for pair in given:
        if not isinstance(pair, list) or len(pair) != 2:
            raise LimitsRefused(f"leaks: continuous: {pair!r} is not a pair [l/h, hours]")
        lph, hours = _number("continuous", pair[0], 0.0), _number("continuous", pair[1], 0)
        if lph <= 0 or not 0 < hours <= LONGEST_TIER_H:
            raise LimitsRefused(f"leaks: continuous: {pair!r} is out of range")
        tiers.append(Tier(lph=float(lph), hours=int(hours)))
    return tuple(tiers)


def _number(name: str, given: Any, like: float) -> float:  # noqa: ANN401  whatever the JSON holds
    right = isinstance(given, int) or (isinstance(given, float) and isinstance(like, float))
    if not right or isinstance(given, bool) or given < 0:
        raise LimitsRefused(f"leaks: {name}: {given!r} is not a number of its unit")
    number: float = given
    return number
