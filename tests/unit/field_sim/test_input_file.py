"""Whose line is it, and what key came with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from field_sim.input_file import (
    NO_GATEWAY,
    agents_for,
    gateway_id,
    keys_of,
    read_lines,
    understood,
)
from field_sim.sandbox import UpFailed

FRAME = "2A442D2C998734761B168D2087D19EAD217F1779EDA86AB6"  # MULTICAL 21, serial 76348799
KEY = "28F64A24988064A079AA2C807D6102AE"


def test_a_line_goes_to_the_gateway_it_names_in_the_form_of_an_id() -> None:
    told = understood(json.dumps({"telegram_hex": FRAME, "gateway": "Cerro Norte #3"}))

    assert told.gateway == "cerro-norte-3"
    assert json.loads(told.text) == {"telegram_hex": FRAME, "gateway": "cerro-norte-3"}


@pytest.mark.parametrize("line", ["no telegram", "[1, 2]", '{"telegram_hex": "00"', "{}"])
def test_a_line_that_names_none_or_is_none_goes_to_an_agent_that_will_report_it(line: str) -> None:
    assert understood(line).gateway == NO_GATEWAY


def test_an_id_is_never_empty_nor_too_long() -> None:
    assert gateway_id("ñ—") == NO_GATEWAY
    assert gateway_id("a" * 40) == "a" * 32
    assert gateway_id("a" * 31 + " b") == "a" * 31


@pytest.mark.parametrize("account", ["cloud", "city", "City", " cloud "])
def test_a_gateway_that_is_named_like_an_account_of_ours_gets_another_name(account: str) -> None:
    told = understood(json.dumps({"telegram_hex": FRAME, "gateway": account}))

    assert told.gateway == f"gateway-{account.strip().lower()}"
    assert told.named == account


def test_a_key_is_the_meters_whose_telegram_it_came_with() -> None:
    line = json.dumps({"telegram_hex": FRAME, "key_hex": KEY})

    (meter,) = keys_of([understood(line), understood(line)])

    assert (meter.name, meter.key) == ("KAM-76348799", bytes.fromhex(KEY))


@pytest.mark.parametrize(
    "said",
    [
        {"telegram_hex": FRAME},
        {"telegram_hex": FRAME, "key_hex": None},
        {"telegram_hex": FRAME, "key_hex": "28F6"},
        {"telegram_hex": "2A44", "key_hex": KEY},
        {"telegram_hex": 7, "key_hex": KEY},
        {"payload_hex": "7844", "key_hex": KEY},
    ],
)
def test_a_key_without_a_meter_is_nobodys(said: dict[str, object]) -> None:
    assert keys_of([understood(json.dumps(said))]) == []


def test_each_gateway_gets_an_agent_that_reads_its_own_lines(tmp_path: Path) -> None:
    lines = [json.dumps({"telegram_hex": FRAME, "gateway": g}) for g in ("a", "b", "a")]

    agents = agents_for(tmp_path, [understood(line) for line in [*lines, "bad"]])

    read = {
        agent.gateway: Path(str(agent.sources[0]["path"])).read_text().splitlines()
        for agent in agents
    }
    assert {gateway: len(own) for gateway, own in read.items()} == {"a": 2, "b": 1, NO_GATEWAY: 1}
    paths = [Path(str(agent.sources[0]["path"])) for agent in agents]
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}


def test_a_file_that_cannot_be_read_is_said_in_spanish(tmp_path: Path) -> None:
    with pytest.raises(UpFailed, match="no se puede leer"):
        read_lines(tmp_path / "none")
    (tmp_path / "latin").write_bytes(b"\xff\xfe\xf1")
    with pytest.raises(UpFailed, match="UTF-8"):
        read_lines(tmp_path / "latin")
    (tmp_path / "empty").write_text("\n\n  \n")
    assert read_lines(tmp_path / "empty") == []
