"""Gateways, streams, raw batches and receptions in PostgreSQL. Every function runs in the caller's
transaction on a connection of this context.

Locks are taken in one order: the gateway, then meters in meter_key order (`reading_store`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

import numpy as np
import psycopg
from psycopg.types.json import Jsonb

from cloud.kernel.clock import from_us, to_us
from cloud.metering import copying
from cloud.metering.clock_offsets import Offset, Sample
from cloud.metering.edge_protocol import SEQ_MAX
from cloud.metering.model import (
    DAY_US,
    HOUR_US,
    Bools,
    Gateway,
    Int16s,
    Int32s,
    Int64s,
)
from decoders.uplink import NO_RSSI, NO_SNR, Batch
from decoders.value import value

Connection = psycopg.Connection[Any]

_FIRST_INSTANT_US = 0
_LAST_INSTANT_US = 7_258_118_400_000_000  # 2200-01-01: beyond it a clock says nothing worth storing
COUNTED_MAX = (1 << 53) - 1  # what every reader of JSON keeps exact


class GatewayUnknown(LookupError):
    """No gateway of this id is registered."""

    def __init__(self, gateway: str) -> None:
        super().__init__(f"no gateway {gateway!r} is registered")
        self.gateway = gateway


@value
class Receptions:
    """Accepted frames of one batch as columns, (frames,) each."""

    frame: np.typing.NDArray[np.void]  # V16
    row: Int32s
    meter_key: Int64s
    heard_at: Int64s  # µs, corrected
    counter: Int64s
    rssi_dbm: Int16s  # NO_RSSI = not said
    snr_qdb: Int16s  # NO_SNR = not said
    radio: Int16s
    integrity: Int16s
    key_version: Int16s
    flags: Int16s
    register_l: Int64s
    has_register: Bools

    def take(self, order: Int64s) -> Receptions:
        """Return the same in another order."""
        return Receptions(**{each.name: getattr(self, each.name)[order] for each in fields(self)})


@value
class Counts:
    """What became of a batch's rows."""

    frames: int = 0
    rejected: int = 0
    readings_new: int = 0
    readings_known: int = 0
    conflicts: int = 0


def storable(instant_us: int) -> datetime:
    """Return an instant as PostgreSQL and datetime can hold it, however wrong a clock was."""
    return from_us(min(max(instant_us, _FIRST_INSTANT_US), _LAST_INSTANT_US))


def register_gateway(
    connection: Connection,
    *,
    id: str,
    administration: str,
    name: str = "",
    expected_per_hour: int | None = None,
) -> None:
    """Register a gateway or bring what is configured of it up to date."""
    connection.execute(
        """INSERT INTO gateways (id, name, administration, expected_per_hour)
           VALUES (%s, %s, %s, %s)
           ON CONFLICT (id) DO UPDATE SET name = excluded.name,
               administration = excluded.administration,
               expected_per_hour = excluded.expected_per_hour""",
        [id, name or id, administration, expected_per_hour],
    )


def gateway_of(connection: Connection, id: str, *, lock: bool = False) -> Gateway:
    """Return a gateway and its clock. Raises GatewayUnknown."""
    row = connection.execute(
        _GATEWAY_LOCKED if lock else _GATEWAY,
        [id],
    ).fetchone()
    if row is None:
        raise GatewayUnknown(id)
    key, administration, offset, uncertainty, quality, flat = row
    return Gateway(
        gateway_key=key,
        id=id,
        administration=administration,
        offset_us=offset,
        uncertainty_us=uncertainty,
        trusted=quality == "trusted",
        samples=tuple(zip(flat[::2], flat[1::2], strict=True)),
    )


def save_gateway(
    connection: Connection,
    gateway: Gateway,
    *,
    batch: Batch,
    offset: Offset,
    samples: Sequence[Sample],
    shared: tuple[int | None, int],
    seen_at: int,
) -> None:
    """Record what a message says of its gateway. `shared`: offset by shared frames (µs), frames."""
    health = _figures(batch.health)
    flat = [number for one in samples for number in (one.offset_us, one.uncertainty_us)]
    connection.execute(
        """UPDATE gateways SET agent_version = %s, capabilities = %s,
               last_seen_at = greatest(last_seen_at, %s), clock_offset_us = %s,
               clock_uncertainty_us = %s, clock_quality = %s, clock_samples = %s,
               shared_offset_us = coalesce(%s, shared_offset_us),
               shared_frames = shared_frames + %s, health = %s,
               heard_total = heard_total + CASE
                   WHEN %s >= coalesce((health ->> 'heard')::bigint, 0)
                   THEN %s - coalesce((health ->> 'heard')::bigint, 0) ELSE %s END
           WHERE gateway_key = %s""",
        [
            batch.agent.replace("\0", ""),
            [each.replace("\0", "") for each in batch.capabilities],
            storable(seen_at),
            offset.offset_us,
            offset.uncertainty_us,
            "trusted" if offset.trusted else "untrusted",
            flat,
            *shared,
            Jsonb(health),
            *(health["heard"],) * 3,
            gateway.gateway_key,
        ],
    )


