"""Make the sources that the settings name."""

from __future__ import annotations

from functools import partial
from typing import Final

from edge_agent.clock import Clock
from edge_agent.lorawan_handover import Handover
from edge_agent.lorawan_sessions import Sessions
from edge_agent.source_configs import (
    LOOPBACK,
    AmberConfig,
    ChirpStackConfig,
    GwmpConfig,
    ImstConfig,
    LinesConfig,
    MultiTechConfig,
    SourceConfig,
)
from edge_agent.sources import chirpstack, multitech
from edge_agent.sources.amber import AmberFramer
from edge_agent.sources.gwmp_tap import GwmpTap
from edge_agent.sources.imst import ImstFramer
from edge_agent.sources.lines import LineFeed
from edge_agent.sources.mqtt_feed import MqttFeed
from edge_agent.sources.port import Inbox, Source
from edge_agent.sources.serial import SerialFeed
from edge_agent.sources.supervisor import Backoff, Feed, Supervised

NEAR: Final = Backoff(most_s=5.0)


def source_of(
    source: SourceConfig,
    *,
    gateway: str,
    inbox: Inbox,
    clock: Clock,
    handover: Handover | None = None,
) -> Source:
    """Return a source that is not started yet, and that is started again whenever it dies.

    handover   LoRaWAN keys, for a tap
    """
    feed = _feed_of(source, gateway, clock, handover or Handover())
    return Supervised(feed, name=source.name, inbox=inbox, backoff=_backoff(source))


def _backoff(source: SourceConfig) -> Backoff:
    """Return long waits for a broker that many gateways share, short ones for what is our own.

    A broker on the gateway that lost its sessions loses what is published before we are back.
    """
    if isinstance(source, ChirpStackConfig | MultiTechConfig):
        return NEAR if source.broker.host in LOOPBACK else Backoff()
    return NEAR


def _feed_of(source: SourceConfig, gateway: str, clock: Clock, handover: Handover) -> Feed:
    if isinstance(source, LinesConfig):
        return LineFeed(path=source.path, clock=clock, only=gateway if source.only_own else None)
    if isinstance(source, ImstConfig):
        framer = partial(ImstFramer, mode=source.mode)
        return SerialFeed(path=source.path, baud=source.baud, framer=framer, clock=clock)
    if isinstance(source, AmberConfig):
        cutting = partial(AmberFramer, has_rssi=source.has_rssi)
        return SerialFeed(path=source.path, baud=source.baud, framer=cutting, clock=clock)
    if isinstance(source, GwmpConfig):
        return _tap(source, clock, handover)
    client_id = f"aquacis-edge-{gateway}-{source.name}"
    if isinstance(source, MultiTechConfig):
        return MqttFeed(
            broker=source.broker,
            client_id=client_id,
            topics=multitech.TOPICS,
            read=partial(multitech.heard_in, clock=clock),
        )
    return MqttFeed(
        broker=source.broker,
        client_id=client_id,
        topics=(chirpstack.topic_of(source.application),),
        read=partial(
            chirpstack.heard_in,
            gateway_eui=source.gateway_eui,
            is_elsewhere=source.is_elsewhere,
        ),
    )


def _tap(source: GwmpConfig, clock: Clock, handover: Handover) -> GwmpTap:
    return GwmpTap(
        listen=source.listen,
        server=source.server,
        clock=clock,
        sessions=Sessions(handover.keys, handover.memory, gap=source.gap),
        new_keys=handover.new_keys,
        region=source.region,
        idle_s=source.idle_s,
    )
