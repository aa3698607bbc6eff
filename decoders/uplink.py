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
    lost       [[first, last, from µs, to µs], …]  rows the outbox no longer has
    health     {text: number|text}
    tp         text            W3C traceparent
    n          uint            rows
    cols       {name: bytes}   one packed array each, see COLUMNS
    payload    bytes           the rows' payloads, one after another; lengths in cols.length

Both ends ignore keys and columns they do not know. Times are whole microseconds since 1970 UTC.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum, IntFlag
from itertools import pairwise
from typing import Any

import cbor2

from decoders.value import value

VERSION = 1
ACCEPTED_VERSIONS = range(max(1, VERSION - 2), VERSION + 1)

MAX_MESSAGE_BYTES = 1 << 20  # a broker's usual limit is above it, a gateway's memory too
MAX_ROWS = 4096  # of ~100 bytes each: well inside the message limit
MAX_PAYLOAD_BYTES = 1024  # the longest wM-Bus frame is 290 bytes; a report may be longer
MAX_LOST_RANGES = 64
MAX_REJECTED = MAX_ROWS
MAX_GATEWAY_CHARACTERS = 32
STREAM_BYTES = 16
U64 = (1 << 64) - 1

# column → array typecode of the same width on every platform Python runs on
COLUMNS: Mapping[str, str] = {
    "seq": "Q",
    "heard_at": "q",
    "kind": "B",
    "flags": "B",
    "radio": "Q",  # LoRaWAN: DevEUI; else 0
    "session": "I",  # LoRaWAN: DevAddr, which changes with every join; else 0
    "counter": "I",  # LoRaWAN: 32-bit frame counter; else 0
    "port": "B",  # LoRaWAN: FPort; else 0
    "rssi": "h",  # dBm; NO_RSSI where the receiver does not say
    "snr": "b",  # quarter dB; NO_SNR where the receiver does not say
    "length": "H",  # bytes of this row's payload
}
NO_RSSI = -32768
NO_SNR = -128


class RowKind(IntEnum):
    WMBUS = 1
    LORAWAN = 2
    ANOMALY = 3
    REPORT = 4


class RowFlag(IntFlag):
    ALREADY_DECRYPTED = 1
    TEACHES_FORMAT = 2  # a full frame that only teaches its compact format: never a reading
    UNDECODABLE = 4
    INFO_CHANGE = 8
    DAILY_EXTREME = 16
    FIRST_OF_HOUR = 32


class UplinkError(Exception):
    """A message that cannot be read as a whole.

    code     uplink_oversized | uplink_malformed | uplink_version
    detail   what is wrong, where
    """

    code = "uplink_malformed"

    def __init__(self, detail: str) -> None:
        super().__init__(f"{self.code}: {detail}")
        self.detail = detail


class Oversized(UplinkError):
    code = "uplink_oversized"


class Malformed(UplinkError):
    code = "uplink_malformed"


class UnknownVersion(UplinkError):
    code = "uplink_version"


@value
class Row:
    """One thing a gateway heard or found. Units as in COLUMNS."""

    seq: int
    heard_at: int
    kind: RowKind
    payload: bytes
    flags: RowFlag = RowFlag(0)
    radio: int = 0
    session: int = 0
    counter: int = 0
    port: int = 0
    rssi: int = NO_RSSI
    snr: int = NO_SNR


