"""Which frames are worth a row: everything heard feeds the rules, little of it is stored. Pure.

wM-Bus meters send every 16 seconds; stored are the first valid telegram of each hour, every
change of the alarm word, every daily extreme of a temperature or flow, every telegram that teaches
a layout, and every undecodable one up to a cap (what the cap held back is counted and reported).
LoRaWAN uplinks are all stored, but an exact repeat within recent memory is not.

A state is used up by the call that gets it: go on with the returned one.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import blake2b
from typing import Final

from decoders.decode import decode_lorawan
from decoders.errors import DecodeError, KeyMissing
from decoders.ids import WIRE_BYTES, MeterId, dev_eui_text
from decoders.reading import Integrity, Telegram
from decoders.uplink import MAX_PAYLOAD_BYTES, RowFlag, RowKind
from decoders.value import value
from edge_agent import clock_steps, cloud_clock, leaks, leaks_feeding, scan_findings
from edge_agent.caps import Caps, report
from edge_agent.clock_steps import NONE as NO_STEPS
from edge_agent.clock_steps import Steps
from edge_agent.cloud_clock import UNKNOWN, CloudClock
from edge_agent.inputs import (
    BadInput,
    ClockStepped,
    Forget,
    Heard,
    Now,
    Scanned,
    Settle,
    SourceChanged,
    Store,
)
from edge_agent.layouts import Layouts
from edge_agent.leaks_limits import Thresholds
from edge_agent.masking import without_keys
from edge_agent.memory import NEW_METER, Meter, Meters, with_flow
from edge_agent.outbox import Draft

HOUR_US: Final = leaks.HOUR_US

MAX_METERS: Final = 20_000  # five times what a gateway hears; about 0.5 KB each
MAX_STRANGERS: Final = 4096  # meters whose keys we lack, heard this hour
RECENT_UPLINKS: Final = 8192  # about 0.9 MB; an hour of 4,000 meters heard twice
EXTREMES_PER_DAY: Final = 24  # rows for each meter: running extremes settle within a morning
CLOCK_SET: Final = 16  # times that somebody set the clock, in this run of the agent
REPORT_TEXT_BYTES: Final = 512  # of a bad line, in its report

# As drivers name them. Places are in checkpoints: add at the end.
EXTREME_FIELDS: Final = (
    "flow_m3h",
    "flow_temperature_c",
    "min_flow_temperature_c",
    "max_flow_temperature_c",
    "min_external_temperature_last_month_c",
    "min_external_temperature_last_day_c",
    "max_external_temperature_c",
    "average_external_temperature_last_day_c",
)

_UPLINK: Final = struct.Struct("<QQQ")  # radio, session, counter

Effect = Store | Settle | Forget


@value
class Policy:
    """What the reduction is told once.

    keys             M(2) ID(4), as on the air → the meter's AES keys, newest first
    only             natural ids of the meters to keep; None = all
    offset_us        a LoRaWAN meter's own clock minus UTC; `offsets_us` per natural id
    """

    keys: Mapping[bytes, tuple[bytes, ...]] = field(default_factory=dict, repr=False)
    only: frozenset[str] | None = None
    offset_us: int = -6 * HOUR_US  # Mexico City, standard time all year
    offsets_us: Mapping[str, int] | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)


@dataclass
class State:
    """Everything remembered between frames. Bounded by the limits above."""

    policy: Policy
    clock: CloudClock = UNKNOWN
    steps: Steps = NO_STEPS
    clock_set: tuple[tuple[int, int], ...] = ()  # of late: from and to, µs
    meters: Meters = field(default_factory=Meters)
    layouts: Layouts = field(default_factory=Layouts)
    recent: dict[int, None] = field(default_factory=dict)  # `_uplink_name`, oldest first
    caps: Caps = field(default_factory=Caps)
    strangers: dict[bytes, int] = field(default_factory=dict)
    figures: dict[str, int] = field(default_factory=dict)
    looked: tuple[int, int] = (-1, 0)  # for silent meters: in which hour, after how many frames


def heard(state: State, frame: Heard, now: Now) -> tuple[State, tuple[Effect, ...]]:
    """Take one frame."""
    _count(state, "heard")
    effects: tuple[Effect, ...] = ()
    if _foreign(state.policy, frame):
        _count(state, "foreign")
    elif frame.code:
        effects = _undecodable(state, frame, frame.code, now)
    elif frame.kind == RowKind.LORAWAN:
        effects = _lorawan(state, frame, now)
    else:
        effects = _wmbus(state, frame, now)
    if frame.token is not None:
        effects = (*effects, Settle(token=frame.token))
    return state, effects


def bad_input(state: State, bad: BadInput, now: Now) -> tuple[State, tuple[Effect, ...]]:
    """Report what a source delivered and nobody can read; its neighbours go through."""
    said = {
        "kind": "bad_input",
        "code": bad.code,
        "source": bad.source,
        "detail": without_keys(bad.detail.encode()).decode()[:REPORT_TEXT_BYTES],
        "given": without_keys(bad.given)[:REPORT_TEXT_BYTES],
    }
    effects = _capped(state, f"input_{bad.code}", report(said, at=now.at), now)
    if bad.token is not None:
        effects = (*effects, Settle(token=bad.token))
    return state, effects


def source_changed(
    state: State, change: SourceChanged, now: Now
) -> tuple[State, tuple[Effect, ...]]:
    _count(state, change.kind)
    said = {"kind": change.kind, "source": change.source, "reason": change.reason[:200]}
    return state, _capped(state, change.kind, report(said, at=now.at), now)


def clock_stepped(state: State, step: ClockStepped, now: Now) -> tuple[State, tuple[Effect, ...]]:
    """Report that the gateway's clock was set, and keep by how much for the rows before it."""
    by_us = step.to_at - step.from_at
    state.clock = cloud_clock.stepped(state.clock, by_us=by_us)
    state.steps = clock_steps.stepped(state.steps, first=step.first, by_us=by_us)
    state.clock_set = (*state.clock_set, (step.from_at, step.to_at))[-CLOCK_SET:]
    said = {"kind": "clock_step", "from_at": step.from_at, "to_at": step.to_at}
    return state, (_stored(state, (report(said, at=now.at),)),)


