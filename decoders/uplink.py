"""The edge → cloud message: one CBOR codec for both ends of the MQTT link.

An agent publishes a `Batch` on `aquacis/1/gateway/<gateway>/up`; the cloud answers each with an
`Ack` on `.../down` once what it holds is committed. A batch without rows is a hello.

A row is named (gateway, stream, seq): `stream` is sixteen random bytes made with the outbox file,
so a re-flashed gateway never looks like a duplicate. Rows travel as columns: packed
little-endian arrays in byte strings, so that the cloud reads thousands of rows without making
an object for each.

    map key    type            meaning
    v          uint            uplink version; the cloud accepts N … N-2
    gw         text            the gateway's id, as in the topic
    stream     bytes(16)
    agent      text            agent version
    caps       [text]          capabilities
    sent       int             µs UTC, the gateway's clock, when this was published
    echo       [int, int]      cloud_at of the newest ack, and µs since it arrived (monotonic)
    head       uint            highest seq the outbox has committed; 0 = none
    head_at    int             heard_at of that row
    started    int             µs UTC, the gateway's clock, when the stream was made
    acked      uint            the contiguous seq that the agent believes acknowledged
    lost       [[first, last, from µs, to µs], …]  rows that are gone, the first 64 ranges
    gaps       {name: bytes}   the same of this message's stretch, exact and by kind: uplink_gaps
    steps      {name: bytes}   by how much the clock was set since these rows: uplink_steps
    health     {text: number|text}
    tp         text            W3C traceparent
    n          uint            rows
    early      bool            the rows are copies ahead of their turn; they come again in order
    cols       {name: bytes}   one packed array each, see COLUMNS
    payload    bytes           the rows' payloads, one after another; lengths in cols.length

Both ends ignore keys and columns they do not know. Times are whole microseconds since 1970 UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cbor2

from decoders import cbor
from decoders.uplink_fields import (
    INSTANT_MAX,
    Malformed,
    Oversized,
    UnknownVersion,
    UplinkError,
    instant,
    is_int,
    listed,
    octets,
    seq_of,
    text,
)
from decoders.uplink_gaps import MAX_GAPS, Gap, LossKind, pack_gaps, read_gaps
from decoders.uplink_rows import (
    COLUMNS,
    MAX_PAYLOAD_BYTES,
    MAX_ROWS,
    NO_RSSI,
    NO_SNR,
    Row,
    RowFlag,
    RowKind,
    Rows,
    pack_rows,
    read_rows,
)
from decoders.uplink_steps import MAX_STEPS, ClockStep, pack_steps, read_steps
from decoders.value import value

__all__ = [
    "ACCEPTED_VERSIONS",
    "COLUMNS",
    "MAX_GAPS",
    "MAX_LOST_RANGES",
    "MAX_MESSAGE_BYTES",
    "MAX_PAYLOAD_BYTES",
    "MAX_ROWS",
    "MAX_STEPS",
    "NO_RSSI",
    "NO_SNR",
    "STREAM_BYTES",
    "VERSION",
    "Ack",
    "Batch",
    "ClockStep",
    "Gap",
    "LossKind",
    "Lost",
    "Malformed",
    "Oversized",
    "Row",
    "RowFlag",
    "RowKind",
    "Rows",
    "UnknownVersion",
    "UplinkError",
    "claimed_sent",
    "claimed_stream",
    "decode_ack",
    "decode_batch",
    "encode_ack",
    "encode_batch",
    "pack_rows",
]

VERSION = 1
ACCEPTED_VERSIONS = range(max(1, VERSION - 2), VERSION + 1)

MAX_MESSAGE_BYTES = 1 << 20  # a broker's usual limit is above it, a gateway's memory too
MAX_LOST_RANGES = 64
MAX_REJECTED = MAX_ROWS
MAX_GATEWAY_CHARACTERS = 32
STREAM_BYTES = 16
U64 = (1 << 64) - 1


@value
class Lost:
    """Rows an outbox had to give up, or no longer has: seq and heard_at bounds, inclusive."""

    first: int
    last: int
    from_at: int
    to_at: int


@value
class Batch:
    gateway: str
    stream: bytes
    rows: Rows
    sent_at: int
    started_at: int
    version: int = VERSION
    agent: str = ""
    capabilities: tuple[str, ...] = ()
    echo_cloud_at: int = 0  # 0 = no ack heard yet
    echo_age_us: int = 0
    head: int = 0
    head_at: int = 0
    acked: int = 0
    lost: tuple[Lost, ...] = ()
    gaps: tuple[Gap, ...] = ()
    steps: tuple[ClockStep, ...] = ()  # the clock was set since rows of this message
    early: bool = False  # copies ahead of their turn, only for a cloud that said it takes them
    health: Mapping[str, int | float | str] | None = None
    traceparent: str = ""


@value
class Ack:
    """What the cloud has committed of one stream, and how much it wants in flight.

    upto         the contiguous seq below and at which every row is stored, dead-lettered or
                 declared lost
    rejected     (seq, code) of rows of the acknowledged batch that were dead-lettered
    credit       rows the agent may have sent and unacknowledged
    resend_from  send again from this seq, although it was acknowledged before
    early        rows that may come ahead of their turn, in one message at a time; 0 = none
    took         the newest row of the early message that this answers: all its rows are taken
    seen         the newest row of the stream that the cloud was ever told of or got, before the
                 message that this answers; an outbox that never had it has lost its tail
    answers      `sent` of the message that this answers, where it says one (key `sent`)
    """

    stream: bytes
    upto: int
    credit: int
    cloud_at: int
    version: int = VERSION
    rejected: tuple[tuple[int, str], ...] = ()
    resend_from: int | None = None
    early: int = 0
    took: int | None = None
    answers: int | None = None
    seen: int = 0


def encode_batch(batch: Batch) -> bytes:
    """Return the message for `batch`. Raises Oversized when no broker would take it."""
    if batch.rows.count > MAX_ROWS:
        raise Oversized(f"{batch.rows.count} rows, at most {MAX_ROWS} fit in a message")
    added: dict[str, object] = {"gaps": pack_gaps(batch.gaps)} if batch.gaps else {}
    if batch.steps:
        added["steps"] = pack_steps(batch.steps)
    if batch.early:
        added["early"] = True
    message = cbor2.dumps(
        {
            "v": batch.version,
            "gw": batch.gateway,
            "stream": batch.stream,
            "agent": batch.agent,
            "caps": list(batch.capabilities),
            "sent": batch.sent_at,
            "echo": [batch.echo_cloud_at, batch.echo_age_us],
            "head": batch.head,
            "head_at": batch.head_at,
            "started": batch.started_at,
            "acked": batch.acked,
            "lost": [[lost.first, lost.last, lost.from_at, lost.to_at] for lost in batch.lost],
            "health": dict(batch.health or {}),
            "tp": batch.traceparent,
            "n": batch.rows.count,
            "cols": dict(batch.rows.columns),
            "payload": batch.rows.payload,
            **added,
        }
    )
    if len(message) > MAX_MESSAGE_BYTES:
        raise Oversized(f"{len(message)} bytes, at most {MAX_MESSAGE_BYTES} fit in a message")
    return message


def decode_batch(message: bytes) -> Batch:
    """Read a message of an agent, checking every type and length.

    Raises Oversized, Malformed or UnknownVersion; never anything else.
    """
    fields = _checked_map(message)
    return Batch(
        version=fields["v"],
        gateway=_gateway(fields),
        stream=octets(fields, "stream", exactly=STREAM_BYTES),
        agent=text(fields, "agent"),
        capabilities=tuple(str(c) for c in listed(fields, "caps", at_most=64)),
        sent_at=instant(fields, "sent"),
        echo_cloud_at=_pair(fields)[0],
        echo_age_us=_pair(fields)[1],
        head=seq_of(fields, "head"),
        head_at=instant(fields, "head_at"),
        started_at=instant(fields, "started"),
        acked=seq_of(fields, "acked"),
        lost=_lost(fields),
        gaps=read_gaps(fields),
        steps=read_steps(fields),
        early=fields.get("early") is True,
        health=_health(fields),
        traceparent=text(fields, "tp"),
        rows=read_rows(fields),
    )


def encode_ack(ack: Ack) -> bytes:
    """Return the message for `ack`."""
    added: dict[str, int] = {"early": ack.early} if ack.early else {}
    if ack.took is not None:
        added["took"] = ack.took
    if ack.seen:
        added["seen"] = ack.seen
    if ack.answers is not None:
        added["sent"] = ack.answers
    return cbor2.dumps(
        {
            "v": ack.version,
            "stream": ack.stream,
            "upto": ack.upto,
            "rej": [[seq, code] for seq, code in ack.rejected],
            "credit": ack.credit,
            "resend": ack.resend_from,
            "cloud_at": ack.cloud_at,
            **added,
        }
    )


def decode_ack(message: bytes) -> Ack:
    """Read a message of the cloud. Raises Oversized, Malformed or UnknownVersion."""
    fields = _checked_map(message)
    rejected = []
    for pair in listed(fields, "rej", at_most=MAX_REJECTED):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise Malformed("rej: each entry is [seq, code]")
        rejected.append((seq_of({"rej": pair[0]}, "rej"), str(pair[1])))
    resend = fields.get("resend")
    return Ack(
        version=fields["v"],
        stream=octets(fields, "stream", exactly=STREAM_BYTES),
        upto=seq_of(fields, "upto"),
        rejected=tuple(rejected),
        credit=seq_of(fields, "credit"),
        resend_from=None if resend is None else seq_of(fields, "resend"),
        cloud_at=instant(fields, "cloud_at"),
        early=seq_of(fields, "early"),
        took=seq_of(fields, "took") if "took" in fields else None,
        seen=seq_of(fields, "seen"),
        answers=instant(fields, "sent") if "sent" in fields else None,
    )


def claimed_stream(message: bytes) -> bytes | None:
    """Return the stream a message that could not be read claims to be of, where it says so."""
    stream = _claimed(message, "stream")
    return stream if isinstance(stream, bytes) and len(stream) == STREAM_BYTES else None


def claimed_sent(message: bytes) -> int | None:
    """Return when a message that could not be read claims to be sent, µs, where it says so."""
    sent = _claimed(message, "sent")
    return sent if isinstance(sent, int) and is_int(sent) and abs(sent) <= INSTANT_MAX else None


def _claimed(message: bytes, name: str) -> object:
    try:
        return cbor.loads(message[:MAX_MESSAGE_BYTES])[name]
    except Exception:  # cbor2 leaks TypeError, RecursionError, decimal errors on damaged input
        return None


def _checked_map(message: bytes) -> dict[str, Any]:
    if len(message) > MAX_MESSAGE_BYTES:
        raise Oversized(f"{len(message)} bytes, at most {MAX_MESSAGE_BYTES} are read")
    try:
        fields = cbor.loads(message)
    except Exception as error:  # as in _claimed
        raise Malformed(f"not CBOR: {type(error).__name__}: {error}") from None
    if not isinstance(fields, dict):
        raise Malformed(f"a map is expected, got {type(fields).__name__}")
    version = fields.get("v")
    if not is_int(version):
        raise Malformed("v: the uplink version is missing")
    if version not in ACCEPTED_VERSIONS:
        raise UnknownVersion(
            f"version {version}, this side reads {ACCEPTED_VERSIONS.start} … {VERSION}"
        )
    return fields


def _gateway(fields: Mapping[str, Any]) -> str:
    gateway = text(fields, "gw")
    plain = gateway.replace("-", "")
    alphabet = plain.isascii() and plain.isalnum() and gateway == gateway.lower()
    if not alphabet or len(gateway) > MAX_GATEWAY_CHARACTERS:
        raise Malformed(
            f"gw: {gateway[:MAX_GATEWAY_CHARACTERS]!r} is not 1 to {MAX_GATEWAY_CHARACTERS} "
            "characters of a-z, 0-9 and -"
        )
    return gateway


def _lost(fields: Mapping[str, Any]) -> tuple[Lost, ...]:
    ranges = []
    for item in listed(fields, "lost", at_most=MAX_LOST_RANGES):
        if not isinstance(item, (list, tuple)) or len(item) != 4 or not all(map(is_int, item)):
            raise Malformed("lost: each entry is [first, last, from, to]")
        first, last, from_at, to_at = item
        if not 1 <= first <= last <= U64:
            raise Malformed(f"lost: {first} … {last} is not a range of rows")
        ranges.append(Lost(first=first, last=last, from_at=from_at, to_at=to_at))
    return tuple(ranges)


def _health(fields: Mapping[str, Any]) -> dict[str, int | float | str]:
    health = fields.get("health", {})
    if not isinstance(health, dict) or len(health) > 64:
        raise Malformed("health: a map of at most 64 entries is expected")
    for name, figure in health.items():
        if not isinstance(name, str) or not isinstance(figure, (int, float, str)):
            raise Malformed("health: names are text, figures are numbers or text")
    return health


def _pair(fields: Mapping[str, Any]) -> tuple[int, int]:
    echo = listed(fields, "echo", at_most=2) or [0, 0]
    if len(echo) != 2 or not all(map(is_int, echo)):
        raise Malformed("echo: [cloud_at, age] is expected")
    return instant({"echo": echo[0]}, "echo"), instant({"echo": echo[1]}, "echo")
