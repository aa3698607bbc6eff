"""An agent in a thread, with everything around it in a test's hands."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2

from decoders.uplink import Ack, Batch, Row, RowKind
from edge_agent import core, protocol, reduction
from edge_agent.checkpoints import recovered
from edge_agent.inputs import AckReceived, Connected, Heard
from edge_agent.outbox import Outbox
from edge_agent.shell import Agent
from edge_agent.sources.port import Inbox

STREAM = b"s" * 16


class Cloud:
    """A link whose other end takes everything at once."""

    is_free = True
    max_bytes = 900_000

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self.rows: dict[int, Row] = {}
        self.last: Batch | None = None
        self.answers = True
        self.upto = 0

    def start(self) -> None:
        self.inbox.put_now(Connected())

    def publish(self, batch: Batch) -> None:
        self.last = batch
        for row in batch.rows:
            self.rows[row.seq] = row
        self.upto = max(self.rows, default=self.upto)
        if self.answers:
            ack = Ack(stream=batch.stream, upto=self.upto, credit=1000, cloud_at=5)
            self.inbox.put_now(AckReceived(ack=ack))

    def stop(self) -> None:
        """Nothing is open."""


class Radio:
    """A source that remembers what was settled."""

    name = "radio"

    def __init__(self) -> None:
        self.settled: list[object] = []

    def start(self) -> None:
        """Frames come from the test."""

    def settle(self, tokens: list[object]) -> None:
        self.settled += tokens

    def stop(self) -> None:
        """Nothing runs."""


class Clock:
    def __init__(self) -> None:
        self.ahead_us = 0

    def now_us(self) -> int:
        return self.ticks_us() + self.ahead_us

    def ticks_us(self) -> int:
        return time.monotonic_ns() // 1000

    def life(self) -> bytes:
        return bytes(16)


class Bench:
    """An agent in a thread, with everything around it in our hands."""

    def __init__(self, tmp_path: Path, **given: Any) -> None:
        self.inbox, self.radio, self.clock = Inbox(), Radio(), Clock()
        self.cloud = Cloud(self.inbox)
        self.outbox = Outbox(tmp_path / "outbox.db", new_stream=lambda: STREAM, now_us=1, **given)
        self.log: list[tuple[str, dict[str, object]]] = []
        outbox = self.outbox
        link = protocol.Link(
            stream=STREAM, first=1, head=outbox.head, acked=outbox.acked, sent=outbox.acked
        )
        self.agent = Agent(
            gateway="norte",
            state=core.State(
                reduction=recovered(self.outbox, reduction.Policy()),
                link=link,
                pace=protocol.Pace(linger_s=0.01, ack_timeout_s=0.5),
            ),
            outbox=self.outbox,
            link=self.cloud,  # type: ignore[arg-type]  # as much of it as the loop uses
            sources=(self.radio,),
            inbox=self.inbox,
            clock=self.clock,
            log=lambda event, **said: self.log.append((event, said)),
        )
        self.code = -1
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self.code = self.agent.run()

    def hear(self, token: int) -> None:
        frame = Heard(
            kind=RowKind.LORAWAN,
            frame=b"\x01",
            heard_at=token,
            radio=1,
            counter=token,
            port=1,
            token=token,
        )
        self.inbox.put(frame)

    def stop(self) -> int:
        self.agent.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self.code

    def logged(self, event: str) -> list[dict[str, object]]:
        return [said for name, said in self.log if name == event]


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def reports(rows: dict[int, Row]) -> list[dict[str, Any]]:
    return [cbor2.loads(row.payload) for row in rows.values() if row.kind == RowKind.REPORT]
