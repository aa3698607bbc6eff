"""What metering needs of others, by what it does and not by how."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from decoders.wmbus.search import Doubt


class LayoutStore(Protocol):
    """Compact layouts of wM-Bus that outlive a process, and what is suspected of unknown ones."""

    def believed(self) -> Iterable[bytes]:
        """Return the record heads of every layout that full frames taught or a search proved."""
        ...

    def believe(self, layout: bytes, *, now_us: int, source: tuple[int, int] | None = None) -> bool:
        """Keep a layout; False when it is known. `source`: (batch, row) of the full frame."""
        ...

    def doubt(self, signature: int) -> Doubt:
        """Return what is known of an unknown signature; nobody else changes it meanwhile."""
        ...

    def keep_doubt(self, signature: int, doubt: Doubt, *, now_us: int) -> None:
        """Keep what is known of an unknown signature now."""
        ...
