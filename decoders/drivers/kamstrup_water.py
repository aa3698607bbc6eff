"""Kamstrup flowIQ 2200, 2101, 3100 and MULTICAL 21: ultrasonic water meters.

Over wM-Bus C1 the field names are those of the public telegrams; over LoRaWAN those of Kamstrup's
own payload description. Absent means invalid: a dry meter sends 127 or -128 °C.

Bit 7 of the 32-bit info code is in dispute: "flow above Q4" in the public wM-Bus decoders, "high
ambient temperature" in Kamstrup's own LoRaWAN description. It is named for the doubt. Bits 11
(0x800) and 20 (0x100000) have been seen set on meters in service and are nowhere described: they
come out as ERROR_FLAGS_…, like every other bit without a name.
"""

from __future__ import annotations

from decoders.drivers.driver import (
    Driver,
    Field,
    InfoCode,
    Match,
    Read,
    celsius,
    count,
    day,
    local_time,
    number,
)
from decoders.wmbus.records import Record

_ACOUSTIC_INVALID = 0xFFF


def _acoustic(place: int) -> Read:
    """One of the four 12-bit acoustic noise values of record 06FF1B, little-endian.

    Four values and FFF for "none" are inferred from eight telegrams, not documented.
    """

    def read(record: Record) -> int | None:
        level = int.from_bytes(record.data, "little") >> 12 * place & 0xFFF
        return None if level == _ACOUSTIC_INVALID else level

    return read


def _last_day_noise(record: Record) -> int | None:
    """Acoustic noise of the last day (16 bits, 12 used); 0FFF means none."""
    level = count(record)
    return None if level is None or level & 0xFFF == _ACOUSTIC_INVALID else level


_INFO_16 = InfoCode(
    head="02FF20",
    alarms={0: "DRY", 1: "REVERSED", 2: "LEAK", 3: "BURST"},
    durations={"time_dry": 4, "time_reversed": 7, "time_leaking": 10, "time_bursting": 13},
    current="current_status",
)
_ALARMS_32 = {
    0: "DRY",
    1: "REVERSED",
    2: "LEAK",
    3: "BURST",
    4: "TAMPER",
    5: "LOW_BATTERY",
    6: "LOW_AMBIENT_TEMPERATURE",
    7: "FLOW_ABOVE_Q4_OR_HIGH_AMBIENT_TEMPERATURE",
    9: "NO_CONSUMPTION",
}
_INFO_32 = InfoCode(head="04FF23", alarms=_ALARMS_32, durations={}, current=None)
_INFO_LORAWAN = InfoCode(
    head="52FF25",
    alarms={bit: name for bit, name in _ALARMS_32.items() if bit < 7}
    | {7: "HIGH_AMBIENT_TEMPERATURE"},
    durations={},
    current=None,
)

KAMSTRUP_WATER = Driver(
    name="kamstrup_water",
    matches=(
        Match(manufacturer="KAM", version=0x1B, medium=0x06),  # MULTICAL 21
        Match(manufacturer="KAM", version=0x1B, medium=0x16),
        Match(manufacturer="KAM", version=0x1D, medium=0x16),  # flowIQ 3100
        Match(manufacturer="KAM", version=0x1F, medium=0x16),  # flowIQ 2101, from its wired manual
        Match(manufacturer="KAW", version=0x3A, medium=0x16),  # flowIQ 2200
        Match(manufacturer="KAW", version=0x3C, medium=0x16),  # flowIQ 2200, KWM2231
        Match(manufacturer="KAW", version=0x42, medium=0x06),  # KWM2230, KWM3230
        Match(manufacturer="KAW", version=0x42, medium=0x16),
    ),
    dev_eui_prefixes=(),
    register="0413",
    fields=(
        Field(head="0413", into="total_m3", read=number),
        Field(head="4413", into="target_m3", read=number),
        Field(head="426C", into="target_date", read=day),
        Field(head="023B", into="flow_m3h", read=number),
        Field(head="523B", into="max_flow_m3h", read=number),
        Field(head="623B", into="min_flow_m3h", read=number),
        Field(head="92013B", into="max_flow_m3h", read=number),
        Field(head="A2013B", into="min_flow_m3h", read=number),
        Field(head="615B", into="flow_temperature_c", read=celsius),
        Field(head="515B", into="max_flow_temperature_c", read=celsius),
        Field(head="A1015B", into="flow_temperature_c", read=celsius),
        Field(head="A1015B", into="min_flow_temperature_c", read=celsius),
        Field(head="91015B", into="max_flow_temperature_c", read=celsius),
        Field(head="6167", into="min_external_temperature_last_month_c", read=celsius),
        Field(head="5167", into="max_external_temperature_c", read=celsius),
        Field(head="A10167", into="min_external_temperature_last_day_c", read=celsius),
        Field(head="8101E7FF0F", into="average_external_temperature_last_day_c", read=celsius),
        *(
            Field(head="06FF1B", into=f"acoustic_noise_{place + 1}", read=_acoustic(place))
            for place in range(4)
        ),
    ),
    info_codes=(_INFO_16, _INFO_32),
    layouts=(
        "02FF2004134413615B6167",
        "02FF20041392013BA1015B8101E7FF0F",
        "04FF234413523B06FF1B426C61675167023B04138101E7FF0F",
        "02FF2004134413426C523B615B616751678101E7FF0F06FF1B",
        "02FF2004134413A1015B8101E7FF0F",
        "02FF2004134413615B5167",
        "02FF2004134413",
        "02FF200413523B",
        "04FF2304134413426C023B92013BA2013B06FF1BA1015B91015BA10167",
        "02FF2004134413426C",
        "02FF200413623B615B515B61675167",
        "02FF2004134413426C523B615B51678101E7FF0F06FF1B",
    ),
    sources=(
        "wmbusmeters issues 635, 1024, 1329, 1581, 1942, 2013, pull request 1906: telegrams, keys",
        "esphome-components issue 140, pull request 432: a frame as on the air, layout DD07",
        "tests/vectors/telegrams/kamstrup_water.json",
    ),
)

KAMSTRUP_WATER_LORAWAN = Driver(
    name="kamstrup_water",
    matches=(),
    dev_eui_prefixes=(0x0013EA,),
    register="4413",
    fields=(
        Field(head="446D", into="log_time_local_standard", read=local_time),
        Field(head="4413", into="volume_m3", read=number),
        Field(head="42FF1C", into="ald_last_day", read=_last_day_noise),
        Field(head="623B", into="min_flow_m3h", read=number),
        Field(head="523B", into="max_flow_m3h", read=number),
        Field(head="615B", into="min_flow_temperature_c", read=celsius),
        Field(head="515B", into="max_flow_temperature_c", read=celsius),
        Field(head="04FF16", into="module_type_config", read=count),
    ),
    info_codes=(_INFO_LORAWAN,),
    layouts=(),
    sources=(
        "TheThingsNetwork/lorawan-devices vendor/kamstrup, pull request 876, by Kamstrup",
        "tests/vectors/lorawan/kamstrup_water.json",
    ),
)