def ticked(state: State, now: Now) -> tuple[State, tuple[Effect, ...]]:
    """Report what the caps of past hours held back; look for an unknown layout."""
    state.layouts.search_when_due(now_s=now.wall_s)
    rows = state.caps.reports(now.at)
    silent = _silent(state, now)
    return state, (_stored(state, rows), *silent) if rows else silent


def _silent(state: State, now: Now) -> tuple[Effect, ...]:
    """Look once an hour for meters that say nothing, if others do say something."""
    hour, frames = now.at // HOUR_US, state.figures.get("heard", 0)
    if hour == state.looked[0]:
        return ()
    hears, state.looked = frames > state.looked[1], (hour, frames)
    if not hears:
        return ()
    who = state.policy.thresholds
    names, found = leaks_feeding.silences(
        state.meters, who.of_meters, who.household, now.at, clock_set=state.clock_set
    )
    rows = tuple(leaks_feeding.rows_of(found, now.at))
    return (_stored(state, rows, remember=names),) if names else ()


def scanned(state: State, said: Scanned, now: Now) -> tuple[State, tuple[Effect, ...]]:
    """Follow what the nightly scan found, a row each; report how many, or why there was none."""
    names, found = scan_findings.told(state.meters, said, state.policy.thresholds, now.at)
    told: dict[str, object] = {"kind": "scan", "count": len(said.found)}
    if said.unavailable:
        told = {"kind": "scan", "unavailable": said.unavailable[:200]}
    rows = (*leaks_feeding.rows_of(found, now.at), report(told, at=now.at))
    return state, (_stored(state, rows, remember=names),)


def stopping(state: State, now: Now) -> tuple[State, tuple[Effect, ...]]:
    """Report what the caps have held back up to now: a stopped agent has no next hour."""
    rows = state.caps.pending(now.at)
    return state, (_stored(state, rows),) if rows else ()


