"""wM-Bus receivers on a serial port: opens the device raw and cuts what comes into telegrams.

How a receiver frames its telegrams is a `Framer` (`imst`, `amber`); how the port is read, resynced
and lost is the same for all. Standard library only: termios does what pyserial would.
"""

from __future__ import annotations

import os
import select
import termios
from collections.abc import Callable
from typing import Final, Protocol

from decoders.uplink import NO_RSSI, RowKind
from decoders.value import value
from edge_agent.clock import Clock
from edge_agent.inputs import Heard
from edge_agent.sources.supervisor import Hearing, SourceDied

READ_BYTES: Final = 4096
SILENCE_S: Final = 0.3  # a frame at 9600 baud comes without a gap; after this its rest will not
BAUDS: Final = {
    9600: termios.B9600,
    19200: termios.B19200,
    38400: termios.B38400,
    57600: termios.B57600,
    115200: termios.B115200,
}


@value
class Telegram:
    """One wM-Bus telegram, from its L-field on, without link-layer CRCs. rssi: dBm."""

    frame: bytes
    rssi: int = NO_RSSI


@value
class Garbage:
    """Bytes that are no frame. code: checksum (a frame, but damaged) | malformed."""

    code: str
    detail: str
    given: bytes


Cut = Telegram | Garbage


class Framer(Protocol):
    """Cuts one receiver's bytes into telegrams. Holds at most one frame's worth of bytes."""

    greeting: bytes
    """What is written to the receiver once it is open."""

    def cut(self, piece: bytes) -> list[Cut]:
        """Take the next bytes; return what is complete now."""

    def silence(self) -> list[Cut]:
        """Nothing more came for `SILENCE_S`: what is held will not be completed."""


class SerialFeed:
    """A serial port. It is opened anew by the supervisor when the device goes away."""

    def __init__(self, *, path: str, baud: int, framer: Callable[[], Framer], clock: Clock) -> None:
        self.where = path
        self._baud = BAUDS[baud]
        self._framer = framer
        self._clock = clock

    def run(self, hearing: Hearing) -> None:
        descriptor = os.open(self.where, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            if not os.isatty(descriptor):
                raise SourceDied(f"{self.where}: not a serial port")
            make_raw(descriptor, self._baud)
            framer = self._framer()
            if framer.greeting:
                os.write(descriptor, framer.greeting)
            hearing.up(self.where)
            self._read(descriptor, framer, hearing)
        finally:
            os.close(descriptor)

    def settle(self, tokens: list[object]) -> None:
        """Nothing to do: what a receiver said, it does not say again."""

    def _read(self, descriptor: int, framer: Framer, hearing: Hearing) -> None:
        while not hearing.stopping.is_set():
            ready, _, _ = select.select([descriptor], [], [], SILENCE_S)
            if not ready:
                self._put(framer.silence(), hearing)
                continue
            try:
                piece = os.read(descriptor, READ_BYTES)
            except BlockingIOError:
                continue
            if not piece:
                raise SourceDied(f"{self.where}: the device is gone")
            self._put(framer.cut(piece), hearing)

    def _put(self, cuts: list[Cut], hearing: Hearing) -> None:
        for cut in cuts:
            if isinstance(cut, Telegram):
                hearing.put(
                    Heard(
                        kind=RowKind.WMBUS,
                        frame=cut.frame,
                        heard_at=self._clock.now_us(),
                        rssi=cut.rssi,
                    )
                )
            else:
                hearing.put_bad(cut.code, cut.detail, cut.given)


def make_raw(descriptor: int, speed: int) -> None:
    """Set 8 data bits, no parity, one stop bit, no translation, no echo, no flow control."""
    attributes = termios.tcgetattr(descriptor)
    (flags_in, flags_out, flags_port, flags_line) = attributes[:4]
    flags_in &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
        | termios.IXOFF
    )
    flags_out &= ~termios.OPOST
    flags_line &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    flags_port &= ~(termios.CSIZE | termios.PARENB | termios.CSTOPB | termios.CRTSCTS)
    flags_port |= termios.CS8 | termios.CREAD | termios.CLOCAL
    controls = list(attributes[6])
    controls[termios.VMIN], controls[termios.VTIME] = 1, 0  # 0 bytes read then mean: it is gone
    raw = [flags_in, flags_out, flags_port, flags_line, speed, speed, controls]
    termios.tcsetattr(descriptor, termios.TCSANOW, raw)
    termios.tcflush(descriptor, termios.TCIFLUSH)


class Cutter:
    """What all framings share: look for a start, wait for the whole, resync after what is none.

    A frame whose checksum fails gives up its first byte only: if that was no start, or a part of
    the frame is missing, the next real frame is still found in what is held. What else stands in
    the damaged frame is not reported again.
    """

    greeting = b""

    def __init__(self, *, start: int, header: int) -> None:
        """`start`: first byte of a frame. `header`: bytes that tell how long the frame is."""
        self._start = start
        self._header = header
        self._held = b""
        self._damaged = 0  # bytes held that belong to a frame already reported
        self._skipped = b""

    def cut(self, piece: bytes) -> list[Cut]:
        self._held += piece
        return self._cuts()

    def silence(self) -> list[Cut]:
        """Give up the frame that stands half there, and look for a whole one in its rest."""
        cuts: list[Cut] = []
        while self._held:
            self._skip(1)
            cuts += self._cuts()
        self._damaged = 0
        return cuts + self._garbage()

    def length_of(self, header: bytes) -> int | None:
        """Return how many bytes a frame has that begins so; None when none begins so."""
        raise NotImplementedError

    def read(self, frame: bytes) -> Cut | None:
        """Read a frame of that length; None when it is whole but no telegram."""
        raise NotImplementedError

    def _cuts(self) -> list[Cut]:
        cuts: list[Cut] = []
        while self._held:
            at = self._held.find(self._start)
            if at != 0:
                self._skip(at if at > 0 else len(self._held))
                continue
            if len(self._held) < self._header:
                break
            length = self.length_of(self._held[: self._header])
            if length is None:
                self._skip(1)
                continue
            if len(self._held) < length:
                break
            cuts += self._frame(length)
        return cuts

    def _frame(self, length: int) -> list[Cut]:
        """Take the frame that stands first, or give up its first byte."""
        read = self.read(self._held[:length])
        if isinstance(read, Garbage):
            said = [*self._garbage(), read] if not self._damaged else []
            self._damaged = self._damaged or length
            self._skip(1)
            return said
        self._held = self._held[length:]
        self._damaged = max(0, self._damaged - length)
        return [*self._garbage(), *([read] if read is not None else [])]

    def _skip(self, count: int) -> None:
        reported = min(count, self._damaged)
        self._damaged -= reported
        self._skipped = (self._skipped + self._held[reported:count])[:READ_BYTES]
        self._held = self._held[count:]

    def _garbage(self) -> list[Cut]:
        """Return what was skipped, once it is over."""
        skipped, self._skipped = self._skipped, b""
        if not skipped:
            return []
        return [Garbage(code="malformed", detail="bytes between frames", given=skipped)]
