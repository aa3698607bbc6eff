"""A UDP relay between packet forwarders and their network server: every datagram, unchanged.

    forwarder A  ⇄  ┐                 ┌ socket of A  ⇄  server
    forwarder B  ⇄  ┘ listening socket └ socket of B  ⇄  server

A forwarder is a source address; it gets an upstream socket of its own, so the server sees as many
peers as there are (a packet forwarder has two addresses, for its two directions) and what the
server sends finds its way back. Nothing here waits for anything but the network: who wants a copy
takes it in `copy`, which must not block. A datagram that the network does not take at once is
lost, as datagrams are.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from decoders.value import value
from edge_agent.sources.gwmp import EUI_BYTES, HEAD_BYTES, Identifier, identifier

MAX_DATAGRAM_BYTES: Final = 65_535
MAX_FLOWS: Final = 64  # thirty packet forwarders; each costs a file descriptor
BURST: Final = 64  # datagrams from one socket before the others get their turn
TICK_S: Final = 0.5  # how soon a stop is noticed
BUFFER_BYTES: Final = 1 << 20  # what the kernel may hold while we are not scheduled
RESOLVE_EACH_S: Final = 300.0  # a server's address may change
RESOLVE_AGAIN_S: Final = 5.0  # the network may not be up yet when the gateway boots
MAX_LEFT: Final = 64  # addresses that a name had before, whose answers are still taken for a while

Address = tuple[Any, ...]  # as `socket` has it: (host, port) or (host, port, flow, scope)


@value
class Endpoint:
    """A UDP host and port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def endpoint_at(text: str, *, port: int) -> Endpoint:
    """Read "host", "host:port" or "[v6]:port". Raises ValueError.

    >>> endpoint_at("ns.example", port=1700)
    Endpoint(host='ns.example', port=1700)
    """
    host, tail = text, ""
    if text.startswith("["):
        host, _, tail = text[1:].partition("]")
    elif text.count(":") == 1:
        host, _, tail = text.partition(":")
        tail = f":{tail}"
    number = tail.removeprefix(":") if tail else str(port)
    if not host or not number.isascii() or not number.isdigit() or int(number) > 65_535:
        raise ValueError(f"{text!r}: host:port is expected")
    return Endpoint(host=host, port=int(number))


class Upstream:
    """The server's address, looked up in a thread of its own: a name may take long."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.family: int = socket.AF_INET
        self.address: Address | None = None
        self._left: dict[Address, float | None] = {}  # host, port → when the name lost it
        self._numeric = self._look_up(socket.AI_NUMERICHOST)

    def answers_from(self, sender: Address, *, now_s: float, idle_s: float) -> bool:
        """Say whether the server may have sent this: the name has that address, or had it of late.

        A server behind several addresses answers a downlink's pull where the pull went to.
        """
        if self.address is not None and sender[:2] == self.address[:2]:
            return True
        left_s = self._left.get(sender[:2], float("-inf"))
        return left_s is None or now_s - left_s < idle_s

    def keep_fresh(self, stopping: threading.Event) -> None:
        """Look the name up again and again; a number needs none of it."""
        if not self._numeric:
            thread = threading.Thread(
                target=self._keep_fresh, args=(stopping,), name="gwmp-upstream", daemon=True
            )
            thread.start()

    def _keep_fresh(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            found = self._look_up(0)
            stopping.wait(RESOLVE_EACH_S if found else RESOLVE_AGAIN_S)

    def _look_up(self, flags: int) -> bool:
        try:
            found = socket.getaddrinfo(
                self.endpoint.host, self.endpoint.port, type=socket.SOCK_DGRAM, flags=flags
            )
        except OSError:
            return False  # the last known one may still do
        addresses = {address[:2]: (family, address) for family, _, _, _, address in found}
        self._remember(addresses.keys())
        # One that goes on is kept, whatever the order of the answer: sessions of the server and the
        # forwarders' ways back hang on it.
        if self.address is None or self.address[:2] not in addresses:
            self.family, _, _, _, self.address = found[0]
        return True

    def _remember(self, now_there: Collection[Address]) -> None:
        now_s = time.monotonic()
        left = {one: now_s if at is None else at for one, at in self._left.items()}
        before = list(left.items())[-MAX_LEFT:]
        self._left = {**dict(before), **dict.fromkeys(now_there)}  # replaced whole: two threads


class _Rank(IntEnum):
    """What a sender has proved to be; where ways are scarce, the lower one goes first."""

    ANYBODY = 0
    PUSHES = 1  # a gateway that says its EUI: it waits for an acknowledgement at most
    PULLS = 2  # downlinks come this way


@dataclass
class _Flow:
    """One forwarder's way to the server and back."""

    forwarder: Address
    upstream: socket.socket
    family: int
    heard_s: float
    rank: _Rank


