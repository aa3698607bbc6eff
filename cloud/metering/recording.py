"""The one transaction of a batch: readings, receptions, alerts, refusals and what is published."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import numpy as np
import psycopg

from cloud.kernel.events import Event, EventType, arrow_events, json_event
from cloud.metering import alert_store, dead_letters, events, reading_store, rules, store
from cloud.metering.layout_store import PostgresLayouts
from cloud.metering.model import (
    NEVER,
    Alert,
    Conflict,
    Gateway,
    Int64s,
    Loss,
    Quality,
    Readings,
    States,
)
from cloud.metering.preparing import Prepared
from cloud.metering.registry import Meter
from decoders.value import value

Connection = psycopg.Connection[Any]


@value
class Source:
    """Where the rows come from and when, for everything that points back to it."""

    gateway: Gateway
    batch_key: int
    stream: bytes
    received_at: int  # µs
    traceparent: str
    new_id: Callable[[], UUID]


@value
class Recorded:
    """What a batch has become: counts for the ledger, events for the outbox."""

    counts: store.Counts
    events: tuple[Event, ...]
    learned: bool  # a compact layout that nobody knew


@value
class Merged:
    """What the readings of a batch did to those stored."""

    new: Readings
    replaced: Readings
    known: int
    conflicts: tuple[Conflict, ...]
    states: States


def record(
    connection: Connection, prepared: Prepared, source: Source, *, careful: bool = False
) -> Recorded:
    """Record everything of some rows of a batch in the open transaction.

    careful   compare every reading with what is stored, also those newer than their meter's state
    Raises reading_store.StateBehind when that would have been necessary.
    """
    merged = _merge(connection, prepared, source, careful=careful)
    store.add_receptions(
        connection, source.gateway, batch_key=source.batch_key, receptions=prepared.receptions
    )
    _advance_states(connection, prepared, merged, source)
    published = [*_recorded_events(merged, source), *_conflict_events(connection, merged, source)]
    published += _alert_events(connection, prepared, source)
    for report in prepared.reports:
        store.record_report(
            connection,
            source.gateway,
            kind=report.kind,
            heard_at=report.heard_at,
            received_at=source.received_at,
            payload=report.payload,
        )
    learned, kept = False, PostgresLayouts(connection)
    for layout, row in prepared.layouts:
        learned |= kept.believe(layout, now_us=source.received_at, source=(source.batch_key, row))
    counts = store.Counts(
        frames=len(prepared.receptions.row),
        rejected=len(prepared.rejected),
        readings_new=len(merged.new),
        readings_known=merged.known,
        conflicts=len(merged.conflicts),
    )
    return Recorded(counts=counts, events=tuple(published), learned=learned)


def bury(connection: Connection, prepared: Prepared, source: Source) -> None:
    """Keep the refused rows of a batch as dead letters."""
    if prepared.rejected:
        dead_letters.bury_rows(
            connection,
            source.gateway,
            prepared.rejected,
            stream=source.stream,
            batch_key=source.batch_key,
            received_at=source.received_at,
        )


def loss_event(loss: Loss, source: Source) -> Event:
    """Return the fact that a gateway's rows will never come."""
    return json_event(
        events.EDGE_LOSS_REPORTED,
        {
            "gateway": source.gateway.id,
            "administration": source.gateway.administration,
            "stream": loss.stream.hex(),
            "first_seq": loss.first_seq,
            "last_seq": loss.last_seq,
            "reason": loss.reason,
            "certain": loss.certain,
            "from_at": loss.from_at,
            "to_at": loss.to_at,
            "kind": loss.kind,
            "rows": loss.rows,
        },
        id=source.new_id(),
        source=events.SOURCE,
        time=source.received_at,
        key=source.gateway.gateway_key,
        traceparent=source.traceparent,
    )