@value
class Rows:
    """The rows of a batch as columns: `column(name)` for numpy, iteration for people."""

    count: int
    columns: Mapping[str, bytes]
    payload: bytes

    def column(self, name: str) -> array[int]:
        return _unpacked(COLUMNS[name], self.columns[name])

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Row]:
        unpacked = {name: self.column(name) for name in COLUMNS}
        start = 0
        for i in range(self.count):
            length = unpacked["length"][i]
            fields = {name: unpacked[name][i] for name in COLUMNS if name != "length"}
            yield _row(fields, self.payload[start : start + length])
            start += length


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
    """

    stream: bytes
    upto: int
    credit: int
    cloud_at: int
    version: int = VERSION
    rejected: tuple[tuple[int, str], ...] = ()
    resend_from: int | None = None


def pack_rows(rows: Iterable[Row]) -> Rows:
    """Turn rows into columns. Raises OverflowError for a value outside its column."""
    columns = {name: array(code) for name, code in COLUMNS.items()}
    payloads = []
    for row in rows:
        for name, column in columns.items():
            column.append(len(row.payload) if name == "length" else int(getattr(row, name)))
        payloads.append(row.payload)
    packed = {name: _packed(column) for name, column in columns.items()}
    return Rows(count=len(payloads), columns=packed, payload=b"".join(payloads))


def encode_batch(batch: Batch) -> bytes:
    """Return the message for `batch`. Raises Oversized when no broker would take it."""
    if batch.rows.count > MAX_ROWS:
        raise Oversized(f"{batch.rows.count} rows, at most {MAX_ROWS} fit in a message")
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
        stream=_bytes(fields, "stream", exactly=STREAM_BYTES),
        agent=_text(fields, "agent"),
        capabilities=tuple(str(c) for c in _list(fields, "caps", at_most=64)),
        sent_at=_instant(fields, "sent"),
        echo_cloud_at=_pair(fields)[0],
        echo_age_us=_pair(fields)[1],
        head=_seq(fields, "head"),
        head_at=_instant(fields, "head_at"),
        started_at=_instant(fields, "started"),
        acked=_seq(fields, "acked"),
        lost=_lost(fields),
        health=_health(fields),
        traceparent=_text(fields, "tp"),
        rows=_rows(fields),
    )


def encode_ack(ack: Ack) -> bytes:
    """Return the message for `ack`."""
    return cbor2.dumps(
        {
            "v": ack.version,
            "stream": ack.stream,
            "upto": ack.upto,
            "rej": [[seq, code] for seq, code in ack.rejected],
            "credit": ack.credit,
            "resend": ack.resend_from,
            "cloud_at": ack.cloud_at,
        }
    )


def decode_ack(message: bytes) -> Ack:
    """Read a message of the cloud. Raises Oversized, Malformed or UnknownVersion."""
    fields = _checked_map(message)
    rejected = []
    for pair in _list(fields, "rej", at_most=MAX_REJECTED):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise Malformed("rej: each entry is [seq, code]")
        rejected.append((_seq({"rej": pair[0]}, "rej"), str(pair[1])))
    resend = fields.get("resend")
    return Ack(
        version=fields["v"],
        stream=_bytes(fields, "stream", exactly=STREAM_BYTES),
        upto=_seq(fields, "upto"),
        rejected=tuple(rejected),
        credit=_seq(fields, "credit"),
        resend_from=None if resend is None else _seq(fields, "resend"),
        cloud_at=_instant(fields, "cloud_at"),
    )


def claimed_stream(message: bytes) -> bytes | None:
    """Return the stream a message that could not be read claims to be of, where it says so."""
    try:
        fields = cbor2.loads(message[:MAX_MESSAGE_BYTES])
        stream = fields["stream"]
    except Exception:  # cbor2 leaks TypeError, RecursionError, decimal errors on damaged input
        return None
    return stream if isinstance(stream, bytes) and len(stream) == STREAM_BYTES else None


def _checked_map(message: bytes) -> dict[str, Any]:
    if len(message) > MAX_MESSAGE_BYTES:
        raise Oversized(f"{len(message)} bytes, at most {MAX_MESSAGE_BYTES} are read")
    try:
        fields = cbor2.loads(message)
    except Exception as error:  # as in claimed_stream
        raise Malformed(f"not CBOR: {type(error).__name__}: {error}") from None
    if not isinstance(fields, dict):
        raise Malformed(f"a map is expected, got {type(fields).__name__}")
    version = fields.get("v")
    if not _is_int(version):
        raise Malformed("v: the uplink version is missing")
    if version not in ACCEPTED_VERSIONS:
        raise UnknownVersion(
            f"version {version}, this side reads {ACCEPTED_VERSIONS.start} … {VERSION}"
        )
    return fields


def _gateway(fields: Mapping[str, Any]) -> str:
    gateway = _text(fields, "gw")
    plain = gateway.replace("-", "")
    alphabet = plain.isascii() and plain.isalnum() and gateway == gateway.lower()
    if not alphabet or len(gateway) > MAX_GATEWAY_CHARACTERS:
        raise Malformed(
            f"gw: {gateway[:MAX_GATEWAY_CHARACTERS]!r} is not 1 to {MAX_GATEWAY_CHARACTERS} "
            "characters of a-z, 0-9 and -"
        )
    return gateway


def _rows(fields: Mapping[str, Any]) -> Rows:
    count = _seq(fields, "n")
    if count > MAX_ROWS:
        raise Oversized(f"{count} rows, at most {MAX_ROWS} are read")
    given = fields.get("cols")
    if not isinstance(given, dict):
        raise Malformed("cols: a map of packed columns is expected")
    columns = {}
    for name, code in COLUMNS.items():
        columns[name] = _bytes(given, name, exactly=count * array(code).itemsize)
    payload = _bytes(fields, "payload")
    rows = Rows(count=count, columns=columns, payload=payload)
    lengths = rows.column("length")
    if sum(lengths) != len(payload):
        raise Malformed(
            f"payload: {len(payload)} bytes, the rows' lengths add up to {sum(lengths)}"
        )
    if count and max(lengths) > MAX_PAYLOAD_BYTES:
        raise Malformed(f"length: a row of {max(lengths)} bytes, at most {MAX_PAYLOAD_BYTES}")
    known = frozenset(RowKind)
    if any(kind not in known for kind in rows.columns["kind"]):
        raise Malformed("kind: unknown row kind; a newer kind needs a newer uplink version")
    seqs = rows.column("seq")
    if any(later <= earlier for earlier, later in pairwise(seqs)):
        raise Malformed("seq: rows must come in rising order")
    if count and seqs[0] == 0:
        raise Malformed("seq: the first row of a stream is 1")
    return rows


def _row(fields: dict[str, int], payload: bytes) -> Row:
    kind, flags = RowKind(fields.pop("kind")), RowFlag(fields.pop("flags"))
    return Row(kind=kind, flags=flags, payload=payload, **fields)


def _lost(fields: Mapping[str, Any]) -> tuple[Lost, ...]:
    ranges = []
    for item in _list(fields, "lost", at_most=MAX_LOST_RANGES):
        if not isinstance(item, (list, tuple)) or len(item) != 4 or not all(map(_is_int, item)):
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
    echo = _list(fields, "echo", at_most=2) or [0, 0]
    if len(echo) != 2 or not all(map(_is_int, echo)):
        raise Malformed("echo: [cloud_at, age] is expected")
    return _instant({"echo": echo[0]}, "echo"), _instant({"echo": echo[1]}, "echo")


def _list(fields: Mapping[str, Any], name: str, *, at_most: int) -> Sequence[Any]:
    given = fields.get(name, ())
    if not isinstance(given, (list, tuple)) or len(given) > at_most:
        raise Malformed(f"{name}: a list of at most {at_most} entries is expected")
    return given


def _text(fields: Mapping[str, Any], name: str) -> str:
    given = fields.get(name, "")
    if not isinstance(given, str) or len(given) > 256:
        raise Malformed(f"{name}: a text of at most 256 characters is expected")
    return given


def _bytes(fields: Mapping[str, Any], name: str, *, exactly: int | None = None) -> bytes:
    given = fields.get(name)
    if not isinstance(given, bytes):
        raise Malformed(f"{name}: a byte string is expected")
    if exactly is not None and len(given) != exactly:
        raise Malformed(f"{name}: {exactly} bytes are expected, got {len(given)}")
    return given


def _seq(fields: Mapping[str, Any], name: str) -> int:
    return _whole(fields, name, 0, U64 >> 1)


def _instant(fields: Mapping[str, Any], name: str) -> int:
    return _whole(fields, name, -(1 << 62), 1 << 62)


def _whole(fields: Mapping[str, Any], name: str, least: int, most: int) -> int:
    given = fields.get(name, 0)
    if not _is_int(given) or not least <= given <= most:
        raise Malformed(f"{name}: a whole number of {least} … {most} is expected")
    return int(given)


def _is_int(given: object) -> bool:
    return isinstance(given, int) and not isinstance(given, bool)


def _packed(column: array[int]) -> bytes:
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()


def _unpacked(code: str, packed: bytes) -> array[int]:
    column = array(code)
    column.frombytes(packed)
    if sys.byteorder == "big":
        column.byteswap()
    return column
