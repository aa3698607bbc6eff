"""Lines of text from a file, a FIFO or standard input: hex, rtl-wmbus or JSON.

    2A442D2C998734761B168D20…                                   a wM-Bus frame in hex
    C1;1;1;2026-03-01 10:00:00.000;97;102;76348799;0x2A442D2C…  rtl-wmbus
    {"telegram_hex": "2A44…", "key_hex": "28F6…", "prior_telegrams_hex": […],
     "already_decrypted": true, "heard_at": "2026-03-01T10:00:00Z", "gateway": "north"}
    {"payload_hex": "7844…", "fport": 1, "dev_eui": "0013EA0001020304", "f_cnt": 7, "heard_at": …}

Empty lines and lines that begin with `#` are skipped. `heard_at` is ISO 8601 or µs since 1970;
without it the gateway's clock is read (the local time in an rtl-wmbus line says no zone).
Prior telegrams come out first, flagged as teaching their layout only. A line that cannot be read
is reported with a code; its neighbours go through.
"""

from __future__ import annotations

import json
import os
import re
import select
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from decoders.uplink import MAX_PAYLOAD_BYTES, NO_RSSI, RowFlag, RowKind
from edge_agent.clock import Clock
from edge_agent.inputs import Heard
from edge_agent.instants import BadInstant, micros
from edge_agent.sources.supervisor import Hearing, SourceDied

MAX_LINE_BYTES: Final = 16_384  # sixty times the longest frame in hex
READ_BYTES: Final = 65_536
GATHER_S: Final = 0.1  # lines that come one by one are taken together: waking costs more than they
FLOOD_BYTES: Final = 16_384  # a read of so much is no live receiver: what follows is not waited for
POLL_S: Final = 0.2  # how soon a stop, or a FIFO's next writer, is noticed
AES_KEY_BYTES: Final = 16
U32: Final = 0xFFFFFFFF
_LEVEL: Final = re.compile(r"-[0-9]{1,3}")  # dBm; "²" is a digit too, for Python


