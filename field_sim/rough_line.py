"""A TCP line between an agent and its broker that does what lines in the field do.

    passing    bytes go both ways
    dead       a half-open line: what is sent vanishes, nothing comes, and nobody is told. New
               connections are let in and vanish too, unless `new_ones_pass`: a NAT that forgot
    cut        every connection is reset, new ones are refused

`bytes_per_s` slows what the agent sends. No privileges are needed: it is a proxy on loopback, in a
thread of its own.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from contextlib import suppress
from typing import Final

from field_sim.broker import LOOPBACK

CHUNK: Final = 65_536
TURN_S: Final = 0.02
START_S: Final = 5.0


class RoughLine:
    """A context manager; `port` is where the agent connects."""

    def __init__(self, to_port: int, *, bytes_per_s: float = 0.0) -> None:
        self._to_port = to_port
        self.bytes_per_s = bytes_per_s  # 0 = as fast as it goes
        self.port = 0
        self.accepted = 0
        self.carried_up = 0  # bytes that reached the broker
        self.connected_at: list[float] = []  # monotonic, one for each connection let in
        self._is_cut = False
        self._dead: set[int] = set()  # numbers of dead connections
        self._all_dead = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> RoughLine:
        self._thread.start()
        assert self._ready.wait(START_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_S)

    def die(self, *, new_ones_pass: bool) -> None:
        """Let every present connection go dead without a word."""
        self._dead.update(range(self.accepted))
        self._all_dead = not new_ones_pass

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        self._is_cut = True
        self._loop.call_soon_threadsafe(self._reset)

    def heal(self) -> None:
        """Let new connections pass; dead ones stay dead."""
        self._is_cut = self._all_dead = False

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._carry, LOOPBACK, 0, limit=CHUNK)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _carry(self, agent: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        number, self.accepted = self.accepted, self.accepted + 1
        self.connected_at.append(time.monotonic())
        if self._is_cut:
            _abort(answer)
            return
        if self._all_dead:
            self._dead.add(number)
        try:
            broker, onward = await asyncio.open_connection(LOOPBACK, self._to_port, limit=CHUNK)
        except OSError:
            _abort(answer)
            return
        self._writers |= {answer, onward}
        ways = (self._pump(number, agent, onward, up=True), self._pump(number, broker, answer))
        try:
            await asyncio.gather(*ways)
        finally:
            self._writers -= {answer, onward}
            for writer in (answer, onward):
                with suppress(OSError):
                    writer.close()

    async def _pump(
        self,
        number: int,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        *,
        up: bool = False,
    ) -> None:
        with suppress(OSError):
            while piece := await source.read(self._piece_bytes(up=up)):
                while number in self._dead and not self._is_cut:
                    await asyncio.sleep(TURN_S)  # neither read on nor closed
                if up and self.bytes_per_s:
                    await asyncio.sleep(len(piece) / self.bytes_per_s)
                sink.write(piece)
                await sink.drain()
                self.carried_up += len(piece) if up else 0
            if number not in self._dead:
                sink.close()

    def _piece_bytes(self, *, up: bool) -> int:
        """Return how much to carry at once: on a slow line a tenth of a second's worth."""
        return max(1, int(self.bytes_per_s / 10)) if up and self.bytes_per_s else CHUNK

    def _reset(self) -> None:
        for writer in list(self._writers):
            _abort(writer)


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with a reset, as a line that was cut does."""
    raw = writer.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