def _foreign(policy: Policy, frame: Heard) -> bool:
    """Say whether the frame is of a meter that this gateway was told not to keep."""
    if policy.only is None:
        return False
    if frame.kind == RowKind.LORAWAN:
        return dev_eui_text(frame.radio) not in policy.only
    address = frame.frame[2:10]
    return len(address) == WIRE_BYTES and str(MeterId.from_wire(address)) not in policy.only


def _wmbus(state: State, frame: Heard, now: Now) -> tuple[Effect, ...]:
    try:
        telegram, layouts = state.layouts.opened(frame, state.policy.keys)
    except KeyMissing as error:
        return _stranger(state, frame, error, now)
    except DecodeError as error:
        return _undecodable(state, frame, error.code, now)
    if frame.flags & RowFlag.TEACHES_FORMAT:
        return (_stored(state, (_draft(frame, 0),), layouts=layouts),)
    name = telegram.natural_id
    before = state.meters.get(name, NEW_METER)
    meter, flags, wanted = _judged(before, telegram, frame.heard_at, state.clock)
    limits = state.policy.thresholds.of(name)
    flow, found = leaks_feeding.told_by_wmbus(meter.flow, telegram, frame.heard_at, limits)
    if flow is not None:
        meter = with_flow(meter, flow)
    effects = _remembered(state, name, meter)
    rows = [_draft(frame, flags)] if wanted or layouts else []
    rows += leaks_feeding.rows_of(found, frame.heard_at)
    if not rows:
        return effects
    return (*effects, _stored(state, tuple(rows), remember=(name,), layouts=layouts))


def _judged(
    meter: Meter, telegram: Telegram, heard_at: int, clock: CloudClock
) -> tuple[Meter, int, bool]:
    """Return the meter after this telegram, the row's flags, and whether it deserves a row."""
    flags, wanted, now_hour = 0, False, clock.hour_mark(heard_at)
    hour, bare_hour, info_code = meter.hour, meter.bare_hour, meter.info_code
    if telegram.register_l is None:
        wanted, bare_hour = now_hour != bare_hour, now_hour
    elif now_hour != hour:
        hour, wanted, flags = now_hour, True, RowFlag.FIRST_OF_HOUR
    if telegram.info_code is not None:
        if info_code not in {-1, telegram.info_code}:
            flags |= RowFlag.INFO_CHANGE
        info_code = telegram.info_code
    day, extremes, is_extreme = _extremes(meter, telegram, clock.day(heard_at))
    extreme_rows = meter.extreme_rows if day == meter.day else 0
    if is_extreme and extreme_rows < EXTREMES_PER_DAY:
        flags, extreme_rows = flags | RowFlag.DAILY_EXTREME, extreme_rows + 1
    judged = Meter(
        hour=hour,
        bare_hour=bare_hour,
        info_code=info_code,
        day=day,
        extremes=extremes,
        extreme_rows=extreme_rows,
        flow=meter.flow,
    )
    return judged, int(flags), wanted or flags != 0


def _extremes(
    meter: Meter, telegram: Telegram, day: int
) -> tuple[int, tuple[tuple[int, float, float], ...], bool]:
    """Widen the day's extremes; say whether an earlier one of the same day was passed."""
    known = {place: (least, most) for place, least, most in meter.extremes if day == meter.day}
    passed = False
    for place, name in enumerate(EXTREME_FIELDS):
        given = telegram.fields.get(name)
        if isinstance(given, (int, Decimal)):
            now = float(given)
            least, most = known.get(place, (now, now))
            passed = passed or not least <= now <= most
            known[place] = (min(least, now), max(most, now))
    return day, tuple((place, *bounds) for place, bounds in known.items()), passed


