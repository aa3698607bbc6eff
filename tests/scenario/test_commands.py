"""Metering's commands on a database with something in it, as an operator types them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloud.__main__ import main
from cloud.kernel.db import Database
from cloud.metering.registry import NewMeter
from cloud.metering.service import Metering
from decoders.uplink import encode_batch
from tests.heard import (
    HOUR,
    KEY,
    MINUTE,
    NOON,
    Gateway,
    eui,
    import_keys,
    lorawan,
    metering_on,
    report,
    rows_of,
    wmbus,
    wmbus_meter,
)

NAME = str(wmbus_meter(5))
METERS = 3


@pytest.fixture
def service(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Metering]:
    file = tmp_path / "passwords.json"
    file.write_bytes(database.passwords_path.read_bytes())
    file.chmod(0o600)
    monkeypatch.setenv("AQUACIS_STATE", str(tmp_path))
    monkeypatch.setenv("AQUACIS_DATABASE_URL", database.admin_dsn)
    with metering_on(database, tmp_path) as made:
        yield made


@pytest.fixture
def heard(service: Metering) -> Gateway:
    """Three meters, five frames of the first, one telegram nobody has the key of, two reports."""
    gateway = Gateway()
    rows = [lorawan(n, [100], at=NOON, counter=n) for n in range(1, METERS + 1)]
    rows += [lorawan(1, [100 + n], at=NOON + n * HOUR, counter=9 + n) for n in range(1, 5)]
    rows += [wmbus(5, 100, heard_at=NOON)]
    rows += [report("source_down", at=NOON, source="radio"), report("source_up", at=NOON)]
    gateway.send(service, *rows, at=NOON + 5 * HOUR)
    return gateway


Said = tuple[int, Any, list[dict[str, Any]]]


@pytest.fixture
def aquacis(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*words: str) -> Said:
        """Return (exit code, JSON of stdout, JSON lines of stderr)."""
        capsys.readouterr()
        code = main(["--json", *words])
        said = capsys.readouterr()
        told = [json.loads(line) for line in said.err.splitlines() if line.startswith("{")]
        return code, json.loads(said.out) if said.out else None, told

    return run


@pytest.mark.parametrize(
    ("words", "name", "count"),
    [
        (("meters",), "meter_key", METERS),
        (("frames", eui(1)), "hash", 5),
        (("readings", eui(1), "--from", "2026-06-01T00:00:00Z"), "at", 5),
        (("gateways", "reports", "cerro"), "id", 2),
    ],
)
@pytest.mark.usefixtures("heard")
def test_lists_go_on_where_they_stopped_and_say_so(
    words: tuple[str, ...], name: str, count: int, aquacis: Any
) -> None:
    if words[0] == "readings":
        words = (*words, "--to", "2026-06-03T00:00:00Z")
    _, everything, quiet = aquacis(*words)
    assert (len(everything), quiet) == (count, [])

    got: list[dict[str, Any]] = []
    more: list[str] = []
    while True:
        code, rows, told = aquacis(*words, "--limit", "1", *more)
        assert code == 0
        got += rows
        if not told:
            break
        assert told[0]["code"] == "more"
        more = ["--after", told[0]["after"]]

    assert [row[name] for row in got] == [row[name] for row in everything]


@pytest.mark.usefixtures("heard")
def test_a_cursor_of_nowhere_is_wrong_usage(aquacis: Any) -> None:
    for words in (("meters",), ("alerts",), ("frames", eui(1)), ("rejects",)):
        for cursor in ("x", "WyJ4Il0"):
            code, _, told = aquacis(*words, "--after", cursor)
            assert (code, told[0]["code"]) == (2, "cursor_invalid"), words


@pytest.mark.usefixtures("heard")
def test_a_frame_is_32_hex_digits(aquacis: Any) -> None:
    _, [newest, *_], _ = aquacis("frames", eui(1))
    assert aquacis("frames", newest["hash"])[1]["meter_key"] == newest["meter_key"]

    assert aquacis("frames", "0" * 32)[2][0]["code"] == "not_found"
    code, _, told = aquacis("frames", "g" * 32)
    assert (code, told[0]["code"]) == (2, "frame_invalid")


@pytest.mark.usefixtures("heard")
def test_a_reject_is_replayed_once_its_key_is_there(service: Metering, aquacis: Any) -> None:
    _, [letter], _ = aquacis("rejects", "list", "--state", "open")
    number = str(letter["id"])
    code, _, told = aquacis("rejects", "replay", number)
    assert (code, told[0]["code"]) == (1, letter["code"])

    import_keys(service, NAME)

    assert aquacis("rejects", "replay", number)[:2] == (
        0,
        {"id": letter["id"], "state": "replayed", "readings_new": 1},
    )
    code, _, told = aquacis("rejects", "dismiss", number)
    assert (code, told[0]["code"]) == (1, "dead_letter_closed")


@pytest.mark.usefixtures("heard")
def test_a_reject_is_dismissed_and_asking_again_changes_nothing(aquacis: Any) -> None:
    _, [letter], _ = aquacis("rejects")
    for _ in range(2):
        code, closed, _ = aquacis("rejects", "dismiss", str(letter["id"]))
        assert (code, closed["state"]) == (0, "dismissed")

    for action in ("replay", "dismiss"):
        code, _, told = aquacis("rejects", action, "999999")
        assert (code, told[0]["code"]) == (1, "not_found")


@pytest.mark.usefixtures("heard")
def test_a_gateway_s_reports_are_told_with_what_they_say(aquacis: Any) -> None:
    _, [up, down], _ = aquacis("gateways", "reports", "cerro")
    assert (up["kind"], down["kind"], down["says"]) == (
        "source_up",
        "source_down",
        {"source": "radio"},
    )
    assert len(aquacis("gateways", "reports", "cerro", "--kind", "source_up")[1]) == 1
    assert aquacis("gateways", "reports", "nadie")[2][0]["code"] == "not_found"


def test_an_import_that_cannot_be_names_its_line_and_takes_nothing(
    service: Metering, database: Database, tmp_path: Path, aquacis: Any
) -> None:
    import_keys(service, NAME)
    gateway = Gateway()
    gateway.send(service, lorawan(1, [1], at=NOON), wmbus(5, 9, heard_at=NOON), at=NOON + MINUTE)
    file = tmp_path / "meters.jsonl"
    lines = [{"meter": "KAW-53885758"}, {"meter": NAME.lower(), "dev_eui": eui(1)}]
    file.write_text("\n\n".join(json.dumps(line) for line in lines))
    before = rows_of(database, "SELECT * FROM meter_names ORDER BY name")

    code, _, told = aquacis("meters", "import", str(file))

    assert (code, told[0]["code"]) == (1, "dev_eui_taken")
    assert told[0]["message"].startswith("línea 3: ")
    assert rows_of(database, "SELECT * FROM meter_names ORDER BY name") == before


def test_a_key_imported_later_leaves_the_meter_in_its_administration(
    service: Metering,
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    aquacis: Any,
) -> None:
    administrations = {"queretaro": {"name": "Querétaro"}, "corregidora": {"name": "Corregidora"}}
    monkeypatch.setenv("AQUACIS_ADMINISTRATIONS", json.dumps(administrations))
    service.import_meters([NewMeter(name=NAME, administration="corregidora")])
    file = tmp_path / "keys.jsonl"
    file.write_text(json.dumps({"meter": NAME, "key_hex": KEY.hex()}) + '\n{"meter": "KAM-1"}\n')
    assert aquacis("meters", "import", str(file))[2][0]["code"] == "meter_name_invalid"
    file.write_text(
        "\n".join(
            json.dumps(line)
            for line in ({"meter": NAME, "key_hex": KEY.hex()}, {"meter": str(wmbus_meter(6))})
        )
    )

    code, counted, _ = aquacis("meters", "import", str(file))

    assert (code, counted) == (0, {"meters": 2, "new_meters": 1, "new_keys": 1})
    assert rows_of(database, "SELECT serial, administration FROM meters ORDER BY serial") == [
        ("00000005", "corregidora"),
        ("00000006", "queretaro"),
    ]


def test_meters_keys_are_sealed_again_with_the_new_key(
    service: Metering, database: Database, aquacis: Any
) -> None:
    import_keys(service, NAME)
    before = rows_of(database, "SELECT wrapped FROM meter_keys")

    code, sealed, _ = aquacis("keys", "rotate-sealing")

    assert (code, sealed["version"], sealed["meter_keys"]) == (0, 2, 1)
    assert rows_of(database, "SELECT wrapped FROM meter_keys") != before
    assert Gateway().send(service, wmbus(5, 9, heard_at=NOON), at=NOON + MINUTE).rejected == ()


def test_the_sealing_key_rotates_where_people_are_another_issuer_s(
    service: Metering, monkeypatch: pytest.MonkeyPatch, aquacis: Any
) -> None:
    import_keys(service, NAME)
    monkeypatch.setenv("AQUACIS_ISSUER", "https://id.example")

    assert aquacis("keys", "rotate-sealing")[1]["meter_keys"] == 1


def test_what_a_gateway_says_of_its_board_is_kept_and_shown_in_a_few_words(
    service: Metering, heard: Gateway, aquacis: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    board = {
        **{"temperature_c": -3, "supply_mv": 12_050, "disk_free_kib": 30, "disk_total_kib": 120},
        **{"source_wmbus_up": 0, "source_lora_up": 1, "heard": -5},
    }
    service.ingest(encode_batch(replace(heard.batch([]), health=board)), heard.id, NOON + 6 * HOUR)

    [shown] = [each for each in aquacis("gateways")[1] if each["id"] == heard.id]
    assert shown["health"] == board | {"heard": 0}
    assert main(["gateways"]) == 0
    assert "-3 °C, 12.1 V, disco 25% libre, fuente wmbus caída" in capsys.readouterr().out
