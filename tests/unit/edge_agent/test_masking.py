"""What a source delivered goes to the disk and the cloud with its frame and without any key."""

from __future__ import annotations

import json
import re

import cbor2
import pytest

from edge_agent import reduction
from edge_agent.inputs import BadInput, Now, Store
from edge_agent.masking import without_keys
from edge_agent.sources.lines import put_line
from edge_agent.sources.port import Inbox
from edge_agent.sources.supervisor import Hearing

KEY = bytes.fromhex("28F64A24988064A079AA2C807D6102AE")
SPACED = KEY.hex(" ").upper()
FRAME = "2A442D2C998734761B168D20" + "91D37CAC" * 9
RTL = f"C1;1;1;2026-03-01 10:00:00.000;97;102;76348799;0x{FRAME}"


def assert_no_key(left: str) -> None:
    """No four bytes of it, in hex however apart, and none of it in numbers."""
    digits = re.sub(r"[^0-9A-F]", "", left.upper().replace(FRAME, "|").replace("0X", ""))
    assert not [at for at in range(13) if KEY[at : at + 4].hex().upper() in digits], left
    assert str(list(KEY[2:6]))[1:-1] not in left
    assert str(int.from_bytes(KEY, "big"))[:10] not in left


@pytest.mark.parametrize(
    "line",
    [
        f'{{"telegram_hex": "{FRAME}", "key_hex": "{SPACED}"}}',
        f'{{"telegram_hex": "{FRAME}", "key_hex": ["{KEY.hex()}"]}}',
        f'{{"telegram_hex": "{FRAME}", "key_hex":\n{{"version": 1, "is": "{SPACED}"}}}}',
        f'{{"telegram_hex": "{FRAME}", "aes": "{KEY.hex()}"}}',
        f'{{"telegram_hex": "{FRAME}", "for": [{{"inner": "{KEY.hex(":")}"}}]}}',
        f'{{"telegram_hex": "{FRAME}", "{SPACED}": "KAW-53885758"}}',
        f'{{"telegram_hex": "{FRAME}", "k\\u0065y_hex": "{SPACED}"}}',
        f'{{"telegram_hex": "{FRAME}", "k\\u0065y_hex": "{SPACED}"',
        f'{{"telegram_hex": "{FRAME}", "as_numbers": {list(KEY)}}}',
        f'{{"telegram_hex": "{FRAME}", "as_numbers": {list(KEY)}',
        f'{{"telegram_hex": "{FRAME}", "as_number": {int.from_bytes(KEY, "big")}}}',
        f'{{"telegram_hex": "{FRAME}", "psk": "{SPACED}',
        f'{{"telegram_hex": "{FRAME}", "other": "{SPACED}',
        f'{{"telegram_hex": "{FRAME}", "other": "{KEY.hex()[:31]}G',
        f"{RTL};{SPACED}",
        f"{RTL};key = {KEY.hex(',').replace(',', ', 0x')}",
    ],
)
def test_a_line_keeps_its_frame_and_no_part_of_a_key(line: str) -> None:
    left = without_keys(line.encode()).decode()

    assert "***" in left
    assert FRAME in left
    assert_no_key(left)
    assert without_keys(left.encode()).decode() == left


@pytest.mark.parametrize(
    "line",
    [
        "zz",
        FRAME + "zz",
        RTL,
        '{"payload_hex": "zz", "dev_eui": "0013EA0001020304", "f_cnt": 7}',
        '{"telegram_hex": "2A44", "heard_at": "2026-03-01T10:00:00.000000Z", "gateway": "north"}',
    ],
)
def test_a_line_without_a_key_stays_as_it_came(line: str) -> None:
    assert without_keys(line.encode()) == line.encode()


@pytest.mark.parametrize(
    "given", [b"\x00", b"\xff{", b'{"a": "\\ud800"}', b"[" * 3000, b'{"a":' * 3000, b"key=" * 4000]
)
def test_whatever_comes_can_be_masked(given: bytes) -> None:
    assert isinstance(without_keys(given), bytes)


@pytest.mark.parametrize(
    "key_hex", [SPACED[:-1] + "G", KEY.hex()[:-2], KEY.hex()[:8] + "x" + KEY.hex()[9:], [SPACED]]
)
def test_a_line_whose_key_is_wrong_is_reported_without_it(key_hex: object) -> None:
    """Long lines, too: they are masked as a whole before they are cut."""
    inbox = Inbox()
    padding = ["2A44"] * 300
    line = json.dumps({"telegram_hex": FRAME, "p": padding, "key_hex": key_hex, "x": SPACED})
    put_line(line.encode(), Hearing("lines", inbox), now_us=1)
    bad = inbox.get(1)
    assert isinstance(bad, BadInput)

    state = reduction.State(policy=reduction.Policy())
    _, effects = reduction.bad_input(state, bad, Now(at=1, wall_s=1.0, chance=0.5))

    (row,) = [row for effect in effects if isinstance(effect, Store) for row in effect.rows]
    said = cbor2.loads(row.payload)
    assert "key_hex" in said["detail"]
    assert_no_key(said["detail"])
    assert_no_key(said["given"].decode())
    assert_no_key(bad.given.decode())
