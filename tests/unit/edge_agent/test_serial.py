"""wM-Bus receivers on a serial port: their framing byte by byte, and their port on a real pty."""

from __future__ import annotations

import os
import termios
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.uplink import NO_RSSI, RowKind
from edge_agent.clock import SystemClock
from edge_agent.inputs import BadInput, Heard, SourceChanged
from edge_agent.sources import amber, imst
from edge_agent.sources.amber import AmberFramer
from edge_agent.sources.imst import ImstFramer
from edge_agent.sources.port import Delivered, Inbox
from edge_agent.sources.serial import BAUDS, Cut, Cutter, Garbage, SerialFeed, Telegram
from edge_agent.sources.supervisor import Backoff, Supervised

FRAME = bytes.fromhex(
    "2A442D2C998734761B168D2091D37CAC21E1D68CDAFFCD3DC452BD802913FF7B1706CA9E355D6C2701CC24"
)
STAMP = bytes(4)
LEVEL = 46  # -97 dBm for IMST

telegrams = st.binary(min_size=11, max_size=254).map(lambda inner: bytes([len(inner)]) + inner)


def from_imst(frame: bytes, *, level: int | None = LEVEL, stamped: bool = False) -> bytes:
    flags = imst.HAS_RSSI * (level is not None) | imst.HAS_TIMESTAMP * stamped
    attached = STAMP * stamped + (b"" if level is None else bytes([level]))
    return imst.message(imst.RADIO, imst.TELEGRAM_HEARD, frame[1:], attached=attached, flags=flags)


def from_amber(frame: bytes, *, level: int | None = 0xD2) -> bytes:
    return amber.message(
        amber.TELEGRAM_HEARD, frame[1:] + (b"" if level is None else bytes([level]))
    )


KINDS: list[tuple[Callable[[], Cutter], Callable[[bytes], bytes]]] = [
    (ImstFramer, from_imst),
    (AmberFramer, from_amber),
]
both = pytest.mark.parametrize(("framer", "said"), KINDS, ids=["imst", "amber"])


def frames(cuts: list[Cut]) -> list[bytes]:
    return [cut.frame for cut in cuts if isinstance(cut, Telegram)]


def codes(cuts: list[Cut]) -> list[str]:
    return [cut.code for cut in cuts if isinstance(cut, Garbage)]


def test_a_telegram_of_an_imst_stick_is_read_with_its_level() -> None:
    written = bytes.fromhex("A5C2032A") + FRAME[1:] + bytes([LEVEL])
    written += imst.crc(written[1:]).to_bytes(2, "little")

    assert ImstFramer().cut(written) == [Telegram(frame=FRAME, rssi=-97)]
    assert from_imst(FRAME) == written


@pytest.mark.parametrize("stamped", [False, True])
@pytest.mark.parametrize("level", [None, 0, 255])
def test_what_an_imst_stick_attaches_is_told_by_its_flags(stamped: bool, level: int | None) -> None:
    rssi = NO_RSSI if level is None else {0: -120, 255: 7}[level]

    cut = ImstFramer().cut(from_imst(FRAME, level=level, stamped=stamped))

    assert cut == [Telegram(frame=FRAME, rssi=rssi)]


def test_a_telegram_of_an_amber_module_is_read_with_its_level() -> None:
    written = bytes.fromhex("FF032B") + FRAME[1:] + b"\xd2"
    written += bytes([amber.checksum(written)])

    assert AmberFramer().cut(written) == [Telegram(frame=FRAME, rssi=-97)]
    assert AmberFramer(has_rssi=False).cut(from_amber(FRAME, level=None)) == [Telegram(frame=FRAME)]


@pytest.mark.parametrize(
    ("framer", "answer"),
    [
        (ImstFramer, imst.message(imst.DEVICE, 4, b"\0")),
        (AmberFramer, amber.message(0x84, b"\0")),
    ],
)
def test_answers_of_a_receiver_are_no_telegrams(
    framer: Callable[[], Cutter], answer: bytes
) -> None:
    assert framer().cut(answer) == []


def test_an_imst_stick_is_asked_for_level_and_mode_and_its_flash_is_left_alone() -> None:
    assert ImstFramer(mode="C1B").greeting[:9] == bytes.fromhex("A58103050002071001")
    assert ImstFramer().greeting[:8] == bytes.fromhex("A581030400001001")
    assert AmberFramer().greeting == b""


