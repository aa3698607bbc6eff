"""What a VIF means: quantity, unit and power of ten.

Units are a closed list, spelled as they end a field's name: m3 m3h kg kgh wh j w jh c k bar s min
h d, the dates `date` and `datetime`, `number` for what has no unit.
Source: EN 13757-3:2018, table 10 (primary), table 12 (FD), table 14 (FB), table 15 (orthogonal).
"""

from __future__ import annotations

from decoders.value import value

UNITS = frozenset(
    (
        *("m3", "m3h", "m3min", "m3s", "kg", "kgh", "kwh", "mj", "kw", "mjh"),
        *("c", "f", "k", "bar", "v", "a", "dbm", "pct", "hca"),
        *("s", "min", "h", "d", "month", "y", "date", "datetime", "number"),
    )
)
MANUFACTURER_SPECIFIC = 0xFF
INVERSE_COMPACT_PROFILE = 0x13  # orthogonal VIFE
_EXTENSION = 0x80


@value
class Meaning:
    """A VIF with its VIFEs.

    exponent    raw digits × 10**exponent = the value in `unit`
    qualifiers  orthogonal VIFEs that change what the number is about, as words for a name
    profile     the data is an inverse compact profile of this quantity
    """

    quantity: str
    unit: str
    exponent: int
    qualifiers: tuple[str, ...] = ()
    profile: bool = False


# (first code, number of codes, quantity, unit, exponent of the first): code n adds n to exponent
Scaled = tuple[tuple[int, int, str, str, int], ...]
Plain = dict[int, tuple[str, str]]
_SCALED: Scaled = (
    (0x00, 8, "energy", "kwh", -6),
    (0x08, 8, "energy", "mj", -6),
    (0x10, 8, "volume", "m3", -6),
    (0x18, 8, "mass", "kg", -3),
    (0x28, 8, "power", "kw", -6),
    (0x30, 8, "power", "mjh", -6),
    (0x38, 8, "volume_flow", "m3h", -6),
    (0x40, 8, "volume_flow", "m3min", -7),
    (0x48, 8, "volume_flow", "m3s", -9),
    (0x50, 8, "mass_flow", "kgh", -3),
    (0x58, 4, "flow_temperature", "c", -3),
    (0x5C, 4, "return_temperature", "c", -3),
    (0x60, 4, "temperature_difference", "k", -3),
    (0x64, 4, "external_temperature", "c", -3),
    (0x68, 4, "pressure", "bar", -3),
)
_TIME_UNITS = ("s", "min", "h", "d")


def _timed(start: int, quantity: str, units: tuple[str, ...] = _TIME_UNITS) -> Plain:
    return {start + number: (quantity, unit) for number, unit in enumerate(units)}


_PLAIN: Plain = {
    **_timed(0x20, "on_time"),
    **_timed(0x24, "operating_time"),
    **_timed(0x70, "averaging_duration"),
    **_timed(0x74, "actuality_duration"),
    0x6C: ("date", "date"),
    0x6D: ("datetime", "datetime"),
    0x6E: ("heat_cost_allocation", "hca"),
    0x78: ("fabrication_no", "number"),
    0x79: ("enhanced_identification", "number"),
    0x7A: ("address", "number"),
}
_SECOND: Plain = {  # after FD
    0x08: ("access_counter", "number"),
    0x09: ("medium", "number"),
    0x0A: ("manufacturer", "number"),
    0x0B: ("parameter_set", "number"),
    0x0C: ("model_version", "number"),
    0x0D: ("hardware_version", "number"),
    0x0E: ("metrology_firmware_version", "number"),
    0x0F: ("other_software_version", "number"),
    0x10: ("customer_location", "number"),
    0x11: ("customer", "number"),
    0x16: ("password", "number"),
    0x17: ("error_flags", "number"),
    0x18: ("error_mask", "number"),
    0x1A: ("digital_output", "number"),
    0x1B: ("digital_input", "number"),
    0x1C: ("baud_rate", "number"),
    0x1D: ("response_delay", "number"),  # in bit times
    0x1E: ("retries", "number"),
    0x1F: ("remote_control", "number"),
    0x20: ("first_storage", "number"),
    0x21: ("last_storage", "number"),
    0x22: ("storage_block_size", "number"),
    **_timed(0x24, "storage_interval"),
    0x28: ("storage_interval", "month"),
    0x29: ("storage_interval", "y"),
    **_timed(0x2C, "since_readout"),
    0x30: ("tariff_start", "datetime"),
    **_timed(0x31, "tariff_duration", ("min", "h", "d")),
    **_timed(0x34, "tariff_period"),
    0x38: ("tariff_period", "month"),
    0x39: ("tariff_period", "y"),
    0x3A: ("dimensionless", "number"),
    **_timed(0x3C, "transmission_period"),
    0x60: ("reset_counter", "number"),
    0x61: ("cumulation_counter", "number"),
    0x62: ("control_signal", "number"),
    0x63: ("day_of_week", "number"),
    0x64: ("week_number", "number"),
    0x66: ("state_of_parameter_activation", "number"),
    0x67: ("special_supplier_information", "number"),
    **_timed(0x68, "since_cumulation", ("h", "d", "month", "y")),
    **_timed(0x6C, "battery_operating_time", ("h", "d", "month", "y")),
    0x70: ("battery_change", "datetime"),
    0x71: ("reception_level", "dbm"),
    0x74: ("battery", "d"),
    0x75: ("stop_counter", "number"),
}
_SECOND_SCALED: Scaled = ((0x40, 16, "voltage", "v", -9), (0x50, 16, "current", "a", -12))
_FIRST_SCALED: Scaled = (  # after FB
    (0x00, 2, "energy", "kwh", 2),
    (0x08, 2, "energy", "mj", 2),
    (0x10, 2, "volume", "m3", 2),
    (0x18, 2, "mass", "kg", 5),
    (0x1A, 2, "humidity", "pct", -1),
    (0x28, 2, "power", "kw", 2),
    (0x30, 2, "power", "mjh", 2),
    (0x58, 4, "flow_temperature", "f", -3),
    (0x5C, 4, "return_temperature", "f", -3),
    (0x60, 4, "temperature_difference", "f", -3),
    (0x64, 4, "external_temperature", "f", -3),
    (0x70, 4, "temperature_limit", "f", -3),
    (0x74, 4, "temperature_limit", "c", -3),
    (0x78, 8, "max_power_sum", "kw", -6),
)
_QUALIFIERS = {  # orthogonal VIFEs; those that only describe the record change no name
    0x12: "average",
    0x39: "since",
    0x3A: "uncorrected",
    0x3B: "forward",
    0x3C: "backward",
    0x3E: "corrected",
    0x40: "lower_limit",
    0x48: "upper_limit",
    0x68: "during_lower_limit_exceed",
    0x69: "leakage",
    0x6C: "during_upper_limit_exceed",
    0x6D: "overflow",
    0x7E: "future",
}
_MOMENTS = {0x6A: "first_begin", 0x6B: "first_end", 0x6E: "last_begin", 0x6F: "last_end"}
# What says no more about the number: standard-conforming content (1D)
_SILENT = frozenset({0x1D})


