"""What `up` refuses before it starts anything, and how it says so."""

from __future__ import annotations

import errno
from pathlib import Path

import psycopg
import pytest

from cloud.kernel.clock import ClockUnreadable
from cloud.kernel.config import ConfigurationInvalid
from cloud.kernel.db import MigrationChanged, SchemaIsNewer
from cloud.kernel.keyvault import UnwrapRefused, Wrapped
from cloud.kernel.postgres_errors import ServerFailed
from field_sim import broker, city, up
from field_sim.broker import BrokerFailed
from field_sim.progress import HistoryShown
from field_sim.sandbox import UpFailed
from field_sim.town import Plan

SEALED = Wrapped(kek_id="k", kek_version=1, sealed=b"nonce, ciphertext, tag")


def test_a_city_and_a_file_do_not_share_a_folder(tmp_path: Path) -> None:
    city.lay_down(tmp_path, Plan(seed=1, meters=4, first_h=0, end_h=9))
    up.require_same_kind(tmp_path, with_input=False)
    with pytest.raises(UpFailed, match="AQUACIS_STATE") as refused:
        up.require_same_kind(tmp_path, with_input=True)
    assert refused.value.code == "state_has_city"

    (tmp_path / "city.json").unlink()
    (tmp_path / "agents" / "norte").mkdir(parents=True)
    (tmp_path / "agents" / "norte" / "input.jsonl").touch()
    up.require_same_kind(tmp_path, with_input=True)
    with pytest.raises(UpFailed, match="AQUACIS_STATE") as refused:
        up.require_same_kind(tmp_path, with_input=False)
    assert refused.value.code == "state_has_input"


@pytest.mark.parametrize("content", ["", "{}", "[]"])
def test_a_damaged_city_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "city.json").write_text(content)

    with pytest.raises(UpFailed, match="dañado") as refused:
        up.known_city(tmp_path)

    assert refused.value.code == "city_unreadable"


@pytest.mark.parametrize(
    "gateway", ["cloud", "city", "", "Norte", "a/b", "a+", "x" * 33, "a\nuser b"]
)
def test_no_gateway_gets_more_than_its_own_topics(gateway: str) -> None:
    with pytest.raises(BrokerFailed) as refused:
        broker.accounts({gateway: "11111111-app"})
    assert refused.value.code == "gateway_invalid"

    with pytest.raises(BrokerFailed):
        broker.accounts({"norte": "+/device/#"})


def test_the_broker_is_chosen_by_name(tmp_path: Path) -> None:
    assert broker.chosen(None) is None
    assert broker.chosen("") is None
    assert broker.chosen("nats") == "nats"
    with pytest.raises(BrokerFailed, match="mosquitto o nats"):
        broker.chosen("emqx")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SchemaIsNewer("metering", ["0099_x.sql"]), "schema_differs"),
        (MigrationChanged("metering", "0001_metering.sql"), "schema_differs"),
        (UnwrapRefused(SEALED, "other key"), "key_refused"),
        (psycopg.OperationalError("connection refused"), "database_unavailable"),
        (OSError(errno.ENOSPC, "No space left", "/x"), "disk_full"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "system_refused"),
        (ClockUnreadable(Path("/x/clock.json"), "empty"), "clock_unreadable"),
        (ServerFailed("postgres does not stay up", "panic"), "postgres-fallo"),
        (ConfigurationInvalid(["AQUACIS_ENV: no"]), "configuration_invalid"),
        (UpFailed("port_taken", "el puerto"), "port_taken"),
    ],
)
def test_what_an_operator_can_mend_is_said_in_spanish_with_a_code(
    error: Exception, code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> int:
        raise error

    monkeypatch.setattr(up, "run", fails)
    monkeypatch.setattr(up.Signals, "install", lambda _: None)
    monkeypatch.setattr("os.umask", lambda _: 0)

    assert up.main([]) == 1
    assert f"[{code}]" in capsys.readouterr().err


class Given:
    """A sandbox whose database has been given up."""

    def __init__(self) -> None:
        self.platform = self
        self.failure = ServerFailed("postgres does not stay up", "panic")


def test_a_database_that_was_given_up_ends_it_all(tmp_path: Path) -> None:
    sandbox, shown = Given(), HistoryShown(tmp_path / "city.json", total_h=1)

    with pytest.raises(ServerFailed):
        up.watch(sandbox, shown)  # type: ignore[arg-type]  # all that it looks at
