"""`aquacis-edge decode`: lines in, what the meters said out: one JSON object each, or explained."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final

from decoders.decode import decode_lorawan, decode_wmbus
from decoders.drivers.registry import known_formats
from decoders.errors import DecodeError
from decoders.explain import as_text, explain_lorawan, explain_wmbus
from decoders.formats import Formats
from decoders.reading import Telegram
from decoders.uplink import RowFlag, RowKind
from edge_agent.inputs import Heard
from edge_agent.instants import iso
from edge_agent.sources.lines import BadLine, frames_of

EXIT_OK: Final = 0
EXIT_BAD_LINE: Final = 1


def decode_lines(
    file: str, *, keys: Mapping[bytes, bytes], already_decrypted: bool, explain: bool
) -> int:
    """Decode every line of `file` ("-": standard input). Returns 1 when one could not be read."""
    reader = _Reader(keys, already_decrypted=already_decrypted, explain=explain)
    if file == "-":
        return reader.read(sys.stdin)
    with open(file, encoding="utf-8", errors="replace") as lines:
        return reader.read(lines)


class _Reader:
    """Decodes lines one after another; full frames teach the compact ones that follow."""

    def __init__(
        self, keys: Mapping[bytes, bytes], *, already_decrypted: bool, explain: bool
    ) -> None:
        self._keys = keys
        self._already_decrypted = already_decrypted
        self._explain = explain
        self._formats: Formats = known_formats()

    def read(self, lines: Iterable[str]) -> int:
        result = EXIT_OK
        for number, line in enumerate(lines, start=1):
            try:
                frames = frames_of(line, now_us=0)
            except BadLine as bad:
                result = EXIT_BAD_LINE
                self._print(number, {"code": bad.code, "detail": bad.detail})
                continue
            for frame in frames:
                if not self._read(number, frame):
                    result = EXIT_BAD_LINE
        return result

    def _read(self, number: int, frame: Heard) -> bool:
        """Decode and print one frame; say whether it could be read."""
        if self._explain:
            print(f"line {number}\n{self._account(frame)}\n", flush=True)
        try:
            telegram = self._telegram(frame)
        except DecodeError as error:
            if not self._explain:
                self._print(number, {"code": error.code, "detail": str(error)})
            return False
        self._formats.learn(telegram.layout)
        if not self._explain:
            self._print(number, _said(telegram))
        return True

    def _telegram(self, frame: Heard) -> Telegram:
        if frame.kind == RowKind.LORAWAN:
            return decode_lorawan(
                frame.frame, port=frame.port, f_cnt=frame.counter, dev_eui=frame.radio
            )
        return decode_wmbus(
            frame.frame,
            key=self._key(frame),
            formats=self._formats,
            already_decrypted=self._decrypted(frame),
        )

    def _account(self, frame: Heard) -> str:
        """Return the frame byte by byte, as far as it can be read."""
        if frame.kind == RowKind.LORAWAN:
            lines = explain_lorawan(
                frame.frame, port=frame.port, f_cnt=frame.counter, dev_eui=frame.radio
            )
        else:
            lines = explain_wmbus(
                frame.frame,
                key=self._key(frame),
                formats=self._formats,
                already_decrypted=self._decrypted(frame),
            )
        return as_text(lines, colour=sys.stdout.isatty())

    def _key(self, frame: Heard) -> bytes | None:
        return frame.key or self._keys.get(frame.frame[2:8])

    def _decrypted(self, frame: Heard) -> bool:
        return self._already_decrypted or bool(frame.flags & RowFlag.ALREADY_DECRYPTED)

    @staticmethod
    def _print(number: int, said: Mapping[str, object]) -> None:
        print(json.dumps({"line": number, **said}, ensure_ascii=False), flush=True)


def _said(telegram: Telegram) -> dict[str, object]:
    return {
        "meter": telegram.natural_id,
        "driver": telegram.driver,
        "radio": telegram.radio,
        "counter": telegram.counter,
        "integrity": telegram.integrity.name.lower(),
        "register_l": telegram.register_l,
        "status": list(telegram.status),
        "fields": {name: _plain(given) for name, given in telegram.fields.items()},
        "series": [[iso(at)[:-1], litres] for at, litres in telegram.series],
    }


def _plain(given: object) -> object:
    """Return a field as JSON writes it: exact decimals as numbers."""
    if isinstance(given, Decimal):
        return int(given) if given == given.to_integral_value() else float(given)
    return given
