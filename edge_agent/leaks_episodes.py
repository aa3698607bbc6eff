"""Who is told what, and when: one notification an episode, reminders by policy, an end by data.

An episode of one kind opens when its rule finds it and ends when data says that it is over. What
comes back soon after is the same trouble: it is followed, but nobody is told again unless it has
grown or does not end. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Final, Literal

from decoders.value import value
from edge_agent.leaks_limits import DAY_US, HOUR_US, Limits

Kind = Literal[
    "continuous_flow",
    "burst",
    "intermittent",
    "ramp",
    "backflow",
    "silent",
    "dry",
    "tamper",
    "low_battery",
    "night_flow",
    "daily_flow",
]
CONTINUOUS: Final = "continuous_flow"
BURST: Final = "burst"
INTERMITTENT: Final = "intermittent"
RAMP: Final = "ramp"
BACKFLOW: Final = "backflow"
SILENT: Final = "silent"
DRY: Final = "dry"
TAMPER: Final = "tamper"
LOW_BATTERY: Final = "low_battery"
NIGHT_FLOW: Final = "night_flow"  # by the nightly scan: the night's floor rose
DAILY_FLOW: Final = "daily_flow"  # … some hours of every day never rest

# Places are in checkpoints: add at the end.
KINDS: Final[tuple[Kind, ...]] = (
    *(CONTINUOUS, BURST, INTERMITTENT, RAMP, BACKFLOW, SILENT, DRY, TAMPER, LOW_BATTERY),
    *(NIGHT_FLOW, DAILY_FLOW),
)

# What one and the same water may have been called before: who was told of that is told nothing
# new. Continuous flow is news after a weaker kind if it is much more, or lasts.
SAME_WATER: Final[Mapping[Kind, tuple[Kind, ...]]] = {
    CONTINUOUS: (INTERMITTENT, RAMP, NIGHT_FLOW, DAILY_FLOW),
    RAMP: (CONTINUOUS, INTERMITTENT, NIGHT_FLOW, DAILY_FLOW),
    INTERMITTENT: (CONTINUOUS, RAMP, NIGHT_FLOW, DAILY_FLOW),
    NIGHT_FLOW: (CONTINUOUS, RAMP, INTERMITTENT, DAILY_FLOW),
    DAILY_FLOW: (CONTINUOUS, RAMP, INTERMITTENT, NIGHT_FLOW),
}
# What meters say of themselves (`Telegram.status`), and what it is called here.
ALARMS: Final[Mapping[str, Kind]] = {
    "DRY": DRY,
    "REVERSED": BACKFLOW,
    "TAMPER": TAMPER,
    "LOW_BATTERY": LOW_BATTERY,
    "POWER_LOW": LOW_BATTERY,
}


def alarm_bit(kind: Kind) -> int:
    """Return the bit that stands for an alarm of this kind in `Flow.alarms`."""
    return 1 << (DRY, BACKFLOW, TAMPER, LOW_BATTERY).index(kind)


HABITS: Final = frozenset({BURST, BACKFLOW, SILENT, DRY, TAMPER, LOW_BATTERY})


@value
class Finding:
    """An episode opened, escalated, was recalled or closed.

    episode      16 hex digits; the same wherever the same start hour was seen
    level        hours of continuous flow: 12 | 24 | 48 | 72 | 168; 0 for other kinds
    started_at   µs UTC; ended_at: µs UTC of the newest sample
    rate_lph     what runs when nobody draws water; burst: the mean; 0 where no water is meant
    litres       lost at that rate, or drawn in all (burst), or gone back (backflow)
    notify       somebody is to be told: the start of an episode, or a reminder
    """

    kind: Kind
    meter: str
    episode: str
    level: int
    started_at: int
    ended_at: int
    rate_lph: int
    litres: int
    state: Literal["open", "closed"]
    notify: bool = True


@value
class Episode:
    """What is remembered of the newest episode of one kind.

    told_at    when somebody was last told of this kind of trouble, in an earlier episode or this
    told_lph   … at which rate
    is_told    somebody was told of this episode
    is_again   the same trouble back, soon after somebody was told of it
    tier       continuous flow: place of the tier that opened it
    """

    kind: Kind
    is_open: bool
    started_at: int
    seen_at: int
    level: int = 0
    rate_lph: int = 0
    told_at: int = 0
    told_lph: int = 0
    is_told: bool = False
    is_again: bool = False
    tier: int = 0


Episodes = dict[Kind, Episode]


@value
class Seen:
    """What a rule saw at `at`: an episode since `started_at`."""

    kind: Kind
    at: int
    started_at: int
    rate_lph: int = 0
    litres: int | None = None  # None: at that rate since it started
    level: int = 0
    tier: int = 0


def episode_id(meter: str, kind: str, started_at: int) -> str:
    """Name an episode so that two gateways that saw the same start say the same name."""
    text = f"{meter}|{kind}|{started_at // HOUR_US}"
    return blake2b(text.encode(), digest_size=8).hexdigest()


def seen(episodes: Episodes, meter: str, what: Seen, limits: Limits) -> tuple[Finding, ...]:
    """Open or go on with an episode in `episodes`; return what is to be said of it."""
    before = episodes.get(what.kind)
    if before is None or not before.is_open:
        before = _opened(what, before, limits)
        level = what.level
    else:
        level = max(before.level, what.level)
    now = replace(before, seen_at=what.at, level=level, rate_lph=what.rate_lph)
    told = _is_due(now, what, limits) and not _known_water(episodes, what, limits)
    if told:
        now = replace(now, told_at=what.at, told_lph=what.rate_lph, is_told=True)
    episodes[what.kind] = now
    if told or (now.is_told and level > before.level):
        return (finding(meter, now, what, notify=told),)
    return ()


def _opened(what: Seen, before: Episode | None, limits: Limits) -> Episode:
    """Return a new episode that nobody was told of yet, with what was told of the one before."""
    told_at, told_lph = (0, 0) if before is None else (before.told_at, before.told_lph)
    days = limits.habit_days if what.kind in HABITS else _again_days(what.kind, limits)
    return Episode(
        kind=what.kind,
        is_open=True,
        started_at=what.started_at,
        seen_at=what.at,
        level=what.level,
        told_at=told_at,
        told_lph=told_lph,
        is_again=before is not None and told_at > 0 and what.at - before.seen_at < days * DAY_US,
        tier=what.tier,
    )


def _again_days(kind: Kind, limits: Limits) -> int:
    return limits.again_flow_days if kind == CONTINUOUS else limits.again_days


def _is_due(episode: Episode, what: Seen, limits: Limits) -> bool:
    """Say whether the policy wants somebody to be told now."""
    grown = what.rate_lph > limits.grown_factor * episode.told_lph > 0
    if episode.is_told:
        days = limits.grown_days if grown else limits.remind_days
        return what.at - episode.told_at >= days * DAY_US
    if not episode.is_again:
        return True
    as_large = what.rate_lph * limits.grown_factor >= episode.told_lph
    lasts = as_large and episode.level >= limits.again_level_h
    lasted_us = what.at - episode.started_at
    cost_l = what.rate_lph * lasted_us // HOUR_US
    other = what.kind == CONTINUOUS and not as_large and cost_l >= limits.again_l
    return grown or lasts or other or lasted_us >= limits.remind_days * DAY_US


def _known_water(episodes: Episodes, what: Seen, limits: Limits) -> bool:
    """Say whether somebody was told of this water already, by another name."""
    burst = episodes.get(BURST)
    if what.kind == CONTINUOUS and burst is not None and burst.told_at:
        same = burst.is_told and burst.told_at >= what.started_at
        usual = what.rate_lph <= limits.grown_factor * burst.told_lph
        lately = what.at - burst.seen_at < limits.habit_days * DAY_US
        if same or (usual and lately and what.level < limits.habit_level_h):
            return True
    flowing = episodes.get(CONTINUOUS)
    if what.kind == BURST and flowing is not None and flowing.is_open and flowing.is_told:
        return what.rate_lph <= limits.grown_factor * flowing.told_lph
    recent = what.at - _again_days(what.kind, limits) * DAY_US
    for kind in SAME_WATER.get(what.kind, ()):
        other = episodes.get(kind)
        if other is None or not other.told_at or other.seen_at <= recent:
            continue
        weaker = what.kind == CONTINUOUS
        if not weaker or (
            what.rate_lph <= limits.grown_factor * other.told_lph
            and what.level < limits.known_level_h
        ):
            return True
    return False


def over(
    episodes: Episodes, meter: str, kind: Kind, at: int, litres: int | None = None
) -> tuple[Finding, ...]:
    """Close the open episode of a kind, because data says so."""
    before = episodes.get(kind)
    if before is None or not before.is_open:
        return ()
    now = replace(before, is_open=False)
    episodes[kind] = now
    if not before.is_told:
        return ()
    what = Seen(
        kind=kind,
        at=at,
        started_at=before.started_at,
        rate_lph=before.rate_lph,
        litres=litres,
        level=before.level,
    )
    return (finding(meter, now, what, notify=False),)


def finding(meter: str, episode: Episode, what: Seen, *, notify: bool) -> Finding:
    """Say an episode as it is now."""
    litres = what.litres
    if litres is None:
        litres = what.rate_lph * max(0, what.at - episode.started_at) // HOUR_US
    return Finding(
        kind=episode.kind,
        meter=meter,
        episode=episode_id(meter, episode.kind, episode.started_at),
        level=episode.level,
        started_at=episode.started_at,
        ended_at=what.at,
        rate_lph=what.rate_lph,
        litres=litres,
        state="open" if episode.is_open else "closed",
        notify=notify,
    )


# kind, flags, tier, level, rate_lph, told_lph, started_at, seen_at, told_at
_EPISODE: Final = struct.Struct("<BBBBIIqqq")
_OPEN, _TOLD, _AGAIN = 1, 2, 4


def pack(episodes: Episodes) -> bytes:
    """Return episodes as bytes for a checkpoint."""
    return b"".join(
        [
            _EPISODE.pack(
                *(KINDS.index(e.kind), _flags(e), e.tier, e.level),
                *(min(e.rate_lph, 0xFFFFFFFF), min(e.told_lph, 0xFFFFFFFF)),
                *(e.started_at, e.seen_at, e.told_at),
            )
            for e in episodes.values()
        ]
    )


def _flags(episode: Episode) -> int:
    return _OPEN * episode.is_open | _TOLD * episode.is_told | _AGAIN * episode.is_again


def unpack(packed: bytes) -> Episodes:
    """Read what `pack` wrote."""
    episodes: Episodes = {}
    for place, flags, tier, level, rate, told_lph, started, last, told in _EPISODE.iter_unpack(
        packed
    ):
        kind = KINDS[place]
        episodes[kind] = Episode(
            kind=kind,
            is_open=bool(flags & _OPEN),
            started_at=started,
            seen_at=last,
            level=level,
            rate_lph=rate,
            told_at=told,
            told_lph=told_lph,
            is_told=bool(flags & _TOLD),
            is_again=bool(flags & _AGAIN),
            tier=tier,
        )
    return episodes
