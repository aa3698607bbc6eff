"""Encode what meters send: for the simulated city, for tests, and to show a layout at work.

Every encoder is the inverse of a decoder beside it; property tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from itertools import pairwise

from decoders import aes
from decoders.ids import MeterId
from decoders.wmbus import ell, link
from decoders.wmbus.compact import compacted
from decoders.wmbus.crc import crc16
from decoders.wmbus.data import US_PER_SECOND, datetime_of
from decoders.wmbus.link import Form
from decoders.wmbus.profile import INCREMENTS, SIGNED
from decoders.wmbus.records import Record, join, shape_of, shapes_of

PROFILE_HOURS = 32  # one-byte steps that fit LoRaWAN's 51 bytes at DR0; half with two bytes
_HOURS = 2  # spacing unit of a profile
_BCD_FIELDS = frozenset({9, 10, 11, 12, 14})
_FLOWIQ_LAYOUT = bytes.fromhex("04FF2304134413426C023B92013BA2013B06FF1BA1015B91015BA10167")
_MULTICAL_LAYOUT = bytes.fromhex("02FF2004134413615B6167")
_CONTROL = 0x44  # SND-NR: a meter speaks unasked
_COMMUNICATION_CONTROL = 0x20  # as Kamstrup's meters send it


def record(head: str, digits: int | None) -> Record:
    """A fixed-size record. head: DIF … VIFE in hex; digits: before the power of ten, None invalid.

    Raises OverflowError when the data field is too small.
    """
    shape = shape_of(bytes.fromhex(head))
    assert shape.size is not None
    return Record(shape, _number(shape.data_field, shape.size, digits), 0)


def records_of(layout: bytes, digits: Mapping[str, int | None]) -> tuple[Record, ...]:
    """The records of a whole layout.

    digits  by head in upper-case hex; one that is missing is invalid, or 0 in a maker's own record
    """
    made = []
    for shape in shapes_of(layout):
        head = shape.head.hex().upper()
        made.append(record(head, digits.get(head, None if shape.meaning else 0)))
    return tuple(made)


def kamstrup_flowiq_records(
    *,
    total_l: int,
    target_l: int = 0,
    target_on: date | None = None,
    info_code: int = 0,
    flow_lph: int = 0,
    max_flow_lph: int = 0,
    min_flow_lph: int = 0,
    water_c: tuple[int, int] | None = None,
    ambient_min_c: int | None = None,
) -> tuple[Record, ...]:
    """What a flowIQ 2200 sends (layout A9F3). water_c: coldest and warmest of the last day."""
    coldest, warmest = water_c or (None, None)
    return records_of(
        _FLOWIQ_LAYOUT,
        {
            "04FF23": info_code,
            "0413": total_l,
            "4413": target_l,
            "426C": 0xFFFF if target_on is None else type_g(target_on),
            "023B": flow_lph,
            "92013B": max_flow_lph,
            "A2013B": min_flow_lph,
            "A1015B": coldest,
            "91015B": warmest,
            "A10167": ambient_min_c,
        },
    )


def kamstrup_multical_records(
    *,
    total_l: int,
    target_l: int = 0,
    info_code: int = 0,
    water_c: int | None = None,
    ambient_c: int | None = None,
) -> tuple[Record, ...]:
    """What a MULTICAL 21 sends (layout A8ED). Temperatures: the lowest of the month."""
    digits = {"02FF20": info_code, "0413": total_l, "4413": target_l}
    return records_of(_MULTICAL_LAYOUT, {**digits, "615B": water_c, "6167": ambient_c})


def session_number(*, session: int, minutes: int, encrypted: bool) -> int:
    """SN of the extended link layer: 4 bits session, 25 bits time, 3 bits encryption."""
    return (session & 0xF) | (minutes & 0x1FF_FFFF) << 4 | (int(encrypted) << 29)


def encode_wmbus(
    records: Sequence[Record],
    *,
    meter: MeterId,
    session_number: int,
    access_number: int,
    key: bytes | None = None,
    compact: bool = False,
    form: Form = Form.FORMAT_B,
) -> bytes:
    """A mode C1 frame as Kamstrup's meters send it: ELL 8D, then a full or a compact payload.

    key  encrypts with AES-128-CTR; `session_number` has to say so (see above)
    """
    application = b"\x79" + compacted(tuple(records)) if compact else b"\x78" + join(records)
    sealed = crc16(application).to_bytes(2, "little") + application
    session = (session_number & 0xFFFF_FFFF).to_bytes(4, "little")
    address = meter.to_wire()
    if key is not None:
        assert session[3] >> 5 == 1, "the session number says that nothing is encrypted"
        block = ell.counter_block(
            address=address, communication_control=_COMMUNICATION_CONTROL, session=session
        )
        sealed = aes.ctr(key, block, sealed)
    head = bytes((_CONTROL,)) + address
    extended = bytes((ell.CI_SESSION, _COMMUNICATION_CONTROL, access_number & 0xFF))
    body = head + extended + session + sealed
    return link.wrap(body, form)


def encode_lorawan_hourly(
    registers_l: Sequence[int], *, local_us: int, access_number: int | None = None
) -> bytes:
    """Kamstrup's hourly profile: up to 33 registers, or 17 where an hour took 255 L or more.

    registers_l    cumulative litres, newest first, one an hour; what does not fit is left out
    local_us       the newest one's instant on the meter's own clock, µs; whole minutes
    access_number  sends the short header (7A) instead of none (78)
    """
    steps = [newer - older for newer, older in pairwise(registers_l)]
    steps = steps[:PROFILE_HOURS]
    signed = any(step < 0 for step in steps)
    size = 1 if all(_fits(step, 1, signed=signed) for step in steps) else 2
    if size == 2:
        steps = steps[: PROFILE_HOURS // 2]
    mode = SIGNED if signed else INCREMENTS
    control = bytes((mode << 6 | _HOURS << 4 | size, 1))
    profile = control + b"".join(step.to_bytes(size, "little", signed=signed) for step in steps)
    records = (
        Record(shape_of(b"\x44\x6d"), type_f(local_us), 0),
        record("4413", registers_l[0]),
        Record(shape_of(b"\x4d\x93\x13"), bytes((len(profile),)) + profile, 0),
    )
    return _header(access_number) + join(records)


def encode_lorawan_daily(
    register_l: int,
    *,
    local_us: int,
    info_code: int = 0,
    noise: int | None = None,
    min_flow_lph: int = 0,
    max_flow_lph: int = 0,
    min_water_c: int | None = None,
    max_water_c: int | None = None,
    access_number: int | None = None,
) -> bytes:
    """Kamstrup's daily log, as of midnight on the meter's own clock."""
    records = (
        Record(shape_of(b"\x44\x6d"), type_f(local_us), 0),
        record("4413", register_l),
        Record(shape_of(b"\x52\xff\x25"), info_code.to_bytes(2, "little"), 0),
        record("42FF1C", 0x0FFF if noise is None else noise),
        record("623B", min_flow_lph),
        record("523B", max_flow_lph),
        record("615B", min_water_c),
        record("515B", max_water_c),
    )
    return _header(access_number) + join(records)


def encode_lorawan_install(
    *, meter: MeterId, config_number: int, access_number: int = 0, status: int = 0
) -> bytes:
    """Kamstrup's installation frame: the meter's identity and its configuration number."""
    wire = meter.to_wire()
    identity = wire[2:6] + wire[:2] + wire[6:]
    header = b"\x72" + identity + bytes((access_number & 0xFF, status, 0, 0))
    return header + join((record("04FF16", config_number),))


def type_f(local_us: int) -> bytes:
    """Date and time of the meter's own clock in four bytes (EN 13757-3, type F)."""
    moment = datetime_of(local_us)
    assert moment.year >= 2000, "century code 0 is read as 20xx"
    year, century = moment.year % 100, (moment.year - 1900) // 100
    return bytes(
        (
            moment.minute,
            moment.hour | century << 5,
            moment.day | (year & 7) << 5,
            moment.month | year >> 3 << 4,
        )
    )


