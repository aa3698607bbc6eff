"""The name of a frame: the same for every gateway that heard it."""

from __future__ import annotations

from hashlib import blake2b

from decoders.reading import Telegram

KIND_WMBUS = 1
KIND_LORAWAN = 2
HASH_BYTES = 16


def frame_hash(kind: int, radio_id: bytes, counter: int, checked: bytes) -> bytes:
    """Hash a frame's identity to 16 bytes.

    kind      KIND_WMBUS or KIND_LORAWAN
    radio_id  8 bytes, as in `Telegram.radio_id`
    counter   unsigned, below 2**32
    checked   bytes as received, so that no key is needed and a replay finds the same name
    """
    assert len(radio_id) == 8
    head = bytes((kind,)) + radio_id + counter.to_bytes(4, "big")
    return blake2b(head + checked, digest_size=HASH_BYTES).digest()


def hash_of(telegram: Telegram) -> bytes:
    """The frame hash of a decoded telegram."""
    kind = KIND_LORAWAN if telegram.radio == "lorawan" else KIND_WMBUS
    return frame_hash(kind, telegram.radio_id, telegram.counter, telegram.checked)
