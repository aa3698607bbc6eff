"""Decode one telegram, from its bytes as received to what the meter said."""

from __future__ import annotations

from decoders.drivers.registry import (
    Reader,
    reader_for_dev_eui_prefix,
    reader_for_lorawan_records,
    reader_for_meter,
)
from decoders.errors import CrcMismatch, DecodeError, Unsupported, WrongKey
from decoders.formats import FormatStore
from decoders.ids import MeterId
from decoders.lorawan import axioma
from decoders.meaning import NOTHING_NAMED, Named, measured_by, named_by, status_of
from decoders.reading import Integrity, Telegram
from decoders.wmbus import afl, compact, ell, link, records, transport

DOUBT_FULL_CRC = "full_crc"  # a compact frame whose own checksum differs; PLCRC fits
_SENT_UNASKED = 0x44  # C field
MAX_LORAWAN_PAYLOAD = 242  # LoRaWAN L2 1.0.4: the longest application payload of any region


def decode_wmbus(
    frame: bytes,
    *,
    key: bytes | None,
    formats: FormatStore,
    already_decrypted: bool = False,
    names: bool = True,
) -> Telegram:
    """Decode a wireless M-Bus frame, with or without its link-layer checksums.

    key                16 bytes, or None for a meter that sends in clear
    formats            where compact layouts are looked up; nothing is learned here: hand
                       `Telegram.layout` of full frames to `Formats.learn`
    already_decrypted  the bytes were decrypted before they were kept, whatever the headers say
    names              False leaves `fields` and `status` empty, which saves a third of the time
    Raises DecodeError and nothing else.
    """
    refused: DecodeError | None = None
    candidates = link.frames_in(frame)
    for candidate in candidates:
        try:
            return _decode_frame(candidate, key, formats, already_decrypted, names=names)
        except DecodeError as error:
            refused = refused or error
    assert refused is not None, "a link layer without candidates raises by itself"
    if isinstance(refused, WrongKey) and not candidates[0].checked:
        _blame_checksum(candidates[0], key=key)
    raise refused


def claimed_sender(frame: bytes) -> MeterId | None:
    """Who a wM-Bus frame says it is from, so that its key can be looked up; None: no header.

    The address is at the same place in every link format. Nothing is checked here.
    """
    return MeterId.from_wire(frame[2:10]) if len(frame) > link.HEADER_BYTES else None


def decode_lorawan(
    payload: bytes,
    *,
    port: int,
    f_cnt: int,
    dev_eui: int | None,
    integrity: Integrity = Integrity.NONE,
) -> Telegram:
    """Decode a LoRaWAN application payload: M-Bus records (OMS over LoRaWAN), or Axioma's hours.

    port       FPort; kept out of the decision: real meters differ from their documents in it
    f_cnt      32-bit frame counter
    dev_eui    None: the sender is not known, and a driver is taken that names every record
    integrity  MAC when a network server, which checks the MIC, handed the payload over
    Raises DecodeError and nothing else.
    """
    if len(payload) > MAX_LORAWAN_PAYLOAD:
        detail = (
            f"{len(payload)} bytes, LoRaWAN carries at most {MAX_LORAWAN_PAYLOAD} (port {port})"
        )
        raise Unsupported(transport.LAYER, MAX_LORAWAN_PAYLOAD, detail)
    read = _packed_day if axioma.is_packed_day(payload) else _mbus_payload
    return read(payload, f_cnt=f_cnt, dev_eui=dev_eui, integrity=integrity)


def wmbus_header_bytes(payload: bytes) -> int:
    """How much of a LoRaWAN payload is a wM-Bus link header (L C M A): some makers send it along.

    Source: INTEGRA 9-730-PT-EN, 4.5 (a wM-Bus telegram without its checksums); no public payload.
    """
    if len(payload) <= link.HEADER_BYTES or payload[0] in transport.HEADER_CIS:
        return 0
    whole = payload[0] == len(payload) - 1 and payload[1] == _SENT_UNASKED
    return link.HEADER_BYTES if whole else 0


def lorawan_reader(dev_eui: int | None, found: tuple[records.Record, ...]) -> Reader | None:
    """The driver of a LoRaWAN device, else of a payload that only one driver understands."""
    if dev_eui is not None:
        return reader_for_dev_eui_prefix(dev_eui >> 40)
    return reader_for_lorawan_records(tuple(record.shape.head for record in found))


def _mbus_payload(
    payload: bytes, *, f_cnt: int, dev_eui: int | None, integrity: Integrity
) -> Telegram:
    start = wmbus_header_bytes(payload)
    header = transport.read_header(payload[start:], at=start, modes=transport.CLEAR)
    if header.compact:
        raise Unsupported(transport.LAYER, 0, "compact frames over LoRaWAN are not known to exist")
    found = records.split(header.records, at=header.records_at)
    reader = lorawan_reader(dev_eui, found)
    measured = measured_by(found, reader)
    named = _named(found, reader, header)
    address = header.address or (payload[2:start] if start else None)
    meter = None if address is None else MeterId.from_wire(address)
    return Telegram(
        radio="lorawan",
        radio_id=(dev_eui or 0).to_bytes(8, "big"),
        meter=meter,
        driver=_name(reader),
        version=None if meter is None else meter.version,
        medium=None if meter is None else meter.medium,
        counter=f_cnt,
        integrity=integrity,
        fields=named.fields,
        status=named.status,
        info_code=measured.info_code,
        register_l=measured.register_l,
        series=measured.series,
        checked=payload,
        layout=b"",
        records=found,
        doubts=(),
    )


