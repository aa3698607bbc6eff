"""Compact layouts by signature: what full frames and drivers have taught.

A compact frame names its layout only by a 16-bit checksum of the record heads. Two layouts may
share one, so each signature keeps every layout it was taught, and the full frame's checksum
(inside the compact frame) picks the right one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from decoders.errors import DecodeError
from decoders.wmbus.crc import crc16
from decoders.wmbus.records import shapes_of

MAX_LAYOUTS = 4096  # each is tens of bytes; a noisy band must not fill a gateway's memory
MAX_LAYOUTS_PER_SIGNATURE = 4


class FormatStore(Protocol):
    """Where a decoder looks a signature up; whoever owns a disk may keep it there."""

    def layouts(self, signature: int) -> tuple[bytes, ...]:
        """Record heads, concatenated, of every layout with this signature; maybe none."""
        ...


class Formats:
    """A `FormatStore` in memory.

    >>> formats = Formats([bytes.fromhex("02FF2004134413615B6167")])
    >>> formats.layouts(0xA8ED)[0].hex()
    '02ff2004134413615b6167'
    """

    def __init__(self, layouts: Iterable[bytes] = ()) -> None:
        self._layouts: dict[int, tuple[bytes, ...]] = {}
        self._count = 0
        for layout in layouts:
            self.learn(layout)

    def layouts(self, signature: int) -> tuple[bytes, ...]:
        return self._layouts.get(signature, ())

    def learn(self, layout: bytes) -> bool:
        """Keep the layout of a full frame (`Telegram.layout`). True when it was new and kept."""
        if not layout:
            return False
        signature = signature_of(layout)
        known = self._layouts.get(signature, ())
        full = self._count >= MAX_LAYOUTS or len(known) >= MAX_LAYOUTS_PER_SIGNATURE
        if layout in known or full:
            return False
        try:
            shapes_of(layout)
        except DecodeError:
            return False
        self._layouts[signature] = (*known, layout)
        self._count += 1
        return True

    def __iter__(self) -> Iterator[bytes]:
        for known in self._layouts.values():
            yield from known

    def __len__(self) -> int:
        return self._count


def signature_of(layout: bytes) -> int:
    """The 16-bit signature that compact frames of this layout carry."""
    return crc16(layout)
