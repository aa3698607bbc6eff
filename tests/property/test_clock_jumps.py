"""A gateway's clock is set while it works: no row changes its place or gets lost.

Frames are heard by whatever the clock says, which jumps by an hour, by ten years, or begins in 1970
until NTP has set it; the process restarts, the link comes and goes. Rows keep the order they were
heard in, each with the instant that the clock gave then, and all of them reach the cloud; with the
steps that the message tells, the cloud knows of each when it was heard in truth.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import cbor2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.metering import edge_protocol, frames
from cloud.metering.model import Stream
from decoders.uplink import Ack, Row, RowKind
from edge_agent import checkpoints, clock_steps, core, protocol, reduction
from edge_agent.forward import Echo, message_of
from edge_agent.inputs import (
    AckReceived,
    ClockStepped,
    Committed,
    Connected,
    Disconnected,
    Heard,
    Input,
    Now,
    Published,
    Store,
    Tick,
)
from edge_agent.leaks import HOUR_US
from edge_agent.outbox import Outbox

YEAR_US = 365 * 24 * HOUR_US
BEGIN_US = 1_772_452_800_000_000  # 2026-03-02 12:00 UTC
JUMPS = {
    "an hour on": HOUR_US,
    "an hour back": -HOUR_US,
    "ten years on": 10 * YEAR_US,
    "ten years back": -10 * YEAR_US,
    "to 1970": None,
    "by NTP to the truth": 0,
}


class Gateway:
    """A gateway with a clock in our hands, and a cloud that takes by its own rule."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.true_us = BEGIN_US
        self.ahead_us = 0
        self.monotonic_s = 0.0
        self.counter = 0
        self.heard: list[tuple[int, int]] = []  # (counter, what the clock said)
        self.truth: dict[int, int] = {}
        self.believed: dict[int, int] = {}
        self.cloud: list[Row] = []
        self.upto = 0
        self.open()

    def now_us(self) -> int:
        return self.true_us + self.ahead_us

    def ticks_us(self) -> int:
        return int(self.monotonic_s * 1e6)

    def life(self) -> bytes:
        return bytes(16)

    def open(self) -> None:
        """Start the agent on its folder, as after a restart."""
        self.outbox = Outbox(
            self.folder / "outbox.db", new_stream=lambda: bytes(16), now_us=self.now_us()
        )
        outbox = self.outbox
        link = protocol.Link(
            stream=outbox.stream,
            first=outbox.first,
            head=outbox.head,
            opened=outbox.head,
            acked=outbox.acked,
            sent=outbox.acked,
        )
        memory = checkpoints.recovered(outbox, reduction.Policy())
        ahead_us = self.now_us() - self.ticks_us()
        memory.steps = clock_steps.begun(
            memory.steps,
            life=bytes(16),
            ahead_us=ahead_us,
            head=outbox.head,
            head_at=outbox.head_at,
            now_at=self.now_us(),
        )
        self.state = core.State(reduction=memory, link=link, pace=protocol.Pace())
        by_us = ahead_us - memory.steps.ahead_us
        if by_us:  # as the shell notices
            self.tell(ClockStepped(from_at=self.now_us() - by_us, to_at=self.now_us()))

    def passes(self, seconds: float) -> None:
        self.monotonic_s += seconds
        self.true_us += int(seconds * 1e6)

    def jump(self, by_us: int | None) -> None:
        """Set the clock: by so much, with 0 to the truth, with None to the beginning of 1970."""
        before = self.now_us()
        if by_us is None:
            self.ahead_us = 1_000_000 - self.true_us
        else:
            self.ahead_us = 0 if by_us == 0 else self.ahead_us + by_us
        self.tell(ClockStepped(from_at=before, to_at=self.now_us()))

    def hear(self) -> None:
        self.passes(2)
        self.counter += 1
        self.heard.append((self.counter, self.now_us()))
        self.truth[self.counter] = self.true_us
        self.tell(
            Heard(
                kind=RowKind.LORAWAN,
                frame=b"\x01",
                heard_at=self.now_us(),
                radio=7,
                counter=self.counter,
                port=1,
            )
        )

    def tell(self, told: Input) -> bool:
        """Take one input and do what it asks; say whether a message went out."""
        now = Now(at=self.now_us(), wall_s=self.monotonic_s)
        self.state, effects = core.step(self.state, told, now)
        sent = False
        for effect in effects:
            if isinstance(effect, Store):
                steps = clock_steps.pack(self.state.reduction.steps)
                self.outbox.append(effect.rows, {checkpoints.STEPS: steps})
                self.tell(Committed(first=self.outbox.first, head=self.outbox.head))
            elif isinstance(effect, protocol.Acknowledge):
                self.outbox.acknowledge(effect.upto, effect.rejected)
            elif isinstance(effect, protocol.Publish):
                self.publish(effect)
                sent = True
        return sent

    def publish(self, asked: protocol.Publish) -> None:
        batch, told = message_of(
            self.outbox,
            asked,
            gateway="norte",
            agent="test",
            clock=self,
            echo=Echo(),
            health={},
            traceparent="",
            steps=self.state.reduction.steps,
        )
        assert isinstance(told, Published)
        self.tell(told)
        if batch is None:
            return
        stream = Stream(
            gateway_key=1, stream=batch.stream, upto=self.upto, head=0, head_at=None, started_at=0
        )
        seqs = np.frombuffer(batch.rows.columns["seq"], "<u8").astype(np.int64)
        taking = edge_protocol.take(stream=stream, seqs=seqs, lost=batch.lost, acked=batch.acked)
        assert not taking.losses
        self.cloud += list(batch.rows)[taking.begin : taking.end]
        moved = frames.uplinked(batch.rows, batch.steps)
        assert not moved.is_doubtful.any()
        for at, counter in zip(moved.heard_at.tolist(), moved.counter.tolist(), strict=True):
            self.believed[counter] = at - self.ahead_us
        self.upto = taking.upto
        ack = Ack(
            stream=batch.stream,
            upto=self.upto,
            credit=500,
            cloud_at=self.true_us,
            resend_from=taking.resend_from,
        )
        self.tell(AckReceived(ack=ack, at=self.now_us()))

    def settle(self) -> None:
        """Let everything reach the cloud."""
        self.tell(Connected())
        for _ in range(50):
            self.passes(0.5)
            while self.tell(Tick()):
                self.passes(0.01)
            if self.upto == self.outbox.head:
                return
        raise AssertionError(f"the cloud has {self.upto} of {self.outbox.head} rows")

    def judge(self) -> None:
        """Every frame is there once, in the order it was heard, with the clock of then."""
        assert [row.seq for row in self.cloud] == list(range(1, self.outbox.head + 1))
        heard = [(row.counter, row.heard_at) for row in self.cloud if row.kind == RowKind.LORAWAN]
        assert heard == self.heard
        assert {n: self.believed[n] for n in self.truth} == self.truth


