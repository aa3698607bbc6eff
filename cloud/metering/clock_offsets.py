"""How far a gateway's clock is from ours, and when to believe the answer (decision 8).

Every message carries when it was sent by the gateway's clock, and, once an ack arrived, which
`cloud_at` that ack had and how long ago (monotonic) it came. That is the exchange of four
instants of NTP (RFC 5905 §8): with t0 = cloud_at (ours), t1 = sent − age (theirs), t2 = sent
(theirs), t3 = received (ours)

    offset = ((t1 − t0) + (t2 − t3)) / 2      true offset within ± round trip / 2
    round trip = (t3 − t0) − (t2 − t1)

whatever the two ways take. Without an echo the travel time is unknown and so is the offset.
A second source are frames that two gateways heard: a telegram reaches both at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from cloud.metering.model import MINUTE_US, SECOND_US
from decoders.value import value

SAMPLES_MAX = 20  # at one message a minute: a drift of 50 ppm makes 60 ms meanwhile
TRUSTED_UNCERTAINTY_US = 5 * MINUTE_US  # an hour slot is mistaken for a neighbour at most 1 in 12
ROUND_TRIP_MAX_US = 24 * 60 * MINUTE_US  # an echo older than a day says nothing
SHARED_FRAMES_MIN = 3  # one frame may be a late repeat
SHARED_SPREAD_US = 5 * SECOND_US  # receivers stamp a frame when it ends, within seconds


@value
class Sample:
    """One exchange: offset (positive = gateway ahead) and its uncertainty, µs."""

    offset_us: int
    uncertainty_us: int


@value
class Offset:
    """What is believed of a gateway's clock now."""

    offset_us: int | None = None
    uncertainty_us: int | None = None
    trusted: bool = False

    @property
    def correction_us(self) -> int:
        """What to subtract from the gateway's instants: nothing within the uncertainty."""
        if not self.trusted or self.offset_us is None or self.uncertainty_us is None:
            return 0
        return self.offset_us if abs(self.offset_us) > self.uncertainty_us else 0


UNKNOWN = Offset()


def sample(
    *, sent_at: int, received_at: int, echo_cloud_at: int, echo_age_us: int
) -> Sample | None:
    """Return what one message tells, or None without an echo or with an impossible one.

    sent_at                      µs, the gateway's clock
    received_at, echo_cloud_at   µs, our clock; echo_cloud_at 0 = no ack heard yet
    echo_age_us                  µs between the ack's arrival and the sending, monotonic
    """
    if echo_cloud_at <= 0 or echo_age_us < 0:
        return None
    round_trip = received_at - echo_cloud_at - echo_age_us
    if not 0 <= round_trip <= ROUND_TRIP_MAX_US:
        return None  # our clock was set, or the echo is of another life
    ahead = (sent_at - echo_age_us - echo_cloud_at) + (sent_at - received_at)
    return Sample(offset_us=ahead // 2, uncertainty_us=round_trip // 2 + 1)


def remember(samples: Sequence[Sample], new: Sample | None) -> tuple[Sample, ...]:
    """Return the samples to keep, oldest first.

    A new sample that contradicts the best one means that the gateway's clock was set: what was
    measured before it is forgotten.
    """
    if new is None:
        return tuple(samples)
    agreeing = tuple(samples)
    if agreeing:
        best = min(agreeing, key=lambda one: one.uncertainty_us)
        if abs(best.offset_us - new.offset_us) > best.uncertainty_us + new.uncertainty_us:
            agreeing = ()
    return (*agreeing, new)[-SAMPLES_MAX:]


def estimate(samples: Sequence[Sample]) -> Offset:
    """Return the offset by the tightest exchange among the samples, the newest of equals."""
    if not samples:
        return UNKNOWN
    best = min(reversed(samples), key=lambda one: one.uncertainty_us)
    return Offset(
        offset_us=best.offset_us,
        uncertainty_us=best.uncertainty_us,
        trusted=best.uncertainty_us < TRUSTED_UNCERTAINTY_US,
    )


def from_shared_frames(differences_us: Sequence[int], *, reference: Offset) -> Offset:
    """Return the offset of a gateway by frames that a trusted one heard too.

    differences_us   raw heard_at here − corrected heard_at at the reference, one per frame
    reference        what is believed of the other gateway
    """
    if len(differences_us) < SHARED_FRAMES_MIN or not reference.trusted:
        return UNKNOWN
    middle = round(median(differences_us))
    spread = round(median(abs(each - middle) for each in differences_us))
    uncertainty = (reference.uncertainty_us or 0) + spread + SHARED_SPREAD_US
    return Offset(
        offset_us=middle,
        uncertainty_us=uncertainty,
        trusted=uncertainty < TRUSTED_UNCERTAINTY_US,
    )


def agreed(own: Offset, shared: Offset) -> Offset:
    """Return what to believe of an offset by exchange and one by shared frames.

    Shared frames speak only where no exchange does, or against it: two answers that exclude
    each other are both doubted.
    """
    if not own.trusted:
        return shared if shared.trusted else own
    if not shared.trusted:
        return own
    apart = abs((own.offset_us or 0) - (shared.offset_us or 0))
    if apart > (own.uncertainty_us or 0) + (shared.uncertainty_us or 0):
        return Offset(offset_us=own.offset_us, uncertainty_us=own.uncertainty_us, trusted=False)
    return own
