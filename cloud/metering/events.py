"""The facts metering publishes. Within a version columns and fields are only added."""

from __future__ import annotations

import pyarrow as pa

from cloud.kernel.events import EventType

SOURCE = "metering"

_READINGS = pa.schema(
    [
        pa.field("meter_key", pa.int64(), nullable=False),
        pa.field("register_at", pa.int64(), nullable=False),  # µs since 1970 UTC
        pa.field("register_l", pa.int64(), nullable=False),  # cumulative litres
        pa.field("heard_at", pa.int64(), nullable=False),  # µs, corrected
        pa.field("batch_key", pa.int64(), nullable=False),
        pa.field("batch_row", pa.int32(), nullable=False),
        pa.field("clock", pa.int16(), nullable=False),  # model.ClockSource
        pa.field("quality", pa.int16(), nullable=False),  # model.Quality
    ]
)

READING_RECORDED = EventType(name="reading.recorded", version=1, columns=_READINGS)
"""One shard's share of the readings one batch brought, in (meter, instant) order.

Each (meter_key, register_at) once for ever: a repeat is no fact."""

READING_CORRECTED = EventType(name="reading.corrected", version=1, columns=_READINGS)
"""Readings that took the place of recorded ones with another value.

Events of two batches may cross, so a projection that keeps values keeps the better of two by
(clock, then register_l for the meter's own clock and heard_at for a gateway's), as `rules.py`
does, or reads the readings themselves."""

READING_CONFLICTED = EventType(name="reading.conflicted", version=1)
"""{meter_key, register_at, kept_l, other_l, rule, frames: [[batch_key, row], [batch_key, row]]}"""

ANOMALY_DETECTED = EventType(name="anomaly.detected", version=1)
"""{alert, meter_key, meter, kind, level, state: open | closed, rate_lph, litres, started_at,
detected_at, gateway, administration}; once when opened, at each higher level, and when closed."""

EDGE_LOSS_REPORTED = EventType(name="edge.loss.reported", version=1)
"""{gateway, administration, stream, first_seq, last_seq | null, reason, certain, from_at, to_at};
times in µs or null."""
