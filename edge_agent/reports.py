"""What a report row holds: CBOR of no more bytes than the cloud reads of a row. Pure.

A message with one row that is too long is refused whole, so a report is cut here, where it is made,
and says so: `cut` is true. Its kind, its codes and its figures stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import cbor2

from decoders.uplink import MAX_PAYLOAD_BYTES

# What is tried in turn: the longest text or byte string in bytes, and the longest list.
STEPS: Final = ((300, 1000), (300, 16), (150, 8), (80, 4), (40, 2), (16, 0))


def packed(said: Mapping[str, object]) -> bytes:
    """Return the report as CBOR, at most MAX_PAYLOAD_BYTES.

    >>> cut = cbor2.loads(packed({"kind": "bad_input", "given": bytes(5000)}))
    >>> cut["kind"], len(cut["given"]), cut["cut"]
    ('bad_input', 300, True)
    """
    payload = cbor2.dumps(_cut(said, MAX_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES))
    for longest, most in STEPS:
        if len(payload) <= MAX_PAYLOAD_BYTES:
            return payload
        payload = cbor2.dumps(_cut({**said, "cut": True}, longest, most))
    if len(payload) <= MAX_PAYLOAD_BYTES:
        return payload
    return cbor2.dumps({"kind": _cut(said.get("kind", ""), 32, 0), "cut": True})


def _cut(given: object, longest: int, most: int) -> object:
    """Return `given` with no text or byte string over `longest` bytes, no list over `most`."""
    if isinstance(given, str):
        # A file's name may hold bytes that are no UTF-8; CBOR's text may not.
        return given.encode("utf-8", "replace")[:longest].decode("utf-8", "ignore")
    if isinstance(given, (bytes, bytearray)):
        return bytes(given[:longest])
    if isinstance(given, Mapping):
        return {name: _cut(value, longest, most) for name, value in given.items()}
    if isinstance(given, (list, tuple)):
        return [_cut(value, longest, most) for value in given[:most]]
    return given
