"""Opening a wM-Bus frame with the keys its meter may use. Pure.

A meter that was given a new key sends with it from some moment on, which nobody tells the gateway.
So the newest key is tried first, and an older one only when the answer was noise.
"""

from __future__ import annotations

from collections.abc import Mapping

from decoders.decode import decode_wmbus
from decoders.errors import WrongKey
from decoders.formats import Formats
from decoders.reading import Telegram
from decoders.uplink import RowFlag
from edge_agent.inputs import Heard


def keys_of(frame: Heard, keys: Mapping[bytes, tuple[bytes, ...]]) -> tuple[bytes, ...]:
    """Return the keys to try, newest first: the source's own, else those of the frame's address."""
    return (frame.key,) if frame.key is not None else keys.get(frame.frame[2:8], ())


def opened(
    frame: Heard,
    keys: Mapping[bytes, tuple[bytes, ...]],
    formats: Formats,
    *,
    already_decrypted: bool | None = None,
) -> Telegram:
    """Decode a frame with the first key that fits. Raises DecodeError: the newest key's."""
    if already_decrypted is None:
        already_decrypted = bool(frame.flags & RowFlag.ALREADY_DECRYPTED)
    newest, *older = keys_of(frame, keys) or (None,)
    try:
        return decode_wmbus(
            frame.frame, key=newest, formats=formats, already_decrypted=already_decrypted
        )
    except WrongKey:
        for key in older:
            try:
                return decode_wmbus(
                    frame.frame, key=key, formats=formats, already_decrypted=already_decrypted
                )
            except WrongKey:
                continue
        raise
