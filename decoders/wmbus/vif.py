"""What a VIF means: quantity, unit and power of ten.

Units are a closed list, spelled as they end a field's name: m3 m3h kg kgh wh j w jh c k bar s min
h d, the dates `date` and `datetime`, `number` for what has no unit.
Source: EN 13757-3:2018, table 10 (primary), table 12 (FD), table 14 (FB), table 15 (orthogonal).
"""

from __future__ import annotations

from decoders.value import value

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
_SCALED = (
    (0x00, 8, "energy", "wh", -3),
    (0x08, 8, "energy", "j", 0),
    (0x10, 8, "volume", "m3", -6),
    (0x18, 8, "mass", "kg", -3),
    (0x28, 8, "power", "w", -3),
    (0x30, 8, "power", "jh", 0),
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
_TIMED = (
    (0x20, "on_time"),
    (0x24, "operating_time"),
    (0x70, "averaging_duration"),
    (0x74, "actuality_duration"),
)
_TIME_UNITS = ("s", "min", "h", "d")
_PLAIN = {
    0x6C: ("date", "date"),
    0x6D: ("datetime", "datetime"),
    0x6E: ("heat_cost_allocation", "hca"),
    0x78: ("fabrication_no", "number"),
    0x79: ("enhanced_identification", "number"),
    0x7A: ("address", "number"),
}
_SECOND = {  # after FD
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
    0x3A: ("dimensionless", "number"),
    0x60: ("reset_counter", "number"),
    0x61: ("cumulation_counter", "number"),
    0x66: ("state_of_parameter_activation", "number"),
    0x67: ("special_supplier_information", "number"),
    0x71: ("reception_level", "dbm"),
    0x74: ("battery", "d"),
    0x75: ("battery_change", "number"),
}
_SECOND_SCALED = ((0x40, 16, "voltage", "v", -9), (0x50, 16, "current", "a", -12))
_FIRST_SCALED = (  # after FB
    (0x00, 2, "energy", "wh", 5),
    (0x08, 2, "energy", "j", 8),
    (0x10, 2, "volume", "m3", 2),
    (0x18, 2, "mass", "kg", 5),
    (0x28, 2, "power", "w", 5),
    (0x30, 2, "power", "jh", 8),
)
_QUALIFIERS = {  # orthogonal VIFEs; those that only describe the record change no name
    0x12: "average",
    0x3B: "forward",
    0x3C: "backward",
    0x40: "lower_limit",
    0x48: "upper_limit",
}


def meaning_of(vib: bytes) -> Meaning | None:
    """Read VIF and VIFEs. None: manufacturer-specific, plain text, or in no table here."""
    first = vib[0]
    if first == 0xFD and len(vib) > 1:
        return _with_vifes(_lookup(vib[1] & 0x7F, _SECOND, _SECOND_SCALED), vib[2:])
    if first == 0xFB and len(vib) > 1:
        return _with_vifes(_lookup(vib[1] & 0x7F, {}, _FIRST_SCALED), vib[2:])
    return _with_vifes(_primary(first & 0x7F), vib[1:])


def _primary(code: int) -> Meaning | None:
    for start, quantity in _TIMED:
        if start <= code < start + 4:
            return Meaning(quantity=quantity, unit=_TIME_UNITS[code - start], exponent=0)
    return _lookup(code, _PLAIN, _SCALED)


def _lookup(
    code: int,
    plain: dict[int, tuple[str, str]],
    scaled: tuple[tuple[int, int, str, str, int], ...],
) -> Meaning | None:
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
    exponent, qualifiers, profile = meaning.exponent, [], False
    for vife in vifes:
        code = vife & 0x7F
        if code in _QUALIFIERS:
            qualifiers.append(_QUALIFIERS[code])
        elif code == INVERSE_COMPACT_PROFILE:
            profile = True
        elif 0x70 <= code <= 0x77:
            exponent += code - 0x76  # multiplicative correction 10**(n-6)
        elif code == 0x7D:
            exponent += 3
        elif code != 0x3A:  # 3A: value at metering conditions; anything else we do not know
            return None
    return Meaning(
        quantity=meaning.quantity,
        unit=meaning.unit,
        exponent=exponent,
        qualifiers=tuple(qualifiers),
        profile=profile,
    )
