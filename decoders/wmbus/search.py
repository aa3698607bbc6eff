"""Compact layouts that nobody has taught: searched among plausible ones, believed when repeated.

A compact frame names its layout by a 16-bit signature and carries a 16-bit checksum of the full
frame. Together they are 32 bits to test a guess with, so an unknown layout can be searched among
the lists that Kamstrup's water meters are known to be ordered with. One in some thousands of
searches would still find a wrong list, so a layout is believed only after a second telegram with
other data fits it, too. Source of the order: the public layouts in drivers/kamstrup_water.py.

A search meets in the middle: the checksum of a list follows from those of its two halves, so a
hundred first halves are each looked up among some hundred second ones, instead of trying the
hundred thousand lists that they make.
"""

from __future__ import annotations

from functools import lru_cache

from decoders.errors import DecodeError
from decoders.formats import Formats, signature_of
from decoders.value import value
from decoders.wmbus.crc import PAIRS, crc16
from decoders.wmbus.records import fill, join, shapes_of

MAX_PENDING = 64  # signatures under doubt at once, in memory
MAX_CANDIDATES = 16  # layouts that fit one telegram; by chance there is none or one
MAX_SEARCHES = 3  # of one signature: its first telegram may have been damaged
_SUMS = 4
_NOTHING = ""
_INVERTED = 0xFFFF  # a checksum is sent inverted; only the bare register adds up
# One of each row, in this order; "" leaves it out. Heads as Kamstrup's order forms combine them.
FIRST_HALF: tuple[tuple[str, ...], ...] = (
    ("02FF20", "04FF23"),
    ("0413",),
    (_NOTHING, "4413"),
    (_NOTHING, "426C"),
    (_NOTHING, "023B"),
    (_NOTHING, "523B", "92013B"),
    (_NOTHING, "623B", "A2013B"),
)
SECOND_HALF: tuple[tuple[str, ...], ...] = (
    (_NOTHING, "06FF1B"),
    (_NOTHING, "615B", "A1015B"),
    (_NOTHING, "515B", "91015B"),
    (_NOTHING, "6167", "A10167"),
    (_NOTHING, "5167", "910167"),
    (_NOTHING, "8101E7FF0F"),
    (_NOTHING, "06FF1B"),
)


@value
class Suspect:
    """A layout, and the compact frame that it fits: another one that it fits proves it."""

    layout: bytes
    encoded: bytes


@value
class Doubt:
    """What is known of an unknown signature. `newest`: the frame that was searched last."""

    newest: bytes = b""
    suspects: tuple[Suspect, ...] = ()
    searches: int = 0

    def proved_by(self, encoded: bytes) -> bytes | None:
        """The one suspect that a frame with other data fits, too."""
        proved = {
            suspect.layout
            for suspect in self.suspects
            if suspect.encoded != encoded and fits(suspect.layout, encoded)
        }
        return proved.pop() if len(proved) == 1 else None

    def wants(self, encoded: bytes) -> bool:
        """Whether searching this frame may tell anything new."""
        if self.searches >= MAX_SEARCHES or encoded == self.newest:
            return False
        return not any(fits(suspect.layout, encoded) for suspect in self.suspects)

    def searched(self, encoded: bytes) -> Doubt:
        """The same after one more search, of a frame that `wants` approved."""
        found = tuple(Suspect(layout=each, encoded=encoded) for each in candidates(encoded))
        return Doubt(
            newest=encoded,
            suspects=(*self.suspects, *found)[:MAX_CANDIDATES],
            searches=self.searches + 1,
        )


