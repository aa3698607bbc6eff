"""How the outbox writes a row: one by one while it is new, packed in pages when it is older.

A new row costs about 20 bytes beside its payload. A page holds the rows of one kind (`Keep`) of
about a thousand numbers, as columns turned so that bytes which hardly change lie side by side,
then deflated: an encrypted wM-Bus telegram of 38 bytes takes 31 bytes in all (its cipher text
cannot be pressed; its address, times and lengths nearly vanish). Both forms carry a CRC-32 that
covers the numbers too: SQLite does not notice a payload byte that flipped.
"""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Final

from decoders.uplink import COLUMNS, MAX_PAYLOAD_BYTES, NO_RSSI, NO_SNR, Row, RowFlag, RowKind
from decoders.value import value

LEVEL: Final = 6  # of zlib; 9 gains a thousandth here
PAGE_BYTES_MAX: Final = 8 << 20  # unpacked; a thousand rows of 1 KiB are 1 MiB
U64: Final = (1 << 64) - 1
HAS_RADIO: Final = 0x80  # of the kind's byte: LoRaWAN's own fields follow

HEAD: Final = struct.Struct("<BBhq")  # kind, flags, rssi, heard_at
RADIO: Final = struct.Struct("<QIIBb")  # radio, session, counter, port, snr
CHECK: Final = struct.Struct("<I")


class Keep(IntEnum):
    """What is given up first when unacknowledged rows must make room: 1, then 2, …"""

    UNDECODABLE = 1
    SUB_HOURLY = 2
    HOURLY = 3  # also LoRaWAN's profiles, and telegrams that teach a layout
    OWN = 4  # alerts and reports: few, and nobody can send them again


@value
class Draft:
    """A row that has no number yet. Fields and units as in `decoders.uplink.Row`."""

    heard_at: int
    kind: RowKind
    payload: bytes
    flags: int = 0
    radio: int = 0
    session: int = 0
    counter: int = 0
    port: int = 0
    rssi: int = NO_RSSI
    snr: int = NO_SNR


class RowDamaged(Exception):
    """A row or a page is not what was written: its checksum differs."""


def keep_of(row: Row) -> Keep:
    """Return how long an unacknowledged row stays."""
    if row.kind in (RowKind.ANOMALY, RowKind.REPORT):
        return Keep.OWN
    if row.flags & RowFlag.UNDECODABLE:
        return Keep.UNDECODABLE
    lasting = RowFlag.FIRST_OF_HOUR | RowFlag.TEACHES_FORMAT
    return Keep.SUB_HOURLY if row.kind == RowKind.WMBUS and not row.flags & lasting else Keep.HOURLY


def numbered(draft: Draft, seq: int) -> Row:
    """Give a row its number. Who made it sees to it that the cloud can read it."""
    assert len(draft.payload) <= MAX_PAYLOAD_BYTES, f"{draft.kind!r}: {len(draft.payload)} bytes"
    return Row(
        seq=seq,
        heard_at=draft.heard_at,
        kind=draft.kind,
        payload=draft.payload,
        flags=RowFlag(draft.flags),
        radio=draft.radio,
        session=draft.session,
        counter=draft.counter,
        port=draft.port,
        rssi=draft.rssi,
        snr=draft.snr,
    )


def pack_row(row: Row) -> bytes:
    """Return the bytes of one row: check, fields, payload."""
    radio = (row.radio, row.session, row.counter, row.port, row.snr)
    has_radio = radio != (0, 0, 0, 0, NO_SNR)
    kind = int(row.kind) | (HAS_RADIO if has_radio else 0)
    said = HEAD.pack(kind, int(row.flags), row.rssi, row.heard_at)
    said += (RADIO.pack(*radio) if has_radio else b"") + row.payload
    return CHECK.pack(check(row.seq, said)) + said


def unpack_row(seq: int, packed: bytes) -> Row:
    """Read what `pack_row` wrote. Raises RowDamaged."""
    said = packed[CHECK.size :]
    if len(said) < HEAD.size or CHECK.unpack_from(packed)[0] != check(seq, said):
        raise RowDamaged(f"row {seq}: its checksum differs")
    kind, flags, rssi, heard_at = HEAD.unpack_from(said)
    at, radio = HEAD.size, (0, 0, 0, 0, NO_SNR)
    if kind & HAS_RADIO:
        radio, at = RADIO.unpack_from(said, at), at + RADIO.size
    dev, session, counter, port, snr = radio
    return Row(
        seq=seq,
        heard_at=heard_at,
        kind=RowKind(kind & ~HAS_RADIO),
        payload=said[at:],
        flags=RowFlag(flags),
        radio=dev,
        session=session,
        counter=counter,
        port=port,
        rssi=rssi,
        snr=snr,
    )


