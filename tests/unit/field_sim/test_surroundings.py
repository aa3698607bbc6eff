"""A process is told what it needs, and no secret of another."""

from __future__ import annotations

from pathlib import Path

from cloud.kernel import config
from field_sim.surroundings import bare, toml

YOURS = {
    "PATH": "/bin",
    "LC_ALL": "C.UTF-8",
    "AQUACIS_BROKER_PASSWORD": "of the cloud",
    "AQUACIS_DATABASE_URL": "postgresql://u:p@server/db",
    "SOME_TOKEN": "yours",
}


def test_what_we_inherited_stays_with_us_but_for_what_any_program_needs() -> None:
    assert bare({"A": "1"}, YOURS) == {"PATH": "/bin", "LC_ALL": "C.UTF-8", "A": "1"}


def test_a_command_beside_up_is_told_what_the_cloud_was_told(tmp_path: Path) -> None:
    variables = {
        "AQUACIS_STATE": str(tmp_path),
        "AQUACIS_CLOCK": 'file:/a "quoted" ñandú/clock.json',
        "AQUACIS_HTTP_PORT": "8123",
        "AQUACIS_BROKER_EMBEDDED": "true",
        "AQUACIS_BROKER_PASSWORD": "secret",
        "SOME_TOKEN": "yours",
    }
    tables = ["[administrations.queretaro]", 'name = "Querétaro"']
    (tmp_path / config.UP_FILE).write_text(toml(variables, tables))

    beside = config.load(tmp_path, {"AQUACIS_STATE": str(tmp_path)})

    assert beside.clock == variables["AQUACIS_CLOCK"]
    assert (beside.http_port, beside.broker_embedded) == (8123, True)
    assert beside.broker_password == "secret"
    assert beside.administration_codes == ("queretaro",)
    assert "yours" not in (tmp_path / config.UP_FILE).read_text()
