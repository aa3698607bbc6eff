"""From a reading back to the bytes: read the raw batch again, decode its frame again, compare.

Nothing here trusts what intake concluded: the only inputs are the raw batch, the key version
that opened the frame and the layouts learned, and the answer says whether the litres are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from cloud.kernel.clock import from_us, to_us
from cloud.kernel.keyvault import Wrapped
from cloud.kernel.platform import Platform
from cloud.metering import shapes, views
from cloud.metering.layout_store import PostgresLayouts
from cloud.metering.registry import clock_offset_s, key_aad
from cloud.metering.views import Connection, Row
from decoders import DECODER_VERSION
from decoders.decode import decode_lorawan, decode_wmbus
from decoders.drivers.registry import known_formats
from decoders.errors import DecodeError
from decoders.explain import Line, as_text, explain_lorawan, explain_wmbus
from decoders.formats import Formats
from decoders.reading import Integrity, Telegram
from decoders.uplink import Row as UplinkRow
from decoders.uplink import RowFlag, RowKind, decode_batch
from decoders.value import value

SECOND_US = 1_000_000


@value
class Opened:
    """A frame as it came, and what it says when it is decoded now."""

    row: UplinkRow
    telegram: Telegram | None
    refused: DecodeError | None
    layers: str  # every byte and what it means, one line each


def frame_fields(connection: Connection, platform: Platform, reception: Row) -> dict[str, Any]:
    """Return what the frame of a reception says, decoded again from the raw batch."""
    opened = open_frame(
        connection,
        platform,
        batch_key=reception["batch_key"],
        batch_row=reception["batch_row"],
        meter_key=reception["meter_key"],
        key_version=reception["key_version"],
    )
    said = _said(opened)
    return {"raw": opened.row.payload.hex(), "decoder_version": DECODER_VERSION, **said}


def explain_reading(
    connection: Connection, platform: Platform, meter_key: int, at: datetime
) -> dict[str, Any] | None:
    """Explain the newest reading of a meter at or before `at`; None when there is none."""
    reading = views.reading_at(connection, meter_key=meter_key, at=at)
    if reading is None:
        return None
    meter = views.meter(
        connection, administrations=[reading["administration"]], meter_key=meter_key
    )
    assert meter is not None, "a reading's meter is registered"
    heard = views.reception_of(connection, reading=reading)
    key_version = heard["key_version"] if heard else 0
    opened = open_frame(
        connection,
        platform,
        batch_key=reading["batch_key"],
        batch_row=reading["batch_row"],
        meter_key=meter_key,
        key_version=key_version,
    )
    offset_s = clock_offset_s(
        reading["clock_offset_s"], reading["administration"], platform.settings.administrations
    )
    again = register_at(opened.telegram, reading["register_at"], offset_s)
    everyone = views.receptions(
        connection,
        administrations=[reading["administration"]],
        frames=[heard["frame"]] if heard else [],
    )
    return {
        "meter": shapes.meter(meter),
        "reading": shapes.reading({**reading, "frame": None}),
        "frame": heard["frame"].hex() if heard else None,
        "receptions": [shapes.reception(row) for row in everyone],
        "batch": _batch_of(reading),
        "key_version": key_version or None,
        "decoder_version": {"then": reading["decoder_version"], "now": DECODER_VERSION},
        "meter_clock_offset_s": offset_s,
        "raw": opened.row.payload.hex(),
        "layers": opened.layers,
        **_said(opened),
        "register_l": {"stored": reading["register_l"], "decoded_again": again},
        "same": again == reading["register_l"],
        "conflicts": _conflicts(connection, reading),
    }


def open_frame(
    connection: Connection,
    platform: Platform,
    *,
    batch_key: int,
    batch_row: int,
    meter_key: int,
    key_version: int,
) -> Opened:
    """Read a row of a raw batch and decode it now, with the key version that opened it then."""
    batch = views.batch(connection, batch_key=batch_key)
    assert batch is not None, "a reading's batch is kept as long as the reading"
    rows = list(decode_batch(platform.blobs.get(batch["sha256"].hex())).rows)
    row = rows[batch_row]
    key, formats = _key(connection, platform, meter_key, key_version), _formats(connection)
    layers = as_text(_explained(row, key=key, formats=formats))
    try:
        telegram = _decoded(row, key=key, formats=formats)
    except DecodeError as refused:
        return Opened(row=row, telegram=None, refused=refused, layers=layers)
    return Opened(row=row, telegram=telegram, refused=None, layers=layers)


def register_at(telegram: Telegram | None, at: datetime, offset_s: int) -> int | None:
    """Return the register that a frame says for an instant; None when it says none."""
    if telegram is None:
        return None
    meter_us = to_us(at) + offset_s * SECOND_US
    for local_us, register_l in telegram.series:
        if local_us == meter_us:
            return register_l
    return None if telegram.series else telegram.register_l


def plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return decoded values as JSON numbers and text."""
    return {name: _number(v) if isinstance(v, Decimal) else v for name, v in fields.items()}


