"""What must hold of the decoders for every input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from decoders import aes, aes_pure
from decoders.decode import decode_lorawan, decode_wmbus
from decoders.drivers.registry import known_formats
from decoders.encode import (
    PROFILE_HOURS,
    encode_lorawan_daily,
    encode_lorawan_hourly,
    encode_lorawan_install,
    encode_wmbus,
    kamstrup_multical_records,
    session_number,
)
from decoders.errors import DecodeError
from decoders.explain import explain_lorawan, explain_wmbus
from decoders.ids import MeterId
from decoders.wmbus.link import WIRELESS, Form
from decoders.wmbus.records import join, split

VECTORS = Path(__file__).parents[1] / "vectors"
TELEGRAMS: list[dict[str, Any]] = json.loads(
    (VECTORS / "telegrams" / "kamstrup_water.json").read_text()
)["vectors"]
PAYLOADS: list[dict[str, Any]] = json.loads(
    (VECTORS / "lorawan" / "kamstrup_water.json").read_text()
)["vectors"]
HOUR_US = 3_600_000_000
MINUTE_US = 60_000_000
DEV_EUI = 0x0013EA0001020304
FORMATS = known_formats()

unhurried = settings(deadline=None)  # the machine is shared; time is for benchmarks
meters = st.builds(
    MeterId,
    manufacturer=st.sampled_from(["KAM", "KAW", "AXI"]),
    serial=st.integers(0, 99_999_999).map("{:08d}".format),
    version=st.integers(0, 255),
    medium=st.integers(0, 255),
)
keys = st.binary(min_size=16, max_size=16)
litres = st.integers(0, 2_000_000_000)
minutes_since_2000 = st.integers(15_778_080, 52_000_000)  # of the meter's clock, to the year 2068


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """A valid message with a few bytes changed, cut, repeated or appended."""
    message = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(message) - 1))
        message[place] = draw(st.integers(0, 255))
    start = draw(st.integers(0, 3))
    end = draw(st.integers(0, len(message)))
    if draw(st.booleans()):
        message = message[:end]
    return bytes(message[start:] + draw(st.binary(max_size=6)))


def only_decode_errors(decode: Callable[[], object]) -> None:
    refused: DecodeError | None = None
    try:
        decode()
    except DecodeError as error:
        refused = error
    assert refused is None or (refused.code and refused.layer and str(refused))


@unhurried
@given(
    meter=meters,
    key=st.none() | keys,
    total_l=litres,
    info_code=st.integers(0, 0xFFFF),
    water_c=st.none() | st.integers(-127, 126),
    session=st.integers(0, 15),
    minutes=st.integers(0, (1 << 25) - 1),
    compact=st.booleans(),
    form=st.sampled_from(WIRELESS),
)
def test_what_a_meter_sends_is_what_is_decoded(
    *,
    meter: MeterId,
    key: bytes | None,
    total_l: int,
    info_code: int,
    water_c: int | None,
    session: int,
    minutes: int,
    compact: bool,
    form: Form,
) -> None:
    records = kamstrup_multical_records(total_l=total_l, info_code=info_code, water_c=water_c)
    number = session_number(session=session, minutes=minutes, encrypted=key is not None)
    frame = encode_wmbus(
        records,
        meter=meter,
        session_number=number,
        access_number=minutes & 0xFF,
        key=key,
        compact=compact,
        form=form,
    )

    telegram = decode_wmbus(frame, key=key, formats=FORMATS)

    assert telegram.meter == meter
    assert telegram.counter == number
    assert telegram.register_l == total_l
    assert join(telegram.records) == join(records)
    if telegram.driver is not None:
        assert telegram.info_code == info_code
        assert telegram.fields.get("flow_temperature_c") == water_c


@unhurried
@given(
    newest_l=litres,
    steps=st.lists(st.integers(-300, 70_000), max_size=40),
    small=st.booleans(),
    minute=minutes_since_2000,
    access_number=st.none() | st.integers(0, 255),
)
def test_an_hourly_profile_comes_back_as_far_as_it_reaches(
    newest_l: int, steps: list[int], small: bool, minute: int, access_number: int | None
) -> None:
    steps = [max(-32_000, min(step, 250 if small else 32_000)) for step in steps]
    registers = [newest_l]
    for step in steps:
        registers.append(registers[-1] - step)

    payload = encode_lorawan_hourly(
        registers, local_us=minute * MINUTE_US, access_number=access_number
    )

    telegram = decode_lorawan(payload, port=1, f_cnt=1, dev_eui=DEV_EUI)
    told = len(telegram.series)
    assert telegram.register_l == newest_l
    assert [register for _, register in telegram.series] == registers[:told]
    assert [minute * MINUTE_US - at for at, _ in telegram.series] == [
        hours * HOUR_US for hours in range(told)
    ]
    assert told >= min(len(registers), PROFILE_HOURS // 2 + 1)


@unhurried
@given(
    register_l=litres,
    minute=minutes_since_2000,
    info_code=st.integers(0, 0xFFFF),
    noise=st.none() | st.integers(0, 0xFFE),
    flow=st.integers(0, 30_000),
    water_c=st.none() | st.integers(-127, 126),
)
def test_a_daily_log_comes_back(
    *,
    register_l: int,
    minute: int,
    info_code: int,
    noise: int | None,
    flow: int,
    water_c: int | None,
) -> None:
    payload = encode_lorawan_daily(
        register_l,
        local_us=minute * MINUTE_US,
        info_code=info_code,
        noise=noise,
        max_flow_lph=flow,
        max_water_c=water_c,
    )

    telegram = decode_lorawan(payload, port=1, f_cnt=1, dev_eui=DEV_EUI)

    assert telegram.series == ((minute * MINUTE_US, register_l),)
    assert telegram.info_code == info_code
    assert telegram.fields.get("ald_last_day") == noise
    assert telegram.fields.get("max_flow_temperature_c") == water_c
    assert float(telegram.fields["max_flow_m3h"]) == flow / 1000


@unhurried
@given(meter=meters, config_number=st.integers(0, 0xFFFF_FFFE), access=st.integers(0, 255))
def test_an_installation_frame_names_its_meter(
    meter: MeterId, config_number: int, access: int
) -> None:
    payload = encode_lorawan_install(meter=meter, config_number=config_number, access_number=access)

    telegram = decode_lorawan(payload, port=1, f_cnt=1, dev_eui=DEV_EUI)

    assert telegram.meter == meter
    assert telegram.fields["module_type_config"] == config_number


@unhurried
@given(frame=damaged([bytes.fromhex(v["frame"]) for v in TELEGRAMS]), decrypted=st.booleans())
def test_a_damaged_telegram_gives_a_decode_error_or_an_answer(
    frame: bytes, decrypted: bool
) -> None:
    for vector in TELEGRAMS[2::5]:
        key = bytes.fromhex(vector["key"]) if vector["key"] else None
        only_decode_errors(
            lambda key=key: decode_wmbus(  # type: ignore[misc]  # mypy cannot type such a lambda
                frame, key=key, formats=FORMATS, already_decrypted=decrypted
            )
        )
        assert explain_wmbus(frame, key=key, formats=FORMATS, already_decrypted=decrypted)


@unhurried
@given(payload=damaged([bytes.fromhex(v["payload"]) for v in PAYLOADS]))
def test_a_damaged_payload_gives_a_decode_error_or_an_answer(payload: bytes) -> None:
    for dev_eui in (DEV_EUI, 1):
        only_decode_errors(lambda: decode_lorawan(payload, port=1, f_cnt=1, dev_eui=DEV_EUI))
        assert explain_lorawan(payload, port=1, f_cnt=1, dev_eui=dev_eui)


@unhurried
@given(payload=st.binary(max_size=260), ci=st.sampled_from([0x72, 0x73, 0x78, 0x79, 0x7A, 0x7B]))
def test_noise_gives_a_decode_error_or_an_answer(payload: bytes, ci: int) -> None:
    sent = bytes((ci,)) + payload

    only_decode_errors(lambda: decode_lorawan(sent, port=1, f_cnt=1, dev_eui=1))
    only_decode_errors(lambda: decode_wmbus(payload, key=bytes(16), formats=FORMATS))
    head = b"\x44\x2d\x2c\x99\x87\x34\x76\x1b\x16"
    frame = bytes((len(head) + len(sent),)) + head + sent if len(sent) < 240 else sent
    for decrypted in (False, True):
        only_decode_errors(
            lambda decrypted=decrypted: decode_wmbus(  # type: ignore[misc]  # as above
                frame, key=bytes(16), formats=FORMATS, already_decrypted=decrypted
            )
        )


@unhurried
@given(encoded=st.binary(max_size=120))
def test_records_that_can_be_read_can_be_written(encoded: bytes) -> None:
    try:
        records = split(encoded, at=0)
    except DecodeError:
        return

    assert [r[:2] for r in split(join(records), at=0)] == [r[:2] for r in records]


@unhurried
@given(key=keys, counter=keys, message=st.binary(max_size=100))
def test_both_ciphers_agree(key: bytes, counter: bytes, message: bytes) -> None:
    pure = aes_pure.PurePython()
    whole = message + bytes(-len(message) % 16)

    assert pure.ctr(key, counter, message) == aes.ctr(key, counter, message)
    assert pure.cbc_decrypt(key, counter, whole) == aes.cbc_decrypt(key, counter, whole)
    assert pure.cbc_encrypt(key, counter, whole) == aes.cbc_encrypt(key, counter, whole)