def _merge(connection: Connection, prepared: Prepared, source: Source, *, careful: bool) -> Merged:
    states = reading_store.lock_states(connection, prepared.meter_keys)
    unique = rules.one_each(prepared.readings)
    readings = unique.readings
    conflicts = _within(prepared.readings, unique, source)
    remarked = readings.with_quality(
        rules.remarks(
            readings,
            states=states,
            max_flow_lph=prepared.max_flow_lph,
            received_at=source.received_at,
        )
    )
    place = np.searchsorted(states.meter_key, remarked.meter_key)
    newer = remarked.register_at > states.last_at[place]
    doubtful = np.arange(len(remarked)) if careful else np.flatnonzero(~newer)
    candidates = remarked.take(doubtful)
    stored = reading_store.stored_like(connection, candidates)
    free = np.ones(len(remarked), np.bool_)
    free[doubtful[stored.place]] = False
    fresh = remarked.take(free)
    reading_store.insert(connection, fresh, batch_key=source.batch_key, certain=not careful)
    replaced, clashes = _against(candidates, stored, source)
    reading_store.replace(connection, replaced, batch_key=source.batch_key)
    return Merged(
        new=fresh,
        replaced=replaced,
        known=len(stored.place) - len(replaced),
        conflicts=(*conflicts, *clashes),
        states=states,
    )


def _within(readings: Readings, unique: rules.Deduplicated, source: Source) -> list[Conflict]:
    """Return the contradictions between two readings of the batch itself."""
    kept, other = readings.take(unique.kept), readings.take(unique.other)
    ours = np.full(len(kept), source.batch_key, np.int64)
    return _conflicts(kept, ours, other, ours)


def _against(
    candidates: Readings, stored: reading_store.Stored, source: Source
) -> tuple[Readings, list[Conflict]]:
    """Return the readings that take the place of stored ones, and the contradictions."""
    incoming, held = candidates.take(stored.place), stored.readings
    wins = rules.replaces(stored=held, incoming=incoming)
    changes = wins & (incoming.register_l != held.register_l)
    corrected = np.where(changes, incoming.quality | Quality.CORRECTED, incoming.quality)
    replaced = incoming.with_quality(corrected.astype(np.int16)).take(wins)
    ours = np.full(len(incoming), source.batch_key, np.int64)
    lost = rules.contradicts(kept=held, other=incoming) & ~wins
    won = rules.contradicts(kept=incoming, other=held) & wins
    clashes = _conflicts(held.take(lost), stored.batch_key[lost], incoming.take(lost), ours[lost])
    clashes += _conflicts(incoming.take(won), ours[won], held.take(won), stored.batch_key[won])
    return replaced, clashes


def _conflicts(
    kept: Readings, kept_batch: Int64s, other: Readings, other_batch: Int64s
) -> list[Conflict]:
    return [
        Conflict(
            meter_key=int(kept.meter_key[i]),
            register_at=int(kept.register_at[i]),
            kept_l=int(kept.register_l[i]),
            other_l=int(other.register_l[i]),
            kept_batch_key=int(kept_batch[i]),
            kept_batch_row=int(kept.row[i]),
            other_batch_key=int(other_batch[i]),
            other_batch_row=int(other.row[i]),
            rule=rules.rule_named(int(kept.clock[i]), int(other.clock[i])),
        )
        for i in range(len(kept))
    ]


