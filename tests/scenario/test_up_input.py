"""`up --input`: telegrams of real Kamstrup meters, from a file to the explained reading."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from tests.real_parts import PROGRAMS, missing
from tests.scenario.sandboxes import Up, eventually, home, sandbox

pytestmark = [
    pytest.mark.xdist_group("up"),
    pytest.mark.timeout(600),
]
# Chromium's own sandbox refuses root
FLAGS = ["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
VECTORS = Path(__file__).parents[1] / "vectors"
WMBUS = json.loads((VECTORS / "telegrams" / "kamstrup_water.json").read_text())["vectors"]
LORAWAN = json.loads((VECTORS / "lorawan" / "kamstrup_water.json").read_text())["vectors"]
HOURLY = next(vector for vector in LORAWAN if "hourly_litres" in vector)
DEV_EUI = "0013EA0001020304"
FIRST_HOUR = datetime(2026, 11, 1, 6, 7, tzinfo=UTC)


@pytest.fixture
def state() -> Iterator[Path]:
    with home() as folder:
        yield folder


def line(index: int, vector: dict[str, Any]) -> str:
    heard_at = FIRST_HOUR + timedelta(hours=index)
    return json.dumps(
        {
            "telegram_hex": vector["frame"],
            "key_hex": vector["key"],
            "prior_telegrams_hex": vector["heard_before"],
            "already_decrypted": vector["kept_decrypted"],
            "heard_at": heard_at.isoformat().replace("+00:00", "Z"),
            "gateway": "norte" if index % 2 else "sur",
        }
    )


def lorawan_line(counter: int) -> str:
    """An hourly profile that Kamstrup published; the device is ours."""
    return json.dumps(
        {
            "payload_hex": HOURLY["payload"],
            "fport": HOURLY["port"],
            "dev_eui": DEV_EUI,
            "f_cnt": counter,
            "heard_at": (to_utc(HOURLY["newest"]) + timedelta(minutes=7)).isoformat(),
            "gateway": "cloud",
        }
    )


def to_utc(meter_local: str) -> datetime:
    """Return the instant of a meter's own clock, which shows Querétaro's time."""
    return datetime.fromisoformat(meter_local).replace(tzinfo=UTC) + timedelta(hours=6)


def test_a_file_of_real_telegrams_becomes_readings_that_can_be_explained(state: Path) -> None:
    source = state / "telegrams.jsonl"
    lines = [*(line(i, v) for i, v in enumerate(WMBUS)), lorawan_line(7), "no telegram"]
    source.write_text("\n".join(lines))
    expected = {
        (vector["meter"], (FIRST_HOUR + timedelta(hours=i)).replace(minute=0)): vector["litres"]
        for i, vector in enumerate(WMBUS)
        if vector["litres"] is not None
    }
    newest = to_utc(HOURLY["newest"])
    profile = {
        (DEV_EUI, newest - timedelta(hours=ago)): litres
        for ago, litres in enumerate(HOURLY["hourly_litres"])
    }

    with sandbox(state, "--input", str(source)) as up:
        up.ready()
        eventually(lambda: "Fin del archivo" in up.text, 150)
        eventually(lambda: "/rechazos" in up.text, 5)

        assert f"Se leyeron {len(lines)} líneas" in up.text
        assert "el gateway «cloud» se llama aquí gateway-cloud" in up.text
        assert "60 por hora y código" in up.text
        assert "rechazos por código  input_malformed 1\n" in up.text
        assert f"lecturas             {len(expected) + len(profile)} nuevas" in up.text
        assert readings(up, {meter for meter, _ in expected}) == expected
        assert readings(up, {DEV_EUI}) == profile
        meter, at = next(iter(expected))
        explained = up.aquacis("explain", "reading", meter, at.isoformat())
        assert explained["same"]
        gateways = {gateway["id"] for gateway in up.aquacis("gateways")}
        assert gateways == {"norte", "sur", "entrada", "gateway-cloud"}
        look_at(up, DEV_EUI)


def readings(up: Up, names: set[str]) -> dict[tuple[str, datetime], int]:
    return {
        (name, datetime.fromisoformat(reading["at"])): reading["register_l"]
        for name in names
        for reading in up.aquacis("readings", name, "--from", "2024-07-01T00:00:00Z")
    }


def look_at(up: Up, meter: str) -> None:
    """See the meter in the pages as the supervisor does, where there is a Chromium."""
    if missing("chromium") is not None:
        return
    url, password = up.ready(), json.loads((up.state / "users.json").read_text())["sofia"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAMS["chromium"], args=FLAGS)
        page = browser.new_page(locale="es-MX")
        page.set_default_timeout(60_000)
        page.goto(url + "/medidores")
        page.get_by_label("Usuario").fill("sofia")
        page.get_by_label("Contraseña").fill(password)
        page.get_by_role("button", name="Entrar").click()
        page.get_by_text(meter).first.wait_for()
        browser.close()
