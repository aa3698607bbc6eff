"""The settings of the sources, one noun for each kind; see the guide to gateway sources.

A new kind is a noun here, a reader in `KINDS` and a line in `source_wiring`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from decoders.value import value
from edge_agent.mqtt import Broker
from edge_agent.settings_text import ConfigError, broker, text


@value
class LinesConfig:
    """See `sources.lines`. `only_own`: skip JSON lines that name another gateway."""

    name: str
    path: str
    only_own: bool = False


@value
class ChirpStackConfig:
    """See `sources.chirpstack`."""

    name: str
    broker: Broker
    application: str
    gateway_eui: str | None = None


SourceConfig = LinesConfig | ChirpStackConfig


@value
class Around:
    """What a source may take from the settings around it."""

    gateway: str
    broker: Broker


def source_config(said: Mapping[str, Any], number: int, around: Around) -> SourceConfig:
    """Read the settings of source `number`. Raises ConfigError, ValueError."""
    kind = said.get("kind")
    read = KINDS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise ConfigError(f"sources[{number}].kind: one of {', '.join(KINDS)}, got {kind!r}")
    return read(str(said.get("name") or f"{kind}-{number}"), said, around)


def _lines(name: str, said: Mapping[str, Any], _around: Around) -> SourceConfig:
    only_own = bool(said.get("only_own", False))
    return LinesConfig(name=name, path=text(said, "path"), only_own=only_own)


def _chirpstack(name: str, said: Mapping[str, Any], around: Around) -> SourceConfig:
    own = broker(said, user=around.gateway) if said.get("broker") else around.broker
    return ChirpStackConfig(
        name=name,
        broker=own,
        application=str(said.get("application") or "+"),
        gateway_eui=said.get("gateway_eui"),
    )


KINDS: Final[Mapping[str, Callable[[str, Mapping[str, Any], Around], SourceConfig]]] = {
    "chirpstack": _chirpstack,
    "lines": _lines,
}