class LayoutSearch:
    """Finds the layouts of compact frames that a store does not know, and teaches them to it.

    `note` costs next to nothing, so that a gateway may call it for every frame; `search_one` is
    the work (some milliseconds, on an ARM gateway a hundred), to be done when there is time.
    """

    def __init__(self, formats: Formats) -> None:
        self._formats = formats
        self._doubts: dict[int, Doubt] = {}
        self._waiting: dict[int, bytes] = {}

    def __len__(self) -> int:
        """How many frames wait to be searched."""
        return len(self._waiting)

    def note(self, encoded: bytes) -> bytes | None:
        """Take a compact frame of an unknown layout, from its signature on.

        The layout, once it is believed and learned: decode the frame again then.
        """
        if len(encoded) <= _SUMS:
            return None
        signature = named_by(encoded)
        doubt = self._doubts.setdefault(signature, Doubt())
        if len(self._doubts) > MAX_PENDING:
            oldest = next(iter(self._doubts))
            self._doubts.pop(oldest)
            self._waiting.pop(oldest, None)
        layout = doubt.proved_by(encoded)
        if layout is not None and self._formats.learn(layout):
            self._doubts.pop(signature)
            self._waiting.pop(signature, None)
            return layout
        if doubt.wants(encoded):
            self._waiting.setdefault(signature, encoded)
        return None

    def search_one(self) -> None:
        """Search the frame that has waited longest, if one waits."""
        if self._waiting:
            signature = next(iter(self._waiting))
            encoded = self._waiting.pop(signature)
            self._doubts[signature] = self._doubts[signature].searched(encoded)

    def offer(self, encoded: bytes) -> bytes | None:
        """`note`, and search at once."""
        layout = self.note(encoded)
        while self._waiting:
            self.search_one()
        return layout


def named_by(encoded: bytes) -> int:
    """The signature of a compact frame."""
    return encoded[0] | encoded[1] << 8


def candidates(encoded: bytes) -> tuple[bytes, ...]:
    """Plausible layouts whose signature and full frame's checksum fit a compact frame."""
    signature, size = named_by(encoded), len(encoded) - _SUMS
    found: list[bytes] = []
    for layout in _of_signature(signature, size):
        if layout not in found and fits(layout, encoded):
            found.append(layout)
    return tuple(found[:MAX_CANDIDATES])


def fits(layout: bytes, encoded: bytes) -> bool:
    """Whether a layout rebuilds the very full frame that a compact one was made of."""
    full_crc = encoded[2] | encoded[3] << 8
    try:
        records = fill(shapes_of(layout), encoded[_SUMS:], at=_SUMS)
    except DecodeError:
        return False
    return crc16(join(records)) == full_crc


def _of_signature(signature: int, size: int) -> list[bytes]:
    """Every plausible layout with this signature whose data takes `size` bytes."""
    register, found = signature ^ _INVERTED, []
    endings = _endings()
    for beginning, taken in _lists(FIRST_HALF):
        first = signature_of(beginning) ^ _INVERTED
        for length, by_register in endings.get(size - taken, {}).items():
            rests = by_register.get(register ^ _through_zeros(first, length), ())
            found += [beginning + rest for rest in rests]
    return found


@lru_cache(maxsize=1)
def _endings() -> dict[int, dict[int, dict[int, list[bytes]]]]:
    """Second halves by data bytes, by their own length, and by checksum register."""
    endings: dict[int, dict[int, dict[int, list[bytes]]]] = {}
    for heads, size in _lists(SECOND_HALF):
        register = signature_of(heads) ^ _INVERTED
        same_length = endings.setdefault(size, {}).setdefault(len(heads), {})
        same_length.setdefault(register, []).append(heads)
    return endings


def _lists(rows: tuple[tuple[str, ...], ...]) -> list[tuple[bytes, int]]:
    """Every list that takes one of each row, as (heads, data bytes)."""
    lists = [(b"", 0)]
    for row in rows:
        heads = [bytes.fromhex(head) for head in row]
        taken = [sum(shape.size or 0 for shape in shapes_of(head)) for head in heads]
        lists = [
            (before + head, size + more)
            for before, size in lists
            for head, more in zip(heads, taken, strict=True)
        ]
    return lists


def _through_zeros(register: int, count: int) -> int:
    """The checksum register after `count` more bytes of zero."""
    for _ in range(count >> 1):
        register = PAIRS[register]
    if count & 1:
        # one byte: the register's high byte goes through the table, its low byte moves up
        register = PAIRS[register >> 8] ^ (register << 8 & 0xFF00)
    return register
