"""Compact layouts as the gateway knows them: shipped, learned from full frames, or searched. Pure.

A layout that nobody taught is searched, and believed once a second telegram agrees. Searching costs
milliseconds (on an ARM gateway a hundred), so the hot path only notes what is unknown, and one
search at a time is made between frames, so many seconds apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from decoders.drivers.registry import known_formats
from decoders.errors import UnknownSignature
from decoders.formats import Formats
from decoders.reading import Telegram
from decoders.wmbus.search import LayoutSearch
from edge_agent import opening
from edge_agent.inputs import Heard

SEARCH_EACH_S: Final = 10.0  # one percent of an ARM gateway's time


@dataclass
class Layouts:
    """The store, and the search that adds to it. Bounded by the limits of both."""

    formats: Formats = field(default_factory=known_formats)
    search: LayoutSearch = field(init=False)
    searched_s: float = float("-inf")

    def __post_init__(self) -> None:
        self.search = LayoutSearch(self.formats)

    def opened(
        self, frame: Heard, keys: Mapping[bytes, tuple[bytes, ...]]
    ) -> tuple[Telegram, tuple[bytes, ...]]:
        """Decode a frame; return it with what it taught: layouts to keep. Raises DecodeError."""
        try:
            telegram = opening.opened(frame, keys, self.formats)
        except UnknownSignature as unknown:
            found = self.search.note(unknown.encoded)
            if found is None:
                raise
            return opening.opened(frame, keys, self.formats), (found,)
        return telegram, (telegram.layout,) if self.formats.learn(telegram.layout) else ()

    def search_when_due(self, *, now_s: float) -> None:
        """Search one of the frames that were noted, unless the last search was just now."""
        if len(self.search) and now_s - self.searched_s >= SEARCH_EACH_S:
            self.searched_s = now_s
            self.search.search_one()
