"""The record layer: DIF DIFE… VIF VIFE… data, for every meter there is.

Source: EN 13757-3:2018, 6.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from decoders.errors import Malformed, Truncated
from decoders.value import value
from decoders.wmbus.vif import Meaning, meaning_of

LAYER = "records"
FUNCTIONS = ("instantaneous", "maximum", "minimum", "error")
MAX_RECORDS = 128  # a frame of 255 bytes holds fewer: each takes at least two
_EXTENSION = 0x80
_FILL = 0x2F
_REST_IS_MAKERS_OWN = frozenset({0x0F, 0x1F})
_SPECIAL = 0x0F  # data field of DIFs that are no record
_VARIABLE = 0x0D
# data field → bytes; None: the first data byte says
_SIZES = (0, 1, 2, 3, 4, 4, 6, 8, 0, 1, 2, 3, 4, None, 6, 0)
_PLAIN_TEXT_VIF = 0x7C
# (first, end, each, zero): an LVAR of this range has each × (LVAR - zero) bytes behind it
_LENGTHS = (
    (0x00, 0xC0, 1, 0x00),  # text
    (0xC0, 0xCA, 1, 0xC0),  # BCD, positive
    (0xD0, 0xDA, 1, 0xD0),  # BCD, negative
    (0xE0, 0xF0, 1, 0xE0),  # binary number
    (0xF0, 0xF5, 4, 0xEC),  # binary number of 16 … 32 bytes
    (0xF5, 0xF7, 16, 0xF2),  # binary number of 48 or 64 bytes
)
_MAX_EXTENSIONS = 10  # EN 13757-3 allows ten DIFEs and ten VIFEs


@value
class Shape:
    """The head of a record: everything but its data.

    head        DIF, DIFEs, VIF and VIFEs as sent
    data_field  low nibble of DIF: how the data is coded
    size        data bytes; None where the data says itself (LVAR)
    meaning     None where only the maker knows
    """

    head: bytes
    data_field: int
    function: int
    storage: int
    tariff: int
    subunit: int
    size: int | None
    vib: bytes
    meaning: Meaning | None

    @property
    def name(self) -> str:
        """A field name for a record that no driver claims: "max_volume_flow_storage2_m3h"."""
        if self.meaning is None:
            return f"record_{self.head.hex().upper()}"
        unit = self.unit
        return f"{self.stem}_{unit}" if unit else self.stem

    @property
    def stem(self) -> str:
        """The name without its unit. Asserts that the meaning is known."""
        assert self.meaning is not None
        words = [("", "max", "min", "error")[self.function], *self.meaning.qualifiers]
        words += [self.meaning.quantity, *self._counted()]
        return "_".join(word for word in words if word)

    @property
    def unit(self) -> str:
        """The unit as it ends a name; empty where the quantity has none."""
        assert self.meaning is not None
        unit = self.meaning.unit
        return "" if unit in ("number", self.meaning.quantity) else unit

    def _counted(self) -> list[str]:
        counts = (("tariff", self.tariff), ("subunit", self.subunit), ("storage", self.storage))
        return [f"{word}{count}" for word, count in counts if count]


class Record(NamedTuple):
    """One record as sent: its head, its data bytes, and where the record starts in the frame.

    A tuple, unlike the other nouns: ten are made for each telegram, thousands of times a second.
    """

    shape: Shape
    data: bytes
    at: int


def split(encoded: bytes, *, at: int) -> tuple[Record, ...]:
    """Cut a full frame's application data into records; `at` is where it starts in the frame.

    Fill bytes are skipped; whatever follows DIF 0F or 1F is the maker's own and is left out.
    Raises Truncated, Malformed.
    """
    records: list[Record] = []
    i, end = 0, len(encoded)
    while i < end:
        dif = encoded[i]
        if dif == _FILL:
            i += 1
            continue
        if dif in _REST_IS_MAKERS_OWN:
            break
        start = i
        i = _head_end(encoded, i, at)
        shape = _shape(encoded[start:i])
        data_end = i + _size(shape, encoded, i, at)
        if data_end > end:
            raise Truncated(LAYER, at + end, f"record {shape.head.hex().upper()} lacks data bytes")
        records.append(Record(shape, encoded[i:data_end], at + start))
        i = data_end
    if len(records) > MAX_RECORDS:
        raise Malformed(LAYER, at, f"{len(records)} records, at most {MAX_RECORDS} fit a frame")
    return tuple(records)


def fill(shapes: Iterable[Shape], data: bytes, *, at: int) -> tuple[Record, ...]:
    """Give the bare data of a compact frame its heads back. Raises Truncated, Malformed."""
    records: list[Record] = []
    i, end = 0, len(data)
    for shape in shapes:
        stop = i + _size(shape, data, i, at)
        if stop > end:
            raise Truncated(LAYER, at + end, f"record {shape.head.hex().upper()} lacks data bytes")
        records.append(Record(shape, data[i:stop], at + i))
        i = stop
    if data[i:].strip(b"\x2f"):
        raise Malformed(LAYER, at + i, f"{end - i} bytes more than the compact layout has room for")
    return tuple(records)


@lru_cache(maxsize=256)
def shapes_of(layout: bytes) -> tuple[Shape, ...]:
    """Read the concatenated heads of a compact layout. Raises Truncated, Malformed."""
    shapes: list[Shape] = []
    i = 0
    while i < len(layout):
        stop = _head_end(layout, i, 0)
        shapes.append(_shape(layout[i:stop]))
        i = stop
    return tuple(shapes)


def layout_of(records: Iterable[Record]) -> bytes:
    """Concatenate the heads of records: what a compact frame's signature is made of."""
    return b"".join(record.shape.head for record in records)


