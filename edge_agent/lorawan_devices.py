"""A LoRaWAN device as a tap knows it: from its keys, and what was heard before. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from decoders.lorawan.security import Session, session_1_0
from edge_agent.lorawan_joins import Roots, session_of
from edge_agent.lorawan_memory import (
    MAX_RETIRED,
    MAX_SESSIONS,
    Joined,
    Memory,
    Remembered,
    mark_of,
)


class DeviceKeys(Protocol):
    """What was handed over for one device: a session, root keys, or both.

    version          "1.0" or "1.1"
    dev_addr, app_s_key, nwk_s_key    a session of 1.0.x; in 1.1 nwk_s_key is FNwkSIntKey, and
    s_nwk_s_int_key  must be there, nwk_s_enc_key may
    f_cnt_up         the next counter that the server expected when the keys were exported
    app_key          root key of 1.0.x; in 1.1 beside nwk_key
    """

    @property
    def dev_eui(self) -> int: ...
    @property
    def version(self) -> str: ...
    @property
    def dev_addr(self) -> int | None: ...
    @property
    def app_s_key(self) -> bytes | None: ...
    @property
    def nwk_s_key(self) -> bytes | None: ...
    @property
    def s_nwk_s_int_key(self) -> bytes | None: ...
    @property
    def nwk_s_enc_key(self) -> bytes | None: ...
    @property
    def f_cnt_up(self) -> int | None: ...
    @property
    def app_key(self) -> bytes | None: ...
    @property
    def nwk_key(self) -> bytes | None: ...


@dataclass
class Live:
    """One session of a device.

    floor   what the server had counted when the keys were exported
    last    newest counter that passed here; None: nobody has used the session
    """

    mark: bytes
    dev_addr: int
    keys: Session
    joined: Joined | None
    floor: int = -1
    last: int | None = None
    conf_f_cnt: int | None = None

    @property
    def newest(self) -> int:
        """The counter that the next one must be above."""
        return self.floor if self.last is None else self.last


@dataclass
class Device:
    """A device: its sessions, oldest first.

    parked    sessions whose keys are not there at the moment: their counters are kept for when
              they come back
    retired   marks of sessions that it has left for ever
    handed    mark of the session that the key file has now
    """

    dev_eui: int
    roots: Roots | None = None
    sessions: list[Live] = field(default_factory=list)
    parked: tuple[Remembered, ...] = ()
    retired: tuple[bytes, ...] = ()
    handed: bytes | None = None

    def leave(self, marks: Iterable[bytes]) -> None:
        """Retire sessions.

        The one in the key file stays retired as long as it is there, for it would be taken for a
        new one; a join that gave another is not seen again, its DevNonce is used up.
        """
        left = (*self.retired, *marks)
        kept = [mark for mark in left if mark == self.handed]
        others = [mark for mark in left if mark != self.handed]
        self.retired = (*kept[:1], *others[-MAX_RETIRED:])


def device_of(given: DeviceKeys, remembered: Memory) -> Device:
    """Put a device together from what was handed over and what was heard of it before."""
    roots = None if given.app_key is None else Roots(app_key=given.app_key, nwk_key=given.nwk_key)
    handed = _handed(given)
    sessions: list[Live] = []
    parked: list[Remembered] = []
    for was in remembered.sessions:
        live = handed if was.joined is None else _derived(was, roots)
        if live is not None and live.mark == was.mark:
            live.last, live.conf_f_cnt = was.last, was.conf_f_cnt
            sessions.append(live)
        else:
            parked.append(was)
    known = {live.mark for live in sessions} | set(remembered.retired)
    if handed is not None and handed.mark not in known:
        sessions.append(handed)
    return Device(
        dev_eui=given.dev_eui,
        roots=roots,
        sessions=sessions,
        parked=tuple(parked[-MAX_SESSIONS:]),
        retired=remembered.retired,
        handed=None if handed is None else handed.mark,
    )


def _handed(given: DeviceKeys) -> Live | None:
    """Return the session that was handed over; None when there is none, or not all of it."""
    if given.dev_addr is None or given.app_s_key is None or given.nwk_s_key is None:
        return None
    if given.version != "1.1":
        keys = session_1_0(nwk_s_key=given.nwk_s_key, app_s_key=given.app_s_key)
    elif given.s_nwk_s_int_key is None:
        return None
    else:
        keys = Session(
            f_nwk_s_int_key=given.nwk_s_key,
            s_nwk_s_int_key=given.s_nwk_s_int_key,
            nwk_s_enc_key=given.nwk_s_enc_key or given.nwk_s_key,
            app_s_key=given.app_s_key,
            is_1_1=True,
        )
    mark, floor = mark_of(keys, given.dev_addr), (given.f_cnt_up or 0) - 1
    return Live(mark=mark, dev_addr=given.dev_addr, keys=keys, joined=None, floor=floor)


def _derived(was: Remembered, roots: Roots | None) -> Live | None:
    assert was.joined is not None
    keys = None if roots is None else session_of(roots, was.joined)
    if keys is None:
        return None
    mark = mark_of(keys, was.dev_addr)
    return Live(mark=mark, dev_addr=was.dev_addr, keys=keys, joined=was.joined)


def memory_of(device: Device) -> Memory:
    live = (
        Remembered(
            mark=live.mark,
            dev_addr=live.dev_addr,
            last=live.last,
            conf_f_cnt=live.conf_f_cnt,
            joined=live.joined,
        )
        for live in device.sessions
    )
    return Memory(sessions=(*device.parked, *live), retired=device.retired)


def siblings(one: Live, other: Live) -> bool:
    """Say whether two sessions came of one join-accept, for different requests."""
    if one.joined is None or other.joined is None:
        return False
    return one.joined.join_nonce == other.joined.join_nonce and one.dev_addr == other.dev_addr
