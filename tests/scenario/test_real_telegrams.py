"""Telegrams of real Kamstrup meters become the right litres, and are explained from their bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cloud.kernel.clock import to_us
from cloud.kernel.config import GatewayConfig
from cloud.metering.registry import NewMeter
from cloud.metering.service import Metering
from decoders.uplink import Ack, Batch, Row, RowFlag, RowKind, decode_ack, encode_batch, pack_rows
from tests.scenario.conftest import ADMINISTRATION, Api

pytestmark = pytest.mark.xdist_group("real telegrams")

VECTORS = Path(__file__).parents[1] / "vectors"
WMBUS = json.loads((VECTORS / "telegrams" / "kamstrup_water.json").read_text())["vectors"]
LORAWAN = json.loads((VECTORS / "lorawan" / "kamstrup_water.json").read_text())["vectors"]

NOW = datetime(2026, 11, 20, 18, 0, 30, tzinfo=UTC)
FIRST_HOUR = datetime(2026, 11, 1, 6, tzinfo=UTC)
OFFSET = timedelta(hours=-6)  # what the meters' clocks show, minus UTC
GATEWAY = "gw-1"
PRIVATE_EUI = 0x0013EA00_00000000


def own_hour(index: int) -> datetime:
    return FIRST_HOUR + timedelta(hours=index, minutes=7)


def wmbus_rows() -> list[Row]:
    rows: list[Row] = []
    for index, vector in enumerate(WMBUS):
        heard_at = to_us(own_hour(index))
        decrypted = RowFlag.ALREADY_DECRYPTED if vector["kept_decrypted"] else RowFlag(0)
        frames = [(frame, RowFlag.TEACHES_FORMAT) for frame in vector["heard_before"]]
        for frame, flag in [*frames, (vector["frame"], RowFlag(0))]:
            rows.append(
                Row(
                    seq=len(rows) + 1,
                    heard_at=heard_at,
                    kind=RowKind.WMBUS,
                    flags=decrypted | flag,
                    payload=bytes.fromhex(frame),
                )
            )
    return rows


def lorawan_rows(first_seq: int) -> list[Row]:
    return [
        Row(
            seq=first_seq + index,
            heard_at=to_us(own_hour(index)),
            kind=RowKind.LORAWAN,
            flags=RowFlag.NETWORK_CHECKED,
            radio=PRIVATE_EUI + index,
            counter=index,
            port=vector["port"],
            payload=bytes.fromhex(vector["payload"]),
        )
        for index, vector in enumerate(LORAWAN)
        if not vector.get("refused")
    ]


def said(metering: Metering, rows: list[Row], *, head: int) -> Ack:
    batch = Batch(
        gateway=GATEWAY,
        stream=bytes(16),
        rows=pack_rows(rows),
        sent_at=to_us(NOW),
        started_at=to_us(FIRST_HOUR),
        head=head,
        echo_cloud_at=to_us(NOW) - 1000,
        echo_age_us=900,
    )
    answer = metering.ingest(encode_batch(batch), GATEWAY, to_us(NOW))
    assert answer is not None
    return decode_ack(answer)


@pytest.fixture(scope="module")
def heard(module_api: Api) -> Api:
    api = module_api
    rows = wmbus_rows()
    rows += lorawan_rows(len(rows) + 1)
    rows = [replace(row, seq=seq) for seq, row in enumerate(rows, start=1)]
    keys = list(dict.fromkeys((v["meter"], v["key"]) for v in WMBUS if v["key"]))
    with Metering.on(api.platform) as metering:
        metering.register_gateways([GatewayConfig(id=GATEWAY, administration=ADMINISTRATION)])
        metering.import_meters(
            [
                NewMeter(name=name, administration=ADMINISTRATION, key=bytes.fromhex(key))
                for name, key in keys  # one of them has changed its key: both are its
            ]
        )
        # a clock is believed once its round trip is known: as after a first hello and its ack
        said(metering, rows[:0], head=len(rows))
        assert said(metering, rows, head=len(rows)).upto == len(rows)
    return api


def test_nothing_was_refused(heard: Api) -> None:
    refused = heard.get("/dead-letters")["items"]

    assert [(one["meter"], one["seq"], one["code"], one["detail"]) for one in refused] == []


@pytest.mark.parametrize("index", range(len(WMBUS)), ids=[v["name"] for v in WMBUS])
def test_each_telegram_shows_its_fields_and_its_litres(heard: Api, index: int) -> None:
    vector = WMBUS[index]
    hour = own_hour(index).replace(minute=0)
    meter = heard.get("/meters", q=vector["meter"])["items"][0]

    frames = heard.get(f"/meters/{meter['meter_key']}/frames")["items"]
    at = own_hour(index).isoformat().replace("+00:00", "Z")
    frame = next(f for f in frames if f["heard_at"] == at and raw(heard, f) == vector["frame"])
    shown = heard.get(f"/frames/{frame['hash']}")["fields"]

    for name, expected in vector["fields"].items():
        assert same(shown.get(name), expected), name
    if vector["litres"] is not None:
        found = heard.get(
            f"/meters/{meter['meter_key']}/readings",
            **{"from": hour.isoformat(), "to": (hour + timedelta(hours=1)).isoformat()},
        )["items"]
        assert [(r["register_l"], r["frame"]) for r in found] == [(vector["litres"], frame["hash"])]
        explained = heard.get("/explain/reading", meter=vector["meter"], at=hour.isoformat())
        assert explained["same"]
        assert explained["raw"] == vector["frame"]


def raw(api: Api, frame: dict[str, Any]) -> str:
    return str(api.get(f"/frames/{frame['hash']}")["raw"])


def same(shown: object, expected: str | None) -> bool:
    if expected is None or shown is None:
        return shown is expected
    if isinstance(shown, str):
        return shown == expected
    return Decimal(str(shown)) == Decimal(expected)


@pytest.mark.parametrize("index", [i for i, v in enumerate(LORAWAN) if "hourly_litres" in v])
def test_each_hourly_profile_becomes_one_reading_an_hour(heard: Api, index: int) -> None:
    vector = LORAWAN[index]
    newest = datetime.fromisoformat(vector["newest"]).replace(tzinfo=UTC) - OFFSET
    name = f"{PRIVATE_EUI + index:016X}"
    meter = heard.get("/meters", q=name)["items"][0]
    litres = vector["hourly_litres"]

    found = heard.get(
        f"/meters/{meter['meter_key']}/readings",
        limit=100,
        **{
            "from": (newest - timedelta(hours=len(litres))).isoformat(),
            "to": (newest + timedelta(seconds=1)).isoformat(),
        },
    )["items"]

    assert [r["register_l"] for r in reversed(found)] == litres
    assert {r["clock"] for r in found} == {"meter"}
    oldest = newest - timedelta(hours=len(litres) - 1)
    explained = heard.get("/explain/reading", meter=name, at=oldest.isoformat())
    assert explained["same"]
    assert explained["register_l"]["decoded_again"] == litres[-1]