def type_g(day: date) -> int:
    """A date as the digits of a two-byte record (EN 13757-3, type G)."""
    year = day.year % 100
    return day.day | (year & 7) << 5 | (day.month | year >> 3 << 4) << 8


def local_us(*, utc_us: int, offset_s: int) -> int:
    """An instant as a clock shows it that is `offset_s` ahead of UTC, in µs."""
    return utc_us + offset_s * US_PER_SECOND


def _header(access_number: int | None) -> bytes:
    if access_number is None:
        return b"\x78"
    return bytes((0x7A, access_number & 0xFF, 0, 0, 0))


def _fits(step: int, size: int, *, signed: bool) -> bool:
    """Whether a step fits, the code for "invalid" (FF…, signed 80…) kept free."""
    top = 1 << 8 * size - signed
    return -top < step < top if signed else step < top - 1


def _number(field: int, size: int, digits: int | None) -> bytes:
    if field in _BCD_FIELDS:
        text = "F" * 2 * size if digits is None else f"{abs(digits):0{2 * size}d}"
        if digits is not None and digits < 0:
            text = "F" + text[1:]
        if len(text) > 2 * size:
            raise OverflowError(f"{digits} has more than {2 * size} digits")
        return bytes.fromhex(text)[::-1]
    if digits is None:
        return (1 << 8 * size - 1).to_bytes(size, "little")
    if -(1 << 8 * size - 1) <= digits < 0:
        digits += 1 << 8 * size
    return digits.to_bytes(size, "little")
