"""An ack-faithful cloud without a database: it takes rows by the cloud's own rule and answers.

What is taken and what is answered is `cloud.metering.edge_protocol`'s business, as in the intake;
only storing is left out, so the agent and the line are what is measured. It can be as slow, as
forgetful and as confused as wanted: answers that get lost, messages that come twice or out of turn.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from dataclasses import dataclass, field, replace

import numpy as np
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from cloud.metering import early, edge_protocol
from cloud.metering.model import Int64s, Stream
from decoders.uplink import Ack, Batch, RowKind, decode_batch, encode_ack
from decoders.value import value
from field_sim.broker import CLOUD, LOOPBACK
from field_sim.mutual_tls import Identity

SUBSCRIBED_S = 30.0
CREDIT_ROWS = 16_384  # the intake's


@value
class Trouble:
    """What goes wrong, each by chance in 0 … 1; `pause_s` before each message is taken."""

    answer_lost: float = 0.0
    twice: float = 0.0
    out_of_turn: float = 0.0
    pause_s: float = 0.0


@dataclass
class Taken:
    """What one stream has brought. Sums are of the taken rows, modulo 2⁶⁴."""

    stream: Stream
    rows: int = 0
    seq_sum: int = 0
    heard_sum: int = 0
    lost: int = 0


@dataclass
class Counts:
    """What came, over all streams."""

    messages: int = 0
    hellos: int = 0
    rows: int = 0
    rows_early: int = 0
    rows_again: int = 0
    answers_lost: int = 0
    most_queued: int = 0
    alerts_s: list[float] = field(default_factory=list)  # monotonic, when a new alert was taken
    live: list[tuple[int, float]] = field(default_factory=list)  # (heard_at µs, monotonic)


class Sink:
    """A context manager: a client of a broker, as its account `cloud`."""

    def __init__(
        self,
        *,
        port: int,
        password: str | None = None,
        identity: Identity | None = None,
        ca_file: str | None = None,
        credit: int = CREDIT_ROWS,
        trouble: Trouble | None = None,
        seed: int = 7,
    ) -> None:
        self.trouble = trouble or Trouble()
        self.counts = Counts()
        self.streams: dict[bytes, Taken] = {}
        self.last: Batch | None = None
        self.live_since_us = 1 << 62  # rows heard after it are noted with the time they came
        self._credit = credit
        self._draw = random.Random(seed)
        self._waiting: queue.SimpleQueue[tuple[str, bytes] | None] = queue.SimpleQueue()
        self._held: tuple[str, bytes] | None = None
        self._port = port
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="aquacis-sink")
        if identity is not None:
            self._client.tls_set(ca_file, str(identity.cert_file), str(identity.key_file))
        elif password is not None:
            self._client.username_pw_set(CLOUD, password)
        self._client.max_queued_messages_set(0)
        self._client.on_message = self._on_message
        self._subscribed = threading.Event()
        self._client.on_connect = lambda client, *_: client.subscribe(
            "aquacis/1/gateway/+/up", qos=1
        )
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Sink:
        self._client.connect(LOOPBACK, self._port)
        self._client.loop_start()
        assert self._subscribed.wait(SUBSCRIBED_S), "the broker does not let the sink read"
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._waiting.put(None)
        self._thread.join()

    @property
    def upto(self) -> int:
        """Return how far the newest stream is taken over."""
        return self.last_taken.stream.upto if self.streams else 0

    @property
    def last_taken(self) -> Taken:
        return next(reversed(self.streams.values()))

    def _on_message(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        self._waiting.put((message.topic.split("/")[3], bytes(message.payload)))

    def _work(self) -> None:
        while (came := self._waiting.get()) is not None:
            self.counts.most_queued = max(self.counts.most_queued, self._waiting.qsize())
            trouble = self.trouble
            time.sleep(trouble.pause_s)
            if self._held is None and self._draw.random() < trouble.out_of_turn:
                self._held = came
                continue
            self._take(*came)
            if self._draw.random() < trouble.twice:
                self._take(*came)
            if self._held is not None:
                held, self._held = self._held, None
                self._take(*held)

    def _take(self, gateway: str, message: bytes) -> None:
        batch = decode_batch(message)
        self.last = batch
        taken = self.streams.get(batch.stream)
        if taken is None:
            started = Stream(
                gateway_key=1,
                stream=batch.stream,
                upto=0,
                head=0,
                head_at=None,
                started_at=batch.started_at,
            )
            taken = self.streams.setdefault(batch.stream, Taken(stream=started))
        seqs = np.frombuffer(batch.rows.columns["seq"], "<u8").astype(np.int64)
        if batch.early:
            taking = edge_protocol.take_early(stream=taken.stream, seqs=seqs, acked=batch.acked)
        else:
            taking = edge_protocol.take(
                stream=taken.stream, seqs=seqs, lost=batch.lost, acked=batch.acked
            )
        self._count(batch, taken, taking, seqs)
        seen = early.seen(taken.stream)
        head = max(taken.stream.head, batch.head)
        taken.stream = replace(taken.stream, upto=taking.upto, head=head, early=taking.early)
        if self._draw.random() < self.trouble.answer_lost:
            self.counts.answers_lost += 1
            return
        ack = Ack(
            stream=batch.stream,
            upto=taking.upto,
            credit=self._credit,
            cloud_at=batch.sent_at,
            resend_from=taking.resend_from,
            early=early.room_for(taken.stream),
            took=taking.took,
            answers=batch.sent_at,
            seen=seen,
        )
        self._client.publish(f"aquacis/1/gateway/{gateway}/down", encode_ack(ack), qos=1)

    def _count(
        self, batch: Batch, taken: Taken, taking: edge_protocol.Taking, seqs: Int64s
    ) -> None:
        counts, now_s = self.counts, time.monotonic()
        counts.messages += 1
        counts.hellos += not len(seqs)
        counts.rows += len(seqs)
        counts.rows_early += len(seqs) if batch.early else 0
        counts.rows_again += len(seqs) - taking.rows
        taken.lost += sum(loss.rows or 0 for loss in taking.losses)
        chosen = [i for i in range(taking.begin, taking.end) if i not in taking.skip]
        if not chosen:
            return
        heard_at = np.frombuffer(batch.rows.columns["heard_at"], "<i8")[chosen]
        kind = np.frombuffer(batch.rows.columns["kind"], "u1")[chosen]
        taken.rows += len(chosen)
        taken.seq_sum = (taken.seq_sum + int(seqs[chosen].sum())) & ((1 << 64) - 1)
        taken.heard_sum = (taken.heard_sum + int(heard_at.sum())) & ((1 << 64) - 1)
        counts.alerts_s += [now_s] * int((kind == RowKind.ANOMALY).sum())
        fresh = heard_at[heard_at > self.live_since_us]
        counts.live += [(int(at), now_s) for at in fresh]
