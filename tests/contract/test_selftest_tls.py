"""`selftest` against a real mosquitto with mutual TLS."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from edge_agent import __main__ as cli
from release.arm.tls_broker import ECHO_TOPIC, GATEWAY, tls_broker

NOW = datetime.datetime.now(datetime.UTC)


@pytest.mark.real_part("mosquitto")
def test_a_message_comes_back_through_mutual_tls_and_a_stranger_is_kept_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with tls_broker(tmp_path, now=NOW) as broker:
        known = ["--broker", broker.url, "--ca-file", str(broker.ca_file), "--gateway", GATEWAY]
        proof = ["--cert-file", str(broker.cert_file), "--key-file", str(broker.key_file)]

        assert cli.main(["selftest", "--json", *known, *proof, "--echo", ECHO_TOPIC]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["with"]["broker"].startswith("TLSv1.3 ")

        assert cli.main(["selftest", "--json", *known]) == 1
        stranger = json.loads(capsys.readouterr().out)["checks"]["broker"]
        assert "certificate required" in stranger.lower()

        assert cli.main(["selftest", "--json", "--broker", broker.url, *proof]) == 1
        untrusted = json.loads(capsys.readouterr().out)["checks"]["broker"]
        assert "certificate verify failed" in untrusted
