"""What intake counts for `/metrics`, once it is committed."""

from __future__ import annotations

from cloud.kernel import telemetry
from cloud.metering.dead_letters import REJECTED
from cloud.metering.worker import Taken

FRAMES = telemetry.counter("aquacis_frames_total", "Frames accepted; each reception counts.")
READINGS = telemetry.counter("aquacis_readings_total", "Readings newly recorded.")
CONFLICTS = telemetry.counter("aquacis_reading_conflicts_total", "Contradicting readings found.")
LOSSES = telemetry.counter("aquacis_edge_losses_total", "Losses that gateways reported or showed.")


def counted(taken: Taken) -> None:
    """Count what was committed."""
    LOSSES.inc(len(taken.losses))
    for _, code in taken.ack.rejected:
        REJECTED.labels(code).inc()
    if taken.recorded is not None:
        FRAMES.inc(taken.recorded.counts.frames)
        READINGS.inc(taken.recorded.counts.readings_new)
        CONFLICTS.inc(taken.recorded.counts.conflicts)
