"""Opening this gateway's key file: sealed, or plain where that is still allowed.

Settings: `keys` names the file, `private_key` what opens it (absent: the `key_file` of the broker's
certificate), `meters` the meters whose keys the agent then holds, `env` "production" refuses a
plain file, whatever its mode.
"""

from __future__ import annotations

from pathlib import Path

from edge_agent.config import Config
from edge_agent.keys import GatewayKeys, Given, KeyFileUnusable, held, read_lines
from edge_agent.keys_sealed import held_by, is_sealed, opened, read_sealed
from edge_agent.private_key import PrivateKey, PrivateKeyUnusable, read_private_key


def open_keys(config: Config) -> GatewayKeys:
    """Return the keys that this gateway holds. Raises KeyFileUnusable."""
    if config.keys is None:
        return GatewayKeys()
    if is_sealed(config.keys):
        return held_by(
            read_sealed(config.keys),
            gateway=config.gateway,
            private_key=own_private_key(config),
            only=config.meters,
        )
    if config.production:
        raise KeyFileUnusable(
            "keys_not_sealed",
            f"{config.keys}: in production keys are sealed; `aquacis-edge keys import` does it",
        )
    return held(read_lines(config.keys), only=config.meters, sealed=False)


def open_file(config: Config, *, private_key: PrivateKey | None = None) -> Given:
    """Return all that the sealed file holds, with this private key or the gateway's own.

    Raises KeyFileUnusable.
    """
    file = read_sealed(keys_path(config))
    key = private_key or own_private_key(config)
    return opened(file, gateway=config.gateway, private_key=key)


def keys_path(config: Config) -> Path:
    """Return where the key file is. Raises KeyFileUnusable where the settings do not say."""
    if config.keys is None:
        raise KeyFileUnusable("keys_unset", "the setting `keys` names no file")
    return config.keys


def own_private_key(config: Config) -> PrivateKey:
    """Read the gateway's private key. Raises KeyFileUnusable."""
    if config.private_key is None:
        raise KeyFileUnusable(
            "private_key_unset", "neither setting `private_key` nor `key_file` names a file"
        )
    return a_private_key(config.private_key)


def a_private_key(path: Path) -> PrivateKey:
    """Read any private key. Raises KeyFileUnusable."""
    try:
        return read_private_key(path)
    except PrivateKeyUnusable as error:
        raise KeyFileUnusable(error.code, str(error).removeprefix(f"{error.code}: ")) from None
