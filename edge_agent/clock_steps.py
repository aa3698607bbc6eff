"""By how much this gateway's clock was set, and before which row. Pure.

Rows carry what the clock said when they were heard; the cloud measures the clock when they are
sent. What it was set by in between is told along with them, so that a row heard in 1970, or an
hour ahead, lands in its own hour. Three cases:

- the clock is set while the machine runs (the agent may be restarted meanwhile): the step is
  known, by a clock that nobody sets;
- the machine itself was off. How long, nobody knows; but where the cloud's acks told in both
  lives how far the clock was ahead, the difference of the two is the step;
- otherwise nobody knows. The rows before go with their own instants, or, where those cannot be
  true, as if heard just before the new life began; either way with a doubt that lets the cloud
  trust none of them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Final, TypeVar

from decoders.uplink import Gap, Lost
from decoders.uplink_steps import BY_MAX_US, MAX_STEPS, NOBODY_KNOWS_US, ClockStep
from decoders.value import value
from edge_agent.cloud_clock import Sample

LIFE_BYTES: Final = 16
EARLIEST_US: Final = 1_262_304_000_000_000  # 2010: before that it is a clock that was never set
MOVED_US: Final = 1_000_000  # drift that is worth a write to the disk
Range = TypeVar("Range", Gap, Lost)
QUEUED_US: Final = 60_000_000  # a frame waits at most so long between its stamp and its row


@value
class Steps:
    """What is known of how this clock was set.

    known      the steps, by rising row
    life       names the run of the machine that they are told of; b"" before the first
    ahead_us   the clock minus the one that nobody sets, in this life
    measured   how far the clock is ahead of the cloud's, as an ack of this life told
    opened     the row at which this life began, where the step to it is not known yet
    before     `measured` of the life before
    """

    known: tuple[ClockStep, ...] = ()
    life: bytes = b""
    ahead_us: int = 0
    measured: Sample | None = None
    opened: int = 0
    before: Sample | None = None


NONE: Final = Steps()


def begun(
    steps: Steps, *, life: bytes, ahead_us: int, head: int, head_at: int, now_at: int
) -> Steps:
    """The agent begins to work in `life`, behind row `head`, which was heard at `head_at`."""
    if steps.life == life:
        return steps  # what was set meanwhile shows in `ahead_us`
    fresh = replace(steps, life=life, ahead_us=ahead_us, measured=None, opened=0, before=None)
    if not steps.life or not head:
        return fresh
    is_true = EARLIEST_US <= head_at <= now_at
    guess = ClockStep(
        seq=head + 1, by_us=0 if is_true else now_at - head_at, doubt_us=NOBODY_KNOWS_US
    )
    opened = head + 1 if steps.measured is not None else 0
    return replace(_with(fresh, guess), opened=opened, before=steps.measured)


def stepped(steps: Steps, *, first: int, by_us: int) -> Steps:
    """The clock was set by so much; `first` is the first row after it."""
    known = steps.measured
    return replace(
        _with(steps, ClockStep(seq=first, by_us=by_us)),
        ahead_us=steps.ahead_us + by_us,
        measured=known and replace(known, ahead_us=known.ahead_us + by_us),
    )


def measured(steps: Steps, sample: Sample) -> Steps:
    """An ack told how far the clock is ahead of the cloud's."""
    known = steps.measured
    if known is not None:
        moved = abs(sample.ahead_us - known.ahead_us) > MOVED_US + sample.uncertainty_us
        if not moved and sample.uncertainty_us * 2 >= known.uncertainty_us:
            return steps
    steps = replace(steps, measured=sample)
    places = [place for place, step in enumerate(steps.known) if step.seq == steps.opened]
    if not places or steps.before is None:
        return steps
    place = places[0]
    later_us = sum(step.by_us for step in steps.known[place + 1 :])
    found = ClockStep(
        seq=steps.opened,
        by_us=sample.ahead_us - steps.before.ahead_us - later_us,
        doubt_us=sample.uncertainty_us + steps.before.uncertainty_us,
    )
    return replace(steps, known=(*steps.known[:place], found, *steps.known[place + 1 :]))


def renumbered(steps: Steps, by: int) -> Steps:
    """Rows have numbers that are less by so many now."""
    if not by:
        return steps
    known = [replace(step, seq=step.seq - by) for step in steps.known if step.seq > by + 1]
    return replace(steps, known=tuple(known), opened=max(0, steps.opened - by))