def _figures(health: Mapping[str, int | float | str] | None) -> dict[str, int]:
    """Return the whole numbers of an agent's health; text in it is for its own log."""
    given = health or {}
    whole = {n: f for n, f in given.items() if isinstance(f, int) and abs(f) <= COUNTED_MAX}
    figures = {name.replace("\0", ""): figure for name, figure in whole.items()}
    return figures | {"heard": max(0, figures.get("heard", 0))}  # a count; a night may be below 0


def record_report(
    connection: Connection,
    gateway: Gateway,
    *,
    kind: str,
    heard_at: int,
    received_at: int,
    payload: dict[str, Any],
) -> None:
    """Keep what a gateway says about itself."""
    connection.execute(
        """INSERT INTO gateway_reports (gateway_key, kind, heard_at, received_at, payload)
           VALUES (%s, %s, %s, %s, %s)""",
        [gateway.gateway_key, kind, storable(heard_at), storable(received_at), Jsonb(payload)],
    )


def open_batch(
    connection: Connection,
    gateway: Gateway,
    *,
    batch: Batch,
    sha256: bytes,
    bytes_received: int,
    received_at: int,
    offset: Offset,
    decoder_version: int,
) -> int:
    """Enter a batch in the ledger and return its key.

    The very same message may come again when only its first rows could be taken (a gap inside):
    then its key is the one it has.
    """
    seqs = batch.rows.column("seq")
    row = connection.execute(
        """INSERT INTO batches (sha256, gateway_key, stream, first_seq, last_seq, rows, bytes,
               sent_at, received_at, clock_offset_us, clock_quality, decoder_version)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
           ON CONFLICT (sha256) DO UPDATE SET rows = excluded.rows RETURNING batch_key""",
        [
            sha256,
            gateway.gateway_key,
            batch.stream,
            seqs[0],
            min(seqs[-1], SEQ_MAX),
            len(seqs),
            bytes_received,
            storable(batch.sent_at),
            storable(received_at),
            offset.correction_us if offset.trusted else None,
            "trusted" if offset.trusted else "untrusted",
            decoder_version,
        ],
    ).fetchone()
    assert row is not None
    return int(row[0])


def close_batch(connection: Connection, batch_key: int, counts: Counts) -> None:
    """Record what became of a batch's rows, and add it to what its gateway has brought."""
    connection.execute(
        """WITH counted AS (
               UPDATE batches SET frames = frames + %(frames)s, rejected = rejected + %(rejected)s,
                   readings_new = readings_new + %(readings_new)s,
                   readings_known = readings_known + %(readings_known)s,
                   conflicts = conflicts + %(conflicts)s
               WHERE batch_key = %(batch_key)s RETURNING gateway_key)
           UPDATE gateways SET frames_total = frames_total + %(frames)s,
               readings_total = readings_total + %(readings_new)s
           WHERE gateway_key = (SELECT gateway_key FROM counted)""",
        {
            "frames": counts.frames,
            "rejected": counts.rejected,
            "readings_new": counts.readings_new,
            "readings_known": counts.readings_known,
            "conflicts": counts.conflicts,
            "batch_key": batch_key,
        },
    )


def offset_of_batch(connection: Connection, batch_key: int) -> Offset | None:
    """Return the clock offset that a batch was corrected by, None when it was unknown then."""
    row = connection.execute(
        "SELECT clock_offset_us FROM batches WHERE batch_key = %s AND clock_quality = 'trusted'",
        [batch_key],
    ).fetchone()
    return None if row is None else Offset(offset_us=row[0], uncertainty_us=0, trusted=True)


