"""Settings, keys and clocks: what a gateway is told, and that its secrets stay where they are."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from edge_agent.clock import FileClock, SystemClock, clock_from
from edge_agent.config import read_config
from edge_agent.keys import KeyFileUnusable, address_of, read_keys
from edge_agent.leaks_limits import CLASSES, DEFAULT_LIMITS, Tier
from edge_agent.mqtt import broker_at
from edge_agent.settings_text import ConfigError
from edge_agent.source_configs import (
    AmberConfig,
    ChirpStackConfig,
    ImstConfig,
    LinesConfig,
    MultiTechConfig,
)

SETTINGS: dict[str, Any] = {
    "gateway": "norte",
    "broker": "mqtt://127.0.0.1:1883",
    "password": "s3cret",
    "state": "agents/norte",
}


def written(tmp_path: Path, **changed: Any) -> Path:
    path = tmp_path / "gateway.json"
    said = {**SETTINGS, **changed}
    path.write_text(json.dumps({k: v for k, v in said.items() if v is not ...}))
    return path


def test_the_shortest_settings_have_defaults(tmp_path: Path) -> None:
    config = read_config(written(tmp_path), environment={"AQUACIS_CLOCK": "file:/c.json"})

    assert (config.broker.user, config.broker.port, config.broker.tls) == ("norte", 1883, False)
    assert config.meter_offset_us == -6 * 3600 * 1_000_000
    assert config.clock == "file:/c.json"
    assert config.thresholds.of("KAW-53885758") == DEFAULT_LIMITS
    assert config.sources == ()


def test_every_setting_is_read(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        user="u",
        clock="system",
        clock_offset_s=2400,
        keys="k.jsonl",
        meters=["KAW-53885758", "0013ea0001020304"],
        meter_clock_offset_s=0,
        meter_clock_offsets_s={"0013ea0001020304": -25_200},
        profile="lean",
        outbox={"rows": 10},
        pace={"batch_rows": 5},
        leaks={"continuous": [[20, 24]], "burst_lph": 900, "meters": {"kaw-00000001": "shared"}},
        sources=[
            {"kind": "lines", "path": "-"},
            {"kind": "chirpstack", "application": "a", "broker": "mqtts://cs.example"},
            {"kind": "chirpstack", "name": "own"},
        ],
    )

    config = read_config(path, environment={"AQUACIS_CLOCK": "file:/c.json"})

    lines, far, own = config.sources
    assert lines == LinesConfig(name="lines-0", path="-")
    assert isinstance(far, ChirpStackConfig)
    assert (far.broker.address, far.broker.tls) == ("cs.example:8883", True)
    assert far.is_elsewhere
    assert isinstance(own, ChirpStackConfig)
    assert (own.broker, own.application) == (config.broker, "+")
    assert config.meters == frozenset({"KAW-53885758", "0013EA0001020304"})
    assert config.meter_offsets_us == {"0013EA0001020304": -25_200_000_000}
    assert config.clock_offset_us == 2_400_000_000
    assert config.thresholds.of("KAW-00000002").continuous == (Tier(lph=20, hours=24),)
    assert config.thresholds.of("KAW-00000001") == CLASSES["shared"]
    assert (config.profile, config.limit.bytes, config.limit.days) == ("lean", 64 << 20, 9)
    assert (config.limit.rows, config.pace.batch_rows, config.clock) == (10, 5, "system")


def test_receivers_and_network_servers_on_the_gateway_need_little_said(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        sources=[
            {"kind": "multitech"},
            {"kind": "imst", "path": "/dev/ttyUSB0", "mode": "C1B"},
            {"kind": "amber", "path": "/dev/ttyUSB1", "baud": 38400, "has_rssi": False},
        ],
    )

    conduit, stick, module = read_config(path).sources

    assert isinstance(conduit, MultiTechConfig)
    assert (conduit.broker.address, conduit.broker.user) == ("127.0.0.1:1883", "")
    assert stick == ImstConfig(name="imst-1", path="/dev/ttyUSB0", baud=57600, mode="C1B")
    assert module == AmberConfig(name="amber-2", path="/dev/ttyUSB1", baud=38400, has_rssi=False)


def test_printed_settings_keep_the_secrets(tmp_path: Path) -> None:
    printed = json.dumps(read_config(written(tmp_path)).printable())

    assert "s3cret" not in printed
    assert "norte" in printed


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"gateway": ...}, "gateway"),
        ({"gateway": "Norte!"}, "gateway"),
        ({"gateway": "n" * 33}, "gateway"),
        ({"broker": "http://x"}, "mqtt://"),
        ({"broker": ...}, "broker"),
        ({"state": ""}, "state"),
        ({"colour": "blue"}, "colour"),
        ({"pace": {"speed": 1}}, "speed"),
        ({"pace": {"batch_rows": 99999}}, "batch_rows"),
        ({"sources": [{"kind": "pigeon"}]}, "pigeon"),
        ({"sources": [{"kind": "lines"}]}, "path"),
        ({"sources": [{"kind": "lines", "path": "a", "name": "x"}] * 2}, "same name"),
        ({"sources": [{"kind": "lines", "path": "a", "mode": "C1B"}]}, "mode of lines"),
        ({"sources": [{"kind": "imst"}]}, "path"),
        ({"sources": [{"kind": "imst", "path": "/dev/ttyUSB0", "mode": "Z9"}]}, "C1B"),
        ({"sources": [{"kind": "amber", "path": "/dev/ttyUSB0", "baud": 1}]}, "9600"),
        ({"sources": [{"kind": "multitech", "broker": "http://x"}]}, "mqtt://"),
        ({"meter_clock_offsets_s": [1]}, "gateway.json"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read_config(written(tmp_path, **wrong))


@pytest.mark.parametrize("text", ["{", "[]", '"x"'])
def test_a_file_that_is_no_json_object_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gateway.json"
    path.write_text(text)

    with pytest.raises(ConfigError, match=r"gateway\.json"):
        read_config(path)
    with pytest.raises(ConfigError, match="No such file"):
        read_config(tmp_path / "absent.json")


@pytest.mark.parametrize("url", ["mqtt://", "x", "ws://host"])
def test_a_broker_is_named_by_its_url(url: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        broker_at(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://norte:s3cret@host",
        "mqtt:/norte:s3cret@host",
        "mqtt://norte:s3cret@host:port",
        "mqtt://norte:s3cret@host:99999",
        "mqtt://norte:s3cret@",
        "mqtt://norte:s3cret@[host",
        "mqtt://norte:s3cret/@host",
        "mqtt://norte:1883/s3cret@host",
        "mqtt://norte:1883#s3cret@host",
        "mqtt://norte:1883?s3cret@host",
        "mqtt://norte:s3cret@ho\u2100st",
        "norte:s3cret@host",
    ],
)
def test_a_malformed_broker_url_is_refused_without_its_password(tmp_path: Path, url: str) -> None:
    for settings in (
        {"broker": url},
        {"sources": [{"kind": "chirpstack", "broker": url}]},
    ):
        with pytest.raises(ConfigError, match="mqtt://host:port") as refused:
            read_config(written(tmp_path, **settings))
        assert "s3c" not in str(refused.value)
        assert refused.value.__cause__ is None


def test_the_credentials_of_a_broker_url_are_used_and_not_printed(tmp_path: Path) -> None:
    config = read_config(written(tmp_path, broker="mqtt://sur:oth3r@host:99/", password=...))

    assert (config.broker.user, config.broker.password) == ("sur", "oth3r")
    assert "oth3r" not in json.dumps(config.printable())


def keys_file(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    path = tmp_path / "keys.jsonl"
    path.write_text(text)
    path.chmod(mode)
    return path


KEY = "000102030405060708090a0b0c0d0e0f"


def test_keys_are_found_by_the_address_on_the_air(tmp_path: Path) -> None:
    line = json.dumps({"meter": "KAW-53885758", "key_hex": KEY})

    keys = read_keys(keys_file(tmp_path, line + "\n\n"))

    assert keys == {bytes.fromhex("372c58578853"): (bytes.fromhex(KEY),)}
    assert address_of("kaw-53885758") == bytes.fromhex("372c58578853")


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        json.dumps({"meter": "KAW-53885758"}),
        json.dumps({"meter": "KAW-1", "key_hex": KEY}),
        json.dumps({"meter": "KAW-53885758", "key_hex": KEY[2:]}),
        json.dumps({"meter": 5, "key_hex": KEY}),
        json.dumps([KEY]),
    ],
)
def test_a_key_line_that_cannot_be_read_is_named_without_its_key(tmp_path: Path, line: str) -> None:
    with pytest.raises(KeyFileUnusable) as refused:
        read_keys(keys_file(tmp_path, line))

    assert ":1" in str(refused.value)
    assert KEY[2:] not in str(refused.value)


def test_a_key_file_that_others_can_read_or_that_is_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFileUnusable, match="chmod 600"):
        read_keys(keys_file(tmp_path, "", 0o640))
    with pytest.raises(KeyFileUnusable, match="FileNotFoundError"):
        read_keys(tmp_path / "absent")


def set_clock(path: Path, *, sim_us: int, speed: float) -> None:
    text = json.dumps({"wall_us": time.time_ns() // 1000, "sim_us": sim_us, "speed": speed})
    replaced = path.with_suffix(".new")
    replaced.write_text(text)
    os.replace(replaced, path)


def test_a_file_clock_runs_at_its_speed_and_follows_its_file(tmp_path: Path) -> None:
    path = tmp_path / "clock.json"
    set_clock(path, sim_us=1_000_000_000_000, speed=1000)
    clock = FileClock(path, offset_us=7_000_000_000)

    begun = clock.ticks_us()
    time.sleep(0.05)
    passed = clock.ticks_us() - begun

    assert begun >= 1_000_000_000_000
    assert 50_000_000 <= passed < 5_000_000_000
    assert clock.now_us() - clock.ticks_us() == pytest.approx(7_000_000_000, abs=100_000_000)

    set_clock(path, sim_us=5_000_000_000_000_000, speed=1)
    time.sleep(0.25)
    assert clock.ticks_us() >= 5_000_000_000_000_000


def test_a_file_clock_goes_on_while_its_file_is_missing_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "clock.json"
    absent = FileClock(path)
    assert abs(absent.now_us() - time.time_ns() // 1000) < 10_000_000

    set_clock(path, sim_us=1_000, speed=1)
    clock = FileClock(path)
    path.write_text("{")
    time.sleep(0.25)
    assert 1_000 <= clock.now_us() < 10_000_000


def test_a_clock_is_named_by_its_setting(tmp_path: Path) -> None:
    assert isinstance(clock_from("system"), SystemClock)
    assert isinstance(clock_from(f"file:{tmp_path / 'c.json'}"), FileClock)
    ahead = clock_from("", offset_us=60_000_000).now_us() - time.time_ns() // 1000
    assert 59_000_000 < ahead < 61_000_000
    with pytest.raises(ValueError, match="file:<path>"):
        clock_from("sundial")


GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "gateway-sources.md"
EXAMPLES = re.findall(r"```json\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_of_the_guide_to_gateway_sources_is_taken(
    tmp_path: Path, example: str
) -> None:
    config = read_config(written(tmp_path, **json.loads(example)))

    assert config.sources