@both
@given(sent=st.lists(telegrams, max_size=6), data=st.data())
def test_telegrams_are_found_however_the_port_cuts_them(
    framer: Callable[[], Cutter],
    said: Callable[[bytes], bytes],
    sent: list[bytes],
    data: st.DataObject,
) -> None:
    stream, cutter, cuts = b"".join(map(said, sent)), framer(), list[Cut]()
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        cuts += cutter.cut(stream[:size])
        stream = stream[size:]

    assert frames(cuts) == sent
    assert codes(cuts) == []


@both
@given(parts=st.lists(st.tuples(st.binary(max_size=40), telegrams), max_size=4))
def test_no_telegram_is_lost_after_garbage_once_the_line_is_silent(
    framer: Callable[[], Cutter],
    said: Callable[[bytes], bytes],
    parts: list[tuple[bytes, bytes]],
) -> None:
    cutter, cuts = framer(), list[Cut]()
    for garbage, frame in parts:
        cuts += cutter.cut(garbage)
        cuts += cutter.silence()
        cuts += cutter.cut(said(frame))
    cuts += cutter.silence()

    assert [frame for frame in frames(cuts) if frame in [f for _, f in parts]] == [
        frame for _, frame in parts
    ]


@both
def test_garbage_without_a_pause_is_skipped_and_reported_once(
    framer: Callable[[], Cutter], said: Callable[[bytes], bytes]
) -> None:
    cutter = framer()

    cuts = cutter.cut(b"\x00\x11garbage" + said(FRAME) + said(FRAME) + b"\x22")
    cuts += cutter.silence()

    assert frames(cuts) == [FRAME, FRAME]
    assert [cut.given for cut in cuts if isinstance(cut, Garbage)] == [b"\x00\x11garbage", b"\x22"]


@both
@given(place=st.integers(3, 40), bit=st.integers(0, 7))
def test_a_damaged_telegram_is_one_checksum_error_and_its_neighbours_go_through(
    framer: Callable[[], Cutter], said: Callable[[bytes], bytes], place: int, bit: int
) -> None:
    damaged = bytearray(said(FRAME))
    damaged[place + 1] ^= 1 << bit
    cutter = framer()

    cuts = cutter.cut(said(FRAME) + bytes(damaged) + said(FRAME)) + cutter.silence()

    assert frames(cuts) == [FRAME, FRAME]
    assert codes(cuts) == ["checksum"]


@both
@given(lost=st.integers(1, 44))
def test_a_telegram_that_lost_its_end_takes_no_other_with_it(
    framer: Callable[[], Cutter], said: Callable[[bytes], bytes], lost: int
) -> None:
    whole = said(FRAME)
    cutter = framer()

    cuts = cutter.cut(whole[:-lost] + whole + whole) + cutter.silence()

    assert frames(cuts)[-2:] == [FRAME, FRAME]


@both
@given(pieces=st.lists(st.binary(max_size=300), max_size=20))
def test_no_bytes_break_a_framer_and_none_are_held_for_long(
    framer: Callable[[], Cutter], said: Callable[[bytes], bytes], pieces: list[bytes]
) -> None:
    cutter = framer()
    for piece in pieces:
        cutter.cut(piece)
        assert len(cutter._held) <= 4 + 255 + 7 + 1
    cutter.silence()

    assert frames(cutter.cut(said(FRAME))) == [FRAME]


class Port:
    """A pty: the test holds the receiver's end, the source opens the other by its name."""

    def __init__(self) -> None:
        self.receiver, self.slave = os.openpty()
        tty.setraw(self.receiver)
        self.plugged = True
        self.path = os.ttyname(self.slave)

    def says(self, given: bytes) -> None:
        os.write(self.receiver, given)

    def heard(self, timeout_s: float = 5) -> bytes:
        os.set_blocking(self.receiver, False)
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            try:
                return os.read(self.receiver, 1000)
            except BlockingIOError:
                time.sleep(0.01)
        return b""

    def unplug(self) -> None:
        if self.plugged:
            os.close(self.slave)
            os.close(self.receiver)
        self.plugged = False


@pytest.fixture
def port() -> Iterator[Port]:
    made = Port()
    yield made
    made.unplug()


