"""Settings: where they come from, what is refused, what is never shown."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from cloud.kernel import config
from cloud.kernel.config import ConfigurationInvalid

PRODUCTION = {
    "AQUACIS_ENV": "production",
    "AQUACIS_STATE": "/var/lib/aquacis",
    "AQUACIS_DATABASE_URL": "postgresql://aquacis:hunter2-hunter2@db.example/aquacis?sslmode=verify-full",
    "AQUACIS_BROKER_URL": "mqtts://broker.example:8883",
    "AQUACIS_ISSUER": "https://id.example/realms/aquacis",
    "AQUACIS_KEK_FILE": "/etc/aquacis/kek.json",
    "AQUACIS_PUBLIC_URL": "https://agua.example",
}


def load(tmp_path: Path, **variables: str) -> config.Settings:
    named = {f"AQUACIS_{name.upper()}": text for name, text in variables.items()}
    return config.load(tmp_path, {"AQUACIS_STATE": str(tmp_path), **named})


def test_nothing_set_gives_a_laptop_with_one_administration(tmp_path: Path) -> None:
    settings = load(tmp_path)

    assert settings.env == "development"
    assert settings.administration_codes == ("queretaro",)
    assert settings.administrations[0].meter_clock_offset_s == -21_600
    assert settings.local_issuer


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "aquacis.toml"
    file.write_text('http_port = 8080\naudience = "from-the-file"\n')

    settings = load(tmp_path, config=str(file), http_port="9090")

    assert (settings.http_port, settings.audience) == (9090, "from-the-file")


def test_administrations_and_gateways_are_tables_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "aquacis.toml"
    file.write_text(
        '[administrations.queretaro]\nname = "Querétaro"\n'
        '[administrations.corregidora]\nname = "Corregidora"\nmeter_clock_offset_s = 0\n'
        '[gateways.gw-cerro]\nadministration = "corregidora"\nexpected_per_hour = 190\n'
    )

    settings = load(tmp_path, config=str(file))

    assert settings.administration_codes == ("queretaro", "corregidora")
    assert settings.administrations[1].meter_clock_offset_s == 0
    assert settings.gateways[0].id == "gw-cerro"
    assert settings.gateways[0].expected_per_hour == 190


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "aquacis.toml"
    file.write_text('colour = "blue"\n[gateways.gw-1]\nadministration = "nowhere"\n')

    with pytest.raises(ConfigurationInvalid) as refused:
        load(tmp_path, config=str(file), http_port="eighty", env="staging", broker_embedded="maybe")

    told = "\n".join(refused.value.reasons)
    for fault in ("colour", "HTTP_PORT", "ENV", "BROKER_EMBEDDED"):
        assert fault in told


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"http_port": "70000"}, "70000"),
        ({"clock": "sundial"}, "sundial"),
        ({"issuer": "ldap://x"}, "ldap"),
        ({"administrations": '{"*": {"name": "todas"}}'}, "no puede ser un código"),
        ({"administrations": "{}"}, "al menos una"),
        ({"administrations": '["queretaro"]'}, "una tabla para cada uno"),
        ({"administrations": '{"a": {"colour": "blue"}}'}, "colour"),
        ({"gateways": '{"gw-1": {"administration": "nowhere"}}'}, "nowhere no está configurada"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, variables: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigurationInvalid, match=r".*") as refused:
        load(tmp_path, **variables)

    assert told in str(refused.value)


def test_a_file_that_is_not_there_or_not_toml_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("= = =")

    for path in (broken, tmp_path / "missing.toml"):
        with pytest.raises(ConfigurationInvalid, match=path.name):
            load(tmp_path, config=str(path))


def test_settings_do_not_change_after_the_start(tmp_path: Path) -> None:
    with pytest.raises(FrozenInstanceError):
        load(tmp_path).http_port = 1  # type: ignore[misc]  # that it is refused is the test


def test_secrets_are_masked_when_shown(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        database_url="postgresql://aquacis:planted-one@db/aquacis",
        broker_password="planted-two",
        metrics_token="planted-three",
    )

    shown = json.dumps(config.shown(settings))

    assert "planted" not in shown
    assert "planted" not in repr(settings)
    assert "postgresql://aquacis:***@db/aquacis" in shown
    for secret in ("planted-one", "planted-two", "planted-three"):
        assert secret in config.secrets_of(settings)


@pytest.mark.parametrize(
    "url",
    ["mqtts://u:s3cret@h:1", "mqtts://u:s3cret@h:1/", "mqtts://u:s3c%72et@h:1"],
)
def test_the_credentials_of_a_broker_url_are_used_and_not_shown(tmp_path: Path, url: str) -> None:
    settings = load(tmp_path, broker_url=url)

    assert (settings.broker_user, settings.broker_password) == ("u", "s3cret")
    assert settings.broker_url == "mqtts://h:1"
    assert "s3cret" not in json.dumps(config.shown(settings)) + repr(settings)
    assert "s3cret" in config.secrets_of(settings)


def test_a_broker_url_beside_its_credentials_agrees_with_them(tmp_path: Path) -> None:
    same = load(tmp_path, broker_url="mqtt://u@h:1", broker_user="u", broker_password="p-word")
    assert (same.broker_url, same.broker_user, same.broker_password) == (
        "mqtt://h:1",
        "u",
        "p-word",
    )

    with pytest.raises(ConfigurationInvalid) as refused:
        load(tmp_path, broker_url="mqtt://u:s3cret@h:1", broker_user="v", broker_password="p-word")

    told = "\n".join(refused.value.reasons)
    assert "AQUACIS_BROKER_USER" in told
    assert "AQUACIS_BROKER_PASSWORD" in told
    assert not [secret for secret in ("s3cret", "p-word") if secret in told]


@pytest.mark.parametrize(
    "url",
    [
        "http://u:s3cret@h:1",
        "u:s3cret@h:1",
        "mqtt://u:s3cret@h:eighty",
        "mqtt://u:s3cret@",
        "mqtt://h:1/s3cret",
        "mqtt://h:1?s3cret",
        "mqtt://u:s3cret@[h",
    ],
)
def test_a_malformed_broker_url_is_refused_without_showing_it(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigurationInvalid, match="AQUACIS_BROKER_URL: mqtt://") as refused:
        load(tmp_path, broker_url=url)

    assert "s3c" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("issuer", "https://u:s3cret@id.example/realms/aquacis"),
        ("public_url", "https://u:s3cret@agua.example"),
        ("database_url", "postgresql://u:s3cret@db.example/aquacis"),
        ("database_url", "postgresql://u@db.example/aquacis?sslmode=require&password=s3cret"),
        ("database_url", "host=db.example user=u password='s3cret'"),
    ],
)
def test_the_password_in_any_url_is_masked(tmp_path: Path, name: str, url: str) -> None:
    settings = load(tmp_path, **{name: url})

    assert "s3cret" not in json.dumps(config.shown(settings))
    assert "s3cret" in config.secrets_of(settings)


def test_a_database_url_that_is_none_is_refused_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match="AQUACIS_DATABASE_URL: postgresql") as refused:
        load(tmp_path, database_url="s3cret")

    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "url", "part"),
    [
        ("AQUACIS_ISSUER", "http://id.example/realms/aquacis", "plain_issuer"),
        ("AQUACIS_DATABASE_URL", "postgresql://u:p@db.example/aquacis", "plain_database"),
        ("AQUACIS_DATABASE_URL", "postgresql://u:p@db/a?sslmode=prefer", "plain_database"),
        ("AQUACIS_DATABASE_URL", "host=127.0.0.1,db.example user=u", "plain_database"),
        ("AQUACIS_DATABASE_URL", "host=localhost hostaddr=10.0.0.1", "plain_database"),
        ("AQUACIS_DATABASE_URL", "postgresql://u:p@10.0.0.1/a", "plain_database"),
        ("AQUACIS_BROKER_URL", "mqtt://broker.example:1883", "plain_broker"),
    ],
)
def test_production_refuses_what_is_not_encrypted(
    tmp_path: Path, variable: str, url: str, part: str
) -> None:
    with pytest.raises(ConfigurationInvalid) as refused:
        config.refuse_sandbox(config.load(tmp_path, {**PRODUCTION, variable: url}))

    (reason,) = refused.value.reasons
    assert part in reason
    assert variable in reason


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@db.example/aquacis?sslmode=require",
        "postgresql://u:p@127.0.0.1:5432/aquacis",
        "postgresql://u:p@[::1]/aquacis",
        "postgresql://u:p@localhost/aquacis",
        "postgresql:///aquacis?host=/run/postgresql",
        "dbname=aquacis",
    ],
)
def test_a_database_on_this_machine_or_with_tls_is_fit_for_production(
    tmp_path: Path, url: str
) -> None:
    config.refuse_sandbox(config.load(tmp_path, {**PRODUCTION, "AQUACIS_DATABASE_URL": url}))


def test_production_s_database_is_where_libpq_will_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config.load(tmp_path, {**PRODUCTION, "AQUACIS_DATABASE_URL": "dbname=aquacis"})
    monkeypatch.setenv("PGHOST", "db.example")

    with pytest.raises(ConfigurationInvalid, match="plain_database"):
        config.refuse_sandbox(settings)


def test_production_starts_without_a_sandbox_part(tmp_path: Path) -> None:
    config.refuse_sandbox(config.load(tmp_path, PRODUCTION))


@pytest.mark.parametrize(
    ("without", "part"),
    [
        ("AQUACIS_ISSUER", "local_issuer"),
        ("AQUACIS_DATABASE_URL", "embedded_database"),
        ("AQUACIS_BROKER_URL", "plain_broker"),
        ("AQUACIS_KEK_FILE", "invented_key"),
        ("AQUACIS_PUBLIC_URL", "plain_http"),
    ],
)
def test_production_refuses_each_sandbox_part(tmp_path: Path, without: str, part: str) -> None:
    given = {name: text for name, text in PRODUCTION.items() if name != without}

    with pytest.raises(ConfigurationInvalid) as refused:
        config.refuse_sandbox(config.load(tmp_path, given))

    (reason,) = refused.value.reasons
    assert part in reason
    assert without in reason  # what to set instead


def test_production_lists_all_sandbox_parts_of_a_laptop(tmp_path: Path) -> None:
    settings = load(tmp_path, env="production", clock="file:/tmp/clock.json")

    with pytest.raises(ConfigurationInvalid) as refused:
        config.refuse_sandbox(settings)

    assert len(refused.value.reasons) == 6


def test_the_public_address_is_what_browsers_use(tmp_path: Path) -> None:
    assert load(tmp_path, http_port="8080").base_url == "http://127.0.0.1:8080"
    assert load(tmp_path, http_host="::1", http_port="8080").base_url == "http://[::1]:8080"
    assert load(tmp_path, public_url="https://agua.example/").base_url == "https://agua.example"


def test_a_command_beside_up_reads_what_up_left_unless_told_otherwise(tmp_path: Path) -> None:
    (tmp_path / "up.toml").write_text('clock = "file:/city/clock.json"\nhttp_port = 8080\n')
    other = tmp_path / "other.toml"
    other.write_text("http_port = 9090\n")

    assert load(tmp_path).clock == "file:/city/clock.json"
    assert load(tmp_path, http_port="7070").http_port == 7070
    assert load(tmp_path, config=str(other)).clock == "system"


def test_unknown_meters_are_made_or_refused_and_nothing_else(tmp_path: Path) -> None:
    assert load(tmp_path).unknown_meters == "provisional"
    assert load(tmp_path, unknown_meters="refuse").unknown_meters == "refuse"
    with pytest.raises(ConfigurationInvalid, match="UNKNOWN_METERS"):
        load(tmp_path, unknown_meters="ignore")
