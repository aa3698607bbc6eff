"""`aquacis-edge decode`: lines in, what the meters said out, one JSON object each."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Final, TextIO

from decoders.decode import decode_lorawan, decode_wmbus
from decoders.drivers.registry import known_formats
from decoders.errors import DecodeError
from decoders.formats import Formats
from decoders.reading import Telegram
from decoders.uplink import RowFlag, RowKind
from edge_agent.inputs import Heard
from edge_agent.instants import iso
from edge_agent.sources.lines import BadLine, frames_of

EXIT_OK: Final = 0
EXIT_BAD_LINE: Final = 1


def decode_lines(
    file: str,
    *,
    keys: Mapping[bytes, bytes],
    already_decrypted: bool,
    explain: bool,
    out: TextIO | None = None,
) -> int:
    """Decode every line of `file` ("-": standard input). Returns 1 when one could not be read."""
    if file == "-":
        return _decode(sys.stdin, keys, already_decrypted, explain, out)
    with open(file, encoding="utf-8", errors="replace") as lines:
        return _decode(lines, keys, already_decrypted, explain, out)


def _decode(
    lines: Iterable[str],
    keys: Mapping[bytes, bytes],
    already_decrypted: bool,
    explain: bool,
    out: TextIO | None,
) -> int:
    formats, result = known_formats(), EXIT_OK
    for number, line in enumerate(lines, start=1):
        try:
            frames = frames_of(line, now_us=0)
        except BadLine as bad:
            result = EXIT_BAD_LINE
            _print({"line": number, "code": bad.code, "detail": bad.detail}, out)
            continue
        for frame in frames:
            said = _said(frame, keys, formats, already_decrypted, explain=explain)
            result = EXIT_BAD_LINE if "code" in said else result
            _print({"line": number, **said}, out)
    return result


def _said(
    frame: Heard,
    keys: Mapping[bytes, bytes],
    formats: Formats,
    already_decrypted: bool,
    *,
    explain: bool,
) -> dict[str, object]:
    try:
        telegram = _telegram(frame, keys, formats, already_decrypted)
    except DecodeError as error:
        return {"code": error.code, "detail": str(error)}
    formats.learn(telegram.layout)
    said: dict[str, object] = {
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
    if explain:
        said |= {"frame": frame.frame.hex().upper(), "records": _records(telegram)}
    return said


def _telegram(
    frame: Heard, keys: Mapping[bytes, bytes], formats: Formats, already_decrypted: bool
) -> Telegram:
    if frame.kind == RowKind.LORAWAN:
        return decode_lorawan(
            frame.frame, port=frame.port, f_cnt=frame.counter, dev_eui=frame.radio
        )
    return decode_wmbus(
        frame.frame,
        key=frame.key or keys.get(frame.frame[2:8]),
        formats=formats,
        already_decrypted=already_decrypted or bool(frame.flags & RowFlag.ALREADY_DECRYPTED),
    )


def _records(telegram: Telegram) -> list[dict[str, str]]:
    """Return every record of a telegram as it stands in the frame."""
    return [
        {"head": record.shape.head.hex().upper(), "data": record.data.hex().upper()}
        for record in telegram.records
    ]


def _plain(given: object) -> object:
    """Return a field as JSON writes it: exact decimals as numbers."""
    if isinstance(given, Decimal):
        return int(given) if given == given.to_integral_value() else float(given)
    return given


def _print(said: Mapping[str, object], out: TextIO | None) -> None:
    print(json.dumps(said, ensure_ascii=False), file=out, flush=True)