def join(records: Iterable[Record]) -> bytes:
    """Encode records as a full frame has them, without fill bytes."""
    return b"".join(part for record in records for part in (record.shape.head, record.data))


def shape_of(head: bytes) -> Shape:
    """Read one record's head. Raises Truncated, Malformed."""
    (shape,) = shapes_of(head)
    return shape


def _head_end(encoded: bytes, i: int, at: int) -> int:
    """Where DIF, DIFEs, VIF and VIFEs that start at `i` end."""
    start = i
    try:
        if encoded[i] & 0x0F == _SPECIAL:
            raise Malformed(LAYER, at + i, f"DIF {encoded[i]:02X} is reserved")
        while encoded[i] & _EXTENSION:
            i += 1
        i = vif_at = i + 1
        extended = encoded[i] & _EXTENSION
        if encoded[i] & ~_EXTENSION == _PLAIN_TEXT_VIF:  # length and text come before VIFEs
            i += 1 + encoded[i + 1]
        while extended:
            i += 1
            extended = encoded[i] & _EXTENSION
        encoded[i]  # the last byte of a text must be there too
        i += 1
    except IndexError:
        raise Truncated(LAYER, at + len(encoded), "the bytes end inside a record's head") from None
    if vif_at - start > 1 + _MAX_EXTENSIONS:
        raise Malformed(LAYER, at + start, f"more than {_MAX_EXTENSIONS} DIFEs")
    return i


@lru_cache(maxsize=1024)
def _shape(head: bytes) -> Shape:
    dif = head[0]
    storage, tariff, subunit = dif >> 6 & 1, 0, 0
    i = 0
    while head[i] & _EXTENSION:
        dife = head[i + 1]
        storage |= (dife & 0x0F) << 1 + 4 * i
        tariff |= (dife >> 4 & 3) << 2 * i
        subunit |= (dife >> 6 & 1) << i
        i += 1
    vib = head[i + 1 :]
    return Shape(
        head=head,
        data_field=dif & 0x0F,
        function=dif >> 4 & 3,
        storage=storage,
        tariff=tariff,
        subunit=subunit,
        size=_SIZES[dif & 0x0F],
        vib=vib,
        meaning=meaning_of(vib),
    )


def _size(shape: Shape, encoded: bytes, i: int, at: int) -> int:
    """Data bytes of a record whose data starts at `i`, LVAR included."""
    if shape.size is not None:
        return shape.size
    if i >= len(encoded):
        raise Truncated(LAYER, at + i, "the bytes end before a record's length")
    length = encoded[i]
    for first, end, each, zero in _LENGTHS:
        if first <= length < end:
            return 1 + each * (length - zero)
    raise Malformed(LAYER, at + i, f"LVAR {length:02X} is reserved")
