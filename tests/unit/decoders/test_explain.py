"""A frame laid out for people."""

from __future__ import annotations

from decoders.drivers.registry import known_formats
from decoders.encode import (
    encode_lorawan_daily,
    encode_lorawan_hourly,
    encode_lorawan_install,
    encode_wmbus,
    kamstrup_multical_records,
    session_number,
)
from decoders.explain import as_text, explain_lorawan, explain_wmbus
from decoders.ids import MeterId

METER = MeterId(manufacturer="KAM", serial="76348799", version=0x1B, medium=0x16)
KEY = bytes(range(16))
DEV_EUI = 0x0013EA0001020304
NOON_US = 1_772_366_400_000_000


def made(*, compact: bool) -> bytes:
    return encode_wmbus(
        kamstrup_multical_records(total_l=6408, info_code=0x71, water_c=127, ambient_c=19),
        meter=METER,
        session_number=session_number(session=1, minutes=9, encrypted=True),
        access_number=3,
        key=KEY,
        compact=compact,
    )


def test_a_full_frame_is_explained_layer_by_layer() -> None:
    text = as_text(explain_wmbus(made(compact=False), key=KEY, formats=known_formats()))

    assert "format B, checked" in text
    assert "KAM-76348799" in text
    assert "AES-128-CTR" in text
    assert "the key is right" in text
    assert "info code 71: DRY" in text
    assert "total_m3 6.408" in text
    assert "flow_temperature_c invalid" in text


def test_every_byte_of_the_application_is_shown_once() -> None:
    lines = explain_wmbus(made(compact=False), key=KEY, formats=known_formats())

    shown = b"".join(line.raw for line in lines if line.layer == "records")
    assert shown.hex() == "02ff2071000413081900004413" + "00000000" + "615b7f616713"


def test_a_compact_frame_names_its_layout() -> None:
    text = as_text(explain_wmbus(made(compact=True), key=KEY, formats=known_formats()))

    assert "signature of layout 02FF2004134413615B6167" in text
    assert "rebuilt full frame fits" in text
    assert "0413: total_m3 6.408" in text


def test_an_explanation_stops_where_decoding_stops_and_says_why() -> None:
    lines = explain_wmbus(made(compact=False), key=bytes(16), formats=known_formats())

    assert lines[-1].layer == "refused"
    assert lines[-1].says.startswith("wrong_key in ell at byte 17")
    assert any("SN: session 1" in line.says for line in lines)


def test_payloads_over_lorawan_are_explained_too() -> None:
    payloads = (
        encode_lorawan_hourly([900, 890, 880], local_us=NOON_US, access_number=8),
        encode_lorawan_daily(5, local_us=NOON_US, info_code=4),
        encode_lorawan_install(meter=METER, config_number=7),
    )

    text = "\n".join(
        as_text(explain_lorawan(payload, port=4, f_cnt=1, dev_eui=DEV_EUI)) for payload in payloads
    )

    assert "DevEUI 0013EA0001020304" in text
    assert "log_time_local_standard 2026-03-01T12:00:00" in text
    assert "profile of increments every 1 h: 10 10" in text
    assert "info code 4: LEAK" in text
    assert "module_type_config 7" in text
    assert "KAM-76348799" in text


def test_a_meter_no_driver_knows_is_explained_by_the_standard() -> None:
    payload = bytes.fromhex("780413D2040000426C4137046D003318370DFD1102424102FF200100025B0080")

    text = as_text(explain_lorawan(payload, port=1, f_cnt=1, dev_eui=1))

    assert "volume_m3 1.234" in text
    assert "date_storage1 2026-07-01" in text
    assert "datetime 2024-07-24 19:00:00" in text
    assert "customer 'AB'" in text
    assert "is only known to its maker" in text
    assert "flow_temperature_c invalid" in text


def test_colour_is_added_only_when_asked_for() -> None:
    lines = explain_wmbus(made(compact=True), key=KEY, formats=known_formats())

    assert "\x1b[" not in as_text(lines)
    assert as_text(lines, colour=True).count("\x1b[0m") == len(lines)
