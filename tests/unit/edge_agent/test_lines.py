"""Lines of text: every form, and that a bad one hurts nobody but itself."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.uplink import NO_RSSI, RowFlag, RowKind
from edge_agent.clock import SystemClock
from edge_agent.inputs import BadInput, Heard, SourceChanged
from edge_agent.sources.lines import MAX_LINE_BYTES, BadLine, LineCutter, LineFeed, frames_of
from edge_agent.sources.port import Delivered, Inbox
from edge_agent.sources.supervisor import Backoff, Supervised

FULL = "2A442D2C998734761B168D2091D37CAC21E1D68CDAFFCD3DC452BD802913FF7B1706CA9E355D6C2701CC24"
NOON = 1_772_452_800_000_000  # 2026-03-02T12:00:00Z


def read(line: object) -> tuple[Heard, ...]:
    text = line if isinstance(line, str) else json.dumps(line)
    return frames_of(text, now_us=7)


def test_plain_hex_is_a_telegram_heard_now() -> None:
    (heard,) = read(f"  {FULL}\r\n")

    assert (heard.kind, heard.frame, heard.heard_at) == (RowKind.WMBUS, bytes.fromhex(FULL), 7)


@pytest.mark.parametrize("level", ["-\u00b2", "-" + "9" * 5000, "-\u0663", "--7", "-"])
def test_a_level_that_is_no_number_is_left_out(level: str) -> None:
    line = f"C1;1;1;2026-03-02 12:00:00.000;{level};-9;12345678;0x2A44"

    assert read(line)[0].rssi == NO_RSSI


def test_an_rtl_wmbus_line_brings_its_verdict() -> None:
    good = f"C1;1;1;2026-03-01 10:00:00.000;97;102;76348799;0x{FULL}"
    bad = f"T1;0;1;2026-03-01 10:00:00.000;-97;102;76348799;0x{FULL}"

    assert read(good)[0].frame == bytes.fromhex(FULL)
    assert (read(good)[0].code, read(good)[0].rssi) == ("", NO_RSSI)
    assert (read(bad)[0].code, read(bad)[0].rssi) == ("crc", -97)


def test_a_json_line_brings_key_instant_and_flags_and_teaches_its_priors_first() -> None:
    prior, frame = read(
        {
            "telegram_hex": FULL,
            "key_hex": "28F64A24988064A079AA2C807D6102AE",
            "prior_telegrams_hex": ["0044"],
            "already_decrypted": True,
            "heard_at": "2026-03-02T12:00:00Z",
            "gateway": "norte",
        }
    )

    assert prior.frame == b"\x00\x44"
    assert prior.flags == RowFlag.TEACHES_FORMAT | RowFlag.ALREADY_DECRYPTED
    assert frame.flags == RowFlag.ALREADY_DECRYPTED
    assert frame.key is not None
    assert frame.key.hex() == "28f64a24988064a079aa2c807d6102ae"
    assert frame.heard_at == prior.heard_at == NOON


def test_a_json_line_of_lorawan_brings_its_device_and_counter() -> None:
    (heard,) = read(
        {"payload_hex": "7844", "fport": 1, "dev_eui": "0013EA0001020304", "f_cnt": 70000}
    )

    assert heard.kind == RowKind.LORAWAN
    assert (heard.radio, heard.counter, heard.port) == (0x0013EA0001020304, 70000, 1)


def test_only_the_own_lines_are_taken_where_that_is_asked() -> None:
    def line(gateway: str | None) -> str:
        return json.dumps({"telegram_hex": FULL, "gateway": gateway})

    assert frames_of(line("sur"), now_us=7, only="norte") == ()
    assert len(frames_of(line("norte"), now_us=7, only="norte")) == 1
    assert len(frames_of(line(None), now_us=7, only="norte")) == 1


@pytest.mark.parametrize("nothing", ["", "   ", "# a comment", "\ufeff"])
def test_empty_lines_and_comments_are_skipped(nothing: str) -> None:
    assert read(nothing) == ()


@pytest.mark.parametrize(
    "wrong",
    [
        "2A44ZZ",
        "{",
        "[1]",
        '{"a": 1}',
        {"telegram_hex": "2A4"},
        {"telegram_hex": ""},
        {"telegram_hex": 5},
        {"telegram_hex": FULL, "key_hex": "00"},
        {"telegram_hex": FULL, "key_hex": "zz"},
        {"telegram_hex": FULL, "heard_at": "soon"},
        {"telegram_hex": FULL, "prior_telegrams_hex": "00"},
        {"payload_hex": "00", "dev_eui": "12"},
        {"payload_hex": "00", "dev_eui": "0013EA0001020304", "f_cnt": -1},
        {"payload_hex": "00", "dev_eui": "0013EA0001020304", "fport": True},
        "C1;1;1;x;97;102;76348799;nothing",
        "C1;1",
    ],
)
def test_a_line_that_is_no_frame_says_why(wrong: object) -> None:
    with pytest.raises(BadLine) as refused:
        read(wrong)

    assert refused.value.code == "malformed"
    assert refused.value.detail


def test_a_frame_longer_than_any_is_oversized() -> None:
    with pytest.raises(BadLine) as refused:
        read("00" * 2000)

    assert refused.value.code == "oversized"


@given(st.text(max_size=300))
def test_no_text_breaks_the_reader(text: str) -> None:
    try:
        frames = read(text)
    except BadLine:
        return
    assert all(isinstance(frame, Heard) for frame in frames)


@given(st.lists(st.binary(max_size=40)), st.integers(1, 17))
def test_lines_are_the_same_however_the_bytes_arrive(lines: list[bytes], step: int) -> None:
    stream = b"".join(line.replace(b"\n", b"") + b"\n" for line in lines) + b"rest"
    cutter, cut = LineCutter(), []
    for i in range(0, len(stream), step):
        cut += cutter.cut(stream[i : i + step])

    assert cut + cutter.rest() == stream.split(b"\n")


def test_an_endless_line_is_refused_once_and_its_neighbours_go_through() -> None:
    cutter, cut = LineCutter(), []
    for piece in (b"one\n", b"x" * MAX_LINE_BYTES, b"x" * MAX_LINE_BYTES, b"x\ntwo\n"):
        cut += cutter.cut(piece)

    assert cut == [b"one", None, b"two"]


class Bench:
    """A source at work on `path`, and what it delivered."""

    def __init__(self, path: str, **given: object) -> None:
        self.inbox = Inbox()
        feed = LineFeed(
            path=path,
            clock=SystemClock(),
            **given,  # type: ignore[arg-type]  # the test says what
        )
        self.source = Supervised(
            feed, name="test", inbox=self.inbox, backoff=Backoff(first_s=0.1, most_s=0.2)
        )
        self.got: list[Delivered] = []

    def wait(self, until: Callable[[list[Delivered]], bool], timeout_s: float = 10) -> None:
        end = time.monotonic() + timeout_s
        while not until(self.got) and time.monotonic() < end:
            given = self.inbox.get(0.05)
            if given is not None:
                self.got.append(given)
        assert until(self.got), self.got


def frames(got: list[Delivered]) -> list[bytes]:
    return [given.frame for given in got if isinstance(given, Heard)]


def kinds(got: list[Delivered]) -> list[str]:
    return [given.kind for given in got if isinstance(given, SourceChanged)]


def test_a_file_is_read_to_its_end_and_bad_lines_are_reported_between_good_ones(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lines"
    path.write_text(f"{FULL}\nnonsense\n\n0044")
    bench = Bench(str(path))
    bench.source.start()

    bench.wait(lambda got: kinds(got) == ["source_up", "source_finished"])
    bench.source.stop()

    assert frames(bench.got) == [bytes.fromhex(FULL), b"\x00\x44"]
    (bad,) = [given for given in bench.got if isinstance(given, BadInput)]
    assert (bad.code, bad.given) == ("malformed", b"nonsense")


def test_a_fifo_goes_on_with_its_next_writer_and_with_its_successor(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    bench = Bench(str(path))
    bench.source.start()

    for written in ("01\n", "02\n"):
        path.write_text(written)
        bench.wait(lambda got, n=int(written): len(frames(got)) == n)  # type: ignore[misc]
    os.unlink(path)
    bench.wait(lambda got: kinds(got) == ["source_up", "source_down"])
    os.mkfifo(path)
    bench.wait(lambda got: kinds(got) == ["source_up", "source_down", "source_up"])
    path.write_text("03\n")
    bench.wait(lambda got: frames(got) == [b"\x01", b"\x02", b"\x03"])
    bench.source.stop()


def test_standard_input_is_read_like_a_file() -> None:
    reading, writing = os.pipe()
    bench = Bench("-", stdin_fd=lambda: reading)
    bench.source.start()
    os.write(writing, b"0044\n")
    os.close(writing)

    bench.wait(lambda got: kinds(got) == ["source_up", "source_finished"])
    bench.source.stop()
    os.close(reading)

    assert frames(bench.got) == [b"\x00\x44"]


def test_a_full_inbox_makes_the_source_wait_until_it_is_closed() -> None:
    inbox = Inbox(most=1)
    inbox.put(BadInput(source="s", code="c", detail="", given=b""))
    waiting = threading.Thread(
        target=inbox.put, args=(BadInput(source="s", code="c", detail="", given=b""),), daemon=True
    )
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()

    inbox.close()
    waiting.join(5)

    assert not waiting.is_alive()
