"""Reading one section of the settings: what `config` and `source_configs` have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_agent.mqtt import KEEPALIVE_S, Broker, broker_at


class ConfigError(Exception):
    """A setting that cannot be used; says which."""


def text(said: Mapping[str, Any], name: str) -> str:
    """Return a text that must be there. Raises ConfigError."""
    given = said.get(name)
    if not isinstance(given, str) or not given:
        raise ConfigError(f"{name}: a text is expected")
    return given


def broker(said: Mapping[str, Any], *, user: str) -> Broker:
    """Read broker, user, password, certificates, MQTT version and keep-alive of a section.

    `user` is taken where the section names none.
    """
    return broker_at(
        text(said, "broker"),
        user=said.get("user") or user,
        password=said.get("password") or "",
        ca_file=said.get("ca_file"),
        cert_file=said.get("cert_file"),
        key_file=said.get("key_file"),
        version=str(said.get("mqtt") or "auto"),
        keepalive_s=int(said.get("keepalive_s") or KEEPALIVE_S),
    )
