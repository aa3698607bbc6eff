"""Which of the 64 shards a surrogate key belongs to, one key at a time or a column of them."""

from __future__ import annotations

import zlib
from typing import Final

import numpy as np
import numpy.typing as npt

SHARDS: Final = 64
"""Fixed for ever: a key's shard is its place in every log ever written."""


def shard_of(key: int) -> int:
    """Return the shard of a surrogate key: crc32 of its 8 big-endian bytes, modulo 64."""
    return zlib.crc32(key.to_bytes(8, "big", signed=True)) % SHARDS


def _byte_tables() -> tuple[list[npt.NDArray[np.uint8]], int]:
    """Return what each byte of a key contributes to its shard, and the shard of key 0.

    crc32 is affine over XOR, and so are its low six bits: the shard of a key is the shard of 0
    XORed with one table entry per byte.
    """
    origin = shard_of(0)
    tables = [
        np.array(
            [
                zlib.crc32(bytes(7 - place) + bytes([byte]) + bytes(place)) % SHARDS ^ origin
                for byte in range(256)
            ],
            dtype=np.uint8,
        )
        for place in range(8)
    ]
    return tables, origin


_TABLES, _ORIGIN = _byte_tables()


def shards_of(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Return `shard_of` each key, (n,) → (n,)."""
    octets = np.ascontiguousarray(keys, dtype="<i8").view(np.uint8).reshape(-1, 8)
    shards = np.full(len(octets), _ORIGIN, dtype=np.uint8)
    for place, table in enumerate(_TABLES):
        shards ^= table[octets[:, place]]
    return shards