def offset_of_sha256(connection: Connection, sha256: bytes) -> Offset | None:
    """Return the same by the batch's address."""
    row = connection.execute("SELECT batch_key FROM batches WHERE sha256 = %s", [sha256]).fetchone()
    return None if row is None else offset_of_batch(connection, row[0])


def add_receptions(
    connection: Connection, gateway: Gateway, *, batch_key: int, receptions: Receptions
) -> None:
    """Store who heard what, and count it in the gateway's hours."""
    n = len(receptions.row)
    if not n:
        return
    # in the order of the widest index: neighbours in it are written one after another
    receptions = receptions.take(np.argsort(receptions.meter_key, kind="stable"))
    whole, full = copying.whole, np.full
    copying.copy_rows(
        connection,
        "receptions",
        {
            "frame": copying.octets(receptions.frame),
            "batch_key": whole("int8", full(n, batch_key, np.int64)),
            "batch_row": whole("int4", receptions.row),
            "gateway_key": whole("int8", full(n, gateway.gateway_key, np.int64)),
            "meter_key": whole("int8", receptions.meter_key),
            "heard_at": copying.instants(receptions.heard_at),
            "counter": whole("int8", receptions.counter),
            "rssi_dbm": whole("int2", receptions.rssi_dbm, receptions.rssi_dbm == NO_RSSI),
            "snr_qdb": whole("int2", receptions.snr_qdb, receptions.snr_qdb == NO_SNR),
            "radio": whole("int2", receptions.radio),
            "integrity": whole("int2", receptions.integrity),
            "key_version": whole("int2", receptions.key_version),
            "flags": whole("int2", receptions.flags),
            "register_l": whole("int8", receptions.register_l, ~receptions.has_register),
        },
    )
    hours, frames = np.unique(receptions.heard_at // HOUR_US, return_counts=True)
    connection.execute(
        """INSERT INTO gateway_hours AS h (gateway_key, hour_at, frames)
           SELECT %s, to_timestamp(hour * 3600), frames
           FROM unnest(%s::bigint[], %s::int[]) AS u (hour, frames) ORDER BY hour
           ON CONFLICT (gateway_key, hour_at) DO UPDATE SET frames = h.frames + excluded.frames""",
        [gateway.gateway_key, hours.tolist(), frames.tolist()],
    )


def heard_elsewhere(
    connection: Connection,
    gateway: Gateway,
    frames: Mapping[bytes, int],
    *,
    meter_keys: Sequence[int],
) -> dict[int, dict[bytes, int]]:
    """Return, for each other gateway with a trusted clock, when it heard which of these frames.

    frames      {frame: µs when it was heard here}, not none: the search goes a day around them
    meter_keys  whose frames they are. They say nothing new, but a partition of which nobody has
                taken statistics yet is read by frame or by meter then, and not from end to end
    returns     {gateway_key: {frame: µs, corrected}}
    """
    rows = connection.execute(
        """SELECT r.gateway_key, r.frame, min(r.heard_at)
           FROM receptions r JOIN gateways g USING (gateway_key)
           WHERE r.frame = ANY (%s) AND r.meter_key = ANY (%s) AND r.gateway_key <> %s
             AND g.clock_quality = 'trusted' AND r.heard_at BETWEEN %s AND %s
           GROUP BY 1, 2""",
        [
            list(frames),
            list(meter_keys),
            gateway.gateway_key,
            storable(min(frames.values()) - DAY_US),
            storable(max(frames.values()) + DAY_US),
        ],
    )
    heard: dict[int, dict[bytes, int]] = {}
    for gateway_key, frame, heard_at in rows:
        heard.setdefault(gateway_key, {})[bytes(frame)] = to_us(heard_at)
    return heard


def offsets_of(connection: Connection, gateway_keys: Sequence[int]) -> dict[int, Offset]:
    """Return the clock offsets of these gateways."""
    rows = connection.execute(
        """SELECT gateway_key, clock_offset_us, clock_uncertainty_us, clock_quality
           FROM gateways WHERE gateway_key = ANY (%s)""",
        [list(gateway_keys)],
    )
    return {
        key: Offset(offset_us=offset, uncertainty_us=uncertainty, trusted=quality == "trusted")
        for key, offset, uncertainty, quality in rows
    }


_GATEWAY = """SELECT gateway_key, administration, clock_offset_us, clock_uncertainty_us,
                  clock_quality, clock_samples FROM gateways WHERE id = %s"""
_GATEWAY_LOCKED = _GATEWAY + " FOR NO KEY UPDATE"
