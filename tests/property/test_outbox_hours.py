"""The agent's hours against the cloud's own rule: whatever the gateway's clock says, the row that
the cloud takes for an hour's first is the first telegram of that hour, or one right after it.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.metering import clock_offsets
from cloud.metering.clock_offsets import Offset, Sample
from edge_agent import cloud_clock
from edge_agent.leaks import HOUR_US

NOON = 1_772_452_800_000_000
SECOND = 1_000_000
MINUTE = 60 * SECOND
TELEGRAM = 16 * SECOND
HOURS = 3

# What a way takes at least; the clock may be off by about as much, which the cloud ignores.
least = st.sampled_from([SECOND // 100, SECOND, 5 * SECOND])
times = st.floats(0, 3)
exchanges = st.lists(st.tuples(times, times), min_size=3, max_size=3)
far = st.integers(-4 * HOUR_US, 4 * HOUR_US)


class Both:
    """A gateway and the cloud, each with what it knows of the other's clock."""

    def __init__(self, ahead: int) -> None:
        self.ahead = ahead
        self.agent = cloud_clock.UNKNOWN
        self.samples: tuple[Sample, ...] = ()
        self.echo = (0, 0)  # cloud_at of the newest ack, and the true instant when it came

    def exchange(self, at: int, up: int, down: int) -> None:
        cloud_at, age = self.echo[0], at - self.echo[1]
        self.agent = cloud_clock.asked(self.agent, sent_at=at + self.ahead)
        seen = clock_offsets.sample(
            sent_at=at + self.ahead, received_at=at + up, echo_cloud_at=cloud_at, echo_age_us=age
        )
        self.samples = clock_offsets.remember(self.samples, seen)
        back = at + up + down
        self.agent = cloud_clock.answered(
            self.agent, cloud_at=at + up, received_at=back + self.ahead
        )
        self.echo = (at + up, back)

    @property
    def believed(self) -> Offset:
        return clock_offsets.estimate(self.samples)


@given(
    way=least,
    ahead=far | st.floats(-3, 3),
    exchanged=exchanges,
    phase=st.integers(0, TELEGRAM - 1) | st.floats(-3, 3),
)
@settings(max_examples=400, deadline=None)
def test_the_cloud_finds_the_first_telegram_of_each_hour_among_the_kept(
    way: int, ahead: float, exchanged: list[tuple[float, float]], phase: float
) -> None:
    """Fractions of `ahead` and `phase` are of what a way takes."""
    ahead = ahead if isinstance(ahead, int) else int(ahead * way)
    phase = phase if isinstance(phase, int) else int(phase * way)
    both = Both(ahead)
    for i, (up, down) in enumerate(exchanged):
        both.exchange(NOON - HOUR_US + i * MINUTE, int(way * (1 + up)), int(way * (1 + down)))
    clock, correction = both.agent, both.believed.correction_us
    assert clock.best is not None
    margin = cloud_clock.MARGIN_TIMES * clock.best.uncertainty_us

    kept, mark = [], -1
    for at in range(NOON - 10 * MINUTE + phase, NOON + HOURS * HOUR_US, TELEGRAM):
        if clock.hour_mark(at + ahead) != mark:
            mark = clock.hour_mark(at + ahead)
            kept.append(at + ahead - correction)  # as the cloud dates it

    for hour in range(HOURS):
        edge = NOON + hour * HOUR_US
        assert min(at for at in kept if at >= edge) - edge <= TELEGRAM + 2 * margin
    assert len(kept) <= 2 * (HOURS + 2)
