"""A second administration is configuration: no code, no migration, no restart of the first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from fastapi.testclient import TestClient

from cloud import app as composition
from cloud.kernel import config
from cloud.kernel.auth.principal import Role
from cloud.kernel.auth.users import User
from cloud.kernel.clock import to_us
from cloud.kernel.db import Database
from cloud.kernel.platform import Platform
from cloud.metering.service import Metering
from decoders.encode import encode_lorawan_hourly
from decoders.uplink import Batch, Row, RowFlag, RowKind, encode_batch, pack_rows

HOUR = datetime(2026, 11, 20, 18, tzinfo=UTC)
FIRST = """
[administrations.queretaro]
name = "Querétaro"
[gateways.gw-queretaro]
administration = "queretaro"
"""
SECOND = """
[administrations.corregidora]
name = "Corregidora"
meter_clock_offset_s = 0
[gateways.gw-corregidora]
administration = "corregidora"
"""


@contextmanager
def started(database: Database, state: Path, toml: str) -> Iterator[Platform]:
    """Start the platform on a configuration file, its gateways registered as at every start."""
    file = state / "aquacis.toml"
    file.write_text(toml)
    given = {"AQUACIS_STATE": str(state), "AQUACIS_CONFIG": str(file), "AQUACIS_HTTP_PORT": "8080"}
    platform = composition.assemble(config.load(state, given), database)
    try:
        with Metering.on(platform) as metering:
            metering.register_gateways(platform.settings.gateways)
        yield platform
    finally:
        platform.close()


def hear(platform: Platform, gateway: str, eui: int, *, offset_s: int) -> None:
    """Let a gateway report a meter that nobody registered."""
    local_us = to_us(HOUR) + offset_s * 1_000_000
    row = Row(
        seq=1,
        heard_at=to_us(HOUR),
        kind=RowKind.LORAWAN,
        flags=RowFlag.NETWORK_CHECKED,
        payload=encode_lorawan_hourly([1_000, 990], local_us=local_us),
        radio=eui,
        port=2,
    )
    batch = Batch(
        gateway=gateway,
        stream=eui.to_bytes(16, "big"),
        rows=pack_rows([row]),
        sent_at=to_us(HOUR),
        started_at=to_us(HOUR),
        head=1,
        head_at=to_us(HOUR),
    )
    with Metering.on(platform) as metering:
        assert metering.ingest(encode_batch(batch), gateway, to_us(HOUR)) is not None


def seen(platform: Platform, path: str, *administrations: str) -> list[dict[str, Any]]:
    """Return what somebody of these administrations is shown."""
    assert platform.issuer is not None
    user = User(
        user_id=uuid4(),
        name="alguien",
        roles=(Role.NETWORK.value,),
        administrations=administrations,
    )
    bearer = {"Authorization": f"Bearer {platform.issuer.access_token(user)}"}
    client = TestClient(composition.create_app(platform), base_url="http://127.0.0.1:8080")
    answer = client.get(path, headers=bearer)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def names(items: list[dict[str, Any]]) -> list[str]:
    return [item["name"] for item in items]


def test_routes_serve_a_second_administration_by_configuration_alone(
    database: Database, tmp_path: Path
) -> None:
    with started(database, tmp_path, FIRST) as platform:
        hear(platform, "gw-queretaro", 0x0013EA0000000001, offset_s=-21_600)
        assert names(seen(platform, "/api/v1/meters", "*")) == ["0013EA0000000001"]
        assert seen(platform, "/api/v1/meters", "corregidora") == []  # a word without meaning

    with started(database, tmp_path, FIRST + SECOND) as platform:
        hear(platform, "gw-corregidora", 0x0013EA0000000002, offset_s=0)

        first = seen(platform, "/api/v1/meters", "queretaro")
        second = seen(platform, "/api/v1/meters", "corregidora")
        assert names(first) == ["0013EA0000000001"]
        assert names(second) == ["0013EA0000000002"]
        assert len(seen(platform, "/api/v1/meters", "*")) == 2
        assert [g["id"] for g in seen(platform, "/api/v1/gateways", "corregidora")] == [
            "gw-corregidora"
        ]
        # Each administration's meters have their own clock: both registers are of the same hour.
        for item, code in ((first[0], "queretaro"), (second[0], "corregidora")):
            span = "from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z"
            path = f"/api/v1/meters/{item['meter_key']}/readings?{span}"
            readings = seen(platform, path, code)
            assert readings[-1]["at"].startswith("2026-11-20T18:00:00")
            assert readings[-1]["register_l"] == 1_000
