"""Protocol Buffers as far as a reader needs them: fields by number, unknown ones skipped.

`chirpstack-api` does not install on the gateways. Nothing is copied but what is asked for, nothing
recurses, and no length is believed before it is seen to fit: a hostile message costs no more than
its own size. Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

MAX_VARINT_BYTES: Final = 10  # 64 bits, seven in each byte
MAX_TAG: Final = (1 << 32) - 1  # field numbers have 29 bits
U64: Final = 0xFFFFFFFFFFFFFFFF


VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types; groups (3, 4) are of proto2, refused
SIZES: Final = {FIXED64: 8, FIXED32: 4}


class BadProtobuf(Exception):
    """Bytes that are no message, or not all of one. offset: where, in the message read."""

    def __init__(self, detail: str, offset: int) -> None:
        super().__init__(f"protobuf: {detail} at byte {offset}")
        self.offset = offset


def fields_of(message: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Give each field as (tag, varint, bytes), in order. Raises BadProtobuf.

    tag      the field's number and wire type, see `tag`
    varint   the value of a VARINT, else 0
    bytes    the value of any other, else empty

    >>> message = memoryview(bytes.fromhex("0896011203313233"))
    >>> [(tag >> 3, varint, bytes(given)) for tag, varint, given in fields_of(message)]
    [(1, 150, b''), (2, 0, b'123')]
    """
    at, end, nothing = 0, len(message), message[:0]
    while at < end:
        start = at
        found, at = _varint(message, at)
        wire = found & 7
        if not 8 <= found <= MAX_TAG:
            raise BadProtobuf(f"field number {found >> 3}", start)
        if wire == VARINT:
            value, at = _varint(message, at)
            yield found, value, nothing
            continue
        if wire == BYTES:
            size, at = _varint(message, at)
        elif wire in SIZES:
            size = SIZES[wire]
        else:
            raise BadProtobuf(f"wire type {wire}", start)
        if size > end - at:
            raise BadProtobuf(f"{size} bytes announced, {end - at} left", start)
        yield found, 0, message[at : at + size]
        at += size


def tag(number: int, wire: int) -> int:
    """Return what stands before the value of field `number`."""
    return number << 3 | wire


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return a varint's value, cut to 64 bits, and where the next thing begins."""
    if at < len(message) and message[at] < 0x80:
        return message[at], at + 1
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
