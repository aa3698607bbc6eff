"""Who sent it: the identities that meters carry on the air, with explicit byte order."""

from __future__ import annotations

from functools import lru_cache

from decoders.value import value

WIRE_BYTES = 8  # manufacturer 2, serial 4, version 1, medium 1
_MAX_METERS_CACHED = 8192  # twice what one gateway hears; keeps memory bounded


@value
class MeterId:
    """An EN 13757 meter identity.

    manufacturer  three letters (FLAG association), "KAW"
    serial        eight digits as printed on the meter; hexadecimal where a maker strays from BCD
    version       generation byte
    medium        device type byte: 0x06 warm water, 0x16 cold water
    """

    manufacturer: str
    serial: str
    version: int
    medium: int

    def __str__(self) -> str:
        return f"{self.manufacturer}-{self.serial}"

    @staticmethod
    def from_wire(wire: bytes) -> MeterId:
        """Read M(2) ID(4) V T as the link layer sends them: numbers little-endian."""
        return _meter_from_wire(bytes(wire))

    def to_wire(self) -> bytes:
        """Write M(2) ID(4) V T as the link layer sends them."""
        return (
            manufacturer_code(self.manufacturer).to_bytes(2, "little")
            + bytes.fromhex(self.serial)[::-1]
            + bytes((self.version, self.medium))
        )


@lru_cache(maxsize=_MAX_METERS_CACHED)
def _meter_from_wire(wire: bytes) -> MeterId:
    assert len(wire) == WIRE_BYTES
    return MeterId(
        manufacturer=manufacturer_letters(int.from_bytes(wire[:2], "little")),
        serial=wire[5:1:-1].hex().upper(),
        version=wire[6],
        medium=wire[7],
    )


@lru_cache(maxsize=1024)  # a handful of makers: their letters are held once, not by each meter
def manufacturer_letters(code: int) -> str:
    """Three letters of the 16-bit code: five bits each, "A" is 1.

    The top bit is no part of the letters (it marks an address that is unique only nearby).
    """
    return "".join(chr(64 + (code >> shift & 0x1F)) for shift in (10, 5, 0))


def manufacturer_code(letters: str) -> int:
    """The 16-bit code of three letters.

    >>> hex(manufacturer_code("KAW"))
    '0x2c37'
    """
    first, second, third = (ord(letter) - 64 & 0x1F for letter in letters)
    return first << 10 | second << 5 | third


def dev_eui_text(dev_eui: int) -> str:
    """A LoRaWAN device's natural name: 16 upper-case hex digits, most significant first."""
    return f"{dev_eui:016X}"


# Device types (EN 13757-7, table "device type identification"), as a person says them.
_MEDIA = {
    0x00: "other",
    0x01: "oil",
    0x02: "electricity",
    0x03: "gas",
    0x04: "heat",
    0x05: "steam",
    0x06: "warm water",
    0x07: "water",
    0x08: "heat cost allocation",
    0x09: "compressed air",
    0x0A: "cooling at outlet",
    0x0B: "cooling at inlet",
    0x0C: "heat at inlet",
    0x0D: "heat and cooling",
    0x0E: "bus or system",
    0x15: "hot water",
    0x16: "cold water",
    0x17: "hot and cold water",
    0x18: "pressure",
    0x19: "analogue to digital converter",
    0x1A: "smoke detector",
    0x1B: "room sensor",
    0x1C: "gas detector",
    0x20: "breaker",
    0x21: "valve",
    0x25: "display",
    0x28: "waste water",
    0x29: "garbage",
    0x31: "communication controller",
    0x32: "unidirectional repeater",
    0x33: "bidirectional repeater",
    0x36: "radio converter, system side",
    0x37: "radio converter, meter side",
}


def medium_text(medium: int) -> str:
    """What a device type measures.

    >>> medium_text(0x16)
    'cold water'
    """
    return _MEDIA.get(medium, f"device type {medium:02X}")
