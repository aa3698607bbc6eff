"""The link to the cloud: batches out on `…/up`, acks in on `…/down`.

What to send and when is `protocol`'s business; here it becomes messages, as long as `line` says.
Only the cloud's own ack counts: both common brokers PUBACK a publish that their rules then drop.
"""

from __future__ import annotations

import queue
import random
import time
from collections.abc import Callable, Mapping
from typing import Final

from decoders.uplink import (
    MAX_GAPS,
    Batch,
    Gap,
    Lost,
    Row,
    UplinkError,
    decode_ack,
    encode_batch,
    pack_rows,
)
from decoders.value import value
from edge_agent import clock_steps
from edge_agent.clock import Clock
from edge_agent.connection import Connection
from edge_agent.early import Ahead
from edge_agent.inputs import AckReceived, Connected, Delivered, Disconnected, Published
from edge_agent.line import BATCH_BYTES, Line, gaps_beside
from edge_agent.mqtt import Broker, SubscriptionRefused
from edge_agent.outbox import Outbox
from edge_agent.protocol import Publish
from edge_agent.sources.port import Inbox

CAPABILITIES: Final = ("wmbus", "lorawan", "leaks.continuous", "leaks.burst")
LEAN: Final = "profile_lean"  # the figure of the health that says so
HEALTH_ENTRIES: Final = 60  # the codec takes 64


def topic_up(gateway: str) -> str:
    return f"aquacis/1/gateway/{gateway}/up"


def topic_down(gateway: str) -> str:
    return f"aquacis/1/gateway/{gateway}/down"


@value
class Echo:
    """The newest ack: the cloud's clock in it, and our ticks when it came."""

    cloud_at: int = 0
    ticks_us: int = 0


def message_of(
    outbox: Outbox,
    asked: Publish,
    *,
    gateway: str,
    agent: str,
    clock: Clock,
    echo: Echo,
    health: Mapping[str, int],
    traceparent: str,
    max_bytes: int = BATCH_BYTES,
    steps: clock_steps.Steps = clock_steps.NONE,
) -> tuple[Batch | None, Published]:
    """Read the asked rows (maybe fewer: a message has a size) into a message, and say what it is.

    None where rows were asked for ahead of their turn and there is none: then nothing is sent.
    """
    rows = _rows(outbox, asked, max_bytes=max_bytes)
    reach = rows[-1].seq if rows else outbox.head
    rows, gaps, lost = _with_gaps(outbox, asked, rows, most=gaps_beside(max_bytes, MAX_GAPS))
    sent_at = clock.now_us()
    if asked.ahead and not rows:
        return None, Published(last=0, sent_at=sent_at, ahead=asked.ahead, reach=reach)
    batch = Batch(
        gateway=gateway,
        stream=outbox.stream,
        rows=pack_rows(rows),
        sent_at=sent_at,
        started_at=outbox.started_at,
        agent=agent,
        capabilities=(*CAPABILITIES, "profile.lean" if health.get(LEAN) else "profile.full"),
        echo_cloud_at=echo.cloud_at,
        echo_age_us=max(0, clock.ticks_us() - echo.ticks_us) if echo.cloud_at else 0,
        head=outbox.head if asked.opened is None else asked.opened,
        head_at=outbox.head_at,
        acked=outbox.acked,
        lost=clock_steps.dated(steps, lost),
        gaps=clock_steps.dated(steps, gaps),
        steps=clock_steps.of_stretch(steps, [row.seq for row in rows]),
        early=bool(asked.ahead),
        health=dict(list(health.items())[:HEALTH_ENTRIES]),
        traceparent=traceparent,
    )
    last = rows[-1].seq if rows else _last_gone(asked, gaps)
    return batch, Published(
        last=last, rows=len(rows), sent_at=sent_at, ahead=asked.ahead, reach=reach
    )


def _with_gaps(
    outbox: Outbox, asked: Publish, rows: tuple[Row, ...], *, most: int
) -> tuple[tuple[Row, ...], tuple[Gap, ...], tuple[Lost, ...]]:
    """Return the rows with what is gone around them, where the message may declare it."""
    if asked.ahead or asked.opened is not None:
        return rows, (), ()
    gaps = outbox.gaps(asked.first, rows)[:most]
    if len(gaps) == most:  # what lies before them must be told first
        rows = tuple(row for row in rows if row.seq < gaps[-1].first)
    return rows, gaps, outbox.lost_from(outbox.acked + 1)


