"""One gateway's settings: a JSON file, read once, printed with its secrets masked.

{"gateway": "norte",                         its id: MQTT user and topic
 "broker": "mqtts://broker.example:8883", "user": "norte", "password": "…",
 "ca_file": "…", "cert_file": "…", "key_file": "…",   TLS, PEM; the certificate's name is the id
 "mqtt": "auto",                             or "3.1.1", "5"; auto: 5 where the broker has it
 "keepalive_s": 30,                          a dead connection is replaced within 1.5 × this
 "state": "/var/lib/aquacis",                folder of the outbox
 "clock": "system",                          or file:<path> in a simulation (else AQUACIS_CLOCK)
 "clock_offset_s": 0,                        how far this gateway's clock is ahead, simulated
 "env": "production",                        refuses plain key files (else AQUACIS_ENV, else
                                             "development")
 "keys": "/etc/aquacis/keys.sealed",         see `keys_sealed`; plain JSON lines: see `keys`
 "private_key": "/etc/aquacis/gateway.key",  opens the sealed keys; absent: the key_file
 "meters": ["KAW-53885758", …],              only these; absent: all
 "meter_clock_offset_s": -21600,             LoRaWAN meters' own clock minus UTC
 "meter_clock_offsets_s": {"0013EA…": 0},    … of single meters
 "profile": "full" | "lean",                 how much disk, for how long (1 GiB and 30 days, or
                                             64 MiB and 9 days); absent: lean on 32-bit machines
 "outbox": {"bytes": …, "days": …},          other than the profile says, see Limit
 "pace": {…}, "leaks": {…},                  see Pace, leaks_limits
 "local_port": 8090,                         page and /metrics on loopback; 0: any; absent: none
 "sources": [{"kind": "chirpstack", "application": "<uuid>", "gateway_eui": "…",
              "broker": …, "user": …, "password": …},            absent: the broker above
             {"kind": "lines", "path": "/run/wmbus.fifo", "only_own": false},
             {"kind": "multitech"}, {"kind": "imst", …}, {"kind": "amber", …}, {"kind": "gwmp", …}]}
                                             see docs/guides/gateway-sources.md
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from decoders.uplink import MAX_GATEWAY_CHARACTERS
from decoders.value import value
from edge_agent.leaks_limits import Thresholds, thresholds_of
from edge_agent.mqtt import Broker
from edge_agent.outbox_file import LEAST_BYTES, PROFILES, Limit
from edge_agent.protocol import Pace
from edge_agent.settings_text import ConfigError, text
from edge_agent.settings_text import broker as read_broker
from edge_agent.source_configs import Around, GwmpConfig, SourceConfig, source_config

SECOND_US: Final = 1_000_000
MOST_PORT: Final = 65_535
MASK: Final = "•••"
KNOWN: Final = frozenset(
    (
        *("gateway", "broker", "user", "password", "ca_file", "cert_file", "key_file"),
        *("mqtt", "keepalive_s", "state", "clock", "clock_offset_s"),
        *("env", "keys", "private_key", "meters"),
        *("meter_clock_offset_s", "meter_clock_offsets_s"),
        *("local_port", "profile", "outbox", "pace", "leaks", "sources", "source"),
    )
)

T = TypeVar("T")


@value
class Config:
    """All settings of one agent."""

    gateway: str
    broker: Broker
    state: Path
    clock: str
    clock_offset_us: int
    production: bool
    keys: Path | None
    private_key: Path | None
    meters: frozenset[str] | None
    meter_offset_us: int
    meter_offsets_us: Mapping[str, int]
    local_port: int | None
    profile: str
    limit: Limit
    pace: Pace
    thresholds: Thresholds
    sources: tuple[SourceConfig, ...]

    def printable(self) -> dict[str, object]:
        """Return the settings as JSON can hold them, without secrets."""
        return {
            "gateway": self.gateway,
            "broker": self.broker.address,
            "user": self.broker.user,
            "password": MASK if self.broker.password else "",
            "tls": self.broker.tls,
            "certificate": self.broker.cert_file,
            "state": str(self.state),
            "clock": self.clock,
            "env": "production" if self.production else "development",
            "keys": str(self.keys) if self.keys else None,
            "meters": None if self.meters is None else len(self.meters),
            "local_port": self.local_port,
            "profile": self.profile,
            "outbox_bytes": self.limit.bytes,
            "sources": [source.name for source in self.sources],
        }


def read_config(path: Path, *, environment: Mapping[str, str] = os.environ) -> Config:
    """Read a config file. Raises ConfigError."""
    try:
        said = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON: {error}") from None
    if not isinstance(said, dict):
        raise ConfigError(f"{path}: a JSON object is expected")
    unknown = sorted(set(said) - KNOWN)
    if unknown:
        raise ConfigError(f"{path}: unknown setting {', '.join(unknown)}")
    try:
        return _config(said, environment)
    except ConfigError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _config(said: Mapping[str, Any], environment: Mapping[str, str]) -> Config:
    gateway = _gateway(said)
    broker = read_broker(said, user=gateway)
    keys, meters = said.get("keys"), said.get("meters")
    private_key = said.get("private_key") or said.get("key_file")
    offsets = said.get("meter_clock_offsets_s") or {}
    given = said.get("sources", said.get("source")) or []
    around = Around(gateway=gateway, broker=broker)
    sources = tuple(source_config(source, i, around) for i, source in enumerate(given))
    if len({source.name for source in sources}) != len(sources):
        raise ConfigError("sources: two have the same name")
    if sum(isinstance(source, GwmpConfig) for source in sources) > 1:
        raise ConfigError("sources: one gwmp tap serves all packet forwarders")
    profile = said.get("profile") or ("full" if sys.maxsize > 1 << 32 else "lean")
    return Config(
        gateway=gateway,
        broker=broker,
        state=Path(text(said, "state")),
        clock=said.get("clock") or environment.get("AQUACIS_CLOCK") or "system",
        clock_offset_us=round(float(said.get("clock_offset_s", 0)) * SECOND_US),
        production=_production(said, environment),
        keys=None if keys is None else Path(keys),
        private_key=None if private_key is None else Path(private_key),
        meters=None if meters is None else frozenset(str(m).upper() for m in meters),
        meter_offset_us=round(said.get("meter_clock_offset_s", -21_600) * SECOND_US),
        meter_offsets_us={m.upper(): round(s * SECOND_US) for m, s in offsets.items()},
        local_port=_port(said),
        profile=profile,
        limit=_limit(said, profile),
        pace=_settings(Pace, said, "pace"),
        thresholds=thresholds_of(said.get("leaks") or {}),
        sources=sources,
    )


def _gateway(said: Mapping[str, Any]) -> str:
    gateway = text(said, "gateway")
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789-")
    if set(gateway) - allowed or len(gateway) > MAX_GATEWAY_CHARACTERS:
        raise ConfigError(
            f"gateway: {gateway!r} is not 1 to {MAX_GATEWAY_CHARACTERS} characters of a-z, 0-9, -"
        )
    return gateway


def _production(said: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    env = said.get("env") or environment.get("AQUACIS_ENV") or "development"
    if env not in {"production", "development"}:
        raise ConfigError(f"env: production or development is expected, got {env!r}")
    return bool(env == "production")


def _port(said: Mapping[str, Any]) -> int | None:
    port = said.get("local_port")
    if port is None:
        return None
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= MOST_PORT:
        raise ConfigError(f"local_port: 0 to {MOST_PORT} is expected, got {port!r}")
    return port


def _limit(said: Mapping[str, Any], profile: str) -> Limit:
    """Return the profile's limits, and what the section `outbox` says otherwise."""
    if profile not in PROFILES:
        raise ConfigError(f"profile: {' or '.join(PROFILES)} is expected, got {profile!r}")
    own = _settings(Limit, said, "outbox")
    limit = replace(PROFILES[profile], **{n: getattr(own, n) for n in said.get("outbox") or {}})
    if limit.bytes < LEAST_BYTES:
        raise ConfigError(f"outbox.bytes: {limit.bytes}, at least {LEAST_BYTES} are needed")
    return limit


def _settings(kind: type[T], said: Mapping[str, Any], name: str) -> T:
    """Make a settings noun from its section; lists become tuples."""
    given: Mapping[str, Any] = said.get(name) or {}
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]  # each is a dataclass
    unknown = sorted(set(given) - known)
    if unknown:
        raise ConfigError(f"{name}: unknown setting {', '.join(unknown)}")
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})