def pack_page(rows: Sequence[Row]) -> bytes:
    """Return the body of a page of rows with rising numbers."""
    columns = []
    for name, code in COLUMNS.items():
        if name == "length":
            given: Iterable[int] = (len(row.payload) for row in rows)
        else:
            given = (int(getattr(row, name)) for row in rows)
        if name in ("seq", "heard_at"):
            columns.append(_turned(array("Q", _steps(given))))
        else:
            columns.append(_turned(array(code, given)))
    return zlib.compress(b"".join(columns) + _payloads_turned([row.payload for row in rows]), LEVEL)


def unpack_page(body: bytes, count: int) -> tuple[Row, ...]:
    """Read what `pack_page` wrote. Raises RowDamaged."""
    try:
        inflate = zlib.decompressobj()
        flat = memoryview(inflate.decompress(body, PAGE_BYTES_MAX))
        columns: dict[str, array[int]] = {}
        at = 0
        for name, code in COLUMNS.items():
            column = array("Q" if name in ("seq", "heard_at") else code)
            size = count * column.itemsize
            columns[name] = _unturned(column, bytes(flat[at : at + size]), count)
            at += size
        payloads = _payloads_unturned(bytes(flat[at:]), columns["length"])
        return _rows(columns, payloads)
    except (zlib.error, ValueError, IndexError) as error:
        raise RowDamaged(f"page: {error}") from None


def check(seq: int, said: bytes) -> int:
    return zlib.crc32(said, zlib.crc32(b"%d" % seq))


def seal(*columns: object) -> int:
    """Return a check of small columns, for tables that SQLite would let flip."""
    return zlib.crc32(repr(columns).encode())


def _rows(columns: dict[str, array[int]], payloads: Sequence[bytes]) -> tuple[Row, ...]:
    seq = heard_at = 0
    rows = []
    names = [name for name in COLUMNS if name not in ("seq", "heard_at", "length")]
    for i, payload in enumerate(payloads):
        seq = (seq + columns["seq"][i]) & U64
        heard_at = (heard_at + columns["heard_at"][i]) & U64
        fields = {name: columns[name][i] for name in names}
        kind, flags = RowKind(fields.pop("kind")), RowFlag(fields.pop("flags"))
        signed = heard_at - (1 << 64) if heard_at >> 63 else heard_at
        rows.append(
            Row(seq=seq, heard_at=signed, kind=kind, flags=flags, payload=payload, **fields)
        )
    return tuple(rows)


def _steps(values: Iterable[int]) -> Iterable[int]:
    """Return each value less the one before it, modulo 2^64."""
    before = 0
    for now in values:
        yield (now - before) & U64
        before = now


def _turned(column: array[int]) -> bytes:
    """Return a column's lowest bytes, then its second lowest, …"""
    if sys.byteorder == "big":
        column.byteswap()
    flat, width = column.tobytes(), column.itemsize
    return b"".join(flat[i::width] for i in range(width))


def _unturned(column: array[int], turned: bytes, count: int) -> array[int]:
    width = column.itemsize
    flat = bytearray(count * width)
    for i in range(width):
        flat[i::width] = turned[i * count : (i + 1) * count]
    column.frombytes(flat)
    if sys.byteorder == "big":
        column.byteswap()
    return column


def _payloads_turned(payloads: Sequence[bytes]) -> bytes:
    """Return payloads of one length together, their first bytes, then their second, …"""
    by_length: dict[int, list[bytes]] = {}
    for payload in payloads:
        by_length.setdefault(len(payload), []).append(payload)
    pieces = []
    for length, same in by_length.items():
        flat = b"".join(same)
        pieces += [flat[i::length] for i in range(length)]
    return b"".join(pieces)


def _payloads_unturned(turned: bytes, lengths: array[int]) -> list[bytes]:
    if sum(lengths) != len(turned):
        raise ValueError(f"{len(turned)} bytes of payload, {sum(lengths)} are expected")
    counts: dict[int, int] = {}
    for length in lengths:
        counts[length] = counts.get(length, 0) + 1
    queues: dict[int, tuple[bytes, int]] = {}
    at = 0
    for length, count in counts.items():
        flat = bytearray(length * count)
        for i in range(length):
            flat[i::length] = turned[at : at + count]
            at += count
        queues[length] = (bytes(flat), 0)
    payloads = []
    for length in lengths:
        flat_bytes, begin = queues[length]
        payloads.append(flat_bytes[begin : begin + length])
        queues[length] = (flat_bytes, begin + length)
    return payloads
