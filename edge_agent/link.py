"""The nouns of the ack protocol: how eager the agent is, what it knows, what is to be done."""

from __future__ import annotations

from decoders.uplink import MAX_ROWS
from decoders.value import value
from edge_agent.early import Ahead, Early
from edge_agent.said import Said


@value
class Pace:
    """How eagerly to send. Seconds are of the monotonic clock."""

    batch_rows: int = 2000
    linger_s: float = 0.25  # a row waits this long for company
    ack_timeout_s: float = 10.0
    ack_timeout_max_s: float = 120.0
    heartbeat_s: float = 30.0  # a hello when there was nothing else to say
    news_s: float = 1.0  # a hello no more often than this when only health changed
    starved_s: float = 2.0  # a hello while the cloud gives no credit

    def __post_init__(self) -> None:
        if not 1 <= self.batch_rows <= MAX_ROWS:
            raise ValueError(f"batch_rows is {self.batch_rows}; 1 … {MAX_ROWS} fit in a message")


@value
class Link:
    """What both ends know of the stream, as seen from here.

    first, head   seq of the oldest row still held, and of the newest committed
    opened        the head when the agent started, until the first ack: the cloud cannot hold more
                  of this file, and what was added since must not pass for what it holds
    acked, sent   at and below: acknowledged by the cloud; published at least once
    rewound       the last `resend_from` obeyed, so that copies of that request are obeyed once
    unanswered    messages of this connection that no ack has answered yet
    probe         rows a message may have while the cloud refuses one; 0 = as many as usual
    given_up      rows given up since the cloud last took one; rows rest until `rest_until_s`
    progress_s    when rows were acknowledged last, or began to wait; `slowest_s`: see `_slowest_s`
    said          the newest message in order, and which answers are its own
    early         what was sent ahead of its turn
    """

    stream: bytes
    first: int = 1
    head: int = 0
    opened: int | None = None
    acked: int = 0
    sent: int = 0
    credit: int = 0
    connected: bool = False
    greeted: bool = False
    attempt: int = 0
    deadline_s: float = 0.0
    spoke_s: float = 0.0
    waiting_s: float | None = None  # since when a row waits for company
    rewound: int = 0
    rewound_s: float = 0.0
    unanswered: int = 0
    probe: int = 0
    given_up: int = 0
    rest_until_s: float = 0.0
    progress_s: float = 0.0
    slowest_s: float = 0.0
    said: Said = Said()
    early: Early = Early()


@value
class Publish:
    """Send up to `rows` rows from `first` on; none = hello. Answer with `published`.

    ahead     rows of this kind, ahead of their turn
    opened    where the answer is to say what the cloud holds of this file: the head when the agent
              started. No later row may be told of, nor any be declared lost
    """

    first: int
    rows: int
    ahead: Ahead = Ahead.NONE
    opened: int | None = None


@value
class Acknowledge:
    """Persist how far the cloud has it, and what it refused."""

    upto: int
    rejected: tuple[tuple[int, str], ...] = ()


@value
class RestartStream:
    """The cloud knows of rows that this outbox never had: it is an old copy, or lost its tail."""


@value
class GiveUp:
    """Keep a row, with the cloud's reason, but declare it lost: the cloud cannot read it."""

    seq: int
    code: str


Effect = GiveUp | Publish | Acknowledge | RestartStream