class BadLine(Exception):
    """A line that is no frame. code: malformed | oversized | foreign_gateway."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def frames_of(line: str, *, now_us: int, only: str | None = None) -> tuple[Heard, ...]:
    """Read one line; nothing for an empty one. Raises BadLine.

    only   take only lines that name this gateway, or none
    """
    text = line.strip().lstrip("\ufeff")
    if not text or text.startswith("#"):
        return ()
    if text.startswith("{"):
        return _json(text, now_us=now_us, only=only)
    if ";" in text:
        return (_rtl_wmbus(text, now_us=now_us),)
    return (Heard(kind=RowKind.WMBUS, frame=_hex(text, "telegram"), heard_at=now_us),)


def _rtl_wmbus(text: str, *, now_us: int) -> Heard:
    parts = text.split(";")
    if len(parts) < 8 or not parts[7].lower().startswith("0x"):
        raise BadLine("malformed", f"rtl-wmbus: 8 fields, the last 0x…, are expected: {text[:60]}")
    level = parts[4]
    rssi = int(level) if _LEVEL.fullmatch(level) else NO_RSSI
    return Heard(
        kind=RowKind.WMBUS,
        frame=_hex(parts[7][2:], "datagram"),
        heard_at=now_us,
        rssi=max(-200, rssi) if rssi != NO_RSSI else rssi,
        code="" if parts[1] == "1" else "crc",
    )


def _json(text: str, *, now_us: int, only: str | None) -> tuple[Heard, ...]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadLine("malformed", f"JSON: {error}") from None
    if not isinstance(said, dict):
        raise BadLine("malformed", f"a JSON object is expected, got {type(said).__name__}")
    gateway = said.get("gateway")
    if only is not None and gateway not in (None, only):
        return ()
    try:
        heard_at = now_us if said.get("heard_at") is None else micros(said["heard_at"])
    except BadInstant as error:
        raise BadLine("malformed", f"heard_at: {error}") from None
    if said.get("telegram_hex") is not None:
        return _wmbus(said, heard_at)
    if said.get("payload_hex") is not None:
        return (_lorawan(said, heard_at),)
    raise BadLine("malformed", "telegram_hex or payload_hex is expected")


def _wmbus(said: Mapping[str, Any], heard_at: int) -> tuple[Heard, ...]:
    key = None if said.get("key_hex") is None else _key(said["key_hex"])
    if key is not None and len(key) != AES_KEY_BYTES:
        raise BadLine("malformed", f"key_hex has {2 * len(key)} hex digits, 32 are expected")
    flags = RowFlag.ALREADY_DECRYPTED if said.get("already_decrypted") else RowFlag(0)
    priors = said.get("prior_telegrams_hex") or []
    if not isinstance(priors, list):
        raise BadLine("malformed", "prior_telegrams_hex: a list is expected")
    frames = [(_hex(p, "prior_telegrams_hex"), flags | RowFlag.TEACHES_FORMAT) for p in priors]
    frames.append((_hex(said["telegram_hex"], "telegram_hex"), flags))
    return tuple(
        Heard(
            kind=RowKind.WMBUS,
            frame=frame,
            heard_at=heard_at,
            flags=int(given),
            rssi=_whole(said, "rssi", -200, 100, absent=NO_RSSI),
            key=key,
        )
        for frame, given in frames
    )


def _lorawan(said: Mapping[str, Any], heard_at: int) -> Heard:
    eui = str(said.get("dev_eui", "")).replace("-", "")
    if len(eui) != 16:
        raise BadLine("malformed", "dev_eui: 16 hex digits are expected")
    address = said.get("dev_addr")
    return Heard(
        kind=RowKind.LORAWAN,
        frame=_hex(said["payload_hex"], "payload_hex"),
        heard_at=heard_at,
        radio=int.from_bytes(_hex(eui, "dev_eui"), "big"),
        session=0 if address is None else int.from_bytes(_hex(address, "dev_addr", most=4), "big"),
        counter=_whole(said, "f_cnt", 0, U32, absent=0),
        port=_whole(said, "fport", 0, 255, absent=0),
        rssi=_whole(said, "rssi", -200, 100, absent=NO_RSSI),
    )


def _key(text: object) -> bytes:
    """Read a key; what is wrong with it is said without it."""
    try:
        return _hex(text, "key_hex", most=AES_KEY_BYTES)
    except BadLine as bad:
        raise BadLine(bad.code, "key_hex is no key of 32 hex digits") from None


def _hex(text: object, name: str, *, most: int = MAX_PAYLOAD_BYTES) -> bytes:
    if not isinstance(text, str):
        raise BadLine("malformed", f"{name}: hex text is expected")
    try:
        given = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise BadLine("malformed", f"{name}: not hex: {text[:40]!r}") from None
    if not given:
        raise BadLine("malformed", f"{name}: is empty")
    if len(given) > most:
        raise BadLine("oversized", f"{name}: {len(given)} bytes, at most {most} are taken")
    return given


def _whole(said: Mapping[str, Any], name: str, least: int, most: int, *, absent: int) -> int:
    given = said.get(name)
    if given is None:
        return absent
    if isinstance(given, bool) or not isinstance(given, int) or not least <= given <= most:
        raise BadLine("malformed", f"{name}: a whole number of {least} … {most} is expected")
    return given


class LineFeed:
    """Reads lines. `path` "-" is standard input.

    A regular file and standard input are read once; a FIFO goes on for ever, and is opened anew
    when replaced; a device that ends has died.
    """

    def __init__(
        self,
        *,
        path: str,
        clock: Clock,
        only: str | None = None,
        stdin_fd: Callable[[], int] = sys.stdin.fileno,
    ) -> None:
        self.where = path
        self._clock = clock
        self._only = only
        self._stdin_fd = stdin_fd

    def run(self, hearing: Hearing) -> None:
        again = True
        while again:
            descriptor = self._open()
            hearing.up(self.where)
            try:
                again = self._read(descriptor, hearing)
            finally:
                if self.where != "-":
                    os.close(descriptor)

    def settle(self, tokens: list[object]) -> None:
        """Nothing to do: a line that was read is not offered again."""

    def _open(self) -> int:
        if self.where == "-":
            return self._stdin_fd()
        return os.open(self.where, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)

    def _read(self, descriptor: int, hearing: Hearing) -> bool:
        """Read until the end; return whether to open again (a FIFO that was replaced)."""
        status = os.fstat(descriptor)
        is_fifo = stat.S_ISFIFO(status.st_mode) and self.where != "-"
        cutter, is_live = LineCutter(), False
        while not hearing.stopping.is_set():
            if not stat.S_ISREG(status.st_mode):
                ready, _, _ = select.select([descriptor], [], [], POLL_S)
                if not ready:
                    continue
                if is_live:
                    hearing.stopping.wait(GATHER_S)
            try:
                piece = os.read(descriptor, READ_BYTES)
            except BlockingIOError:
                continue
            if piece:
                is_live = len(piece) < FLOOD_BYTES
                self._take(cutter.cut(piece), hearing)
                continue
            self._take(cutter.rest(), hearing)
            if stat.S_ISCHR(status.st_mode) and self.where != "-":
                raise SourceDied(f"{self.where}: the device is gone")
            if not is_fifo:
                return False
            if self._replaced(status):
                return True
            hearing.stopping.wait(POLL_S)  # all writers have gone; the next opens the same FIFO
        return False

    def _replaced(self, status: os.stat_result) -> bool:
        try:
            now = Path(self.where).stat()
        except OSError:
            return True
        return (now.st_dev, now.st_ino) != (status.st_dev, status.st_ino)

    def _take(self, lines: list[bytes | None], hearing: Hearing) -> None:
        for line in lines:
            put_line(line, hearing, now_us=self._clock.now_us(), only=self._only)


def put_line(line: bytes | None, hearing: Hearing, *, now_us: int, only: str | None = None) -> None:
    """Hand over what a line says, or report it. None: a line that was too long to keep."""
    try:
        if line is None:
            raise BadLine("oversized", f"a line of more than {MAX_LINE_BYTES} bytes")
        for frame in frames_of(line.decode("utf-8", "replace"), now_us=now_us, only=only):
            hearing.put(frame)
    except BadLine as bad:
        hearing.put_bad(bad.code, bad.detail, line or b"")


class LineCutter:
    """Cut a stream of bytes into lines; an oversized one becomes None, the next goes through."""

    def __init__(self) -> None:
        self._held = b""
        self._skipping = False

    def cut(self, piece: bytes) -> list[bytes | None]:
        *whole, self._held = (self._held + piece).split(b"\n")
        lines: list[bytes | None] = []
        for line in whole:
            if self._skipping:
                self._skipping = False
            elif len(line) > MAX_LINE_BYTES:
                lines.append(None)
            else:
                lines.append(line)
        if len(self._held) > MAX_LINE_BYTES:
            if not self._skipping:
                lines.append(None)
            self._held, self._skipping = b"", True
        return lines

    def rest(self) -> list[bytes | None]:
        """Return what stands at the end without a line feed."""
        held, self._held, skipping, self._skipping = self._held, b"", self._skipping, False
        return [held] if held and not skipping else []
