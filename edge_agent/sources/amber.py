"""Amber (Würth Elektronik) AMB8465 and its kin (AMB8426, Metis) in command mode.

    FF | command | length | payload | checksum

The checksum is the XOR of all bytes before it, the FF too. Command 3 is a received telegram: the
payload stands for the telegram after its L-field, without link-layer CRCs, and where the module
is set to add the level (RSSI_Enable = 1) one more byte of it, counted in the length. Commands from
80 on are answers. The level is two's complement in ½ dB, 0 = -74 dBm. 9,600 baud, 8N1.
The module must be in command mode (UART_CMD_Out_Enable = 1); both settings live in its flash, which
the agent does not write.
Source: Amber wireless, "AMB8426-M / AMB8626-M Manual" 2.4, 2.2 (framing, checksum, commands) and
7.9 (level); AMB8465-M has the same interface.
"""

from __future__ import annotations

from functools import reduce
from operator import xor
from typing import Final

from decoders.uplink import NO_RSSI
from edge_agent.sources.serial import Cut, Cutter, Garbage, Telegram

BAUD: Final = 9600
START: Final = 0xFF
HEADER_BYTES: Final = 3
TELEGRAM_HEARD: Final = 0x03
ANSWER: Final = 0x80
LEVEL_AT_ZERO_DBM: Final = -74
LEAST_TELEGRAM: Final = 9  # C, M and A fields


class AmberFramer(Cutter):
    """Cuts what an Amber module says into telegrams."""

    def __init__(self, *, has_rssi: bool = True) -> None:
        """`has_rssi`: the module is set to add the level."""
        super().__init__(start=START, header=HEADER_BYTES)
        self._has_rssi = has_rssi

    def length_of(self, header: bytes) -> int | None:
        command, length = header[1], header[2]
        if command == TELEGRAM_HEARD:
            if length < LEAST_TELEGRAM + self._has_rssi:
                return None
        elif command < ANSWER or command == START:
            return None
        return HEADER_BYTES + length + 1

    def read(self, frame: bytes) -> Cut | None:
        if checksum(frame[:-1]) != frame[-1]:
            return Garbage(code="checksum", detail="XOR of the module's message", given=frame)
        if frame[1] != TELEGRAM_HEARD:
            return None
        payload, rssi = frame[HEADER_BYTES:-1], NO_RSSI
        if self._has_rssi:
            payload, rssi = payload[:-1], dbm(payload[-1])
        return Telegram(frame=bytes([len(payload)]) + payload, rssi=rssi)


def message(command: int, payload: bytes) -> bytes:
    """Return a whole message with its checksum."""
    head = bytes([START, command, len(payload)]) + payload
    return head + bytes([checksum(head)])


def checksum(given: bytes) -> int:
    """Return the XOR of all bytes.

    >>> hex(checksum(bytes.fromhex("FF06010B")))
    '0xf3'
    """
    return reduce(xor, given, 0)


def dbm(level: int) -> int:
    """Return the module's level byte in dBm, rounded down.

    >>> dbm(0xF0), dbm(0x10)
    (-82, -66)
    """
    return (level - 256 if level >= 128 else level) // 2 + LEVEL_AT_ZERO_DBM
