"""The rows of an uplink message as packed columns, one little-endian array each."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum, IntFlag
from itertools import islice
from operator import lt
from typing import Any

from decoders import uplink_columns
from decoders.uplink_fields import Malformed, Oversized, octets, seq_of
from decoders.value import value

MAX_ROWS = 4096  # of ~100 bytes each: well inside the message limit
MAX_PAYLOAD_BYTES = 1024  # the longest wM-Bus frame is 290 bytes; a report may be longer

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


_KINDS = frozenset(RowKind)


class RowFlag(IntFlag):
    ALREADY_DECRYPTED = 1
    TEACHES_FORMAT = 2  # a full frame that only teaches its compact format: never a reading
    UNDECODABLE = 4
    INFO_CHANGE = 8
    DAILY_EXTREME = 16
    FIRST_OF_HOUR = 32
    NETWORK_CHECKED = 64  # LoRaWAN: its MIC was checked, by a network server or by a gateway's tap
    FOREIGN_CLOCK = 128  # heard_at is of a machine elsewhere: this gateway's error is not in it


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
        return uplink_columns.unpacked(COLUMNS[name], self.columns[name])

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


def pack_rows(rows: Iterable[Row]) -> Rows:
    """Turn rows into columns. Raises OverflowError for a value outside its column."""
    columns = {name: array(code) for name, code in COLUMNS.items()}
    payloads = []
    for row in rows:
        for name, column in columns.items():
            column.append(len(row.payload) if name == "length" else int(getattr(row, name)))
        payloads.append(row.payload)
    packed = {name: uplink_columns.packed(column) for name, column in columns.items()}
    return Rows(count=len(payloads), columns=packed, payload=b"".join(payloads))


def read_rows(fields: Mapping[str, Any]) -> Rows:
    """Read the rows of a message, checking every length. Raises Oversized, Malformed."""
    count = seq_of(fields, "n")
    if count > MAX_ROWS:
        raise Oversized(f"{count} rows, at most {MAX_ROWS} are read")
    given = fields.get("cols")
    if not isinstance(given, dict):
        raise Malformed("cols: a map of packed columns is expected")
    columns = {}
    for name, code in COLUMNS.items():
        columns[name] = octets(given, name, exactly=count * array(code).itemsize)
    payload = octets(fields, "payload")
    rows = Rows(count=count, columns=columns, payload=payload)
    lengths = rows.column("length")
    if sum(lengths) != len(payload):
        raise Malformed(
            f"payload: {len(payload)} bytes, the rows' lengths add up to {sum(lengths)}"
        )
    if count and max(lengths) > MAX_PAYLOAD_BYTES:
        raise Malformed(f"length: a row of {max(lengths)} bytes, at most {MAX_PAYLOAD_BYTES}")
    if not set(rows.columns["kind"]) <= _KINDS:
        raise Malformed("kind: unknown row kind; a newer kind needs a newer uplink version")
    seqs = rows.column("seq")
    if not all(map(lt, seqs, islice(seqs, 1, None))):
        raise Malformed("seq: rows must come in rising order")
    if count and seqs[0] == 0:
        raise Malformed("seq: the first row of a stream is 1")
    return rows


def _row(fields: dict[str, int], payload: bytes) -> Row:
    kind, flags = RowKind(fields.pop("kind")), RowFlag(fields.pop("flags"))
    return Row(kind=kind, flags=flags, payload=payload, **fields)
