"""What a tap is handed: the LoRaWAN keys of the key file, now and when it changes, and its memory.

The key file is read again when it is another file, or has other bytes, than before: whoever hands
over the keys of a new session (`aquacis-edge keys import`) need not restart the agent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from pathlib import Path

from decoders.value import value
from edge_agent.config import Config
from edge_agent.gateway_keys import open_keys
from edge_agent.keys import GatewayKeys
from edge_agent.lorawan_devices import DeviceKeys

NewKeys = Callable[[], "Iterable[DeviceKeys] | None"]


def never() -> None:
    """There are no new keys."""


@value
class Handover:
    """keys: at the start. new_keys: None while nothing changed. memory: checkpoints by name."""

    keys: Iterable[DeviceKeys] = ()
    new_keys: NewKeys = never
    memory: Mapping[str, bytes] = field(default_factory=dict)


def handover(config: Config, keys: GatewayKeys, memory: Mapping[str, bytes]) -> Handover:
    """Return what a tap starts with, and how it hears of changes."""
    return Handover(keys=keys.lorawan.values(), new_keys=_Watched(config).changed, memory=memory)


class _Watched:
    """The key file, looked at again and again."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._seen = _looks_of(config.keys)

    def changed(self) -> Iterable[DeviceKeys] | None:
        """Return the keys if the file has changed. Raises KeyFileUnusable, once for each change."""
        looks = _looks_of(self._config.keys)
        if looks is None or looks == self._seen:
            return None  # a file that is just being replaced is not there for a moment
        self._seen = looks
        return open_keys(self._config).lorawan.values()


def _looks_of(path: Path | None) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
