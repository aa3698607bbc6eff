"""The key file: which meters this gateway can decrypt.

JSON lines, readable by its owner alone: {"meter": "KAW-53885758", "key_hex": "28F6…"}.
A key never appears in a log, a message or an error.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from decoders.ids import MeterId

KEY_BYTES: Final = 16
ADDRESS_BYTES: Final = 6  # M(2) ID(4): a meter keeps its key when version or medium is misread
MAX_KEYS: Final = 100_000


class KeyFileUnusable(Exception):
    """The key file cannot be trusted or read."""


def read_keys(path: Path) -> dict[bytes, bytes]:
    """Return address → key of every line. Raises KeyFileUnusable, naming the line, not its key."""
    try:
        mode = path.stat().st_mode
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileUnusable(f"{path}: {type(error).__name__}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise KeyFileUnusable(f"{path}: others can read it; chmod 600")
    keys: dict[bytes, bytes] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            address, key = _key(line, f"{path}:{number}")
            keys[address] = key
    if len(keys) > MAX_KEYS:
        raise KeyFileUnusable(f"{path}: {len(keys)} keys, at most {MAX_KEYS} belong on a gateway")
    return keys


def address_of(natural_id: str) -> bytes:
    """Return M(2) ID(4) as on the air of "KAW-53885758". Raises ValueError.

    >>> address_of("KAW-53885758").hex()
    '372c58578853'
    """
    manufacturer, _, serial = natural_id.partition("-")
    if len(manufacturer) != 3 or not manufacturer.isalpha() or len(serial) != 8:
        raise ValueError(f"{natural_id!r}: a meter is named like KAW-53885758")
    meter = MeterId(manufacturer=manufacturer.upper(), serial=serial, version=0, medium=0)
    return meter.to_wire()[:ADDRESS_BYTES]


def _key(line: str, where: str) -> tuple[bytes, bytes]:
    try:
        said: Mapping[str, str] = json.loads(line)
        address, key = address_of(said["meter"]), bytes.fromhex(said["key_hex"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise KeyFileUnusable(f'{where}: {{"meter": …, "key_hex": …}} is expected') from None
    if len(key) != KEY_BYTES:
        raise KeyFileUnusable(f"{where}: a key has 32 hex digits")
    return address, key
