"""Both ends of a GWMP exchange over real UDP sockets, and a tap between them."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_agent.clock import SystemClock
from edge_agent.inputs import Heard, SourceChanged
from edge_agent.keys import LorawanKeys
from edge_agent.lorawan_sessions import Sessions
from edge_agent.sources.gwmp_relay import Endpoint
from edge_agent.sources.gwmp_tap import GwmpTap
from edge_agent.sources.port import Inbox
from edge_agent.sources.supervisor import Supervised

LOOPBACK = "127.0.0.1"
SOON_S = 10.0  # that a datagram on loopback takes on a machine that is busy
EXCHANGE = Path(__file__).parent / "vectors" / "lorawan" / "gwmp_exchange.json"


def udp(port: int = 0) -> socket.socket:
    """A socket of our own on loopback."""
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((LOOPBACK, port))
    made.settimeout(SOON_S)
    return made


def port_of(made: socket.socket) -> int:
    port: int = made.getsockname()[1]
    return port


class Tapped:
    """A server's socket, a running tap in front of it, and what the tap hands over."""

    def __init__(
        self, server: socket.socket, source: Supervised, feed: GwmpTap, inbox: Inbox
    ) -> None:
        self.server = server
        self.source = source
        self.feed = feed
        self.inbox = inbox

    @property
    def address(self) -> tuple[str, int]:
        """Where packet forwarders send to."""
        assert self.feed.listening is not None
        return LOOPBACK, self.feed.listening.port

    def up(self, forwarder: socket.socket, datagram: bytes) -> tuple[bytes, tuple[str, int]]:
        """Let a forwarder send; return what the server receives, and from whom."""
        forwarder.sendto(datagram, self.address)
        received, peer = self.server.recvfrom(65_535)
        return received, peer

    def heard(self, count: int) -> list[Heard]:
        """Wait for so many frames; what else was handed over in between is passed by."""
        frames: list[Heard] = []
        while len(frames) < count:
            given = self.inbox.get(SOON_S)
            assert given is not None, f"only {len(frames)} of {count} frames came"
            if isinstance(given, Heard):
                frames.append(given)
        return frames

    def figure(self, name: str, at_least: int = 1) -> int:
        """Wait until a figure has come up to a value; return it."""
        for _ in range(int(SOON_S / 0.01)):
            found = self.feed.figures().get(f"gwmp_{name}", 0)
            if found >= at_least:
                return found
            time.sleep(0.01)  # for the threads of the tap
        raise AssertionError(f"gwmp_{name} stays below {at_least}: {dict(self.feed.figures())}")


@contextmanager
def tapped(
    keys: Iterable[LorawanKeys] = (),
    *,
    inbox: Inbox | None = None,
    new_keys: Callable[[], Iterable[LorawanKeys] | None] = lambda: None,
    idle_s: float = 300.0,
    memory: dict[str, bytes] | None = None,
) -> Iterator[Tapped]:
    """A running tap on any port before a server socket."""
    inbox = Inbox() if inbox is None else inbox  # an empty one has no length
    with udp() as server:
        feed = GwmpTap(
            listen=Endpoint(host=LOOPBACK, port=0),
            server=Endpoint(host=LOOPBACK, port=port_of(server)),
            clock=SystemClock(),
            sessions=Sessions(keys, memory),
            new_keys=new_keys,
            region="us915",
            idle_s=idle_s,
        )
        source = Supervised(feed, name="gwmp", inbox=inbox)
        source.start()
        first = inbox.get(SOON_S)
        assert isinstance(first, SourceChanged), first
        assert first.kind == "source_up"
        try:
            yield Tapped(server, source, feed, inbox)
        finally:
            inbox.close()
            source.stop()


def recorded_exchange() -> list[dict[str, Any]]:
    """The datagrams of an exchange between a real packet forwarder and a real server, in order."""
    said: dict[str, Any] = json.loads(EXCHANGE.read_text())
    return [
        {**each, "datagram": bytes.fromhex(each["head"]) + each.get("json", "").encode()}
        for each in said["datagrams"]
    ]
