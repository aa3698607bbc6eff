"""Masking what may be a key in what is about to be logged, stored or sent. Pure."""

from __future__ import annotations

import json
import re
from typing import Final

MASK: Final = "•••"
STARS: Final = "***"

# A key as hex (8 bytes and more, apart or not), as Python shows bytes or a list of numbers, or as
# a line of PEM. That masks other things too; a crash is found by its stack.
_LOOKS_SECRET: Final = re.compile(
    r"""(?:[0-9A-Fa-f]{2}[:\s-]?){7,}[0-9A-Fa-f]{2}
    | \bb(?P<quote>['"]).*?(?<!\\)(?P=quote)
    | (?:\b\d{1,3},\s*){7,}\d{1,3}
    | [A-Za-z0-9+/]{40,}={0,2}""",
    re.VERBOSE | re.DOTALL,
)

# Names under which sources deliver radio frames: what is there is read by the cloud's people.
_FRAMES: Final = ("telegram_hex", "prior_telegrams_hex", "payload_hex", "data", "phyPayload")
_SECRET_NAME: Final = re.compile(r"(?i)key|secret|passw|token|psk|\baes")
# In text that is no JSON, or was cut. Nine bytes and more of hex, however they are kept apart, for
# a DevEUI has eight and is needed; a word as long as sixteen bytes in base64, for one wrong
# character is the commonest fault of a key. A frame alone in its line is longer than any key.
_SECRET_IN_LINE: Final = re.compile(
    rb"""(?P<frame>
        "(?:telegram_hex|payload_hex|data|phyPayload)"\s*:\s*"[^"]*
      | "prior_telegrams_hex"\s*:\s*\[[^\]]*
      | (?<=;)0x[0-9A-Za-z]{24,}
      | \A\s*[0-9A-Za-z]{65,}\s*\Z )
    | (?P<name>(?:key|secret|passw|token|psk|aes)\w{0,32}["']?\s*[:=]\s*)
      (?: "(?:[^"\\]|\\.)*"? | '[^']*'? | \[[^\]]*\]? | \{[^}]*\}? | [^"',;}\]\[{\r\n]+ )
    | (?:[0-9A-Fa-f]\0?[0-9A-Fa-f]\0?(?:[\s:,|"'\\/\0_-]|0x){0,4}){8,}[0-9A-Fa-f]\0?[0-9A-Fa-f]
    | (?:\b\d{1,3},\s*){8,}\d{1,3}
    | [A-Za-z0-9+/]{22,}={0,2}""",
    re.VERBOSE | re.IGNORECASE,
)
_ESCAPED: Final = re.compile(rb"\\u00([2-7][0-9A-Fa-f])")
LONGEST_LIST: Final = 8  # small numbers in a row; a key as numbers has sixteen


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

    JSON is masked by its names and by what its values look like, anything else by its looks alone;
    frames stay. What is masked already comes back as it is.

    >>> without_keys(b'{"telegram_hex": "2A44", "key_hex": "28 F6 4A 24", "rssi": -70}')
    b'{"telegram_hex": "2A44", "key_hex": "***", "rssi": -70}'
    >>> without_keys(b'{"telegram_hex": "2A44", "key_hex": "28F64A24988064A079AA2C80')
    b'{"telegram_hex": "2A44", "key_hex": ***'
    """
    begin = max(0, line.find(b"{"))  # what is before it: a datagram's head
    try:
        said = json.loads(line[begin:].decode())
        if isinstance(said, dict):
            inside = json.dumps(_masked_json(said), ensure_ascii=False).encode()
            return _masked_text(line[:begin]) + inside
    except (ValueError, RecursionError):  # no JSON, or cut short, or a lone surrogate in it
        pass
    return _masked_text(line)


def _masked_json(said: object, name: str = "") -> object:
    if name in _FRAMES:
        return said
    if _SECRET_NAME.search(name):
        return STARS
    if isinstance(said, dict):
        return {_in_words(inner): _masked_json(value, inner) for inner, value in said.items()}
    if isinstance(said, list):
        small = sum(isinstance(value, int) for value in said) > LONGEST_LIST
        return STARS if small else [_masked_json(value) for value in said]
    if isinstance(said, str):
        return _in_words(said)
    return STARS if isinstance(said, int) and said.bit_length() > 64 else said


def _in_words(text: str) -> str:
    return _masked_text(text.encode("utf-8", "replace")).decode("utf-8", "replace")


def _masked_text(line: bytes) -> bytes:
    plain = _ESCAPED.sub(lambda code: bytes((int(code[1], 16),)), line)
    return _SECRET_IN_LINE.sub(_stars, plain)


def _stars(found: re.Match[bytes]) -> bytes:
    if found["frame"] is not None:
        return found[0]
    return (found["name"] or b"") + STARS.encode()