class Relay:
    """Forwards between any number of forwarders and one server."""

    def __init__(
        self,
        *,
        listen: Endpoint,
        upstream: Upstream,
        idle_s: float,
        copy: Callable[[bytes, bool], None],
    ) -> None:
        """
        idle_s   a forwarder that was silent for so long is forgotten; it pulls every 10 s or so
        copy     gets each datagram after it was sent on, and whether a forwarder sent it
        """
        self.listen = listen
        self.upstream = upstream
        self.passed_up = 0
        self.passed_down = 0
        self.not_passed = 0
        self.strays = 0
        self._idle_s = idle_s
        self._copy = copy
        self._flows: dict[Address, _Flow] = {}

    @property
    def forwarders(self) -> int:
        """Source addresses heard of late."""
        return len(self._flows)

    def run(self, stopping: threading.Event, ready: Callable[[Endpoint], None]) -> None:
        """Forward until told to stop. Raises OSError when the port cannot be had, or breaks.

        ready   is told where we listen: port 0 means any
        """
        family = socket.AF_INET6 if ":" in self.listen.host else socket.AF_INET
        with (
            selectors.DefaultSelector() as selector,
            socket.socket(family, socket.SOCK_DGRAM) as listening,
        ):
            _prepare(listening)
            listening.bind((self.listen.host, self.listen.port))
            selector.register(listening, selectors.EVENT_READ)
            self.upstream.keep_fresh(stopping)
            ready(Endpoint(host=self.listen.host, port=listening.getsockname()[1]))
            try:
                self._forward(listening, selector, stopping)
            finally:
                for flow in list(self._flows.values()):
                    self._forget(flow, selector)

    def _forward(
        self,
        listening: socket.socket,
        selector: selectors.BaseSelector,
        stopping: threading.Event,
    ) -> None:
        looked_s = time.monotonic()
        while not stopping.is_set():
            for key, _ in selector.select(TICK_S):
                if key.data is None:
                    self._up(listening, selector)
                else:
                    self._down(listening, key.data)
            now_s = time.monotonic()
            if now_s - looked_s >= TICK_S:
                looked_s = now_s
                self._forget_idle(now_s, selector)

    def _up(self, listening: socket.socket, selector: selectors.BaseSelector) -> None:
        """Send on what forwarders have sent."""
        for _ in range(BURST):
            received = _received(listening)
            if received is None:
                return
            datagram, forwarder = received
            flow = self._flow_of(forwarder, _rank(datagram), selector)
            if flow is not None and _sent(flow.upstream, datagram, self.upstream.address):
                self.passed_up += 1
            else:
                self.not_passed += 1
            self._copy(datagram, True)

    def _down(self, listening: socket.socket, flow: _Flow) -> None:
        """Send back what the server has sent to one forwarder."""
        for _ in range(BURST):
            received = _received(flow.upstream)
            if received is None:
                return
            datagram, sender = received
            now_s = time.monotonic()
            if not self.upstream.answers_from(sender, now_s=now_s, idle_s=self._idle_s):
                self.strays += 1  # a packet forwarder listens to its server alone, and so do we
                continue
            if _sent(listening, datagram, flow.forwarder):
                self.passed_down += 1
            else:
                self.not_passed += 1
            self._copy(datagram, False)

    def _flow_of(
        self, forwarder: Address, rank: _Rank, selector: selectors.BaseSelector
    ) -> _Flow | None:
        """Return the sender's way, a new one if need be; None: all belong to better ones."""
        flow = self._flows.get(forwarder)
        if flow is not None and flow.family != self.upstream.family:
            rank = max(rank, flow.rank)
            self._forget(flow, selector)
            flow = None
        if flow is None:
            flow = self._new_flow(forwarder, rank, selector)
        if flow is not None:
            flow.heard_s = time.monotonic()
            flow.rank = max(flow.rank, rank)
        return flow

    def _new_flow(
        self, forwarder: Address, rank: _Rank, selector: selectors.BaseSelector
    ) -> _Flow | None:
        if len(self._flows) >= MAX_FLOWS:
            given_up = self._least()
            if given_up.rank > rank:
                return None
            self._forget(given_up, selector)
        family = self.upstream.family
        flow = _Flow(
            forwarder=forwarder,
            upstream=_prepare(socket.socket(family, socket.SOCK_DGRAM)),
            family=family,
            heard_s=time.monotonic(),
            rank=rank,
        )
        self._flows[forwarder] = flow
        selector.register(flow.upstream, selectors.EVENT_READ, flow)
        return flow

    def _least(self) -> _Flow:
        """Return the way that can best be spared.

        Whose sender proved least; then of the host that has most; then the one silent longest.
        """
        of_host = Counter(flow.forwarder[0] for flow in self._flows.values())
        return min(
            self._flows.values(),
            key=lambda flow: (flow.rank, -of_host[flow.forwarder[0]], flow.heard_s),
        )

    def _forget_idle(self, now_s: float, selector: selectors.BaseSelector) -> None:
        for flow in list(self._flows.values()):
            if now_s - flow.heard_s > self._idle_s:
                self._forget(flow, selector)

    def _forget(self, flow: _Flow, selector: selectors.BaseSelector) -> None:
        selector.unregister(flow.upstream)
        flow.upstream.close()
        del self._flows[flow.forwarder]


def _rank(datagram: bytes) -> _Rank:
    kind = identifier(datagram)
    if len(datagram) < HEAD_BYTES + EUI_BYTES:
        return _Rank.ANYBODY
    if kind is Identifier.PULL_DATA:
        return _Rank.PULLS
    if kind in {Identifier.PUSH_DATA, Identifier.TX_ACK}:
        return _Rank.PUSHES
    return _Rank.ANYBODY


def _prepare(made: socket.socket) -> socket.socket:
    made.setblocking(False)
    with suppress(OSError):  # the system's limit holds then
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    return made


def _received(given: socket.socket) -> tuple[bytes, Address] | None:
    try:
        return given.recvfrom(MAX_DATAGRAM_BYTES)
    except (BlockingIOError, InterruptedError, ConnectionError):
        return None


def _sent(through: socket.socket, datagram: bytes, to: Address | None) -> bool:
    """Send, and say whether the network took it; it may have no route or no room at the moment."""
    if to is None:
        return False
    try:
        through.sendto(datagram, to)
    except OSError:
        return False
    return True