class Bench:
    """A supervised source on a port, and what it delivered."""

    def __init__(self, path: str, framer: Callable[[], Cutter], baud: int = 57600) -> None:
        self.inbox = Inbox()
        feed = SerialFeed(path=path, baud=baud, framer=framer, clock=SystemClock())
        backoff = Backoff(first_s=0.05, most_s=0.1)
        self.source = Supervised(feed, name="stick", inbox=self.inbox, backoff=backoff)
        self.got: list[Delivered] = []
        self.source.start()

    def wait(self, until: Callable[[], bool], timeout_s: float = 10) -> None:
        end = time.monotonic() + timeout_s
        while not until() and time.monotonic() < end:
            given = self.inbox.get(0.05)
            if given is not None:
                self.got.append(given)
        assert until(), self.got

    @property
    def heard(self) -> list[Heard]:
        return [given for given in self.got if isinstance(given, Heard)]

    @property
    def bad(self) -> list[BadInput]:
        return [given for given in self.got if isinstance(given, BadInput)]

    @property
    def kinds(self) -> list[str]:
        return [given.kind for given in self.got if isinstance(given, SourceChanged)]


def test_a_stick_on_a_port_is_greeted_and_its_telegrams_are_heard(port: Port) -> None:
    bench = Bench(port.path, ImstFramer)
    bench.wait(lambda: bench.kinds == ["source_up"])

    assert port.heard() == imst.greeting_of(None)
    port.says(from_imst(FRAME))
    bench.wait(lambda: len(bench.heard) == 1)
    bench.source.stop()

    (heard,) = bench.heard
    assert (heard.kind, heard.frame, heard.rssi) == (RowKind.WMBUS, FRAME, -97)


@both
def test_every_byte_passes_a_port_unchanged(
    port: Port, framer: Callable[[], Cutter], said: Callable[[bytes], bytes]
) -> None:
    everything = [bytes([250]) + bytes(range(250)), bytes([250]) + bytes(range(6, 256))]
    bench = Bench(port.path, framer)
    bench.wait(lambda: bench.kinds == ["source_up"])

    for frame in everything:
        port.says(said(frame))
    bench.wait(lambda: len(bench.heard) == 2)
    bench.source.stop()

    assert [heard.frame for heard in bench.heard] == everything


def test_a_port_is_opened_at_the_receivers_speed(port: Port) -> None:
    bench = Bench(port.path, AmberFramer, baud=9600)
    bench.wait(lambda: bench.kinds == ["source_up"])

    attributes = termios.tcgetattr(port.slave)
    bench.source.stop()

    assert attributes[4:6] == [BAUDS[9600], BAUDS[9600]]


def test_half_a_telegram_and_then_silence_is_garbage_and_the_next_is_heard(port: Port) -> None:
    bench = Bench(port.path, AmberFramer)
    bench.wait(lambda: bench.kinds == ["source_up"])

    port.says(from_amber(FRAME)[:20])
    bench.wait(lambda: len(bench.bad) == 1)
    port.says(from_amber(FRAME))
    bench.wait(lambda: len(bench.heard) == 1)
    bench.source.stop()

    assert bench.bad[0].given == from_amber(FRAME)[:20]
    assert bench.source.figures()["source_stick_bad"] == 1


def test_a_stick_that_is_pulled_out_is_reported_and_heard_again_once_it_is_back(
    port: Port, tmp_path: Path
) -> None:
    plug = tmp_path / "ttyUSB0"
    plug.symlink_to(port.path)
    bench = Bench(str(plug), ImstFramer)
    bench.wait(lambda: bench.kinds == ["source_up"])
    port.says(from_imst(FRAME))
    bench.wait(lambda: len(bench.heard) == 1)

    plug.unlink()
    port.unplug()
    bench.wait(lambda: bench.kinds == ["source_up", "source_down"])

    again = Port()
    plug.symlink_to(again.path)
    bench.wait(lambda: bench.kinds[-1] == "source_up")
    again.says(from_imst(FRAME))
    bench.wait(lambda: len(bench.heard) == 2)
    bench.source.stop()
    again.unplug()


def test_a_path_that_is_no_serial_port_is_said(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    bench = Bench(str(path), ImstFramer)
    bench.wait(lambda: bench.kinds == ["source_down"])
    bench.source.stop()

    (change,) = [given for given in bench.got if isinstance(given, SourceChanged)]
    assert "not a serial port" in change.reason
