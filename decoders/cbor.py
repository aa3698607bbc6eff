"""CBOR from outside, read by cbor2's Python decoder and never by its C one.

cbor2 5.9.0 in C keeps up to a kilobyte for ever for each text that is not UTF-8 and for some bad
tags (agronholm/cbor2 issue 257; found here by `tasks.py fuzz uplink`): one gateway with a bad disk
could fill the memory of the cloud's intake. Our messages are few items with long byte strings, on
which both decoders are equally fast. The lock pins the version that this module reaches into.
"""

from __future__ import annotations

from typing import Any

from cbor2 import _decoder


def loads(message: bytes) -> Any:  # noqa: ANN401  any CBOR
    """Return what `message` says. Raises whatever cbor2 does on damaged input: catch Exception."""
    return _decoder.loads(message)
