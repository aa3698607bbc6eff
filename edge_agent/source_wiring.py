"""Make the sources that the settings name."""

from __future__ import annotations

from edge_agent.clock import Clock
from edge_agent.source_configs import LinesConfig, SourceConfig
from edge_agent.sources.chirpstack import ChirpStackSource
from edge_agent.sources.lines import LineSource
from edge_agent.sources.port import Inbox, Source


def source_of(source: SourceConfig, *, gateway: str, inbox: Inbox, clock: Clock) -> Source:
    """Return a source that is not started yet."""
    if isinstance(source, LinesConfig):
        return LineSource(
            name=source.name,
            path=source.path,
            inbox=inbox,
            clock=clock,
            only=gateway if source.only_own else None,
        )
    return ChirpStackSource(
        name=source.name,
        broker=source.broker,
        client_id=f"aquacis-edge-{gateway}-{source.name}",
        application=source.application,
        gateway_eui=source.gateway_eui,
        inbox=inbox,
    )
