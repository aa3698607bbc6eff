"""The page and the figures on loopback: what they say, whom they answer, what they keep."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent import local_server
from edge_agent.health import SourceState, Status
from edge_agent.local_metrics import metrics
from edge_agent.local_page import page, troubles
from edge_agent.local_server import LocalServer

ROOT = Path(__file__).parents[3]
FIGURES = {
    "outbox_rows": 12_345,
    "outbox_pending": 7,
    "outbox_bytes": 5_000_000,
    "meters": 3998,
    "heard": 1_234_567,
    "stored": 9000,
    "undecodable_crc": 3,
    "resident_kib": 33_000,
    "disk_free_kib": 3_000_000,
    "disk_total_kib": 7_500_000,
    "memory_available_kib": 120_000,
    "memory_total_kib": 249_000,
    "temperature_c": 47,
    "supply_mv": 12_050,
    "uptime_s": 200_000,
    "last_ack_age_s": 12,
    "source_radio_heard": 5,
}
RADIO = SourceState(name="radio", is_up=True, heard=5, bad=1, deaths=2, per_hour=900)
SAMPLE = re.compile(r'[a-z_]+(\{([a-z_]+="([^"\\]|\\.)*",?)+\})? -?[0-9.e+]+')


def status(**changed: Any) -> Status:
    said: dict[str, Any] = {
        "at": 1_772_452_800_000_000,
        "clock_ahead_us": 1200,
        "connected": True,
        "figures": FIGURES,
        "sources": (RADIO,),
    }
    return Status(**{**said, **changed})


def shown(given: Status) -> str:
    return page(given, gateway="norte", version="0.1.0", broker="broker.example:8883")


def codes(**changed: Any) -> list[str]:
    return [trouble.code for trouble in troubles(status(**changed))]


def test_a_gateway_that_does_well_says_so_first() -> None:
    text = shown(status())

    assert "Todo en orden" in text
    for told in (
        "norte",
        "12,345",
        "47 °C",
        "12.05 V",
        "hace 12 s",
        "2 d 7 h",
        "900",
        "2 reinicios",
    ):
        assert told in text
    assert "2026-03-02 12:00:00" in text


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"connected": False}, "cloud_unreachable"),
        ({"figures": {**FIGURES, "last_ack_age_s": 400}}, "cloud_silent"),
        ({"figures": {n: f for n, f in FIGURES.items() if n != "last_ack_age_s"}}, "cloud_silent"),
        (
            {
                "sources": (
                    SourceState(name="x", is_up=False, heard=0, bad=0, deaths=9, per_hour=None),
                )
            },
            "source_down",
        ),
        ({"figures": {**FIGURES, "disk_free_kib": 700_000}}, "disk_low"),
        ({"figures": {**FIGURES, "memory_available_kib": 20_000}}, "memory_low"),
        ({"figures": {**FIGURES, "temperature_c": 81}}, "too_hot"),
        ({"clock_ahead_us": -3_600_000_000}, "clock_off"),
        ({"figures": {**FIGURES, "outbox_lost_hourly": 4}}, "shed"),
    ],
)
def test_each_trouble_is_named_with_its_code(changed: dict[str, Any], code: str) -> None:
    assert codes(**changed) == [code]
    assert f"<code>{code}</code>" in shown(status(**changed))
    assert "Todo en orden" not in shown(status(**changed))


def test_what_endangers_data_comes_before_what_can_wait() -> None:
    found = codes(connected=False, figures={**FIGURES, "temperature_c": 81, "disk_free_kib": 1})

    assert found == ["cloud_unreachable", "disk_low", "too_hot"]


def test_a_board_that_says_little_and_a_gateway_without_sources_have_a_page() -> None:
    text = shown(status(figures={}, sources=(), clock_ahead_us=None, connected=False))

    assert "No hay fuentes" in text
    assert "Temperatura" not in text


def test_names_from_the_settings_are_text_and_no_markup() -> None:
    source = SourceState(name='<b>"x"&', is_up=True, heard=0, bad=0, deaths=0, per_hour=None)

    assert '<b>"x"' not in shown(status(sources=(source,)))
    assert 'source="<b>\\"x\\"&"' in metrics(status(sources=(source,)), gateway="n", version="1")


def test_figures_are_prometheus_text() -> None:
    text = metrics(status(), gateway="norte", version="0.1.0")

    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert text.endswith("\n")
    assert all(SAMPLE.fullmatch(line) for line in samples), samples
    assert "aquacis_edge_outbox_pending 7" in samples
    assert 'aquacis_edge_source_per_hour{source="radio"} 900' in samples
    assert 'aquacis_edge_info{gateway="norte",version="0.1.0"} 1' in samples
    assert "# TYPE aquacis_edge_heard counter" in text
    assert not any("source_radio" in line for line in samples)
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))


@pytest.fixture
def server() -> Iterator[LocalServer]:
    made = LocalServer(port=0, gateway="norte", version="0.1.0", broker="broker.example:8883")
    made.start()
    yield made
    made.stop()


def port_of(server: LocalServer) -> int:
    return int(server.url.rsplit(":", 1)[1].strip("/"))


def asked(
    port: int, path: str = "/", *, method: str = "GET", host: str = "127.0.0.1:8090"
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, headers={"Host": host})
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def test_the_page_is_served_without_scripts_and_is_kept_by_nobody(server: LocalServer) -> None:
    server.show(status())

    answer, body = asked(port_of(server), "/?a=b", host="localhost:8090")

    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "Todo en orden" in body.decode()
    assert b"<script" not in body
    assert "Python" not in answer.headers["Server"]


def test_the_figures_are_served_and_nothing_else_is(server: LocalServer) -> None:
    port = port_of(server)
    assert asked(port)[0].status == 503
    server.show(status())

    answer, body = asked(port, "/metrics", host="localhost")
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b"aquacis_edge_heard 1234567\n" in body
    assert asked(port, "/etc/passwd")[0].status == 404
    assert asked(port, "/", method="POST")[0].status == 501
    head, nothing = asked(port, "/metrics", method="HEAD")
    assert (head.status, nothing) == (200, b"")


@pytest.mark.parametrize("host", ["attacker.example:8090", "127.0.0.1.attacker.example", ""])
def test_a_page_of_somewhere_else_cannot_read_it_by_a_name_of_its_own(
    server: LocalServer, host: str
) -> None:
    server.show(status())

    assert asked(port_of(server), host=host)[0].status == 421


def test_it_listens_on_loopback_alone(server: LocalServer) -> None:
    listening = Path("/proc/net/tcp").read_text().splitlines()
    port = f":{port_of(server):04X}"

    assert [line.split()[1] for line in listening if port in line.split()[1]] == [f"0100007F{port}"]


def test_who_connects_and_says_nothing_takes_no_more_than_a_few_threads(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.show(status())
    port = port_of(server)
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(local_server.MOST_AT_ONCE)]
    time.sleep(0.3)

    with pytest.raises((ConnectionError, http.client.HTTPException)):
        asked(port)

    for connection in idle:
        connection.close()
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            assert asked(port)[0].status == 200
            return
        except (ConnectionError, http.client.HTTPException):
            time.sleep(0.05)
    raise AssertionError("it never answered again")


def test_a_running_agent_shows_itself_within_its_memory(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("nonsense\n" * 3)
    settings = tmp_path / "gateway.json"
    settings.write_text(
        json.dumps(
            {
                "gateway": "norte",
                "broker": "mqtt://127.0.0.1:9",
                "password": "s3cret-password",
                "state": str(tmp_path / "state"),
                "local_port": 0,
                "sources": [{"kind": "lines", "path": str(tmp_path / "lines")}],
            }
        )
    )
    log = tmp_path / "log"
    with log.open("w") as stderr:
        running = subprocess.Popen(
            [sys.executable, "-m", "edge_agent", "run", "--config", str(settings)],
            cwd=ROOT,
            stderr=stderr,
        )
    try:
        url = waited_for(log, "local_page")["url"]
        port = int(url.rsplit(":", 1)[1].strip("/"))
        waited_for(log, "health")
        text = figures = ""
        until = time.monotonic() + 10
        while time.monotonic() < until and "source_heard" not in figures:
            text = asked(port)[1].decode()
            figures = asked(port, "/metrics")[1].decode()
            time.sleep(0.2)
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0

    assert "Sin conexión con la nube" in text
    assert "lines-0" in text
    assert "s3cret" not in text + figures
    assert "aquacis_edge_connected 0" in figures
    resident = re.search(r"aquacis_edge_resident_kib (\d+)", figures)
    assert resident is not None
    assert int(resident[1]) < 40 * 1024


def waited_for(log: Path, event: str) -> dict[str, Any]:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        for line in log.read_text().splitlines():
            said: dict[str, Any] = json.loads(line)
            if said["event"] == event:
                return said
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def test_a_port_that_is_taken_keeps_no_agent_from_its_work(tmp_path: Path) -> None:
    from edge_agent.config import read_config

    settings = tmp_path / "gateway.json"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings.write_text(
            json.dumps({"gateway": "n", "broker": "mqtt://h", "state": "s", "local_port": port})
        )
        told: list[str] = []
        config = read_config(settings)
        with local_server.local_page(config, lambda event, **_: told.append(event)) as show:
            assert show is None

    assert told == ["local_page_failed"]
