"""How far this gateway's clock is ahead of the cloud's, as far as acks tell. Pure.

The cloud corrects `heard_at` by its own estimate before it decides which hour a reading belongs
to; an agent that numbered hours by its own wrong clock would keep the wrong telegram of each. So
it numbers them by the same clock. `heard_at` itself stays what the gateway's clock said.

A message goes out at t1 and its ack, stamped `cloud_at`, comes back at t4, both by our clock: it
is ahead by (t1 + t4) / 2 - cloud_at, give or take half the round trip. The best of recent samples
counts. A sample that contradicts it is doubted until a second one says the same: then somebody
has set a clock, and what was known before is forgotten.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Final

from decoders.value import value
from edge_agent.leaks import HOUR_US

DAY_US: Final = 24 * HOUR_US
SAMPLES: Final = 20  # as many as the cloud looks at; ten minutes of heartbeats
MOST_ASKED: Final = 32  # messages without an ack; more than any credit lets out
# The cloud trusts no clock that it knows less well, and corrects by none.
MOST_UNCERTAINTY_US: Final = 300_000_000
# Our estimate and the cloud's are each off by up to an uncertainty, and the cloud corrects
# nothing where the offset is within its own.
MARGIN_TIMES: Final = 3


@value
class Sample:
    """One exchange: how far our clock is ahead, and by how much that may be wrong, in µs."""

    ahead_us: int
    uncertainty_us: int

    def agrees(self, other: Sample) -> bool:
        allowed = self.uncertainty_us + other.uncertainty_us
        return abs(self.ahead_us - other.ahead_us) <= allowed


@value
class CloudClock:
    """What is known of the cloud's clock; nothing before the first ack.

    samples   oldest first; `best` of them is what counts
    doubt     the newest sample, where it contradicts the best
    asked     when the messages went out that no ack has answered, oldest first; our clock, µs
    """

    samples: tuple[Sample, ...] = ()
    best: Sample | None = None
    doubt: Sample | None = None
    asked: tuple[int, ...] = ()

    def hour_mark(self, at: int) -> int:
        """Number the hour of an instant of ours: 2 · hours since 1970, UTC, by the cloud's clock.

        Odd where the hour's edge is so near that it may be either of two: the telegram there is
        then the first of its mark, and so is the first one that is surely of the new hour.
        """
        best = self.best
        if best is None:
            return at // HOUR_US * 2
        at -= best.ahead_us
        margin_us = MARGIN_TIMES * best.uncertainty_us
        return (at - margin_us) // HOUR_US + (at + margin_us) // HOUR_US

    def day(self, at: int) -> int:
        """Number the day of an instant of ours: days since 1970, UTC, by the cloud's clock."""
        return (at - self.best.ahead_us if self.best else at) // DAY_US


UNKNOWN: Final = CloudClock()


def asked(clock: CloudClock, *, sent_at: int) -> CloudClock:
    """A message was stamped at `sent_at` and handed over; the cloud answers each with one ack."""
    return replace(clock, asked=(*clock.asked, sent_at)[-MOST_ASKED:])


def connected(clock: CloudClock) -> CloudClock:
    """Acks for what an earlier connection sent do not come any more."""
    return replace(clock, asked=())


def answered(clock: CloudClock, *, cloud_at: int, received_at: int) -> CloudClock:
    """Take an ack's stamp. One that nobody asked for says nothing: its way is of unknown length.

    It answers the oldest message or, where an answer got lost, a later one: then the round trip
    counts too long, which makes the sample less certain but not wrong.
    """
    if not clock.asked:
        return clock
    sent_at, *rest = clock.asked
    clock = replace(clock, asked=tuple(rest))
    round_trip_us = received_at - sent_at
    uncertainty_us = round_trip_us // 2 + 1
    if round_trip_us < 0 or uncertainty_us >= MOST_UNCERTAINTY_US:
        return clock
    middle_at = sent_at + round_trip_us // 2
    return _taken(clock, Sample(ahead_us=middle_at - cloud_at, uncertainty_us=uncertainty_us))


def stepped(clock: CloudClock, *, by_us: int) -> CloudClock:
    """Our own clock was set: what is known stays true, by so much more."""
    return CloudClock(
        samples=tuple(_shifted(sample, by_us) for sample in clock.samples),
        best=None if clock.best is None else _shifted(clock.best, by_us),
        doubt=None if clock.doubt is None else _shifted(clock.doubt, by_us),
        asked=tuple(at + by_us for at in clock.asked),
    )


def newest(clock: CloudClock, *, before: CloudClock) -> Sample | None:
    """Return the sample that made `clock` of `before`, if one did."""
    if clock.doubt is not None and clock.doubt is not before.doubt:
        return clock.doubt
    return clock.samples[-1] if clock.samples is not before.samples else None


def _shifted(sample: Sample, by_us: int) -> Sample:
    return replace(sample, ahead_us=sample.ahead_us + by_us)


def _taken(clock: CloudClock, new: Sample) -> CloudClock:
    if clock.best is None or new.agrees(clock.best):
        samples = (*clock.samples, new)[-SAMPLES:]
    elif clock.doubt is not None and new.agrees(clock.doubt):
        samples = (clock.doubt, new)
    else:
        return replace(clock, doubt=new)
    best = min(reversed(samples), key=lambda sample: sample.uncertainty_us)
    return replace(clock, samples=samples, best=best, doubt=None)


_LAYOUT: Final = struct.Struct("<Bqq")
_VERSION: Final = 1


def pack(clock: CloudClock) -> bytes:
    """Return the best sample for a checkpoint; nothing before the first."""
    if clock.best is None:
        return b""
    return _LAYOUT.pack(_VERSION, clock.best.ahead_us, clock.best.uncertainty_us)


def unpack(packed: bytes) -> CloudClock:
    """Read what `pack` wrote. It holds until two acks contradict it: clocks drift while off."""
    if len(packed) != _LAYOUT.size or packed[0] != _VERSION:
        return UNKNOWN
    _, ahead_us, uncertainty_us = _LAYOUT.unpack(packed)
    best = Sample(ahead_us=ahead_us, uncertainty_us=uncertainty_us)
    return CloudClock(samples=(best,), best=best)
