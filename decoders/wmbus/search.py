"""Compact layouts that nobody has taught: searched among plausible ones, believed when repeated.

A compact frame names its layout by a 16-bit signature and carries a 16-bit checksum of the full
frame. Together they are 32 bits to test a guess with, so an unknown layout can be searched among
the lists that Kamstrup's water meters are known to be ordered with. One in some thousands of
searches would still find a wrong list, so a layout is believed only after a second telegram with
other data fits it, too. Source of the order: the public layouts in drivers/kamstrup_water.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from decoders.errors import DecodeError
from decoders.formats import Formats, signature_of
from decoders.wmbus.crc import crc16
from decoders.wmbus.records import fill, join, shapes_of

MAX_PENDING = 64  # signatures that wait for their second telegram
MAX_CANDIDATES = 16  # layouts that fit one telegram; by chance there is none or one
_SUMS = 4
_NOTHING = ""
# One of each row, in this order; "" leaves it out. Heads as Kamstrup's order forms combine them.
PLAUSIBLE: tuple[tuple[str, ...], ...] = (
    ("02FF20", "04FF23"),
    ("0413",),
    (_NOTHING, "4413"),
    (_NOTHING, "426C"),
    (_NOTHING, "023B"),
    (_NOTHING, "523B", "92013B"),
    (_NOTHING, "623B", "A2013B"),
    (_NOTHING, "06FF1B"),
    (_NOTHING, "615B", "A1015B"),
    (_NOTHING, "515B", "91015B"),
    (_NOTHING, "6167", "A10167"),
    (_NOTHING, "5167", "910167"),
    (_NOTHING, "8101E7FF0F"),
    (_NOTHING, "06FF1B"),
)


class LayoutSearch:
    """Finds the layouts of compact frames that a store does not know, and teaches them to it."""

    def __init__(self, formats: Formats) -> None:
        self._formats = formats
        self._pending: dict[int, tuple[bytes, tuple[bytes, ...]]] = {}

    def offer(self, encoded: bytes) -> bool:
        """Take a compact frame of an unknown layout, from its signature on.

        True once its layout is believed and learned: decode the frame again then.
        """
        if len(encoded) <= _SUMS:
            return False
        signature = encoded[0] | encoded[1] << 8
        if signature not in self._pending:
            if len(self._pending) < MAX_PENDING:
                self._pending[signature] = (encoded, candidates(encoded))
            return False
        first, found = self._pending[signature]
        if encoded == first:
            return False
        agreeing = tuple(layout for layout in found if fits(layout, encoded))
        if len(agreeing) != 1:
            return False
        del self._pending[signature]
        return self._formats.learn(agreeing[0])


def candidates(encoded: bytes) -> tuple[bytes, ...]:
    """Plausible layouts whose signature and full frame's checksum fit a compact frame."""
    signature, size = encoded[0] | encoded[1] << 8, len(encoded) - _SUMS
    found: list[bytes] = []
    for layout in _of_size(size, 0):
        right = signature_of(layout) == signature and fits(layout, encoded)
        if right and layout not in found:
            found.append(layout)
        if len(found) == MAX_CANDIDATES:
            break
    return tuple(found)


def fits(layout: bytes, encoded: bytes) -> bool:
    """Whether a layout rebuilds the very full frame that a compact one was made of."""
    full_crc = encoded[2] | encoded[3] << 8
    try:
        records = fill(shapes_of(layout), encoded[_SUMS:], at=_SUMS)
    except DecodeError:
        return False
    return crc16(join(records)) == full_crc


def _of_size(size: int, row: int) -> Iterator[bytes]:
    """Every plausible layout from a row of the table on whose data takes `size` bytes."""
    if row == len(PLAUSIBLE):
        if size == 0:
            yield b""
        return
    if not _LEAST[row] <= size <= _MOST[row]:
        return
    for head, taken in _ROWS[row]:
        for rest in _of_size(size - taken, row + 1):
            yield head + rest


def _rows() -> tuple[tuple[tuple[bytes, int], ...], ...]:
    """The table as (head, data bytes)."""
    heads = [[bytes.fromhex(head) for head in row] for row in PLAUSIBLE]
    return tuple(
        tuple((head, sum(s.size or 0 for s in shapes_of(head))) for head in row) for row in heads
    )


_ROWS = _rows()
# Least and most data bytes that the rows from each one on can take.
_LEAST = [sum(min(n for _, n in row) for row in _ROWS[at:]) for at in range(len(_ROWS))]
_MOST = [sum(max(n for _, n in row) for row in _ROWS[at:]) for at in range(len(_ROWS))]
