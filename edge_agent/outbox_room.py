"""What a commit had to give up to fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from decoders.value import value
from edge_agent.outbox_gone import Gone
from edge_agent.outbox_pages import Page, Pages


@value
class Shed:
    """Unacknowledged rows that were given up for newer ones. heard_at bounds in µs."""

    rows: int
    from_at: int
    to_at: int
    kinds: Mapping[str, int]  # undecodable, sub_hourly, hourly → rows


@dataclass
class Room:
    """What a commit gave up to fit."""

    rows: int = 0
    from_at: int = 0
    to_at: int = 0
    kinds: dict[str, int] = field(default_factory=dict)

    def add(self, page: Page, rows: int) -> None:
        if not rows:
            return
        self.from_at = min(self.from_at, page.from_at) if self.rows else page.from_at
        self.to_at = max(self.to_at, page.to_at) if self.rows else page.to_at
        self.rows += rows
        name = page.keep.name.lower()
        self.kinds[name] = self.kinds.get(name, 0) + rows

    def copy(self) -> Room:
        return Room(self.rows, self.from_at, self.to_at, dict(self.kinds))

    def since(self, before: Room) -> dict[str, int]:
        """Return what was added to `before`, by kind."""
        return {kind: rows - before.kinds.get(kind, 0) for kind, rows in self.kinds.items()}

    @property
    def shed(self) -> Shed | None:
        if not self.rows:
            return None
        return Shed(rows=self.rows, from_at=self.from_at, to_at=self.to_at, kinds=self.kinds)


def give_up_page(pages: Pages, gone: Gone, room: Room, *, acked: int) -> bool:
    """Give up the page that goes first, in its owner's transaction; say whether there was one."""
    page = pages.oldest_acked(acked) or pages.oldest_to_shed()
    if page is None:
        return False
    room.add(page, pages.drop(page, acked=acked))
    gone.limit()
    return True