def of_stretch(steps: Steps, seqs: Sequence[int]) -> tuple[ClockStep, ...]:
    """Return the steps that matter to these rows; all that came after them as one."""
    if not seqs or not steps.known or steps.known[-1].seq <= seqs[0]:
        return ()
    among = [step for step in steps.known if seqs[0] < step.seq <= seqs[-1]]
    later = [step for step in steps.known if step.seq > seqs[-1]]
    for step in later[:1]:
        among.append(
            ClockStep(
                seq=step.seq,
                by_us=_bounded(sum(one.by_us for one in later)),
                doubt_us=min(NOBODY_KNOWS_US, sum(one.doubt_us for one in later)),
            )
        )
    return tuple(among)


def dated(steps: Steps, gone: Sequence[Range]) -> tuple[Range, ...]:
    """Return ranges of rows with their bounds by the clock as it is."""
    if not steps.known:
        return tuple(gone)
    return tuple(_dated(steps, one) for one in gone)


def _dated(steps: Steps, gone: Range) -> Range:
    bounds = (
        gone.from_at + _later_us(steps, gone.first),
        gone.to_at + _later_us(steps, gone.last),
    )
    return replace(gone, from_at=min(bounds), to_at=max(bounds))


def _later_us(steps: Steps, seq: int) -> int:
    return _bounded(sum(step.by_us for step in steps.known if step.seq > seq))


def restamped(heard_at: int, *, now_at: int, by_us: int) -> int:
    """Return when a frame was heard that waited for its row while the clock was set by `by_us`."""
    moved = heard_at + by_us
    waited = abs(now_at - moved) <= QUEUED_US and abs(now_at - moved) < abs(now_at - heard_at)
    return moved if waited else heard_at


def _with(steps: Steps, new: ClockStep) -> Steps:
    known = list(steps.known)
    while known and known[-1].seq >= new.seq:
        new = _joined(known.pop(), new, 0)
    known.append(new)
    if len(known) > MAX_STEPS:  # the two that are mistaken least for one become one
        place = min(range(len(known) - 1), key=lambda i: abs(known[i].by_us) + known[i].doubt_us)
        first, second = known[place : place + 2]
        known[place : place + 2] = [_joined(first, second, abs(first.by_us))]
    return replace(steps, known=tuple(known))


def _joined(first: ClockStep, second: ClockStep, doubt_us: int) -> ClockStep:
    doubt_us = min(NOBODY_KNOWS_US, first.doubt_us + second.doubt_us + doubt_us)
    by_us = _bounded(first.by_us + second.by_us)
    return ClockStep(seq=second.seq, by_us=by_us, doubt_us=doubt_us)


def _bounded(by_us: int) -> int:
    return max(-BY_MAX_US, min(BY_MAX_US, by_us))


_VERSION: Final = 1
_HEAD: Final = struct.Struct(f"<B{LIFE_BYTES}sqQB")
_SAMPLE: Final = struct.Struct("<qq")
_STEP: Final = struct.Struct("<Qqq")


def pack(steps: Steps) -> bytes:
    """Return all of it for a checkpoint; nothing before the first life."""
    if not steps.life:
        return b""
    samples = [steps.measured, steps.before]
    which = sum(1 << place for place, one in enumerate(samples) if one is not None)
    parts = [_HEAD.pack(_VERSION, steps.life, steps.ahead_us, steps.opened, which)]
    parts += [_SAMPLE.pack(one.ahead_us, one.uncertainty_us) for one in samples if one]
    parts += [_STEP.pack(step.seq, step.by_us, step.doubt_us) for step in steps.known]
    return b"".join(parts)


def unpack(packed: bytes) -> Steps:
    """Read what `pack` wrote; nothing is known where it is of another version."""
    if len(packed) < _HEAD.size or packed[0] != _VERSION:
        return NONE
    _, life, ahead_us, opened, which = _HEAD.unpack_from(packed)
    ends = list(accumulate((_SAMPLE.size * (which >> i & 1) for i in (0, 1)), initial=_HEAD.size))
    if (len(packed) - ends[-1]) % _STEP.size or len(packed) < ends[-1]:
        return NONE
    samples = [_sample(packed, ends[i]) if which >> i & 1 else None for i in (0, 1)]
    return Steps(
        known=tuple(
            ClockStep(seq=seq, by_us=by_us, doubt_us=doubt_us)
            for seq, by_us, doubt_us in _STEP.iter_unpack(packed[ends[-1] :])
        ),
        life=life,
        ahead_us=ahead_us,
        measured=samples[0],
        opened=opened,
        before=samples[1],
    )


def _sample(packed: bytes, at: int) -> Sample:
    ahead_us, uncertainty_us = _SAMPLE.unpack_from(packed, at)
    return Sample(ahead_us=ahead_us, uncertainty_us=uncertainty_us)
