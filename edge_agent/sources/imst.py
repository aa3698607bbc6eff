"""IMST iM871A (USB stick or module): its host controller interface, as far as receiving goes.

    A5 | flags ⋅ endpoint | message | length | payload | [timestamp 4] | [RSSI 1] | [CRC 2]

flags (upper half of the byte): 2 timestamp, 4 RSSI, 8 CRC attached; endpoint (lower half):
1 device management, 2 radio link. Radio link message 3 is a received telegram: the length byte is
its L-field and the payload the rest, without link-layer CRCs. The CRC is CRC-16/X-25 over all but
the A5, low byte first. 57,600 baud, 8N1.
At the start the stick is told, for as long as it has power, to attach the level and, where the
settings say so, which wM-Bus mode to hear.
Sources: IMST, "Wireless M-Bus Host Controller Interface" 1.6 (4100/6404/0050), "iM871A Wireless
M-Bus User Manual" 1.2 (4100/6404/0048); link-mode numbers and configuration flags as in
pywirelessmbus 1.5.3 (MIT); level: Silicon Labs Si4430 datasheet, 8.10 (½ dB a step, 0 ≈ -120 dBm;
the module's radio is of that family, and the absolute value is right to a few dB only).
"""

from __future__ import annotations

import binascii
from typing import Final

from decoders.uplink import NO_RSSI
from edge_agent.sources.serial import Cut, Cutter, Garbage, Telegram

BAUD: Final = 57600
START: Final = 0xA5
HEADER_BYTES: Final = 4
ENDPOINT: Final = 0x0F
HAS_TIMESTAMP, HAS_RSSI, HAS_CRC = 0x20, 0x40, 0x80
RESERVED: Final = 0x10
DEVICE, RADIO = 1, 2
LAST_ENDPOINT: Final = 4  # hardware test
TELEGRAM_HEARD: Final = 3
SET_CONFIGURATION: Final = 3
VOLATILE: Final = 0  # where a configuration goes: memory, not flash
SET_MODE, SET_RSSI_ATTACHED = 0x02, 0x10  # bits of the first and the second flag byte
MIRRORED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
MODES: Final = {"S1": 0, "S2": 2, "T1": 3, "T2": 4, "C1A": 6, "C1B": 7, "C2A": 8, "C2B": 9}


class ImstFramer(Cutter):
    """Cuts what an iM871A says into telegrams."""

    def __init__(self, *, mode: str | None = None) -> None:
        """`mode`: one of `MODES`; None leaves the stick's own setting."""
        super().__init__(start=START, header=HEADER_BYTES)
        self.greeting = greeting_of(mode)

    def length_of(self, header: bytes) -> int | None:
        flags, endpoint = header[1], header[1] & ENDPOINT
        if flags & RESERVED or not DEVICE <= endpoint <= LAST_ENDPOINT:
            return None
        attached = 4 * bool(flags & HAS_TIMESTAMP) + bool(flags & HAS_RSSI)
        return HEADER_BYTES + header[3] + attached + 2 * bool(flags & HAS_CRC)

    def read(self, frame: bytes) -> Cut | None:
        flags, length = frame[1], frame[3]
        if flags & HAS_CRC and crc(frame[1:-2]) != int.from_bytes(frame[-2:], "little"):
            return Garbage(code="checksum", detail="CRC of the stick's message", given=frame)
        if flags & ENDPOINT != RADIO or frame[2] != TELEGRAM_HEARD or not length:
            return None
        level = HEADER_BYTES + length + 4 * bool(flags & HAS_TIMESTAMP)
        return Telegram(
            frame=frame[3 : HEADER_BYTES + length],
            rssi=dbm(frame[level]) if flags & HAS_RSSI else NO_RSSI,
        )


def greeting_of(mode: str | None) -> bytes:
    """Return what makes the stick attach the level and, if told, hear one wM-Bus mode."""
    chosen = bytes([SET_MODE, MODES[mode]]) if mode is not None else bytes([0])
    configuration = bytes([VOLATILE]) + chosen + bytes([SET_RSSI_ATTACHED, 1])
    return message(DEVICE, SET_CONFIGURATION, configuration)


def message(
    endpoint: int, number: int, payload: bytes, *, attached: bytes = b"", flags: int = 0
) -> bytes:
    """Return a whole message with its CRC; `attached`: timestamp and RSSI, as `flags` say."""
    inner = bytes([flags | HAS_CRC | endpoint, number, len(payload)]) + payload + attached
    return bytes([START]) + inner + crc(inner).to_bytes(2, "little")


def dbm(level: int) -> int:
    """Return the stick's level byte in dBm, see the module's sources."""
    return level // 2 - 120


def crc(given: bytes) -> int:
    """Return CRC-16/X-25: polynomial 1021 reflected, begun with and inverted by FFFF.

    The standard library has the polynomial unreflected, so bits are mirrored before and after.

    >>> hex(crc(b"123456789"))
    '0x906e'
    """
    mirrored = binascii.crc_hqx(given.translate(MIRRORED), 0xFFFF)
    return int(f"{mirrored:016b}"[::-1], 2) ^ 0xFFFF
