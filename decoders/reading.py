"""What a meter said: the one result type of every radio and every maker."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import IntEnum

from decoders.ids import MeterId, dev_eui_text
from decoders.value import value
from decoders.wmbus.records import Record

FieldValue = Decimal | int | str


class Integrity(IntEnum):
    """The strongest check that the bytes passed, so that nobody trusts more than was tested."""

    NONE = 0
    MAC = 1  # a keyed code, checked by us or by the LoRaWAN network server
    CRC = 2  # the link layer's checksum
    INNER_CRC = 3  # a checksum inside the encrypted payload: key and bytes both fit
    FILL_2F2F = 4  # only the two known bytes that security mode 5 starts with

    @property
    def text(self) -> str:
        """As answers name it: none, mac, crc, inner-crc or 2f2f."""
        return self.name.lower().removeprefix("fill_").replace("_", "-")


@value
class Telegram:
    """One frame, decoded.

    radio        "wmbus" or "lorawan"
    radio_id     8 bytes: M and A fields as sent, or the DevEUI, most significant byte first
    meter        the EN 13757 identity; None when a LoRaWAN payload carries none
    driver       name of the driver that read it; None: standard records only
    counter      ELL session number, else access number, else 0; LoRaWAN: 32-bit frame counter
    fields       values by name, exact; an invalid or absent value has no entry
    status       alarms that are on now, in the order of their bits
    info_code    the meter's own alarm word, raw
    register_l   cumulative volume in whole litres, rounded down
    series       (instant, litres), newest first; the instant is the meter's own clock read as if
                 it were UTC, in microseconds since 1970: its owner knows the offset
    checked      the bytes that the frame's identity hashes: as received, without L and link CRCs
    doubts       checks that failed although a stronger one passed: "full_crc"
    layout       DIF/VIF bytes of a full frame, the format that it teaches; empty otherwise
    """

    radio: str
    radio_id: bytes
    meter: MeterId | None
    driver: str | None
    version: int | None
    medium: int | None
    counter: int
    integrity: Integrity
    fields: Mapping[str, FieldValue]
    status: tuple[str, ...]
    info_code: int | None
    register_l: int | None
    series: tuple[tuple[int, int], ...]
    checked: bytes
    layout: bytes
    records: tuple[Record, ...]
    doubts: tuple[str, ...]

    @property
    def natural_id(self) -> str:
        """The name under which a registry knows the sender: "KAW-53885758" or its DevEUI."""
        if self.radio == "lorawan":
            return dev_eui_text(int.from_bytes(self.radio_id, "big"))
        return str(MeterId.from_wire(self.radio_id))
