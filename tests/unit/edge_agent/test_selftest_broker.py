"""`selftest --broker`: what it says of brokers that take this gateway, and of those that do not."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent import __main__ as cli


def selftest(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code = cli.main(["selftest", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


@pytest.fixture
def broker() -> Iterator[tuple[str, list[bytes]]]:
    """A broker that answers as told: the bytes after each packet that it gets."""
    answers: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                for answer in answers:
                    if not connection.recv(4096):
                        return
                    connection.sendall(answer)
                connection.settimeout(10)
                try:
                    connection.recv(4096)
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"mqtt://127.0.0.1:{server.getsockname()[1]}", answers
        server.close()
        thread.join(5)


CONNECTED = b"\x20\x02\x00\x00"
NOT_AUTHORISED = b"\x20\x02\x00\x05"
GRANTED = b"\x90\x03\x00\x01\x01"
REFUSED = b"\x90\x03\x00\x01\x80"


def test_a_broker_that_takes_this_gateway_passes(
    broker: tuple[str, list[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    url, answers = broker
    answers += [CONNECTED, GRANTED]

    code, said = selftest(capsys, "--broker", url, "--gateway", "norte")

    assert code == 0
    assert said["checks"]["broker"] == "ok"
    assert said["with"]["broker"] == "without TLS"


@pytest.mark.parametrize(
    ("given", "reason"),
    [([NOT_AUTHORISED], "Not authorized"), ([CONNECTED, REFUSED], "access rules")],
)
def test_a_broker_that_refuses_it_is_quoted(
    broker: tuple[str, list[bytes]],
    capsys: pytest.CaptureFixture[str],
    given: list[bytes],
    reason: str,
) -> None:
    url, answers = broker
    answers += given

    code, said = selftest(capsys, "--broker", url, "--gateway", "norte")

    assert code == 1
    assert said["checks"]["broker"].startswith("BrokerRefused: ")
    assert reason in said["checks"]["broker"]
    assert said["checks"]["aes"] == "ok"


def test_a_broker_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"

    code, said = selftest(capsys, "--broker", f"mqtt://{address}")

    assert code == 1
    assert address in said["checks"]["broker"]


def test_the_settings_name_the_broker_and_the_gateway(
    broker: tuple[str, list[bytes]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    url, answers = broker
    answers += [CONNECTED, GRANTED]
    config = tmp_path / "gateway.json"
    config.write_text(json.dumps({"gateway": "sur", "broker": url, "state": str(tmp_path)}))

    assert selftest(capsys, "--config", str(config))[0] == 0


def test_a_broker_that_cannot_be_meant_is_wrong_settings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["selftest", "--broker", "http://nowhere"]) == cli.EXIT_CONFIG
    assert "settings_wrong" in capsys.readouterr().err
