"""`bench edge` in small: the real agent behind a FIFO, its broker and a cloud that acknowledges."""

from __future__ import annotations

import pytest

from decoders.decode import decode_lorawan, decode_wmbus
from decoders.drivers.registry import known_formats
from edge_agent.sources.lines import frames_of
from field_sim.bench import edge, edge_stage
from field_sim.bench.decode import key_of

AT_US = edge.BEGIN_US + edge.DAY_US


def test_what_is_fed_is_what_meters_send() -> None:
    (heard,) = frames_of(edge_stage.telegram(7, 3, AT_US, since_us=edge.BEGIN_US), now_us=0)
    (uplink,) = frames_of(edge_stage.profile(7, 3, AT_US, since_us=edge.BEGIN_US), now_us=0)

    telegram = decode_wmbus(heard.frame, key=key_of(7), formats=known_formats())
    profile = decode_lorawan(uplink.frame, port=uplink.port, f_cnt=4, dev_eui=uplink.radio)

    assert (heard.heard_at, telegram.register_l) == (AT_US, 100_007 + 24 * 9)
    assert profile.register_l == 100_000 + 24 * 9


def test_a_day_of_a_few_meters_gives_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "METERS", 40)
    monkeypatch.setattr(edge, "LORAWAN", 5)
    monkeypatch.setattr(edge, "DAYS", 1)
    monkeypatch.setattr(edge, "SETTLED_DAY", 1)
    said: list[str] = []

    figures = {figure["figure"]: figure for figure in edge.run(said.append)}

    assert len(figures) == 8
    assert figures["memory after a month, 4,000 meters"]["holds"]
    assert 0 <= figures["share of a core at 250 telegrams/s"]["value"] < 1
    acknowledged = next(line for line in said if "acknowledged" in line)
    assert int(acknowledged.split()[1].replace(",", "")) >= 80
