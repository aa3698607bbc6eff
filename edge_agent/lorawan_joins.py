"""Joins that pass by: which keys a device has after the join-accept that answered it. Pure.

A tap sees join-requests on their way to the server and join-accepts on their way back. With the
root keys of a device it can open the accept that was meant for it. An accept of LoRaWAN 1.0 does
not say which of several requests it answers: there is then one possible session for each, and the
first uplink whose integrity code fits one of them tells.
Source: LoRaWAN L2 1.0.4 (TS001), 6.2; LoRaWAN 1.1, 6.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from decoders.errors import DecodeError
from decoders.lorawan.join import (
    JOIN_REQUEST_TYPE,
    OPT_NEG,
    Asked,
    JoinAccept,
    join_server_keys,
    open_accept,
    session_of_1_0,
    session_of_1_1,
)
from decoders.lorawan.phy import JoinRequest, RejoinRequest, SealedJoinAccept
from decoders.lorawan.security import Session, join_mic
from decoders.value import value
from edge_agent.lorawan_memory import Joined

ANSWER_S: Final = 15.0  # the second window opens 6 s after the request; and a server may be slow
MAX_ASKED: Final = 4  # requests of one device within that time


@value
class Roots:
    """A device's root keys. In LoRaWAN 1.0.x `app_key` alone."""

    app_key: bytes
    nwk_key: bytes | None = None

    @property
    def join_key(self) -> bytes:
        """What signs join-requests and seals their answers."""
        return self.app_key if self.nwk_key is None else self.nwk_key


@value
class Request:
    """A request that waits for its answer. kind: JOIN_REQUEST_TYPE or the rejoin type."""

    kind: int
    join_eui: int
    nonce: int
    at_s: float

    @property
    def told_apart(self) -> tuple[int, int]:
        """What two requests of one device differ by; several antennas hear the same one."""
        return self.kind, self.nonce


@value
class NewSession:
    """A session that a join may have given."""

    dev_addr: int
    session: Session
    joined: Joined


class Joins:
    """The requests that wait, by device."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[Request, ...]] = {}
        self._join_euis: dict[int, int] = {}

    def asked(self, request: JoinRequest | RejoinRequest, roots: Roots, *, now_s: float) -> bool:
        """Note a request of a device whose root keys are known; False when it is not genuine.

        A rejoin-request of type 0 or 2 is signed with a session key that may be gone; it is taken
        as it is, for its answer's integrity code covers it.
        """
        dev_eui = request.dev_eui
        if isinstance(request, JoinRequest):
            if join_mic(request, roots.join_key) != request.mic:
                return False
            self._join_euis[dev_eui] = request.join_eui
            noted = _request(JOIN_REQUEST_TYPE, request.join_eui, request.dev_nonce, now_s)
        else:
            home = request.home if request.kind == 1 else self._join_euis.get(dev_eui)
            if home is None or roots.nwk_key is None:
                return False
            noted = _request(request.kind, home, request.rj_count, now_s)
        others = (r for r in self._fresh(dev_eui, now_s) if r.told_apart != noted.told_apart)
        self._waiting[dev_eui] = (*others, noted)[-MAX_ASKED:]
        return True

    def knows_join_eui(self, dev_eui: int, join_eui: int) -> None:
        """Remember which join server a device last asked: rejoin types 0 and 2 do not say."""
        self._join_euis[dev_eui] = join_eui

    def answered(
        self,
        accept: SealedJoinAccept,
        roots_of: Callable[[int], Roots | None],
        *,
        now_s: float,
    ) -> tuple[int, tuple[NewSession, ...]] | None:
        """Return whom an accept was for and the sessions it may have given; None: nobody of ours.

        The requests stay: the same accept may be sent again, in the second window.
        """
        for dev_eui in list(self._waiting):
            requests = self._fresh(dev_eui, now_s)
            roots = roots_of(dev_eui)
            if not requests or roots is None:
                del self._waiting[dev_eui]
                continue
            found = tuple(_sessions(accept, roots, requests, dev_eui))
            if found:
                return dev_eui, found
        return None

    def _fresh(self, dev_eui: int, now_s: float) -> tuple[Request, ...]:
        waiting = self._waiting.get(dev_eui, ())
        return tuple(request for request in waiting if now_s - request.at_s <= ANSWER_S)


def session_of(roots: Roots, joined: Joined) -> Session | None:
    """Derive a session's keys; None when the root keys that it takes are not there."""
    if not joined.is_1_1:
        return session_of_1_0(
            roots.join_key,
            join_nonce=joined.join_nonce,
            net_id=joined.net_id,
            dev_nonce=joined.dev_nonce,
        )
    if roots.nwk_key is None:
        return None
    return session_of_1_1(
        nwk_key=roots.nwk_key,
        app_key=roots.app_key,
        join_nonce=joined.join_nonce,
        join_eui=joined.join_eui,
        dev_nonce=joined.dev_nonce,
    )


def _sessions(
    accept: SealedJoinAccept, roots: Roots, requests: Iterable[Request], dev_eui: int
) -> Iterator[NewSession]:
    for request in requests:
        opened = _opened(accept, roots, request, dev_eui)
        if opened is None:
            continue
        joined = Joined(
            join_nonce=opened.join_nonce,
            net_id=opened.net_id,
            dev_nonce=request.nonce,
            join_eui=request.join_eui,
            is_1_1=bool(opened.dl_settings & OPT_NEG),
        )
        session = session_of(roots, joined)
        if session is not None:
            yield NewSession(dev_addr=opened.dev_addr, session=session, joined=joined)


def _opened(
    accept: SealedJoinAccept, roots: Roots, request: Request, dev_eui: int
) -> JoinAccept | None:
    """Open an accept as the answer to one request: as 1.0, then as 1.1."""
    if request.kind == JOIN_REQUEST_TYPE:
        opened = _tried(accept, roots.join_key, None, None)
        if opened is not None and not opened.dl_settings & OPT_NEG:
            return opened
    if roots.nwk_key is None:
        return None
    sign_key, rejoin_key = join_server_keys(roots.nwk_key, dev_eui=dev_eui)
    key = roots.nwk_key if request.kind == JOIN_REQUEST_TYPE else rejoin_key
    asked = Asked(kind=request.kind, join_eui=request.join_eui, dev_nonce=request.nonce)
    opened = _tried(accept, key, sign_key, asked)
    return opened if opened is not None and opened.dl_settings & OPT_NEG else None


def _tried(
    accept: SealedJoinAccept, key: bytes, mic_key: bytes | None, asked: Asked | None
) -> JoinAccept | None:
    try:
        return open_accept(accept, key, mic_key=mic_key, asked=asked)
    except DecodeError:
        return None


def _request(kind: int, join_eui: int, nonce: int, at_s: float) -> Request:
    return Request(kind=kind, join_eui=join_eui, nonce=nonce, at_s=at_s)
