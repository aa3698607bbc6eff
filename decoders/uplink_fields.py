"""Reading one field of an uplink message: its type and its range, or a refusal that names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SEQ_MAX = (1 << 63) - 1  # what the signed 64-bit columns of both ends' databases hold
INSTANT_MAX = 1 << 62
MAX_TEXT_CHARACTERS = 256


class UplinkError(Exception):
    """A message that cannot be read as a whole.

    code     uplink_oversized | uplink_malformed | uplink_version
    detail   what is wrong, where
    """

    code = "uplink_malformed"

    def __init__(self, detail: str) -> None:
        super().__init__(f"{self.code}: {detail}")
        self.detail = detail


class Oversized(UplinkError):
    code = "uplink_oversized"


class Malformed(UplinkError):
    code = "uplink_malformed"


class UnknownVersion(UplinkError):
    code = "uplink_version"


def listed(fields: Mapping[str, Any], name: str, *, at_most: int) -> Sequence[Any]:
    given = fields.get(name, ())
    if not isinstance(given, (list, tuple)) or len(given) > at_most:
        raise Malformed(f"{name}: a list of at most {at_most} entries is expected")
    return given


def text(fields: Mapping[str, Any], name: str) -> str:
    given = fields.get(name, "")
    if not isinstance(given, str) or len(given) > MAX_TEXT_CHARACTERS:
        raise Malformed(f"{name}: a text of at most {MAX_TEXT_CHARACTERS} characters is expected")
    return given


def octets(fields: Mapping[str, Any], name: str, *, exactly: int | None = None) -> bytes:
    given = fields.get(name)
    if not isinstance(given, bytes):
        raise Malformed(f"{name}: a byte string is expected")
    if exactly is not None and len(given) != exactly:
        raise Malformed(f"{name}: {exactly} bytes are expected, got {len(given)}")
    return given


def seq_of(fields: Mapping[str, Any], name: str) -> int:
    return whole(fields, name, 0, SEQ_MAX)


def instant(fields: Mapping[str, Any], name: str) -> int:
    return whole(fields, name, -INSTANT_MAX, INSTANT_MAX)


def whole(fields: Mapping[str, Any], name: str, least: int, most: int) -> int:
    given = fields.get(name, 0)
    if not is_int(given) or not least <= given <= most:
        raise Malformed(f"{name}: a whole number of {least} … {most} is expected")
    return int(given)


def is_int(given: object) -> bool:
    return isinstance(given, int) and not isinstance(given, bool)
