"""Masking what may be a key in what is about to be logged, stored or sent. Pure."""

from __future__ import annotations

import re
from typing import Final

MASK: Final = "•••"

# A key as hex (8 bytes and more, apart or not), as Python shows bytes or a list of numbers, or as
# a line of PEM. That masks other things too; a crash is found by its stack.
_LOOKS_SECRET: Final = re.compile(
    r"""(?:[0-9A-Fa-f]{2}[:\s-]?){7,}[0-9A-Fa-f]{2}
    | \bb(?P<quote>['"]).*?(?<!\\)(?P=quote)
    | (?:\b\d{1,3},\s*){7,}\d{1,3}
    | [A-Za-z0-9+/]{40,}={0,2}""",
    re.VERBOSE | re.DOTALL,
)
_KEY_IN_LINE: Final = re.compile(rb"""(?i)(key\w*["']?\s*[:=]\s*["']?)[^"',}\s]+""")


def masked(text: str) -> str:
    """Return `text` without anything that looks like a key.

    >>> masked("key 28F64A24988064A079AA2C807D6102AE of KAW-53885758")
    'key ••• of KAW-53885758'
    >>> masked("/etc/aquacis/keys.sealed: b'secret'")
    '/etc/aquacis/keys.sealed: •••'
    """
    return _LOOKS_SECRET.sub(MASK, text)


def without_keys(line: bytes) -> bytes:
    """Return a line that a source delivered, its keys masked: it goes to the disk and the cloud.

    >>> without_keys(b'{"telegram_hex": "2A44", "key_hex": "28F64A24988064A079AA2C80')
    b'{"telegram_hex": "2A44", "key_hex": "***'
    """
    return _KEY_IN_LINE.sub(rb"\1***", line)
