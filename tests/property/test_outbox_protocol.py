"""A gateway, a lossy network and a cloud that may go back in time: nothing is lost in silence.

The gateway is the real outbox, protocol and message; the cloud decides with its own rule.
Hypothesis loses, repeats and delays messages, kills the gateway, restores the cloud from a backup,
fills the outbox until it must shed, and makes rows unreadable. At the end the network is healed
and every row that was committed is in the cloud once, or was declared lost.

The files lie in memory where that is possible: what a sync takes is no part of it (the power cuts
have tests of their own), and it took three quarters of the time. `HYPOTHESIS_PROFILE=soak` looks at
thousands of histories, new ones each time.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import deque
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cloud.metering import edge_protocol
from cloud.metering.model import Stream
from decoders.uplink import (
    Ack,
    Batch,
    RowFlag,
    RowKind,
    decode_ack,
    decode_batch,
    encode_ack,
    encode_batch,
)
from decoders.value import value
from edge_agent import core, protocol, reduction
from edge_agent.forward import Echo, message_of
from edge_agent.inputs import (
    AckReceived,
    Committed,
    Connected,
    Disconnected,
    Input,
    Now,
    Tick,
)
from edge_agent.outbox import Draft, Limit, Outbox

POISON = b"unreadable"
CREDIT = 40
FLAGS = (RowFlag.FIRST_OF_HOUR, RowFlag(0), RowFlag.FIRST_OF_HOUR, RowFlag.UNDECODABLE, RowFlag(0))
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
HISTORIES = max(60, settings().max_examples // 8)  # each takes as long as many examples
EARLY = 6  # rows ahead of their turn in one message


@value
class Copy:
    """What a cloud holds of one stream, as a backup keeps it."""

    upto: int
    rows: dict[int, bytes]
    lost: tuple[tuple[int, int], ...]
    early: tuple[tuple[int, int], ...]


class Cloud:
    """What decision 5 asks of a cloud, with its own rule for what to take."""

    def __init__(self) -> None:
        self.upto = 0
        self.rows: dict[int, bytes] = {}
        self.lost: list[tuple[int, int]] = []
        self.stream = b""
        self.knows_gaps = True
        self.early: tuple[tuple[int, int], ...] = ()
        self.came_early = 0
        self.backup = Copy(upto=0, rows={}, lost=(), early=())

    def take(self, message: bytes) -> bytes:
        batch = decode_batch(message)
        if any(row.payload == POISON for row in batch.rows):
            return self._answer(batch, resend_from=self.upto + 1, rejected=((0, "malformed"),))
        self.stream = batch.stream
        known = Stream(
            gateway_key=1,
            stream=batch.stream,
            upto=self.upto,
            head=0,
            head_at=None,
            started_at=0,
            early=self.early,
        )
        seqs = np.frombuffer(batch.rows.columns["seq"], "<u8").astype(np.int64)
        if batch.early:
            assert len(batch.rows) <= EARLY
            taking = edge_protocol.take_early(stream=known, seqs=seqs, acked=batch.acked)
        else:
            taking = edge_protocol.take(
                stream=known,
                seqs=seqs,
                lost=batch.lost,
                gaps=batch.gaps if self.knows_gaps else (),
                acked=batch.acked,
            )
        for index, row in enumerate(batch.rows):
            if not taking.begin <= index < taking.end or index in taking.skip:
                continue
            assert row.seq not in self.rows, "taken twice"
            self.rows[row.seq] = row.payload
            self.came_early += batch.early
        self.early = taking.early
        for loss in taking.losses:
            self.lost += loss.runs or [(loss.first_seq, loss.last_seq or 0)]
        self.upto = taking.upto
        return self._answer(batch, resend_from=taking.resend_from, took=taking.took)

    def keep_backup(self) -> None:
        self.backup = Copy(
            upto=self.upto, rows=dict(self.rows), lost=tuple(self.lost), early=self.early
        )

    def restore(self) -> None:
        self.upto, self.rows = self.backup.upto, dict(self.backup.rows)
        self.lost = list(self.backup.lost)
        self.early = self.backup.early

    def _answer(
        self,
        batch: Batch,
        *,
        resend_from: int | None,
        rejected: tuple[tuple[int, str], ...] = (),
        took: int | None = None,
    ) -> bytes:
        ack = Ack(
            stream=batch.stream,
            upto=self.upto,
            credit=CREDIT,
            cloud_at=1,
            resend_from=resend_from,
            rejected=rejected,
            early=EARLY,
            took=took,
        )
        return encode_ack(ack)


class StoppedClock:
    def now_us(self) -> int:
        return 1

    def ticks_us(self) -> int:
        return 1

    def life(self) -> bytes:
        return bytes(16)


class Delivery(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix=f"aquacis-test-{os.getpid()}-", dir=MEMORY))
        self.cloud = Cloud()
        self.up: deque[bytes] = deque()
        self.down: deque[bytes] = deque()
        self.wall_s = 0.0
        self.written: list[bytes] = []
        self.shed = 0
        self.given_up: set[int] = set()
        self.pace = protocol.Pace(batch_rows=16)

    @initialize(rows=st.sampled_from([30, 100, 10_000]), knows_gaps=st.booleans())
    def open(self, rows: int, knows_gaps: bool) -> None:
        """A cloud of before `gaps` goes by the first ranges of `lost`."""
        self.limit = Limit(rows=rows, page_rows=rows // 8)
        self.cloud.knows_gaps = knows_gaps
        self._open()

    def _open(self) -> None:
        self.outbox = Outbox(
            self.folder / "outbox.db", new_stream=lambda: bytes(16), now_us=1, limit=self.limit
        )
        link = protocol.Link(
            stream=self.outbox.stream,
            first=self.outbox.first,
            head=self.outbox.head,
            opened=self.outbox.head,
            acked=self.outbox.acked,
            sent=self.outbox.acked,
        )
        state = reduction.State(policy=reduction.Policy())
        self.state = core.State(reduction=state, link=link, pace=self.pace)

    @rule(count=st.integers(1, 25), poison=st.integers(0, 200), alert=st.integers(0, 50))
    def hear(self, count: int, poison: int, alert: int) -> None:
        payloads = [b"row %d" % (len(self.written) + i) for i in range(count)]
        if poison < count:
            payloads[poison] = POISON
        drafts = [
            Draft(
                heard_at=len(self.written),
                kind=RowKind.ANOMALY if number == alert else RowKind.WMBUS,
                flags=FLAGS[(len(self.written) + number) % len(FLAGS)],
                payload=payload,
            )
            for number, payload in enumerate(payloads)
        ]
        shed = self.outbox.append(drafts, {})
        self.shed += shed.rows if shed else 0
        self.written += payloads
        self._tell(Committed(first=self.outbox.first, head=self.outbox.head))

    @rule(passed_s=st.sampled_from([0.0, 0.3, 12.0, 200.0]))
    def wait(self, passed_s: float) -> None:
        self.wall_s += passed_s
        for _ in range(100):
            if not self._tell(Tick()):
                return
        raise AssertionError(f"never done sending: {self.state.link}")

    @precondition(lambda self: not self.state.link.connected)
    @rule()
    def connect(self) -> None:
        self._tell(Connected())
        self.wait(0.0)

    @precondition(lambda self: self.state.link.connected)
    @rule(arrives=st.booleans())
    def disconnect(self, arrives: bool) -> None:
        """Messages on the way arrive or not; answers to them do not."""
        if arrives:
            while self.up:
                self.cloud.take(self.up.popleft())
        self.up.clear()
        self.down.clear()
        self._tell(Disconnected(reason="test"))

    @precondition(lambda self: bool(self.up))
    @rule(fate=st.sampled_from(["arrives", "arrives", "arrives twice", "is lost"]))
    def carry_up(self, fate: str) -> None:
        message = self.up.popleft()
        for _ in range({"arrives": 1, "arrives twice": 2, "is lost": 0}[fate]):
            self.down.append(self.cloud.take(message))

    @precondition(lambda self: bool(self.down))
    @rule(fate=st.sampled_from(["arrives", "arrives", "arrives twice", "is lost"]))
    def carry_down(self, fate: str) -> None:
        message = self.down.popleft()
        for _ in range({"arrives": 1, "arrives twice": 2, "is lost": 0}[fate]):
            self._tell(AckReceived(ack=decode_ack(message)))
        self.wait(0.0)

    @rule()
    def a_foreign_ack_says_nothing(self) -> None:
        before = self.state.link
        self._tell(AckReceived(ack=Ack(stream=b"x" * 16, upto=10**6, credit=0, cloud_at=1)))
        assert self.state.link == before

    @rule()
    def kill_the_gateway(self) -> None:
        self.outbox.close()
        self.up.clear()
        self.down.clear()
        self._open()

    @rule()
    def back_up_the_cloud(self) -> None:
        self.cloud.keep_backup()

    @rule()
    def restore_the_cloud(self) -> None:
        self.cloud.restore()

    @invariant()
    def the_cloud_holds_what_was_written_in_order(self) -> None:
        for seq, payload in self.cloud.rows.items():
            assert payload == self.written[seq - 1]

    def teardown(self) -> None:
        try:
            if hasattr(self, "outbox"):
                self._heal()
                self._judge()
        finally:
            shutil.rmtree(self.folder)

    def _heal(self) -> None:
        if not self.state.link.connected:
            self.connect()
        for _ in range(3000):
            if not (self.up or self.down) and self._agreed():
                return
            self.wait(0.3 if self.up or self.down else 200.0)
            while self.up:
                self.down.append(self.cloud.take(self.up.popleft()))
            while self.down:
                self._tell(AckReceived(ack=decode_ack(self.down.popleft())))
        raise AssertionError(f"still talking: {self.state.link}, cloud has {self.cloud.upto}")

    def _agreed(self) -> bool:
        return self.outbox.pending == 0 and self.cloud.upto == self.outbox.head

    def _judge(self) -> None:
        lost = {seq for first, last in self.cloud.lost for seq in range(first, last + 1)}
        everything = set(range(1, len(self.written) + 1))
        assert self.cloud.upto == len(self.written)
        assert set(self.cloud.rows) | lost == everything
        poisoned = {seq for seq in everything if self.written[seq - 1] == POISON}
        readable_lost = lost - poisoned
        assert self.given_up <= poisoned, "a readable row was given up"
        held = self.outbox.read(1, rows=1 << 20, max_bytes=1 << 30)
        gone = everything - {row.seq for row in held}
        assert readable_lost <= gone, "a row that the outbox still holds was declared lost"
        self.outbox.close()

    def _tell(self, told: Input) -> bool:
        """Take one input, perform its effects; say whether a message went out."""
        now = Now(at=1, wall_s=self.wall_s)
        self.state, effects = core.step(self.state, told, now)
        sent = False
        for effect in effects:
            if isinstance(effect, protocol.Acknowledge):
                self.outbox.acknowledge(effect.upto, effect.rejected)
            elif isinstance(effect, protocol.GiveUp):
                self.given_up.add(effect.seq)
                self.outbox.give_up(effect.seq, effect.code)
            elif isinstance(effect, protocol.Publish):
                self._publish(effect)
                sent = True
            else:
                raise AssertionError(f"not expected here: {effect}")
        return sent

    def _publish(self, asked: protocol.Publish) -> None:
        batch, told = message_of(
            self.outbox,
            asked,
            gateway="norte",
            agent="test",
            clock=StoppedClock(),
            echo=Echo(),
            health={},
            traceparent="",
        )
        if batch is None:
            self._tell(told)
            return
        if not asked.ahead:
            self._check_credit(batch)
        self.up.append(encode_batch(batch))
        self._tell(told)

    def _check_credit(self, batch: Batch) -> None:
        link, gone = self.state.link, self.outbox.first - 1
        in_flight = max(link.sent, gone) - max(link.acked, gone) + batch.rows.count
        assert in_flight <= CREDIT, "more in flight than the cloud allowed"


Delivery.TestCase.settings = settings(max_examples=HISTORIES, stateful_step_count=40, deadline=None)
TestDelivery = Delivery.TestCase
