"""`aquacis-edge decode`: one answer a line, in order, and nothing else on stdout."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from decoders.encode import encode_wmbus, records_of, session_number
from decoders.ids import MeterId
from edge_agent import __main__ as cli

VECTORS = Path(__file__).parents[2] / "vectors"
METER = MeterId(manufacturer="KAW", serial="12345678", version=0x3C, medium=0x16)
KEY = bytes(range(16))
UNDECLARED = bytes.fromhex("02FF2004134413523B515B")  # in no driver, but in Kamstrup's order


def vectors(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((VECTORS / name).read_text())["vectors"]
    return found


def telegram_line(vector: dict[str, Any]) -> str:
    return json.dumps(
        {
            "telegram_hex": vector["frame"],
            "key_hex": vector["key"],
            "prior_telegrams_hex": vector.get("heard_before", []),
            "already_decrypted": vector["kept_decrypted"],
        }
    )


def decoded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[str], *options: str
) -> list[dict[str, Any]]:
    file = tmp_path / "lines"
    file.write_text("\n".join(lines) + "\n")
    cli.main(["decode", *options, str(file)])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_vector_gives_one_object_a_line_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = [
        vector
        for name in ("kamstrup_water", "open_water", "axioma_w1", "engelmann_faw", "wired")
        for vector in vectors(f"telegrams/{name}.json")
    ]

    said = decoded(tmp_path, capsys, [telegram_line(vector) for vector in told])

    assert len(said) == len(told)
    for vector, one in zip(told, said, strict=True):
        assert one["ok"] is True
        assert one["meter"] == vector["meter"]
        for name, expected in vector["fields"].items():
            found = one["fields"][name]
            wanted = expected if isinstance(found, str) else pytest.approx(float(expected))
            assert found == wanted, name


def test_a_lorawan_payload_needs_no_sender(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = vectors("lorawan/kamstrup_water.json")
    lines = [json.dumps({"payload_hex": v["payload"], "fport": v["port"]}) for v in told]

    said = decoded(tmp_path, capsys, lines)

    for vector, one in zip(told, said, strict=True):
        assert one["driver"] == "kamstrup_water"
        assert one["meter"] is None
        for name, expected in vector["fields"].items():
            if expected is None:
                assert name not in one["fields"]
            elif not isinstance(one["fields"][name], str):
                assert one["fields"][name] == pytest.approx(float(expected))
        if "hourly_litres" in vector:
            series = [round(1000 * point["volume_m3"]) for point in one["series"]]
            assert series == vector["hourly_litres"]


def test_a_refusal_says_layer_byte_and_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (vector,) = [v for v in vectors("telegrams/kamstrup_water.json") if v["key"]][:1]
    lines = [
        telegram_line({**vector, "key": None}),
        telegram_line({**vector, "key": "11" * 16}),
        vector["frame"][:30],
        "C1;0;0;2026-03-01 10:00:00.000;97;102;1;0x1044",
        '{"payload_hex": "00", "fport": 1}',
        '{"payload_hex": 7',
    ]

    said = decoded(tmp_path, capsys, lines)

    assert [one["error"] for one in said] == [
        *("key_missing", "wrong_key", "truncated", "truncated", "unknown_format", "malformed"),
    ]
    for one in said:
        assert one["ok"] is False
        assert isinstance(one["offset"], int)
        assert len(one["layer"]) * len(one["detail"]) > 0
    assert said[5]["layer"] == "line"


def test_already_decrypted_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = next(v for v in vectors("telegrams/kamstrup_water.json") if v["kept_decrypted"])

    (refused,) = decoded(tmp_path, capsys, [kept["frame"]])
    (taken,) = decoded(tmp_path, capsys, [kept["frame"]], "--already-decrypted")

    assert refused["error"] == "key_missing"
    assert taken["ok"] is True


def compact(total_l: int, number: int) -> str:
    frame = encode_wmbus(
        records_of(UNDECLARED, {"0413": total_l, "4413": 1, "523B": number, "515B": 12}),
        meter=METER,
        session_number=session_number(session=1, minutes=number, encrypted=True),
        access_number=number,
        key=KEY,
        compact=True,
    )
    return json.dumps({"telegram_hex": frame.hex(), "key_hex": KEY.hex()})


def test_an_unknown_compact_layout_is_believed_when_a_second_telegram_agrees(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [compact(1000, 1), compact(1000, 1), compact(1017, 2), compact(1020, 3)]

    first, repeated, second, third = decoded(tmp_path, capsys, lines)

    assert first["error"] == repeated["error"] == "unknown_signature"
    assert (second["ok"], second["fields"]["total_m3"]) == (True, 1.017)
    assert (third["ok"], third["fields"]["max_flow_temperature_c"]) == (True, 12)


def test_a_table_has_a_head_and_a_row_a_telegram(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lines"
    (vector,) = vectors("telegrams/engelmann_faw.json")
    file.write_text(telegram_line(vector) + "\n00\nnonsense\n")

    assert cli.main(["decode", "--table", str(file)]) == 1

    head, row, short, nonsense = capsys.readouterr().out.splitlines()
    assert head.split() == ["meter", "medium", "integrity", "m3", "status", "fields"]
    assert row.split()[:4] == ["EFE-22502855", "water", "inner-crc", "253.409"]
    assert short.startswith("truncated in link at byte 1")
    assert nonsense.startswith("malformed in line")


@pytest.mark.parametrize(("choice", "coloured"), [("always", True), ("never", False)])
def test_explain_is_coloured_for_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], choice: str, coloured: bool
) -> None:
    file = tmp_path / "lines"
    (vector,) = vectors("telegrams/security_mode_7.json")
    file.write_text(telegram_line(vector) + "\nnonsense\n")

    cli.main(["decode", "--explain", "--colour", choice, str(file)])

    told = capsys.readouterr().out
    assert ("\x1b[" in told) is coloured
    for layer in ("link", "ell", "afl", "transport", "records"):
        assert layer in told
    assert "the code fits" in told


def test_a_prior_telegram_that_teaches_nothing_does_not_stop_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (vector,) = vectors("telegrams/engelmann_faw.json")

    (said,) = decoded(tmp_path, capsys, [telegram_line({**vector, "heard_before": ["1044"]})])

    assert said["ok"] is True