def _number(exact: Decimal) -> int | float:
    return int(exact) if exact == exact.to_integral_value() else float(exact)


def _decoded(row: UplinkRow, *, key: bytes | None, formats: Formats) -> Telegram:
    if row.kind == RowKind.LORAWAN:
        return decode_lorawan(
            row.payload,
            port=row.port,
            f_cnt=row.counter,
            dev_eui=row.radio,
            integrity=(Integrity.MAC if RowFlag.NETWORK_CHECKED in row.flags else Integrity.NONE),
        )
    decrypted = RowFlag.ALREADY_DECRYPTED in row.flags
    return decode_wmbus(row.payload, key=key, formats=formats, already_decrypted=decrypted)


def _batch_of(reading: Row) -> dict[str, Any]:
    return {
        "batch": reading["batch_key"],
        "row": reading["batch_row"],
        "sha256": reading["sha256"].hex(),
        "gateway": reading["gateway"],
        "stream": reading["stream"].hex(),
        "sent_at": shapes.instant(reading["sent_at"]),
        "received_at": shapes.instant(reading["received_at"]),
        "gateway_clock_offset_us": reading["clock_offset_us"],
        "clock_quality": reading["clock_quality"],
    }


def _conflicts(connection: Connection, reading: Row) -> list[dict[str, Any]]:
    found = views.conflicts(connection, meter_key=reading["meter_key"], at=reading["register_at"])
    return [
        {
            "kept_l": row["kept_l"],
            "other_l": row["other_l"],
            "rule": row["rule"],
            "detected_at": shapes.instant(row["detected_at"]),
        }
        for row in found
    ]


def _explained(row: UplinkRow, *, key: bytes | None, formats: Formats) -> tuple[Line, ...]:
    if row.kind == RowKind.LORAWAN:
        return explain_lorawan(row.payload, port=row.port, f_cnt=row.counter, dev_eui=row.radio)
    decrypted = RowFlag.ALREADY_DECRYPTED in row.flags
    return explain_wmbus(row.payload, key=key, formats=formats, already_decrypted=decrypted)


def _said(opened: Opened) -> dict[str, Any]:
    if opened.telegram is None:
        refused = opened.refused
        return {"driver": None, "fields": {}, "status": [], "series": [], "error": str(refused)}
    telegram = opened.telegram
    return {
        "driver": telegram.driver,
        "integrity": telegram.integrity.text,
        "fields": plain(telegram.fields),
        "status": list(telegram.status),
        "series": [
            {"meter_clock": from_us(at).strftime("%Y-%m-%dT%H:%M:%S"), "register_l": register_l}
            for at, register_l in telegram.series
        ],
        "error": None,
    }


def _key(connection: Connection, platform: Platform, meter_key: int, version: int) -> bytes | None:
    if not version:
        return None
    held = connection.execute(
        "SELECT wrapped FROM meter_keys WHERE meter_key = %s AND version = %s",
        [meter_key, version],
    ).fetchone()
    if held is None:
        return None
    return platform.vault.unwrap(Wrapped.from_bytes(held[0]), key_aad(meter_key, version))


def _formats(connection: Connection) -> Formats:
    formats = known_formats()
    for layout in PostgresLayouts(connection).believed():
        formats.learn(layout)
    return formats