@pytest.mark.parametrize("jump", list(JUMPS))
def test_a_jump_of_the_clock_changes_no_order_and_loses_no_row(jump: str, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    gateway.tell(Connected())
    for _ in range(5):
        gateway.hear()
    gateway.jump(JUMPS[jump])
    for _ in range(5):
        gateway.hear()

    gateway.settle()

    gateway.judge()
    steps = [cbor2.loads(row.payload) for row in gateway.cloud if row.kind == RowKind.REPORT]
    assert [step["kind"] for step in steps] == ["clock_step"]


def test_a_gateway_that_boots_in_1970_and_is_set_by_ntp_keeps_everything(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    for _ in range(3):
        gateway.hear()
    gateway.outbox.close()
    gateway.ahead_us = 1_000_000 - gateway.true_us
    gateway.open()
    for _ in range(3):
        gateway.hear()
    gateway.jump(0)
    gateway.hear()

    gateway.settle()

    gateway.judge()
    assert [row.heard_at < YEAR_US for row in gateway.cloud if row.counter] == [
        *(False,) * 3,
        *(True,) * 3,
        False,
    ]


STEPS = st.lists(
    st.one_of(
        st.just("hear"),
        st.just("hear"),
        st.sampled_from(list(JUMPS)),
        st.sampled_from(["connect", "disconnect", "restart"]),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_whatever_happens_to_clock_link_and_process_rows_stay_in_order_and_whole(
    steps: list[str],
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="aquacis-test-"))
    try:
        gateway = Gateway(folder)
        for step in steps:
            if step == "hear":
                gateway.hear()
            elif step == "connect":
                gateway.tell(Connected())
                gateway.tell(Tick())
            elif step == "disconnect":
                gateway.tell(Disconnected(reason="test"))
            elif step == "restart":
                gateway.outbox.close()
                gateway.open()
            else:
                gateway.jump(JUMPS[step])
        gateway.settle()
        gateway.judge()
        gateway.outbox.close()
    finally:
        shutil.rmtree(folder)
