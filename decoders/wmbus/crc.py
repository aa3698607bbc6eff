"""CRC-16/EN-13757: the one checksum of every wM-Bus layer."""

from __future__ import annotations

from array import array
from struct import unpack

_POLYNOMIAL = 0x3D65


def _shifted(byte: int) -> int:
    """The register after one byte went through it."""
    crc = byte << 8
    for _ in range(8):
        crc = crc << 1 ^ (_POLYNOMIAL if crc & 0x8000 else 0)
    return crc & 0xFFFF


def _pairs() -> array[int]:
    """The register after two bytes, for all 65,536 of them: 128 KiB that make it thrice as fast."""
    single = [_shifted(byte) for byte in range(256)]
    table = array("H")
    for after in single:
        high, low = after >> 8, after << 8 & 0xFF00
        table.extend([low ^ single[high ^ byte] for byte in range(256)])
    return table


PAIRS = _pairs()


def crc16(message: bytes) -> int:
    """Polynomial 0x3D65, start 0, not reflected, inverted at the end (EN 13757-4).

    >>> hex(crc16(b"123456789"))
    '0xc2b7'
    """
    crc, table, size = 0, PAIRS, len(message)
    if size & 1:  # a zero in front of everything changes nothing: the register starts at zero
        message, size = b"\0" + message, size + 1
    for pair in unpack(f">{size >> 1}H", message):
        crc = table[crc ^ pair]
    return crc ^ 0xFFFF
