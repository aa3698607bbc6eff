"""The nouns of metering: what a gateway, a reading, a loss and an alert are made of."""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum, IntFlag
from typing import Any

import numpy as np
import numpy.typing as npt

from decoders.value import value

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Int16s = npt.NDArray[np.int16]
Bools = npt.NDArray[np.bool_]

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

KIND_TOTAL = 1
"""The only register kind of water meters so far: cumulative volume since manufacture."""


class ClockSource(IntEnum):
    """Whose clock says when the register had its value, best first: it ranks receptions."""

    METER = 0  # the meter's own log time
    GATEWAY_TRUSTED = 1
    GATEWAY_UNTRUSTED = 2


class Quality(IntFlag):
    """What is remarkable about a stored reading; 0 is a good one."""

    LATE = 1  # received long after register_at
    WENT_BACK = 2  # lower than the register before it: swapped meter, or tampering
    JUMP = 4  # more than the pipe can carry since the register before it
    CORRECTED = 8  # replaced another value of the same instant


class Rejection:
    """Codes under which a row or a message is refused; stable, people look them up.

    Beside these, the codes of `decoders.errors` (crc, wrong_key, key_missing, truncated,
    unknown_format, unknown_signature, not_for_us, unsupported, malformed).
    """

    OVERSIZED = "uplink_oversized"
    MALFORMED = "uplink_malformed"
    VERSION = "uplink_version"
    FOREIGN_TOPIC = "foreign_topic"
    UNKNOWN_GATEWAY = "unknown_gateway"
    UNKNOWN_METER = "unknown_meter"
    FUTURE = "future"
    IMPLAUSIBLE_DATE = "implausible_date"
    FAILED = "intake_failed"  # our own fault: the message breaks the program
    MALFORMED_ROW = "malformed_row"  # an anomaly or a report that does not say what it must


@value
class Gateway:
    """A gateway and what is known of its clock. Offsets in µs, positive = gateway ahead."""

    gateway_key: int
    id: str
    administration: str
    offset_us: int | None = None
    uncertainty_us: int | None = None
    trusted: bool = False
    samples: tuple[tuple[int, int], ...] = ()  # (offset, uncertainty), oldest first


@value
class Stream:
    """How far one outbox file of a gateway has been taken over."""

    gateway_key: int
    stream: bytes
    upto: int
    head: int
    head_at: int | None  # µs
    started_at: int  # µs, the gateway's clock
    last_heard_at: int | None = None  # µs, corrected: heard_at of row `upto`
    resend: bool = False
    early: tuple[tuple[int, int], ...] = ()  # taken ahead of their turn: (first, last), rising


@value
class Loss:
    """Rows that will never come. `last_seq` None: unknown how many; not `certain`: maybe none.

    kind   what they were: undecodable, sub_hourly, hourly, own, acked, refused, corrupt, mixed
    runs   which of first_seq … last_seq they are, inclusive ranges; () = all of them
    """

    stream: bytes
    first_seq: int
    last_seq: int | None
    reason: str  # "declared" by the gateway, or "new_stream"
    certain: bool
    from_at: int | None  # µs
    to_at: int | None  # µs
    kind: str = "mixed"
    runs: tuple[tuple[int, int], ...] = ()

    @property
    def rows(self) -> int | None:
        """How many rows; None = unknown."""
        if self.runs:
            return sum(last - first + 1 for first, last in self.runs)
        return None if self.last_seq is None else self.last_seq - self.first_seq + 1

    def moved(self, by_us: int) -> Loss:
        """Return the same loss with bounds by another clock."""
        from_at, to_at = (None if at is None else at + by_us for at in (self.from_at, self.to_at))
        return replace(self, from_at=from_at, to_at=to_at)


@value
class Readings:
    """Readings as columns, each (n,); `row` is the row of the batch they came in."""

    meter_key: Int64s
    register_at: Int64s  # µs since 1970 UTC
    register_l: Int64s
    heard_at: Int64s  # µs, corrected
    row: Int32s
    clock: Int16s  # ClockSource
    quality: Int16s  # Quality

    def __len__(self) -> int:
        return len(self.meter_key)

    def take(self, chosen: npt.NDArray[Any]) -> Readings:
        """Return the chosen readings, by index or by mask."""
        return Readings(
            meter_key=self.meter_key[chosen],
            register_at=self.register_at[chosen],
            register_l=self.register_l[chosen],
            heard_at=self.heard_at[chosen],
            row=self.row[chosen],
            clock=self.clock[chosen],
            quality=self.quality[chosen],
        )

    def with_quality(self, quality: Int16s) -> Readings:
        """Return the same readings with these remarks."""
        return replace(self, quality=quality)


@value
class States:
    """The newest register of each meter of a batch, in meter_key order; columns (meters,)."""

    meter_key: Int64s
    last_at: Int64s  # µs; NEVER when the meter has no reading yet
    last_register_l: Int64s


NEVER = -(1 << 62)
"""An instant before all others: stands for "none yet" in columns of instants."""


@value
class Conflict:
    """Two values for one (meter, instant). `rule` names the precedence that kept one."""

    meter_key: int
    register_at: int  # µs
    kept_l: int
    other_l: int
    kept_batch_key: int
    kept_batch_row: int
    other_batch_key: int
    other_batch_row: int
    rule: str


@value
class Anomaly:
    """What an agent says about one episode of one meter: the payload of row kind 3."""

    kind: str  # one of `alerts.KINDS`
    meter: str  # natural id
    episode: str  # 16 hex digits
    level: int
    started_at: int  # µs
    detected_at: int  # µs
    rate_lph: int
    litres: int
    state: str  # open | closed


@value
class Alert:
    """One episode of one meter, whoever saw it."""

    alert_key: int
    meter_key: int
    kind: str
    level: int
    state: str
    rate_lph: int
    litres: int
    started_at: int
    opened_at: int
    closed_at: int | None
