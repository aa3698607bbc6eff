"""The settings of the sources, one noun for each kind; see the guide to gateway sources.

A new kind is a noun here, a reader in `KINDS` and a line in `source_wiring`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from decoders.value import value
from edge_agent.lorawan_regions import REGIONS
from edge_agent.lorawan_sessions import MAX_GAP
from edge_agent.mqtt import Broker
from edge_agent.settings_text import ConfigError, broker, text
from edge_agent.sources import amber, imst, multitech
from edge_agent.sources.gwmp_relay import Endpoint, endpoint_at
from edge_agent.sources.serial import BAUDS

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
GWMP_PORT: Final = 1700
LISTEN: Final = "127.0.0.1"  # the packet forwarder runs on this gateway
MIN_IDLE_S: Final = 60.0  # a packet forwarder pulls every 5 to 30 s


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

    @property
    def is_elsewhere(self) -> bool:
        """Say whether another machine's clock stamps the events."""
        return self.broker.host not in LOOPBACK


@value
class MultiTechConfig:
    """See `sources.multitech`."""

    name: str
    broker: Broker


@value
class ImstConfig:
    """See `sources.imst`. `mode`: one of its MODES, None leaves the stick's own setting."""

    name: str
    path: str
    baud: int
    mode: str | None = None


@value
class AmberConfig:
    """See `sources.amber`. `has_rssi`: the module is set to add the level to each telegram."""

    name: str
    path: str
    baud: int
    has_rssi: bool = True


@value
class GwmpConfig:
    """See `sources.gwmp_tap`.

    region   of `lorawan_regions`; matters to LoRaWAN 1.1 alone
    idle_s   a packet forwarder that was silent for so long is forgotten
    gap      how far a counter may be above the last one
    """

    name: str
    listen: Endpoint
    server: Endpoint
    region: str = "us915"
    idle_s: float = 300.0
    gap: int = MAX_GAP


SourceConfig = (
    LinesConfig | ChirpStackConfig | MultiTechConfig | ImstConfig | AmberConfig | GwmpConfig
)


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
    unknown = sorted(set(said) - COMMON - OWN[str(kind)])
    if unknown:
        raise ConfigError(f"sources[{number}]: unknown setting {', '.join(unknown)} of {kind}")
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


def _multitech(name: str, said: Mapping[str, Any], _around: Around) -> SourceConfig:
    own = {"broker": multitech.BROKER, **said}  # the gateway's own; it asks for no user at first
    return MultiTechConfig(name=name, broker=broker(own, user=""))


def _imst(name: str, said: Mapping[str, Any], _around: Around) -> SourceConfig:
    mode = said.get("mode")
    if mode is not None and mode not in imst.MODES:
        raise ConfigError(f"{name}: mode: one of {', '.join(imst.MODES)}, got {mode!r}")
    return ImstConfig(
        name=name, path=text(said, "path"), baud=_baud(name, said, imst.BAUD), mode=mode
    )


def _amber(name: str, said: Mapping[str, Any], _around: Around) -> SourceConfig:
    return AmberConfig(
        name=name,
        path=text(said, "path"),
        baud=_baud(name, said, amber.BAUD),
        has_rssi=bool(said.get("has_rssi", True)),
    )


def _gwmp(name: str, said: Mapping[str, Any], _around: Around) -> SourceConfig:
    region, idle_s = said.get("region", "us915"), float(said.get("idle_s", 300.0))
    gap = said.get("max_counter_gap", MAX_GAP)
    if region not in REGIONS:
        raise ConfigError(f"{name}: region: one of {', '.join(REGIONS)}, got {region!r}")
    if not idle_s >= MIN_IDLE_S:
        raise ConfigError(f"{name}: idle_s: {MIN_IDLE_S:g} or more, got {idle_s:g}")
    if isinstance(gap, bool) or not isinstance(gap, int) or not 1 <= gap <= MAX_GAP:
        raise ConfigError(f"{name}: max_counter_gap: 1 … {MAX_GAP}, got {gap!r}")
    listen = endpoint_at(str(said.get("listen") or LISTEN), port=GWMP_PORT)
    server = endpoint_at(text(said, "server"), port=GWMP_PORT)
    if listen == server:
        raise ConfigError(f"{name}: server: {server} is the tap itself")
    return GwmpConfig(
        name=name,
        listen=listen,
        server=server,
        region=region,
        idle_s=idle_s,
        gap=gap,
    )


def _baud(name: str, said: Mapping[str, Any], usual: int) -> int:
    baud = said.get("baud", usual)
    if baud not in BAUDS:
        raise ConfigError(f"{name}: baud: one of {', '.join(map(str, BAUDS))}, got {baud!r}")
    return int(baud)


KINDS: Final[Mapping[str, Callable[[str, Mapping[str, Any], Around], SourceConfig]]] = {
    "chirpstack": _chirpstack,
    "multitech": _multitech,
    "lines": _lines,
    "imst": _imst,
    "amber": _amber,
    "gwmp": _gwmp,
}
COMMON: Final = frozenset({"kind", "name"})
BROKER: Final = frozenset(
    {"broker", "user", "password", "ca_file", "cert_file", "key_file", "mqtt", "keepalive_s"}
)
OWN: Final[Mapping[str, frozenset[str]]] = {
    "chirpstack": BROKER | {"application", "gateway_eui"},
    "multitech": BROKER,
    "lines": frozenset({"path", "only_own"}),
    "imst": frozenset({"path", "baud", "mode"}),
    "amber": frozenset({"path", "baud", "has_rssi"}),
    "gwmp": frozenset({"listen", "server", "region", "idle_s", "max_counter_gap"}),
}
