"""Compact frames: the data of a full frame without its record heads.

signature(2) full CRC(2) data…, both little-endian. The signature names the layout, and the full
CRC covers the records as a full frame would have them, so a wrong layout never passes.
Source: EN 13757-7:2018, 7.6 and annex on compact frames; checked on the public telegrams.
"""

from __future__ import annotations

from decoders.errors import CrcMismatch, DecodeError, Truncated, UnknownSignature
from decoders.formats import FormatStore, signature_of
from decoders.value import value
from decoders.wmbus.crc import crc16
from decoders.wmbus.records import Record, fill, join, layout_of, shapes_of

LAYER = "compact"
_HEAD_BYTES = 4


@value
class Expanded:
    """The records of a compact frame; `full_crc_fits` says whether its own checksum agreed."""

    records: tuple[Record, ...]
    full_crc_fits: bool


def expand(encoded: bytes, formats: FormatStore, *, at: int, vouched: bool) -> Expanded:
    """Rebuild the records of a compact frame. `at` is where its signature is in the frame.

    vouched  a checksum of the layer below covers these bytes. Then a layout of the right
             signature and size is taken although the full CRC differs, and the result says so:
             a public telegram (flowIQ 2200, serial 23813076) is like that.
    Raises Truncated, UnknownSignature, CrcMismatch, Malformed.
    """
    if len(encoded) < _HEAD_BYTES:
        raise Truncated(LAYER, at + len(encoded), "no room for a signature and a checksum")
    signature = encoded[0] | encoded[1] << 8
    full_crc = encoded[2] | encoded[3] << 8
    data, data_at = encoded[_HEAD_BYTES:], at + _HEAD_BYTES
    layouts = formats.layouts(signature)
    if not layouts:
        detail = f"layout {signature:04X} is unknown until a full frame of this meter is heard"
        raise UnknownSignature(LAYER, at, detail, signature, encoded)
    misfit: DecodeError | None = None
    doubtful: list[tuple[Record, ...]] = []
    for layout in layouts:
        try:
            records = fill(shapes_of(layout), data, at=data_at)
        except DecodeError as error:
            misfit = error
            continue
        if crc16(join(records)) == full_crc:
            return Expanded(records=records, full_crc_fits=True)
        doubtful.append(records)
    if vouched and len(doubtful) == 1:
        return Expanded(records=doubtful[0], full_crc_fits=False)
    detail = f"layout {signature:04X} rebuilt the full frame, but its checksum differs"
    raise CrcMismatch(LAYER, at + 2, detail) if doubtful or misfit is None else misfit


def compacted(records: tuple[Record, ...]) -> bytes:
    """Encode records as a compact frame: signature, full CRC, data."""
    return (
        signature_of(layout_of(records)).to_bytes(2, "little")
        + crc16(join(records)).to_bytes(2, "little")
        + b"".join(record.data for record in records)
    )
