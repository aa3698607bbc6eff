"""Protocol Buffers as far as a reader needs them: fields by number, unknown ones skipped.

`chirpstack-api` does not install on the gateways. Nothing is copied but what is asked for, nothing
recurses, and no length is believed before it is seen to fit: a hostile message costs no more than
its own size. Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

MAX_VARINT_BYTES: Final = 10  # 64 bits, seven in each byte
MAX_FIELD: Final = (1 << 29) - 1
U32: Final = 0xFFFFFFFF
U64: Final = 0xFFFFFFFFFFFFFFFF


class Wire(IntEnum):
    """How a field's value is written. Groups (3, 4) are of proto2, and refused."""

    VARINT = 0
    FIXED64 = 1
    BYTES = 2
    FIXED32 = 5


class BadProtobuf(Exception):
    """Bytes that are no message, or not all of one. offset: where, in the message read."""

    def __init__(self, detail: str, offset: int) -> None:
        super().__init__(f"protobuf: {detail} at byte {offset}")
        self.offset = offset


def fields_of(message: memoryview) -> Iterator[tuple[int, Wire, int, memoryview]]:
    """Give each field as (number, wire type, varint, bytes), in order. Raises BadProtobuf.

    varint   the value of a VARINT, else 0
    bytes    the value of any other, else empty

    >>> message = memoryview(bytes.fromhex("0896011203313233"))
    >>> [(number, varint, bytes(given)) for number, _, varint, given in fields_of(message)]
    [(1, 150, b''), (2, 0, b'123')]
    """
    at = 0
    while at < len(message):
        start = at
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if not 1 <= number <= MAX_FIELD:
            raise BadProtobuf(f"field number {number}", start)
        try:
            wire = Wire(kind)
        except ValueError:
            raise BadProtobuf(f"wire type {kind}", start) from None
        if wire is Wire.VARINT:
            value, at = _varint(message, at)
            yield number, wire, value, message[:0]
            continue
        size = 8 if wire is Wire.FIXED64 else 4
        if wire is Wire.BYTES:
            size, at = _varint(message, at)
        if size > len(message) - at:
            raise BadProtobuf(f"{size} bytes announced, {len(message) - at} left", start)
        yield number, wire, 0, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return a varint's value, cut to 64 bits, and where the next thing begins."""
    value = 0
    for place, byte in enumerate(message[at : at + MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value & U64, at + place + 1
    raise BadProtobuf("a number without an end", at)


def text(given: memoryview) -> str:
    """Return a string field. Raises BadProtobuf when it is not UTF-8."""
    try:
        return bytes(given).decode()
    except UnicodeDecodeError as error:
        raise BadProtobuf("text that is not UTF-8", error.start) from None


def signed(value: int, bits: int) -> int:
    """Return an int32 or int64 field of its varint.

    >>> signed(0xFFFFFFFFFFFFFF9F, 32)
    -97
    """
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def single(given: memoryview) -> float:
    """Return a float field of its four bytes."""
    return float(struct.unpack("<f", given)[0])