def _last_gone(asked: Publish, gaps: tuple[Gap, ...]) -> int:
    """Return how far a message without a row goes: what it declares, else all that was asked for
    was given up; 0 for a hello.
    """
    if not asked.rows:
        return 0
    return gaps[-1].last if gaps else asked.first + asked.rows - 1


def _rows(outbox: Outbox, asked: Publish, *, max_bytes: int) -> tuple[Row, ...]:
    if not asked.rows:
        return ()
    if asked.ahead == Ahead.ALERTS:
        return outbox.alerts(asked.first - 1, rows=asked.rows, max_bytes=max_bytes)
    return outbox.read(asked.first, rows=asked.rows, max_bytes=max_bytes)


@value
class Begun:
    """A connection began or ended: nothing is under way on the next.

    most_packet   the longest packet that its broker takes, bytes; 0 = it does not say
    """

    most_packet: int = 0


@value
class Puback:
    """The broker has message `mid`, since `at_s` (monotonic)."""

    mid: int
    at_s: float


class CloudLink:
    """The MQTT connection to the cloud. Puts AckReceived, Connected, Disconnected and Delivered
    in the inbox.

    What the connection's thread tells is queued, and taken in by the loop's thread: a lock here
    would be held while paho takes its own, and paho calls back holding them.
    """

    def __init__(
        self,
        *,
        broker: Broker,
        gateway: str,
        inbox: Inbox,
        clock: Clock,
        log: Callable[..., None],
    ) -> None:
        self._clock = clock
        self._broker = broker
        self._up, self._down = topic_up(gateway), topic_down(gateway)
        self._inbox = inbox
        self._log = log
        self._told: queue.SimpleQueue[Begun | Puback] = queue.SimpleQueue()
        self._line = Line(keepalive_s=broker.keepalive_s)
        self._publish_refused = False
        self._connection = Connection(
            broker=broker,
            client_id=f"aquacis-edge-{gateway}",
            topic=self._down,
            listener=self,
            draw=random.SystemRandom().random,
            log=log,
        )

    def start(self) -> None:
        self._connection.start()

    @property
    def is_free(self) -> bool:
        """Say whether the line takes another message now. Look at it often: it also notices that
        the broker has not said for too long that it has a message.
        """
        self._catch_up()
        connection = self._connection
        if self._line.misses_puback(now_s=time.monotonic(), moved_s=connection.moved_s):
            connection.give_up("puback_missing")
        return self._line.is_free

    @property
    def max_bytes(self) -> int:
        """Return how many bytes of rows the next message should have at most."""
        return self._line.max_bytes

    def publish(self, batch: Batch) -> None:
        """Hand a message over. Whether it arrived, only an ack will tell."""
        self._catch_up()  # with the beginning of the connection that takes it
        mid = self._connection.publish(self._up, encode_batch(batch))
        if mid is not None:
            self._line.handed(mid, rows=batch.rows.count, now_s=time.monotonic())

    def _catch_up(self) -> None:
        """Take in what the connection's thread has told."""
        while not self._told.empty():
            told = self._told.get()
            if isinstance(told, Begun):
                self._line.begins(most_packet=told.most_packet)
                continue
            rows = self._line.delivered(told.mid, now_s=told.at_s)
            if rows:
                self._inbox.put_now(Delivered(rows=rows))

    def stop(self) -> None:
        self._connection.stop()

    def stands(self, version: str, *, most_packet: int = 0) -> None:
        self._told.put(Begun(most_packet=most_packet))
        said = {"most_packet": most_packet} if most_packet else {}
        self._log("connected", broker=self._broker.address, mqtt=version, **said)
        self._inbox.put_now(Connected())

    def ended(self, reason: str) -> None:
        self._told.put(Begun())
        self._inbox.put_now(Disconnected(reason=reason))

    def message(self, payload: bytes) -> None:
        try:
            ack = decode_ack(payload)
        except UplinkError as error:
            self._log("ack_unreadable", code=error.code, detail=error.detail)
            return
        self._inbox.put_now(AckReceived(ack=ack, at=self._clock.now_us()))

    def delivered(self, mid: int, *, refused: bool) -> None:
        self._told.put(Puback(mid=mid, at_s=time.monotonic()))
        if refused and not self._publish_refused:
            self._publish_refused = True
            self._log(
                "publish_refused",
                topic=self._up,
                user=self._broker.user,
                hint="the broker does not let this gateway publish on its topic: check its access "
                "rules and the name in its certificate",
            )
        self._inbox.put_now(Delivered())  # wakes the loop

    def subscription_refused(self) -> None:
        self._inbox.put_now(
            SubscriptionRefused(
                topic=self._down, user=self._broker.user, address=self._broker.address
            )
        )