def _lorawan(state: State, frame: Heard, now: Now) -> tuple[Effect, ...]:
    name_of_uplink = _uplink_name(frame)
    if name_of_uplink in state.recent:
        _count(state, "repeats")
        return ()
    state.recent[name_of_uplink] = None
    if len(state.recent) > RECENT_UPLINKS:
        del state.recent[next(iter(state.recent))]
    checked = frame.flags & RowFlag.NETWORK_CHECKED
    try:
        telegram = decode_lorawan(
            frame.frame,
            port=frame.port,
            f_cnt=frame.counter,
            dev_eui=frame.radio,
            integrity=Integrity.MAC if checked else Integrity.NONE,
        )
    except DecodeError as error:
        _count(state, f"undecodable_{error.code}")
        return (_stored(state, (_draft(frame, RowFlag.UNDECODABLE),)),)
    name = telegram.natural_id
    meter = state.meters.get(name, NEW_METER)
    flags = 0
    info_code = meter.info_code if telegram.info_code is None else telegram.info_code
    if meter.info_code not in {-1, info_code}:
        flags = int(RowFlag.INFO_CHANGE)
    policy = state.policy
    offset_us = (policy.offsets_us or {}).get(name, policy.offset_us)
    flow, found, fed = leaks_feeding.told_by_profile(
        meter, telegram, frame, offset_us, policy.thresholds.of(name)
    )
    meter = Meter(
        info_code=info_code,
        counter=frame.counter if fed else meter.counter,
        session=frame.session if fed else meter.session,
        flow=flow,
    )
    rows = [_draft(frame, flags)]
    foreign = frame.flags & RowFlag.FOREIGN_CLOCK
    rows += leaks_feeding.rows_of(found, now.at if foreign else frame.heard_at)
    effects = _remembered(state, name, meter)
    return (*effects, _stored(state, tuple(rows), remember=(name,)))


def _uplink_name(frame: Heard) -> int:
    """Return 64 bits that tell an uplink from any other: as a number, a third of its own memory."""
    who = _UPLINK.pack(frame.radio, frame.session, frame.counter)
    return int.from_bytes(blake2b(who + frame.frame, digest_size=8).digest(), "big")


def _stranger(state: State, frame: Heard, error: KeyMissing, now: Now) -> tuple[Effect, ...]:
    """A meter whose key only the cloud may have: its first telegram of each hour is kept."""
    hour, address = state.clock.hour_mark(frame.heard_at), frame.frame[2:10]
    _count(state, f"undecodable_{error.code}")
    if state.strangers.get(address) == hour:
        reports = state.caps.hold_back(error.code, frame.heard_at, now.at)
        return (_stored(state, reports),) if reports else ()
    if address not in state.strangers and len(state.strangers) >= MAX_STRANGERS:
        del state.strangers[next(iter(state.strangers))]
    state.strangers[address] = hour
    return (_stored(state, (_draft(frame, RowFlag.UNDECODABLE),)),)


def _undecodable(state: State, frame: Heard, code: str, now: Now) -> tuple[Effect, ...]:
    _count(state, f"undecodable_{code}")
    return _capped(state, code, _draft(frame, RowFlag.UNDECODABLE), now)


def _capped(state: State, code: str, row: Draft, now: Now) -> tuple[Effect, ...]:
    """Store `row` unless its code has had its rows this hour."""
    rows = state.caps.passed(code, row, now.at)
    return (_stored(state, rows),) if rows else ()


def _draft(frame: Heard, flags: int) -> Draft:
    return Draft(
        heard_at=frame.heard_at,
        kind=frame.kind,
        payload=frame.frame[:MAX_PAYLOAD_BYTES],
        flags=frame.flags | flags,
        radio=frame.radio,
        session=frame.session,
        counter=frame.counter,
        port=frame.port,
        rssi=frame.rssi,
        snr=frame.snr,
    )


def _stored(
    state: State,
    rows: tuple[Draft, ...],
    *,
    remember: tuple[str, ...] = (),
    layouts: tuple[bytes, ...] = (),
) -> Store:
    state.figures["stored"] = state.figures.get("stored", 0) + len(rows)
    return Store(rows=rows, remember=remember, layouts=layouts)


def _remembered(state: State, name: str, meter: Meter) -> tuple[Effect, ...]:
    """Keep `meter`; where there are too many, the one known longest makes room."""
    effects: tuple[Effect, ...] = ()
    if name not in state.meters and len(state.meters) >= MAX_METERS:
        oldest = next(iter(state.meters))
        del state.meters[oldest]
        effects = (Forget(names=(oldest,)),)
    state.meters[name] = meter
    return effects


def _count(state: State, figure: str) -> None:
    state.figures[figure] = state.figures.get(figure, 0) + 1
