"""Compact frames of unknown layouts, across all gateways: searched, proved, and then readable.

The first telegram of an unknown layout becomes a dead letter and leaves suspects; a later one, of
any meter and through any worker, proves one of them. From then on the dead letters can be replayed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cloud.metering.ports import LayoutStore
from decoders.batch import Columns as Decoded
from decoders.errors import UnknownSignature
from decoders.wmbus.search import named_by

SEARCHES_PER_BATCH: Final = 8  # about a millisecond each: a batch of noise costs no more than this
_LEAST_BYTES: Final = 5  # signature, checksum, and some data


def unknown_in(decoded: Decoded) -> list[bytes]:
    """Return the compact frames of a batch whose layout nobody knows, from their signature on."""
    return [error.encoded for _, error in decoded.errors if isinstance(error, UnknownSignature)]


def search(frames: Iterable[bytes], store: LayoutStore, *, now_us: int) -> tuple[bytes, ...]:
    """Look for the layouts of these frames; return those that are believed now, and kept.

    Signatures are taken in rising order, so that two workers wait for each other.
    """
    found: dict[int, bytes] = {}
    searches = 0
    whole = [encoded for encoded in frames if len(encoded) >= _LEAST_BYTES]
    for encoded in sorted(whole, key=named_by):
        signature = named_by(encoded)
        if signature in found:
            continue
        doubt = store.doubt(signature)
        layout = doubt.proved_by(encoded)
        if layout is not None:
            store.believe(layout, now_us=now_us)
            found[signature] = layout
        elif searches < SEARCHES_PER_BATCH and doubt.wants(encoded):
            searches += 1
            store.keep_doubt(signature, doubt.searched(encoded), now_us=now_us)
    return tuple(found.values())
