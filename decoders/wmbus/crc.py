"""CRC-16/EN-13757: the one checksum of every wM-Bus layer."""

from __future__ import annotations

_POLYNOMIAL = 0x3D65


def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte << 8
        for _ in range(8):
            crc = crc << 1 ^ (_POLYNOMIAL if crc & 0x8000 else 0)
        table.append(crc & 0xFFFF)
    return tuple(table)


_TABLE = _table()


def crc16(message: bytes) -> int:
    """Polynomial 0x3D65, start 0, not reflected, inverted at the end (EN 13757-4).

    >>> hex(crc16(b"123456789"))
    '0xc2b7'
    """
    crc, table = 0, _TABLE
    for byte in message:
        crc = (crc << 8 & 0xFF00) ^ table[crc >> 8 ^ byte]
    return crc ^ 0xFFFF
