"""GWMP tap: between a packet forwarder and its network server, reading along.

    lorafwd or lora_pkt_fwd → 127.0.0.1:1700 (this) → the real server

Every datagram goes through unchanged, in both directions and before anything else is done with it
(`gwmp_relay`). A copy of what may be of use waits, bounded, for a second thread, which opens the
uplinks of devices whose session keys this gateway has (`lorawan_sessions`), and follows joins.
When that thread or the agent is behind, copies are dropped and counted; forwarding goes on.

What comes out is what the network server would say of the same frame: the frame's name in the
cloud is DevEUI, 32-bit counter and clear payload, whichever way it was heard. `heard_at` is this
gateway's clock when the datagram came, for that is the clock whose offset the cloud corrects.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Mapping
from typing import Final

from decoders.errors import DecodeError
from decoders.lorawan.phy import (
    DataFrame,
    JoinRequest,
    RejoinRequest,
    SealedJoinAccept,
    parse_phy,
)
from decoders.uplink import RowFlag, RowKind
from decoders.value import value
from edge_agent.clock import Clock
from edge_agent.inputs import Heard, SourceMemory
from edge_agent.lorawan_handover import NewKeys
from edge_agent.lorawan_regions import radios
from edge_agent.lorawan_sessions import Opened, Sessions
from edge_agent.sources.gwmp import (
    BadDatagram,
    Identifier,
    Reception,
    downlink,
    identifier,
    pushed,
)
from edge_agent.sources.gwmp_relay import Endpoint, Relay, Upstream
from edge_agent.sources.supervisor import Hearing

MAX_WAITING_BYTES: Final = 512 << 10  # of copies; a thousand uplinks of a minute's outage
WAIT_S: Final = 0.25  # how soon a stop is noticed
KEYS_EACH_S: Final = 5.0  # how soon new keys are noticed
END_S: Final = 1.0  # for the copies that still wait when the source stops


@value
class _Copy:
    """A datagram to read. heard_at: µs since 1970, this gateway's clock."""

    datagram: bytes
    identifier: Identifier
    heard_at: int


class _Copies:
    """Copies on their way from the relay to the reader; the relay never waits here."""

    def __init__(self, clock: Clock) -> None:
        self.dropped = 0
        self._clock = clock
        self._queue: queue.SimpleQueue[_Copy] = queue.SimpleQueue()
        self._offered = 0  # bytes ever; written by the relay alone
        self._taken = 0  # bytes ever; written by the reader alone

    def offer(self, datagram: bytes, from_forwarder: bool) -> None:
        """Keep a copy of what is worth reading, if there is room."""
        kind = identifier(datagram)
        if kind is not (Identifier.PUSH_DATA if from_forwarder else Identifier.PULL_RESP):
            return
        if self._offered - self._taken + len(datagram) > MAX_WAITING_BYTES:
            self.dropped += 1
            return
        self._offered += len(datagram)
        self._queue.put(_Copy(datagram=datagram, identifier=kind, heard_at=self._clock.now_us()))

    def take(self, timeout_s: float) -> _Copy | None:
        try:
            copy = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None
        self._taken += len(copy.datagram)
        return copy


