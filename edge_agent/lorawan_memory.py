"""What a restart must not forget of a LoRaWAN device: its sessions and their counters. Pure.

No key is in it. A session that came with the key file is named by a mark of its keys; one that
came of a join heard on the air is named likewise, beside the open parameters of that join, from
which the root keys give its keys again.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

import cbor2

from decoders.lorawan.security import COUNTERS, Session
from decoders.value import value

PREFIX: Final = "s/"
MARK_BYTES: Final = 8
FORMAT: Final = 1
MAX_SESSIONS: Final = 6  # live ones of one device: the used one, and joins not yet confirmed
MAX_RETIRED: Final = 16  # marks of sessions that a device has left, beside the one in the key file


@value
class Joined:
    """The open parameters of a join; with the root keys they give the session's keys.

    dev_nonce  DevNonce, or RJcount where a rejoin was answered
    """

    join_nonce: int
    net_id: int
    dev_nonce: int
    join_eui: int
    is_1_1: bool


@value
class Remembered:
    """One session.

    last        newest counter that passed its integrity code; None: none yet
    conf_f_cnt  counter of the newest confirmed downlink, sixteen bits; None: none seen
    joined      None: it came with the key file
    """

    mark: bytes
    dev_addr: int
    last: int | None = None
    conf_f_cnt: int | None = None
    joined: Joined | None = None


@value
class Memory:
    """One device: its sessions, oldest first, and the marks of those it has left."""

    sessions: tuple[Remembered, ...] = ()
    retired: tuple[bytes, ...] = ()


def name_of(dev_eui: int) -> str:
    """Return the checkpoint's name."""
    return f"{PREFIX}{dev_eui:016x}"


def mark_of(session: Session, dev_addr: int) -> bytes:
    """Name a session without giving its keys away: they are random, so nothing can be guessed."""
    keys = session.f_nwk_s_int_key + session.s_nwk_s_int_key + session.app_s_key
    return blake2b(
        dev_addr.to_bytes(4, "big") + keys, digest_size=MARK_BYTES, person=b"aquacis-session"
    ).digest()


def pack(memory: Memory) -> bytes:
    """Return the checkpoint."""
    sessions = [
        [s.mark, s.dev_addr, s.last, s.conf_f_cnt, _joined_fields(s.joined)]
        for s in memory.sessions
    ]
    return cbor2.dumps([FORMAT, sessions, list(memory.retired)])


def unpack(packed: bytes) -> Memory | None:
    """Read a checkpoint; None when it is none of ours."""
    try:
        form, sessions, retired = cbor2.loads(packed)
        if form != FORMAT:
            return None
        return Memory(
            sessions=tuple(_remembered(fields) for fields in sessions),
            retired=tuple(_mark(mark) for mark in retired),
        )
    except Exception:  # cbor2 leaks TypeError, RecursionError, decimal errors on damaged input
        return None


def _joined_fields(joined: Joined | None) -> list[int | bool] | None:
    if joined is None:
        return None
    return [joined.join_nonce, joined.net_id, joined.dev_nonce, joined.join_eui, joined.is_1_1]


def _remembered(fields: Sequence[object]) -> Remembered:
    mark, dev_addr, last, conf_f_cnt, joined = fields
    return Remembered(
        mark=_mark(mark),
        dev_addr=_below(dev_addr, 1 << 32),
        last=None if last is None else _below(last, COUNTERS),
        conf_f_cnt=None if conf_f_cnt is None else _below(conf_f_cnt, 1 << 16),
        joined=_joined(joined) if isinstance(joined, list) else None,
    )


def _joined(fields: Sequence[object]) -> Joined:
    join_nonce, net_id, dev_nonce, join_eui, is_1_1 = fields
    return Joined(
        join_nonce=_below(join_nonce, 1 << 24),
        net_id=_below(net_id, 1 << 24),
        dev_nonce=_below(dev_nonce, 1 << 16),
        join_eui=_below(join_eui, 1 << 64),
        is_1_1=bool(is_1_1),
    )


def _mark(given: object) -> bytes:
    if not isinstance(given, bytes) or len(given) != MARK_BYTES:
        raise ValueError("a mark is expected")
    return given


def _below(given: object, limit: int) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given < limit:
        raise ValueError(f"a whole number below {limit} is expected")
    return given
