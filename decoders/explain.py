"""A telegram layer by layer, byte by byte, in words: what `decode --explain` prints.

Explaining walks the same layers as decoding and stops where decoding stops, with the reason.
Offsets count from the frame's first byte without link checksums; bytes are shown in clear.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from decoders.decode import lorawan_reader, read_transport, wmbus_header_bytes
from decoders.drivers.registry import Reader, reader_for_meter
from decoders.errors import DecodeError
from decoders.formats import FormatStore
from decoders.ids import MeterId, dev_eui_text
from decoders.lorawan import axioma
from decoders.value import value
from decoders.wmbus import afl, compact, ell, link, records, transport
from decoders.wmbus.data import date_of, datetime_of, decimal_of, instant_of, text_of
from decoders.wmbus.profile import ABSOLUTE, INCREMENTS, SIGNED, read_profile
from decoders.wmbus.records import Record

_BYTES_SHOWN = 20
_COLOURS = {
    "link": 34,
    "ell": 35,
    "afl": 33,
    "transport": 36,
    "compact": 36,
    "records": 32,
    "refused": 31,
}
_MODES = {ABSOLUTE: "registers", INCREMENTS: "increments", SIGNED: "signed differences"}
_SPACINGS = ("s", "min", "h", "d")


@value
class Line:
    """Some bytes of a frame and what they mean. offset: None for what is not in the frame."""

    layer: str
    offset: int | None
    raw: bytes
    says: str


def explain_wmbus(
    frame: bytes,
    *,
    key: bytes | None,
    formats: FormatStore,
    already_decrypted: bool = False,
) -> tuple[Line, ...]:
    """Explain a wireless M-Bus frame; arguments as for `decode_wmbus`. Raises nothing."""
    return _until_refused(_wmbus(frame, key, formats, already_decrypted))


def explain_lorawan(
    payload: bytes, *, port: int, f_cnt: int, dev_eui: int | None
) -> tuple[Line, ...]:
    """Explain a LoRaWAN payload of M-Bus records; arguments as for `decode_lorawan`."""
    return _until_refused(_lorawan(payload, port, f_cnt, dev_eui))


def as_text(lines: Iterable[Line], *, colour: bool = False) -> str:
    """Lay lines out in columns for a terminal, one colour a layer when `colour`."""
    return "\n".join(_row(line, colour) for line in lines)


def _row(line: Line, colour: bool) -> str:
    offset = "" if line.offset is None else f"{line.offset:4d}"
    shown = line.raw[:_BYTES_SHOWN].hex(" ").upper()
    shown += " …" if len(line.raw) > _BYTES_SHOWN else ""
    row = f"{line.layer:<10}{offset:>5}  {shown:<{3 * _BYTES_SHOWN + 2}} {line.says}"
    return f"\x1b[{_COLOURS.get(line.layer, 0)}m{row}\x1b[0m" if colour else row


def _until_refused(lines: Iterator[Line]) -> tuple[Line, ...]:
    shown: list[Line] = []
    try:
        shown.extend(lines)
    except DecodeError as error:
        says = f"{error}. What to do: {error.advice}"
        shown.append(Line(layer="refused", offset=error.offset, raw=b"", says=says))
    return tuple(shown)


def _wmbus(
    received: bytes, key: bytes | None, formats: FormatStore, already_decrypted: bool
) -> Iterator[Line]:
    frame = link.frames_in(received)[0]
    body = frame.body
    yield Line(
        layer="link", offset=0, raw=received[:1], says=f"L = {received[0]}: {frame.form.value}"
    )
    yield Line(layer="link", offset=1, raw=body[:1], says="C: a meter speaks unasked or answers")
    yield Line(layer="link", offset=2, raw=body[1:9], says=_identity(frame.address))
    yield from _ell(body)
    opened = ell.open_frame(frame, key=key, already_decrypted=already_decrypted)
    if opened.payload_checked:
        says = "payload checksum fits" + ("" if key is None else ": the key is right")
        yield Line(layer="ell", offset=opened.payload_at - 2, raw=b"", says=says)
    payload, at = opened.payload, opened.payload_at
    if payload[:1] == bytes((afl.CI_AFL,)):
        found = afl.read_afl(payload, at=at)
        yield from _authentication(found, payload, at)
        payload, at = found.payload, found.payload_at
    header = read_transport(frame, opened, key=key, already_decrypted=already_decrypted)
    if header.authentic:
        yield Line(layer="afl", offset=None, raw=b"", says="the code fits: key and bytes are right")
    yield from _transport(header, payload, at)
    meter = MeterId.from_wire(header.address or opened.address or frame.address)
    yield from _application(header, formats, opened.payload_checked, reader_for_meter(meter))


def _lorawan(payload: bytes, port: int, f_cnt: int, dev_eui: int | None) -> Iterator[Line]:
    sender = "unknown" if dev_eui is None else dev_eui_text(dev_eui)
    says = f"DevEUI {sender}, frame {f_cnt}, port {port}: checked by the network"
    yield Line(layer="link", offset=None, raw=b"", says=says)
    if axioma.is_packed_day(payload):
        yield from _packed_day(payload)
        return
    start = wmbus_header_bytes(payload)
    if start:
        yield Line(layer="link", offset=0, raw=payload[:2], says="L, C: a wM-Bus telegram inside")
        yield Line(layer="link", offset=2, raw=payload[2:start], says=_identity(payload[2:start]))
    header = transport.read_header(payload[start:], at=start, modes=transport.CLEAR)
    yield from _transport(header, payload[start:], start)
    found = records.split(header.records, at=header.records_at)
    yield from _records(found, lorawan_reader(dev_eui, found))


def _packed_day(payload: bytes) -> Iterator[Line]:
    day = axioma.read_packed_day(payload)
    clock = datetime_of(day.time_us).strftime("%Y-%m-%d %H:%M:%S")
    hours = " ".join(str(hour) for hour in day.hours_l)
    for offset, end, says in (
        (0, 1, "version 1: a day of hours (Axioma W1)"),
        (1, 5, f"the meter's clock: {clock}"),
        (5, 6, f"status {day.status:02X}: {' '.join(day.alarms) or 'OK'}"),
        (6, 10, f"where the log began: {day.log_l} l"),
        (10, len(payload), f"litres an hour, oldest first: {hours}; now {day.register_l} l"),
    ):
        yield Line(layer="records", offset=offset, raw=payload[offset:end], says=says)


def _identity(wire: bytes) -> str:
    meter = MeterId.from_wire(wire)
    return f"M, A: {meter}, version {meter.version:02X}, medium {meter.medium:02X}"


def _ell(body: bytes) -> Iterator[Line]:
    ci = body[9]
    if not ell.CI_SHORT <= ci <= ell.CI_ADDRESS_SESSION or len(body) < 12:
        return
    yield Line(layer="ell", offset=10, raw=body[9:10], says=f"CI {ci:02X}: extended link layer")
    yield Line(layer="ell", offset=11, raw=body[10:11], says="CC: communication control")
    yield Line(layer="ell", offset=12, raw=body[11:12], says=f"access number {body[11]}")
    at = 12
    if ci in (ell.CI_ADDRESS, ell.CI_ADDRESS_SESSION):
        if len(body) >= 20:
            yield Line(layer="ell", offset=13, raw=body[12:20], says=_identity(body[12:20]))
        at = 20
    if ci in (ell.CI_SESSION, ell.CI_ADDRESS_SESSION) and len(body) >= at + 4:
        number = int.from_bytes(body[at : at + 4], "little")
        kind = "AES-128-CTR" if number >> 29 == 1 else f"encryption {number >> 29}"
        says = f"SN: session {number & 15}, time {number >> 4 & 0x1FF_FFFF}, {kind}"
        yield Line(layer="ell", offset=at + 1, raw=body[at : at + 4], says=says)


def _authentication(found: afl.Authentication, payload: bytes, at: int) -> Iterator[Line]:
    head = payload[: found.payload_at - at]
    yield Line(layer="afl", offset=at, raw=head[:4], says="CI 90: authentication, whole message")
    counter = found.message_counter
    if counter is not None:
        says = f"message counter {int.from_bytes(counter, 'little')}"
        yield Line(layer="afl", offset=found.mac_at - len(counter), raw=counter, says=says)
    if found.mac:
        says = f"code over the transport layer, {len(found.mac)} bytes of AES-CMAC"
        yield Line(layer="afl", offset=found.mac_at, raw=found.mac, says=says)


def _transport(header: transport.Header, payload: bytes, at: int) -> Iterator[Line]:
    kind = "compact records" if header.compact else "records"
    yield Line(layer="transport", offset=at, raw=payload[:1], says=f"CI {header.ci:02X}: {kind}")
    if header.address is not None:
        yield Line(
            layer="transport", offset=at + 1, raw=payload[1:9], says=_identity(header.address)
        )
    if header.access_number is not None:
        says = f"access number {header.access_number}, status {header.status:02X}, "
        says += f"security mode {header.security_mode}"
        start = 9 if header.address is not None else 1
        raw = payload[start : start + 4]
        yield Line(layer="transport", offset=at + start, raw=raw, says=says)


def _application(
    header: transport.Header, formats: FormatStore, vouched: bool, reader: Reader | None
) -> Iterator[Line]:
    at = header.records_at
    if not header.compact:
        yield from _records(records.split(header.records, at=at), reader)
        return
    expanded = compact.expand(header.records, formats, at=at, vouched=vouched)
    layout = records.layout_of(expanded.records).hex().upper()
    yield Line(
        layer="compact", offset=at, raw=header.records[:2], says=f"signature of layout {layout}"
    )
    fits = "fits" if expanded.full_crc_fits else "DIFFERS, the payload checksum vouches"
    yield Line(
        layer="compact",
        offset=at + 2,
        raw=header.records[2:4],
        says=f"checksum of the rebuilt full frame {fits}",
    )
    for record in expanded.records:
        says = f"{record.shape.head.hex().upper()}: {_record(record, reader)}"
        yield Line(layer="records", offset=record.at, raw=record.data, says=says)


def _records(found: tuple[Record, ...], reader: Reader | None) -> Iterator[Line]:
    for record in found:
        raw = record.shape.head + record.data
        yield Line(layer="records", offset=record.at, raw=raw, says=_record(record, reader))


def _record(record: Record, reader: Reader | None) -> str:
    """What a record says, first in its driver's names, else in the standard's."""
    head = record.shape.head
    if reader is not None and head in reader.info_codes:
        word = int.from_bytes(record.data, "little")
        alarms = reader.info_codes[head].alarms
        on = [name for bit, name in alarms.items() if word >> bit & 1]
        return f"info code {word:X}: {' '.join(on) or 'no named alarm'}"
    named = [] if reader is None else list(reader.fields.get(head, ()))
    if named:
        values = ((field.into, field.read(record)) for field in named)
        return ", ".join(f"{name} {'invalid' if v is None else v}" for name, v in values)
    return f"{record.shape.name} {_standard(record)}"


def _standard(record: Record) -> str:
    meaning = record.shape.meaning
    if meaning is None:
        return "is only known to its maker"
    if meaning.profile:
        return _profile(record)
    if meaning.unit == "datetime":
        instant = instant_of(record)
        return "invalid" if instant is None else datetime_of(instant).strftime("%Y-%m-%d %H:%M:%S")
    if meaning.unit == "date":
        return str(date_of(record) or "invalid")
    text, number = text_of(record), decimal_of(record)
    if text is not None:
        return repr(text)
    return "invalid" if number is None else str(number)


def _profile(record: Record) -> str:
    try:
        profile = read_profile(record)
    except DecodeError as error:  # decoding leaves alone what no instant goes with
        return f"a profile that is not read: {error.detail}"
    mode = _MODES.get(profile.mode, "decrements")
    steps = " ".join("-" if step is None else str(step) for step in profile.elements)
    return f"profile of {mode} every {profile.spacing} {_SPACINGS[profile.unit]}: {steps}"