def _packed_day(
    payload: bytes, *, f_cnt: int, dev_eui: int | None, integrity: Integrity
) -> Telegram:
    """Decode the one LoRaWAN payload known here that is no M-Bus."""
    day = axioma.read_packed_day(payload)
    return Telegram(
        radio="lorawan",
        radio_id=(dev_eui or 0).to_bytes(8, "big"),
        meter=None,
        driver=axioma.DRIVER,
        version=None,
        medium=None,
        counter=f_cnt,
        integrity=integrity,
        fields=day.fields,
        status=day.alarms,
        info_code=day.status,
        register_l=day.register_l,
        series=day.series,
        checked=payload,
        layout=b"",
        records=(),
        doubts=(),
    )


def _decode_frame(
    frame: link.Frame,
    key: bytes | None,
    formats: FormatStore,
    already_decrypted: bool,
    *,
    names: bool,
) -> Telegram:
    opened = ell.open_frame(frame, key=key, already_decrypted=already_decrypted)
    header = read_transport(frame, opened, key=key, already_decrypted=already_decrypted)
    doubts: tuple[str, ...] = ()
    if header.compact:
        vouched = opened.payload_checked
        expanded = compact.expand(header.records, formats, at=header.records_at, vouched=vouched)
        found = expanded.records
        doubts = () if expanded.full_crc_fits else (DOUBT_FULL_CRC,)
    else:
        found = records.split(header.records, at=header.records_at)
    meter = MeterId.from_wire(header.address or opened.address or frame.address)
    reader = reader_for_meter(meter)
    measured = measured_by(found, reader)
    named = _named(found, reader, header) if names else NOTHING_NAMED
    return Telegram(
        radio="wmbus",
        radio_id=frame.address,
        meter=meter,
        driver=_name(reader),
        version=meter.version,
        medium=meter.medium,
        counter=_counter(opened, header),
        integrity=_integrity(frame, opened, header),
        fields=named.fields,
        status=named.status,
        info_code=measured.info_code,
        register_l=measured.register_l,
        series=measured.series,
        checked=frame.body,
        layout=b"" if header.compact else records.layout_of(found),
        records=found,
        doubts=doubts,
    )


def _named(
    found: tuple[records.Record, ...], reader: Reader | None, header: transport.Header
) -> Named:
    """Name the records, and what the header says where no record says it."""
    named = named_by(found, reader)
    fields, status = named.fields, named.status
    if header.access_number is not None:
        fields.setdefault("access_counter", header.access_number)
    alarms = () if header.status is None else status_of(header.status)
    named_alone = reader is not None and bool(reader.info_codes)
    if alarms and named_alone:
        status = (*status, *alarms)
        fields["status"] = " ".join(status)
    elif header.status is not None and not named_alone:
        status = alarms
        fields["status"] = " ".join(status) or "OK"
    return Named(fields=fields, status=status)


def read_transport(
    frame: link.Frame, opened: ell.Opened, *, key: bytes | None, already_decrypted: bool
) -> transport.Header:
    """Read the authentication layer, where there is one, and the transport layer behind it."""
    payload, at, authentication = opened.payload, opened.payload_at, None
    if payload[:1] == bytes((afl.CI_AFL,)):
        authentication = afl.read_afl(payload, at=at)
        payload, at = authentication.payload, authentication.payload_at
    return transport.read_header(
        payload,
        at=at,
        address=opened.address or frame.address,
        key=key,
        already_decrypted=already_decrypted,
        authentication=authentication,
    )


def _blame_checksum(frame: link.Frame, *, key: bytes | None) -> None:
    """Raise CrcMismatch when the key is right and only format B's checksum bytes are damaged.

    Read as a stripped frame, the two checksum bytes belong to the payload and spoil it.
    """
    try:
        damaged = link.damaged_format_b(frame)
        opened = ell.open_frame(damaged, key=key, already_decrypted=False)
    except DecodeError:
        return
    if opened.payload_checked:
        raise CrcMismatch(link.LAYER, len(damaged.body) + 1, "a format B checksum is damaged")


def _counter(opened: ell.Opened, header: transport.Header) -> int:
    for number in (opened.session_number, opened.access_number, header.access_number):
        if number is not None:
            return number
    return 0


def _integrity(frame: link.Frame, opened: ell.Opened, header: transport.Header) -> Integrity:
    if header.authentic:
        return Integrity.MAC
    if opened.payload_checked or header.compact:
        return Integrity.INNER_CRC
    if frame.checked:
        return Integrity.CRC
    return Integrity.FILL_2F2F if header.fill_found else Integrity.NONE


def _name(reader: Reader | None) -> str | None:
    return None if reader is None else reader.driver.name