def meaning_of(vib: bytes) -> Meaning | None:
    """Read VIF and VIFEs. None: manufacturer-specific, plain text, or in no table here."""
    first = vib[0]
    if first == 0xFD and len(vib) > 1:
        return _with_vifes(_lookup(vib[1] & 0x7F, _SECOND, _SECOND_SCALED), vib[2:])
    if first == 0xFB and len(vib) > 1:
        return _with_vifes(_lookup(vib[1] & 0x7F, {}, _FIRST_SCALED), vib[2:])
    return _with_vifes(_primary(first & 0x7F), vib[1:])


def _primary(code: int) -> Meaning | None:
    return _lookup(code, _PLAIN, _SCALED)


def _lookup(code: int, plain: Plain, scaled: Scaled) -> Meaning | None:
    if code in plain:
        quantity, unit = plain[code]
        return Meaning(quantity=quantity, unit=unit, exponent=0)
    for start, count, quantity, unit, exponent in scaled:
        if start <= code < start + count:
            return Meaning(quantity=quantity, unit=unit, exponent=exponent + code - start)
    return None


def _with_vifes(meaning: Meaning | None, vifes: bytes) -> Meaning | None:
    """Apply orthogonal VIFEs; one that changes the number in a way unknown here makes it None."""
    if meaning is None or not vifes:
        return meaning
    exponent, unit, qualifiers, profile = meaning.exponent, meaning.unit, [], False
    for vife in vifes:
        code = vife & 0x7F
        limit = _limit(code)
        if code in _QUALIFIERS:
            qualifiers.append(_QUALIFIERS[code])
        elif limit is not None:
            word, unit = limit
            qualifiers.append(word)
            exponent = 0
        elif code == INVERSE_COMPACT_PROFILE:
            profile = True
        elif 0x70 <= code <= 0x77:
            exponent += code - 0x76  # multiplicative correction 10**(n-6)
        elif code == 0x7D:
            exponent += 3
        elif code not in _SILENT:  # it changes the number in a way that we do not know
            return None
    return Meaning(
        quantity=meaning.quantity,
        unit=unit,
        exponent=exponent,
        qualifiers=tuple(qualifiers),
        profile=profile,
    )


def _limit(code: int) -> tuple[str, str] | None:
    """(qualifier, unit) of a VIFE that makes a record tell how a limit was exceeded.

    100u u001 how often; 100u uf1b when; 101u ufnn how long; u: upper, f: last, b: end.
    Without a limit, 110 0fnn says how long what the record tells of lasted, and 110 1f1b when.
    """
    if 0x60 <= code <= 0x67:
        return f"{'last' if code & 0x04 else 'first'}_duration", _TIME_UNITS[code & 3]
    if code in _MOMENTS:
        return _MOMENTS[code], "datetime"
    limit = "upper" if code & 0x08 else "lower"
    which = "last" if code & 0x04 else "first"
    if code in (0x41, 0x49):
        return f"{limit}_limit_exceeds", "number"
    if 0x40 <= code <= 0x4F and code & 0x02:
        return f"{which}_{limit}_limit_exceed_{'end' if code & 1 else 'begin'}", "datetime"
    if 0x50 <= code <= 0x5F:
        return f"{which}_{limit}_limit_exceed_duration", _TIME_UNITS[code & 3]
    return None
