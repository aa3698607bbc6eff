"""The tap as part of an agent: its settings, the keys it is handed, and what a restart keeps."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from decoders.encode import encode_lorawan_hourly
from decoders.ids import dev_eui_text
from decoders.lorawan.security import session_1_0
from edge_agent.checkpoints import of_sources
from edge_agent.clock import SystemClock
from edge_agent.config import Config, read_config
from edge_agent.gateway_keys import open_keys
from edge_agent.keys import KeyFileUnusable, lorawan_said
from edge_agent.lorawan_handover import handover
from edge_agent.lorawan_memory import name_of
from edge_agent.lorawan_sessions import MAX_GAP
from edge_agent.settings_text import ConfigError
from edge_agent.source_configs import GwmpConfig
from edge_agent.sources.gwmp_relay import Endpoint
from edge_agent.wiring import agent_of, open_outbox
from tests.gwmp_ends import LOOPBACK, SOON_S, port_of, udp
from tests.radio import Device, key, push_data, rxpk

EUI = 0x70B3D54990000001


def settings(tmp_path: Path, *sources: dict[str, Any], **more: Any) -> Config:
    path = tmp_path / "gateway.json"
    said = {
        "gateway": "norte",
        "broker": f"mqtt://{LOOPBACK}:1",
        "state": str(tmp_path / "state"),
        "sources": [{"kind": "gwmp", **source} for source in sources],
        **more,
    }
    path.write_text(json.dumps(said))
    return read_config(path)


def write_keys(path: Path, device: Device) -> None:
    line = {"meter": dev_eui_text(device.dev_eui), "lorawan": lorawan_said(device.handed_over())}
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(line))
    fresh.chmod(0o600)
    fresh.replace(path)


def test_the_shortest_settings_listen_on_loopback_at_the_usual_port(tmp_path: Path) -> None:
    (source,) = settings(tmp_path, {"server": "ns.example"}).sources

    assert source == GwmpConfig(
        name="gwmp-0",
        listen=Endpoint(host="127.0.0.1", port=1700),
        server=Endpoint(host="ns.example", port=1700),
        region="us915",
        idle_s=300.0,
        gap=MAX_GAP,
    )


def test_every_setting_is_read(tmp_path: Path) -> None:
    said = {
        "name": "kerlink",
        "listen": "0.0.0.0:1680",
        "server": "[2001:db8::1]:1681",
        "region": "au915",
        "idle_s": 600,
        "max_counter_gap": 16_384,
    }

    (source,) = settings(tmp_path, said).sources

    assert source == GwmpConfig(
        name="kerlink",
        listen=Endpoint(host="0.0.0.0", port=1680),
        server=Endpoint(host="2001:db8::1", port=1681),
        region="au915",
        idle_s=600.0,
        gap=16_384,
    )


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"server": ...}, "server"),
        ({"server": "x:y"}, "host:port"),
        ({"listen": "127.0.0.1:99999"}, "host:port"),
        ({"listen": "ns.example:1700"}, "the tap itself"),
        ({"region": "mars"}, "region"),
        ({"idle_s": 5}, "idle_s"),
        ({"idle_s": "long"}, "long"),
        ({"max_counter_gap": 0}, "max_counter_gap"),
        ({"max_counter_gap": MAX_GAP + 1}, "max_counter_gap"),
        ({"max_counter_gap": True}, "max_counter_gap"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(
    tmp_path: Path, changed: dict[str, Any], says: str
) -> None:
    said = {k: v for k, v in {"server": "ns.example", **changed}.items() if v is not ...}

    with pytest.raises(ConfigError, match=says):
        settings(tmp_path, said)


def test_one_tap_serves_all_packet_forwarders(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one gwmp tap"):
        settings(tmp_path, {"server": "a"}, {"server": "b", "listen": "127.0.0.1:1701"})


def test_a_key_file_is_read_again_when_it_is_another_one(tmp_path: Path) -> None:
    device, path = Device(dev_eui=EUI), tmp_path / "keys.jsonl"
    write_keys(path, device)
    config = settings(tmp_path, {"server": "ns.example"}, keys=str(path))
    handed = handover(config, open_keys(config), {})

    assert [given.dev_addr for given in handed.keys] == [device.dev_addr]
    assert handed.new_keys() is None
    device.dev_addr = 0x01AA0001
    write_keys(path, device)
    changed = handed.new_keys()
    assert changed is not None
    assert [given.dev_addr for given in changed] == [0x01AA0001]
    assert handed.new_keys() is None
    path.unlink()
    assert handed.new_keys() is None


def test_a_key_file_that_went_bad_is_complained_of_once(tmp_path: Path) -> None:
    device, path = Device(dev_eui=EUI), tmp_path / "keys.jsonl"
    write_keys(path, device)
    config = settings(tmp_path, {"server": "ns.example"}, keys=str(path))
    handed = handover(config, open_keys(config), {})
    path.write_text("{}")

    with pytest.raises(KeyFileUnusable):
        handed.new_keys()
    assert handed.new_keys() is None


@contextmanager
def running(config: Config) -> Iterator[None]:
    """An agent at work in a thread; stopped as SIGTERM stops it."""
    agent = agent_of(config, log=lambda _event, **_said: None)
    thread = threading.Thread(target=agent.run)
    thread.start()
    try:
        yield
    finally:
        agent.stop()
        thread.join(SOON_S + 10)
        assert not thread.is_alive()


def test_counters_are_committed_with_the_rows_and_known_after_a_restart(tmp_path: Path) -> None:
    device = Device(dev_eui=EUI, session=session_1_0(nwk_s_key=key(5), app_s_key=key(6)))
    write_keys(tmp_path / "keys.jsonl", device)
    with udp() as server, udp() as forwarder:
        with udp() as free:
            port = port_of(free)
        config = settings(
            tmp_path,
            {"listen": f"{LOOPBACK}:{port}", "server": f"{LOOPBACK}:{port_of(server)}"},
            keys=str(tmp_path / "keys.jsonl"),
        )
        payloads = [
            encode_lorawan_hourly([100 + n, 100], local_us=1_772_452_800_000_000) for n in (1, 2)
        ]
        first = push_data(rxpk(device.uplink(payloads[0], port=1)))
        second = push_data(rxpk(device.uplink(payloads[1], port=1)))
        for datagrams in ([first], [first, second]):
            with running(config):
                for datagram in datagrams:
                    passed(forwarder, server, datagram, port)
                time.sleep(0.2)

    outbox = open_outbox(config, SystemClock())
    rows = [row for row in outbox.read(1, rows=100, max_bytes=1 << 20) if row.radio == EUI]
    memory = of_sources(outbox)
    outbox.close()
    assert [row.payload for row in rows] == payloads
    assert [row.counter for row in rows] == [0, 1]
    assert list(memory) == [name_of(EUI)]
    assert key(5) not in memory[name_of(EUI)]


def passed(forwarder: Any, server: Any, datagram: bytes, port: int) -> None:
    """Send until the tap stands and passes it on."""
    server.settimeout(0.1)
    end = time.monotonic() + SOON_S
    while time.monotonic() < end:
        forwarder.sendto(datagram, (LOOPBACK, port))
        try:
            assert server.recv(65_535) == datagram
        except TimeoutError:
            continue
        return
    raise AssertionError("the tap does not listen")
