"""What the cloud takes of a message, and what it answers: decision 5, without any input or output.

A gateway's outbox numbers its rows 1, 2, 3 … per `stream`. `upto` is the contiguous number below
and at which every row is stored, dead-lettered or declared lost. A gap is never skipped: the
answer asks for what is missing, and the gateway sends it or declares it lost.

A message that cannot be read as a whole has no row numbers, so nothing can be taken from it. It
is answered with the unchanged `upto`, the code under row number 0, and `resend_from`. Bytes that
were damaged on the way come right by that. A message that is refused again as it was sent holds a
row that this cloud cannot read: the gateway sends smaller and smaller batches until that row is
alone, and then declares that one row lost (it keeps it, with its code, for who comes looking).
A version this cloud does not know is answered the same way without `resend_from`: the gateway
keeps its rows and waits for the cloud to be upgraded.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cloud.metering import early
from cloud.metering.gaps import Declared
from cloud.metering.model import Int64s, Loss, Stream
from decoders.uplink import Gap, Lost
from decoders.value import value

SEQ_MAX = (1 << 62) - 1  # what a signed 64-bit column holds, with room to add


@value
class Taking:
    """What to do with a batch.

    begin, end    the rows to take, by index
    upto          after the commit
    losses        newly declared, to be recorded
    resend_from   to ask for, or None
    skip          those of begin … end that came early, by index: they are taken already
    early         the ranges above `upto` that were taken early, after this batch
    took          the newest row of a batch that came early, None for one in order
    """

    begin: int
    end: int
    upto: int
    losses: tuple[Loss, ...]
    resend_from: int | None
    skip: frozenset[int] = frozenset()
    early: early.Ranges = ()
    took: int | None = None

    @property
    def rows(self) -> int:
        """Return how many rows are to be taken."""
        return self.end - self.begin - len(self.skip)


def take(
    *,
    stream: Stream,
    seqs: Int64s,
    lost: Sequence[Lost],
    acked: int,
    gaps: Sequence[Gap] = (),
    head: int = SEQ_MAX,
) -> Taking:
    """Decide which rows of a batch follow on what is stored.

    seqs   (n,) rising row numbers of the batch; none for a hello
    lost   ranges the gateway declares lost
    gaps   the same of this message's stretch, exact; they go before `lost`
    acked  up to where the gateway believes itself acknowledged; beyond `upto`: we were restored
    head   the newest row the gateway has: none behind it can be lost
    """
    upto = stream.upto
    begin = end = int(np.searchsorted(seqs, upto, side="right"))
    declared = Declared(gaps, lost, upto=min(head, SEQ_MAX))
    while True:
        run = _run_after(seqs[end:], upto)
        if run:
            end, upto = end + run, upto + run
            continue
        known_to = early.end_of_range_with(stream.early, upto + 1)
        if known_to is not None:
            upto, end = known_to, int(np.searchsorted(seqs, known_to, side="right"))
            continue
        held_from = min(_first(seqs[end:]), early.next_start(stream.early, upto))
        passed = declared.passed_over(upto + 1, held_from - 1)
        if passed is None:
            break
        upto = passed
    losses = declared.losses(stream.stream)
    forgotten = end == begin and not losses and (acked > upto or stream.resend)
    return Taking(
        begin=begin,
        end=end,
        upto=upto,
        losses=tuple(losses),
        resend_from=upto + 1 if end < len(seqs) or forgotten else None,
        skip=frozenset(i for i in early.known_among(stream, seqs[:end]) if i >= begin),
        early=early.beyond(stream.early, upto),
    )


def take_early(*, stream: Stream, seqs: Int64s, acked: int) -> Taking:
    """Decide which rows of a batch of copies, ahead of their turn, are new."""
    skip = early.known_among(stream, seqs)
    added = early.added(stream, seqs)
    has_room = early.has_room(stream.early, added) or len(skip) == len(seqs)
    forgotten = acked > stream.upto or stream.resend
    return Taking(
        begin=0,
        end=len(seqs) if has_room else 0,
        upto=stream.upto,
        losses=(),
        resend_from=stream.upto + 1 if forgotten else None,
        skip=skip if has_room else frozenset(),
        early=added if has_room else stream.early,
        took=int(seqs[-1]) if has_room and len(seqs) else None,
    )


def loss_by_new_stream(before: Stream | None, *, stream: bytes, started_at: int) -> Loss | None:
    """Return what may have been lost when a gateway begins a new stream.

    before      the stream it used until now, None for a gateway heard for the first time
    started_at  µs, when the new stream was made, corrected

    What the gateway had told to have and never sent is lost for certain. Even when everything it
    told of has come, rows it took in after its last message may be gone: that is reported as
    not certain, with the same bounds, since nothing is lost silently.
    """
    if before is None or before.stream == stream:
        return None
    certain = before.head > before.upto
    return Loss(
        stream=before.stream,
        first_seq=before.upto + 1,
        last_seq=before.head if certain else None,
        reason="new_stream",
        certain=certain,
        from_at=before.last_heard_at,
        to_at=started_at,
    )


def _run_after(seqs: Int64s, upto: int) -> int:
    """Return how many of the row numbers follow on `upto` without a gap."""
    if not len(seqs) or seqs[0] != upto + 1:
        return 0
    expected = upto + 1 + np.arange(len(seqs), dtype=np.int64)
    breaks = np.flatnonzero(seqs != expected)
    return int(breaks[0]) if len(breaks) else len(seqs)


def _first(seqs: Int64s) -> int:
    return int(seqs[0]) if len(seqs) else early.NEVER