def _advance_states(
    connection: Connection, prepared: Prepared, merged: Merged, source: Source
) -> None:
    """Move the state of each meter on to its newest register and status."""
    states, n = merged.states, len(merged.states.meter_key)
    if not n:
        return
    last_at, last_l = np.full(n, NEVER), np.zeros(n, np.int64)
    for readings in (merged.replaced, merged.new):
        place = np.searchsorted(states.meter_key, readings.meter_key)
        for_sure = readings.register_at >= states.last_at[place]
        # sorted by instant within a meter: of several assignments the last one stays
        last_at[place[for_sure]] = readings.register_at[for_sure]
        last_l[place[for_sure]] = readings.register_l[for_sure]
    receptions = prepared.receptions
    by_time = np.argsort(receptions.heard_at, kind="stable")
    place = np.searchsorted(states.meter_key, receptions.meter_key[by_time])
    heard_at, info, has_info = np.full(n, NEVER), np.zeros(n, np.int64), np.zeros(n, np.bool_)
    heard_at[place] = receptions.heard_at[by_time]
    says = prepared.has_info[by_time]
    info[place[says]] = prepared.info_code[by_time][says]
    has_info[place[says]] = True
    heard = heard_at != NEVER
    reading_store.save_states(
        connection,
        meter_key=states.meter_key[heard],
        last_at=last_at[heard],
        last_register_l=last_l[heard],
        heard_at=heard_at[heard],
        info_code=info[heard],
        has_info=has_info[heard],
        received_at=source.received_at,
    )


def _recorded_events(merged: Merged, source: Source) -> list[Event]:
    changed = merged.replaced.quality & Quality.CORRECTED != 0
    return [
        *_reading_events(events.READING_RECORDED, merged.new, source),
        *_reading_events(events.READING_CORRECTED, merged.replaced.take(changed), source),
    ]


def _reading_events(kind: EventType, readings: Readings, source: Source) -> list[Event]:
    return arrow_events(
        kind,
        {
            "meter_key": readings.meter_key,
            "register_at": readings.register_at,
            "register_l": readings.register_l,
            "heard_at": readings.heard_at,
            "batch_key": np.full(len(readings), source.batch_key, np.int64),
            "batch_row": readings.row,
            "clock": readings.clock,
            "quality": readings.quality,
        },
        new_id=source.new_id,
        source=events.SOURCE,
        time=source.received_at,
        traceparent=source.traceparent,
    )


def _conflict_events(connection: Connection, merged: Merged, source: Source) -> list[Event]:
    published = []
    for conflict in merged.conflicts:
        new = reading_store.record_conflict(connection, conflict, detected_at=source.received_at)
        if new:
            published.append(_conflict_event(conflict, source))
    return published


def _conflict_event(conflict: Conflict, source: Source) -> Event:
    return json_event(
        events.READING_CONFLICTED,
        {
            "meter_key": conflict.meter_key,
            "register_at": conflict.register_at,
            "kept_l": conflict.kept_l,
            "other_l": conflict.other_l,
            "rule": conflict.rule,
            "frames": [
                [conflict.kept_batch_key, conflict.kept_batch_row],
                [conflict.other_batch_key, conflict.other_batch_row],
            ],
        },
        id=source.new_id(),
        source=events.SOURCE,
        time=source.received_at,
        key=conflict.meter_key,
        traceparent=source.traceparent,
    )


def _alert_events(connection: Connection, prepared: Prepared, source: Source) -> list[Event]:
    published = []
    for anomaly, meter in prepared.anomalies:
        alert = alert_store.report(
            connection,
            anomaly,
            meter_key=meter.meter_key,
            gateway=source.gateway,
            received_at=source.received_at,
        )
        if alert is not None:
            published.append(_alert_event(alert, anomaly.meter, meter, source))
    return published


def _alert_event(alert: Alert, name: str, meter: Meter, source: Source) -> Event:
    return json_event(
        events.ANOMALY_DETECTED,
        {
            "alert": alert.alert_key,
            "meter_key": alert.meter_key,
            "meter": name,
            "kind": alert.kind,
            "level": alert.level,
            "state": alert.state,
            "rate_lph": alert.rate_lph,
            "litres": alert.litres,
            "started_at": alert.started_at,
            "detected_at": alert.opened_at,
            "gateway": source.gateway.id,
            "administration": meter.administration,
        },
        id=source.new_id(),
        source=events.SOURCE,
        time=source.received_at,
        key=alert.meter_key,
        traceparent=source.traceparent,
    )