class GwmpTap:
    """A feed for `Supervised`."""

    def __init__(
        self,
        *,
        listen: Endpoint,
        server: Endpoint,
        clock: Clock,
        sessions: Sessions,
        new_keys: NewKeys,
        region: str,
        idle_s: float,
    ) -> None:
        """
        new_keys   the keys when they have changed since the last call, else None
        region     of `lorawan_regions`: matters to LoRaWAN 1.1 alone
        """
        self.where = f"{listen} → {server}"
        self.listening: Endpoint | None = None
        self._copies = _Copies(clock)
        self._relay = Relay(
            listen=listen, upstream=Upstream(server), idle_s=idle_s, copy=self._copies.offer
        )
        self._sessions = sessions
        self._new_keys = new_keys
        self._region = region
        self._looked_s = time.monotonic()
        self._counts: dict[str, int] = {}
        self._reading = threading.Lock()  # held by the one reader; one that is stuck ends first

    def run(self, hearing: Hearing) -> None:
        """Forward and read until told to stop."""
        ended = threading.Event()
        reader = threading.Thread(
            target=self._read, args=(hearing, ended), name=f"{hearing.name}-reader", daemon=True
        )

        def ready(listening: Endpoint) -> None:
            self.listening = listening
            reader.start()
            hearing.up(f"{listening} → {self._relay.upstream.endpoint}")

        try:
            self._relay.run(hearing.stopping, ready)
        finally:
            ended.set()
            self.listening = None
            if reader.is_alive():
                reader.join(timeout=END_S)

    def settle(self, tokens: list[object]) -> None:
        """Nothing to do: a datagram is not sent again."""

    def figures(self) -> Mapping[str, int]:
        """Return the tap's counts since the process began."""
        return {
            "gwmp_forwarders": self._relay.forwarders,
            "gwmp_passed_up": self._relay.passed_up,
            "gwmp_passed_down": self._relay.passed_down,
            "gwmp_not_passed": self._relay.not_passed,
            "gwmp_strays": self._relay.strays,
            "gwmp_not_read": self._copies.dropped,
            **self._counts,
        }

    def _read(self, hearing: Hearing, ended: threading.Event) -> None:
        with self._reading:
            while True:
                copy = self._copies.take(0 if ended.is_set() else WAIT_S)
                if copy is not None:
                    self._take(copy, hearing)
                elif ended.is_set():
                    return
                if time.monotonic() - self._looked_s >= KEYS_EACH_S:
                    self._look_for_keys(hearing)

    def _look_for_keys(self, hearing: Hearing) -> None:
        self._looked_s = time.monotonic()
        try:
            keys = self._new_keys()
            if keys is not None:
                self._sessions.renew(keys)
        except Exception as error:  # the keys we have stay; whoever wrote the file is told
            hearing.put_bad("keys_unusable", f"{type(error).__name__}: {error}", b"")

    def _take(self, copy: _Copy, hearing: Hearing) -> None:
        """Read one datagram; nothing that it may hold ends the reader."""
        try:
            if copy.identifier is Identifier.PUSH_DATA:
                self._take_up(copy, hearing)
            else:
                self._take_down(copy.datagram, hearing)
        except BadDatagram as bad:
            self._count("malformed")
            hearing.put_bad("malformed", str(bad), copy.datagram)
        except Exception as error:  # as in the shell's loop: its neighbours go on
            self._count("internal")
            hearing.put_bad("internal", type(error).__name__, copy.datagram)

    def _take_up(self, copy: _Copy, hearing: Hearing) -> None:
        brought = pushed(copy.datagram)
        self._count("malformed", brought.unreadable)
        for reception in brought.receptions:
            self._count("frames")
            if not reception.crc_ok:
                self._count("crc")
                continue
            try:
                frame = parse_phy(reception.phy)
            except DecodeError:
                self._count("no_lorawan")
                continue
            if isinstance(frame, DataFrame):
                self._take_frame(frame, reception, copy.heard_at, hearing)
            elif isinstance(frame, JoinRequest | RejoinRequest):
                asked = self._sessions.asked(frame, now_s=time.monotonic())
                self._count("join_requests" if asked else "foreign")

    def _take_frame(
        self, frame: DataFrame, reception: Reception, heard_at: int, hearing: Hearing
    ) -> None:
        if not frame.is_uplink or not self._sessions.knows(frame.dev_addr):
            self._count("foreign")
            return
        sent_with = radios(self._region, datr=reception.datr, freq_hz=reception.freq_hz)
        opened = self._sessions.opened(frame, radios=sent_with)
        if not isinstance(opened, Opened):
            self._count(opened.code)
            return
        self._count("opened")
        memory = self._memory_of(opened.dev_eui)
        if not opened.port or not opened.payload:
            hearing.remember(memory)  # MAC commands only: the network server's business
            return
        hearing.put(
            Heard(
                kind=RowKind.LORAWAN,
                frame=opened.payload,
                heard_at=heard_at,
                flags=int(RowFlag.NETWORK_CHECKED),
                radio=opened.dev_eui,
                session=opened.dev_addr,
                counter=opened.counter,
                port=opened.port,
                rssi=reception.rssi,
                snr=reception.snr,
                memory=memory,
            )
        )

    def _take_down(self, datagram: bytes, hearing: Hearing) -> None:
        try:
            frame = parse_phy(downlink(datagram))
        except DecodeError:
            self._count("no_lorawan")
            return
        touched: tuple[int, ...] = ()
        if isinstance(frame, SealedJoinAccept):
            joined = self._sessions.answered(frame, now_s=time.monotonic())
            touched = () if joined is None else (joined,)
            self._count("joined", len(touched))
        elif isinstance(frame, DataFrame):
            touched = self._sessions.sent_down(frame)
        for dev_eui in touched:
            hearing.remember(self._memory_of(dev_eui))

    def _memory_of(self, dev_eui: int) -> SourceMemory:
        name, packed = self._sessions.memory_of(dev_eui)
        return SourceMemory(name=name, packed=packed)

    def _count(self, what: str, by: int = 1) -> None:
        if by:
            name = f"gwmp_{what}"
            self._counts[name] = self._counts.get(name, 0) + by
