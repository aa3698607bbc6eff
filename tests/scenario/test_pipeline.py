"""The picture of the flow says of each stage what is known of that stage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cloud import flow
from cloud.kernel.clock import to_us
from cloud.kernel.config import GatewayConfig
from cloud.kernel.postgres_bus import PostgresBus
from cloud.metering.service import Metering
from cloud.operations import picture
from decoders.encode import encode_lorawan_hourly
from decoders.uplink import Batch, Row, RowFlag, RowKind, encode_batch, pack_rows
from tests.scenario.conftest import ADMINISTRATION, Api

GATEWAY = "gw-1"


def say(api: Api, *, at: datetime, heard: int, rows: list[Row], head: int) -> None:
    batch = Batch(
        gateway=GATEWAY,
        stream=bytes(16),
        rows=pack_rows(rows),
        sent_at=to_us(at),
        started_at=to_us(at),
        head=head,
        head_at=to_us(at),
        health={"heard": heard, "note": "text is for the agent's own log"},
    )
    with Metering.on(api.platform) as metering:
        metering.register_gateways([GatewayConfig(id=GATEWAY, administration=ADMINISTRATION)])
        assert metering.ingest(encode_batch(batch), GATEWAY, to_us(at))


def profile(seq: int, at: datetime) -> Row:
    hour = at.replace(minute=0, second=0, microsecond=0)
    payload = encode_lorawan_hourly([120, 100], local_us=to_us(hour) - 6 * 3_600_000_000)
    return Row(
        seq=seq,
        heard_at=to_us(at),
        kind=RowKind.LORAWAN,
        flags=RowFlag.NETWORK_CHECKED,
        radio=0x0013EA0000000001,
        counter=seq,
        port=2,
        payload=payload,
    )


def stages(api: Api) -> dict[str, dict[str, Any]]:
    return {stage["id"]: stage for stage in api.get("/pipeline")["stages"]}


def test_nothing_is_called_fine_before_anything_came(api: Api) -> None:
    shown = stages(api)

    assert [name for name, stage in shown.items() if stage["ok"]] == ["alerts"]


def test_telegrams_that_the_gateway_kept_to_itself_were_heard_all_the_same(api: Api) -> None:
    now = datetime.now(UTC)
    say(api, at=now, heard=500, rows=[profile(1, now)], head=1)
    say(api, at=now, heard=900, rows=[], head=1)
    say(api, at=now, heard=40, rows=[], head=1)  # its process began anew

    shown = api.get("/pipeline")

    assert shown["telegrams_total"] == 940
    assert shown["readings_total"] == 2
    assert {stage["id"]: stage["total"] for stage in shown["stages"]}["intake"] == 1
    assert all(stage["ok"] for stage in shown["stages"])


def test_rows_that_wait_on_a_gateway_make_the_agent_late(api: Api) -> None:
    now = datetime.now(UTC)
    say(api, at=now - timedelta(hours=1), heard=1, rows=[profile(1, now)], head=1)
    say(api, at=now, heard=9, rows=[], head=9)

    agent = stages(api)["agent"]

    assert agent["total"] == 8
    assert 0 <= agent["lag_s"] <= 2 * 3600


def test_events_that_wait_make_the_alerts_late_and_then_not(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    bus = PostgresBus(api.platform.database, api.platform.blobs, sources=flow.SOURCES)
    say(api, at=now, heard=1, rows=[profile(1, now)], head=1)
    bus.run_once(flow.subscriptions(api.platform))
    assert stages(api)["alerts"]["lag_s"] == 0
    later = now + timedelta(hours=1)
    say(api, at=now, heard=2, rows=[profile(2, later - timedelta(hours=3))], head=2)
    monkeypatch.setattr(picture, "SILENT_S", 0)

    waiting = stages(api)["alerts"]
    bus.run_once(flow.subscriptions(api.platform))

    assert waiting["lag_s"] > 0
    assert not waiting["ok"]
    assert stages(api)["alerts"]["lag_s"] == 0
