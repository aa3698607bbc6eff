"""`aquacis-edge decode`: lines in, what the meters said out, one JSON object a line and in order.

    {"ok": true, "manufacturer": "KAW", "id": "53885758", "driver": "kamstrup_water", "medium": …,
     "integrity": "inner-crc", "fields": {…}, "status": […], "series": [{"timestamp", "volume_m3"}]}
    {"ok": false, "error": "wrong_key", "layer": "ell", "offset": 17, "detail": …, "advice": …}

Full frames teach the compact ones that follow. A compact layout that nobody taught is searched,
and believed once a second telegram of it agrees.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final

from decoders.decode import decode_lorawan
from decoders.drivers.registry import known_formats
from decoders.errors import DecodeError, UnknownSignature
from decoders.explain import as_text, explain_lorawan, explain_wmbus
from decoders.formats import Formats
from decoders.ids import dev_eui_text, medium_text
from decoders.reading import Telegram
from decoders.uplink import RowFlag, RowKind
from decoders.wmbus.search import LayoutSearch
from edge_agent.inputs import Heard
from edge_agent.instants import iso
from edge_agent.opening import keys_of, opened
from edge_agent.sources.lines import BadLine, frames_of

EXIT_OK: Final = 0
EXIT_BAD_LINE: Final = 1
LAYER_LINE: Final = "line"  # a line that holds no frame at all
UNKNOWN_EUI: Final = "0000000000000000"
LITRES_PER_M3: Final = 1000
COLUMNS: Final = (("meter", 17), ("medium", 12), ("integrity", 10), ("m3", 12), ("status", 24))


def decode_lines(
    file: str,
    *,
    keys: Mapping[bytes, tuple[bytes, ...]],
    already_decrypted: bool,
    form: str = "json",
    colour: bool = False,
) -> int:
    """Decode every line of `file` ("-": standard input). Returns 1 when one could not be read.

    form    "json", "table" or "explain"
    colour  of "explain"
    """
    reader = _Reader(keys, already_decrypted=already_decrypted, form=form, colour=colour)
    if file == "-":
        return reader.read(sys.stdin)
    with open(file, encoding="utf-8", errors="replace") as lines:
        return reader.read(lines)


class _Reader:
    """Decodes lines one after another."""

    def __init__(
        self,
        keys: Mapping[bytes, tuple[bytes, ...]],
        *,
        already_decrypted: bool,
        form: str,
        colour: bool,
    ) -> None:
        self._keys = keys
        self._already_decrypted = already_decrypted
        self._form = form
        self._colour = colour
        self._formats: Formats = known_formats()
        self._search = LayoutSearch(self._formats)

    def read(self, lines: Iterable[str]) -> int:
        result = EXIT_OK
        if self._form == "table":
            print(_row({name: name for name, _ in COLUMNS}, "fields"), flush=True)
        for number, line in enumerate(lines, start=1):
            try:
                frames = frames_of(_with_some_eui(line), now_us=0)
            except BadLine as bad:
                result = EXIT_BAD_LINE
                self._show(number, _refused(bad.code, LAYER_LINE, 0, bad.detail))
                continue
            for frame in frames:
                if frame.flags & RowFlag.TEACHES_FORMAT:
                    self._learn(frame)
                elif not self._read(number, frame):
                    result = EXIT_BAD_LINE
        return result

    def _learn(self, frame: Heard) -> None:
        """Take a layout from a telegram heard before; what it says is not asked for."""
        try:
            self._formats.learn(self._telegram(frame).layout)
        except DecodeError as error:
            print(f"a prior telegram teaches nothing: {error}", file=sys.stderr)

    def _read(self, number: int, frame: Heard) -> bool:
        """Decode and print one frame; say whether it could be read."""
        try:
            telegram = self._telegram_or_search(frame)
        except DecodeError as error:
            said = _refused(error.code, error.layer, error.offset, error.detail)
            self._show(number, {**said, "advice": error.advice}, frame)
            return False
        self._formats.learn(telegram.layout)
        self._show(number, _said(telegram), frame)
        return True

    def _telegram_or_search(self, frame: Heard) -> Telegram:
        try:
            return self._telegram(frame)
        except UnknownSignature as unknown:
            if not self._search.offer(unknown.encoded):
                raise
        return self._telegram(frame)

    def _telegram(self, frame: Heard) -> Telegram:
        if frame.kind == RowKind.LORAWAN:
            return decode_lorawan(
                frame.frame, port=frame.port, f_cnt=frame.counter, dev_eui=frame.radio or None
            )
        return opened(frame, self._keys, self._formats, already_decrypted=self._decrypted(frame))

    def _show(self, number: int, said: Mapping[str, Any], frame: Heard | None = None) -> None:
        if self._form == "json":
            print(json.dumps({**said, "line": number}, ensure_ascii=False), flush=True)
        elif self._form == "table":
            print(_cells(said), flush=True)
        else:
            account = said["detail"] if frame is None else self._account(frame)
            print(f"line {number}\n{account}\n", flush=True)

    def _account(self, frame: Heard) -> str:
        """Return the frame byte by byte, as far as it can be read."""
        if frame.kind == RowKind.LORAWAN:
            lines = explain_lorawan(
                frame.frame, port=frame.port, f_cnt=frame.counter, dev_eui=frame.radio or None
            )
        else:
            lines = explain_wmbus(
                frame.frame,
                key=next(iter(keys_of(frame, self._keys)), None),
                formats=self._formats,
                already_decrypted=self._decrypted(frame),
            )
        return as_text(lines, colour=self._colour)

    def _decrypted(self, frame: Heard) -> bool:
        return self._already_decrypted or bool(frame.flags & RowFlag.ALREADY_DECRYPTED)


def _with_some_eui(line: str) -> str:
    """Let a LoRaWAN payload go without its sender: a log often keeps the payload alone."""
    if "payload_hex" not in line or "dev_eui" in line:
        return line
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return line
    if isinstance(said, dict) and "payload_hex" in said:
        return json.dumps({**said, "dev_eui": UNKNOWN_EUI})
    return line


def _said(telegram: Telegram) -> dict[str, Any]:
    meter = telegram.meter
    by_radio = telegram.radio == "lorawan"
    eui = dev_eui_text(int.from_bytes(telegram.radio_id, "big")) if by_radio else None
    identity = (None if eui == UNKNOWN_EUI else eui) if meter is None else meter.serial
    return {
        "ok": True,
        "manufacturer": None if meter is None else meter.manufacturer,
        "id": identity,
        "driver": telegram.driver,
        "medium": None if telegram.medium is None else medium_text(telegram.medium),
        "integrity": telegram.integrity.text,
        "fields": {name: _plain(given) for name, given in telegram.fields.items()},
        "status": list(telegram.status),
        "series": [
            {"timestamp": iso(at)[:-1], "volume_m3": litres / LITRES_PER_M3}
            for at, litres in telegram.series
        ],
        "meter": None if eui == UNKNOWN_EUI else telegram.natural_id,
        "version": telegram.version,
        "radio": telegram.radio,
        "counter": telegram.counter,
        "register_l": telegram.register_l,
        "doubts": list(telegram.doubts),
    }


def _refused(code: str, layer: str, offset: int, detail: str) -> dict[str, Any]:
    return {"ok": False, "error": code, "layer": layer, "offset": offset, "detail": detail}


def _cells(said: Mapping[str, Any]) -> str:
    """One telegram as a row: what everybody asks for first, then every field."""
    if not said["ok"]:
        return f"{said['error']} in {said['layer']} at byte {said['offset']}: {said['detail']}"
    litres = said["register_l"]
    cells = {
        "meter": said["meter"] or said["id"] or "",
        "medium": said["medium"] or "",
        "integrity": said["integrity"],
        "m3": "" if litres is None else f"{litres / LITRES_PER_M3:.3f}",
        "status": " ".join(said["status"]) or "OK",
    }
    return _row(cells, "  ".join(f"{name}={given}" for name, given in said["fields"].items()))


def _row(cells: Mapping[str, str], rest: str) -> str:
    shown = (
        f"{cells[name]:>{width}}" if name == "m3" else f"{cells[name]:<{width}}"
        for name, width in COLUMNS
    )
    return "  ".join((*shown, rest)).rstrip()


def _plain(given: object) -> object:
    """Return a field as JSON writes it: exact decimals as numbers."""
    if isinstance(given, Decimal):
        return int(given) if given == given.to_integral_value() else float(given)
    return given
