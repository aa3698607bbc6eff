"""What intake counts for `/metrics`, once it is committed."""

from __future__ import annotations

from collections.abc import Callable

from cloud.kernel import telemetry
from cloud.kernel.postgres_errors import DiskNearlyFull
from cloud.metering.dead_letters import REJECTED
from cloud.metering.worker import Taken

FRAMES = telemetry.counter("aquacis_frames_total", "Frames accepted; each reception counts.")
READINGS = telemetry.counter("aquacis_readings_total", "Readings newly recorded.")
CONFLICTS = telemetry.counter("aquacis_reading_conflicts_total", "Contradicting readings found.")
LOSSES = telemetry.counter("aquacis_edge_losses_total", "Losses that gateways reported or showed.")
ROOM = telemetry.gauge("aquacis_intake_open", "1 while rows are taken in, 0 on a full disk.")

log = telemetry.logger(__name__)


class Room:
    """Whether anything may be taken in now; says so when that changes. `require` raises if not."""

    def __init__(self, require: Callable[[], None]) -> None:
        self._require = require
        self._was_there = True
        ROOM.set(1)

    def is_there(self) -> bool:
        """Look, log a change, and set the figure."""
        try:
            self._require()
        except DiskNearlyFull as full:
            there, error = False, str(full)
        else:
            there, error = True, ""
        if there != self._was_there:
            (log.info if there else log.error)(
                "intake_open" if there else "intake_closed", error=error
            )
            self._was_there = there
        ROOM.set(there)
        return there


def counted(taken: Taken) -> None:
    """Count what was committed."""
    LOSSES.inc(len(taken.losses))
    for _, code in taken.ack.rejected:
        REJECTED.labels(code).inc()
    if taken.recorded is not None:
        FRAMES.inc(taken.recorded.counts.frames)
        READINGS.inc(taken.recorded.counts.readings_new)
        CONFLICTS.inc(taken.recorded.counts.conflicts)
