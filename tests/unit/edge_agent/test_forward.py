"""The way to the cloud in its parts: how much to hand over, how long to wait, whom to be."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from decoders.uplink import MAX_GAPS, Batch, pack_rows
from edge_agent import forward, protocol
from edge_agent.clock import SystemClock
from edge_agent.config import read_config
from edge_agent.connection import FIRST_WAIT_S, LONGEST_WAIT_S, wait_s
from edge_agent.forward import CloudLink
from edge_agent.line import (
    BATCH_BYTES,
    FIRST_BYTES,
    HEAD_BYTES,
    LEAST_BYTES,
    UNDER_WAY,
    Line,
    gaps_beside,
)
from edge_agent.mqtt import Broker, CertificateUnusable, broker_at
from edge_agent.outbox import Outbox
from edge_agent.protocol import Link, Pace
from edge_agent.settings_text import ConfigError
from edge_agent.sources.port import Inbox


def delivered(line: Line, *, took_s: float, rows: int = 10) -> None:
    line.handed(1, rows=rows, now_s=0.0)
    line.delivered(1, now_s=took_s)


def test_messages_grow_on_a_quick_line_and_shrink_on_a_slow_one() -> None:
    line = Line(keepalive_s=40)

    delivered(line, took_s=0.2)
    assert line.max_bytes == 2 * FIRST_BYTES
    delivered(line, took_s=5.0)
    assert line.max_bytes == 2 * FIRST_BYTES
    delivered(line, took_s=11.0)
    assert line.max_bytes == FIRST_BYTES

    for _ in range(20):
        delivered(line, took_s=0.1)
    assert line.max_bytes == BATCH_BYTES
    for _ in range(20):
        delivered(line, took_s=60.0)
    assert line.max_bytes == LEAST_BYTES


def test_hellos_say_nothing_about_the_line() -> None:
    line = Line(keepalive_s=40)

    delivered(line, took_s=0.1, rows=0)

    assert line.max_bytes == FIRST_BYTES


def test_few_messages_are_under_way_and_those_of_a_lost_connection_make_the_next_smaller() -> None:
    line = Line(keepalive_s=40)
    free = [line.is_free]
    for mid in range(UNDER_WAY):
        line.handed(mid, rows=10, now_s=0.0)
        free.append(line.is_free)
    line.begins()

    assert [*free, line.is_free] == [True, True, False, True]
    assert line.max_bytes == FIRST_BYTES // 2
    assert line.delivered(0, now_s=0.1) == 0, "an answer to the connection before"


def test_a_message_with_all_its_gaps_fits_in_the_packet_that_the_broker_takes() -> None:
    line = Line(keepalive_s=40)
    for packet in (16_384, 65_536, 262_144, 1 << 28):
        line.begins(most_packet=packet)
        for _ in range(20):
            delivered(line, took_s=0.1)

        gaps = gaps_beside(line.max_bytes, MAX_GAPS)
        assert HEAD_BYTES + line.max_bytes + 33 * gaps <= packet
        assert 1 < gaps <= MAX_GAPS

    assert line.max_bytes == BATCH_BYTES
    assert gaps_beside(BATCH_BYTES, MAX_GAPS) == MAX_GAPS


@pytest.mark.parametrize(("figures", "told"), [({"profile_lean": 1}, "lean"), ({}, "full")])
def test_the_profile_is_told_as_it_is(tmp_path: Path, figures: dict[str, int], told: str) -> None:
    outbox = Outbox(tmp_path / "outbox.db", new_stream=lambda: bytes(16), now_us=1)

    batch, _ = forward.message_of(
        outbox,
        protocol.Publish(first=1, rows=0),
        gateway="gw-a",
        agent="1",
        clock=SystemClock(),
        echo=forward.Echo(),
        health=figures,
        traceparent="",
    )

    assert batch is not None
    assert [each for each in batch.capabilities if "profile" in each] == [f"profile.{told}"]


def test_a_puback_is_missing_two_keep_alives_after_the_last_byte_went_out() -> None:
    line = Line(keepalive_s=40)
    line.handed(1, rows=0, now_s=100.0)

    assert not line.misses_puback(now_s=179.0, moved_s=0.0)
    assert line.misses_puback(now_s=180.0, moved_s=0.0)
    assert not line.misses_puback(now_s=180.0, moved_s=150.0), "it is still going out"
    line.delivered(1, now_s=181.0)
    assert not line.misses_puback(now_s=999.0, moved_s=0.0), "nothing is under way"


def test_pauses_double_to_a_bound_and_half_of_each_is_drawn() -> None:
    assert wait_s(0, 0.0) == FIRST_WAIT_S / 2
    assert wait_s(0, 1.0) == FIRST_WAIT_S
    assert wait_s(3, 1.0) == 8 * FIRST_WAIT_S
    assert wait_s(1000, 0.0) == LONGEST_WAIT_S / 2


def test_an_answer_is_waited_for_from_when_the_broker_has_the_message() -> None:
    pace = Pace(ack_timeout_s=10)
    link = Link(stream=bytes(16), head=9, sent=9, acked=0, connected=True, deadline_s=10.0)

    later = protocol.delivered(link, now_s=60.0, pace=pace, chance=0.5)

    assert later.deadline_s == 70.0
    assert protocol.delivered(later, now_s=1.0, pace=pace, chance=0.5).deadline_s == 70.0


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"broker": "mqtt://b:1883", "cert_file": "c.pem"}, "mqtts"),
        ({"key_file": "k.pem"}, "cert_file"),
        ({"mqtt": "4"}, "mqtt"),
        ({"keepalive_s": 1}, "keepalive_s"),
        ({"keepalive_s": 4000}, "keepalive_s"),
    ],
)
def test_settings_of_the_line_that_cannot_be_are_refused(
    tmp_path: Path, settings: dict[str, Any], why: str
) -> None:
    told = {"gateway": "gw-a", "broker": "mqtts://b", "state": str(tmp_path), "sources": []}
    config = tmp_path / "gateway.json"
    config.write_text(json.dumps(told | settings))

    with pytest.raises(ConfigError, match=why):
        read_config(config)


def test_a_missing_or_damaged_certificate_is_named(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.pem"
    damaged.write_text("not a certificate")

    for path in (tmp_path / "missing.pem", damaged):
        with pytest.raises(CertificateUnusable, match=path.name):
            broker_at("mqtts://b", cert_file=str(path)).context()


@pytest.mark.parametrize(
    ("broker", "user"),
    [
        (Broker(host="b", port=1, user="gw-a", password="p"), "gw-a"),
        (Broker(host="b", port=1, user="gw-a", cert_file="c.pem"), None),
    ],
    ids=["by password", "by certificate"],
)
def test_with_a_certificate_no_user_name_is_sent(broker: Broker, user: str | None) -> None:
    client = mqtt.Client(CallbackAPIVersion.VERSION2)

    broker.prepare(client)

    assert client.username == user


def test_a_gateways_topics_have_its_id() -> None:
    assert forward.topic_up("gw-a") == "aquacis/1/gateway/gw-a/up"
    assert forward.topic_down("gw-a") == "aquacis/1/gateway/gw-a/down"


class BusyConnection:
    """A connection whose thread calls back while something is handed over, as paho's does."""

    def __init__(self) -> None:
        self.link: CloudLink | None = None
        self.is_stuck = False
        self.moved_s = 0.0

    def publish(self, _topic: str, _payload: bytes) -> int:
        assert self.link is not None
        calls = threading.Thread(target=self._call_back, daemon=True)
        calls.start()
        calls.join(2)
        self.is_stuck = calls.is_alive()
        return 1

    def _call_back(self) -> None:
        assert self.link is not None
        self.link.delivered(1, refused=False)
        self.link.ended("test")
        self.link.stands("5")


def test_the_connections_thread_never_waits_for_the_loop_that_hands_over() -> None:
    connection = BusyConnection()
    link = CloudLink(
        broker=Broker(host="b", port=1),
        gateway="gw-a",
        inbox=Inbox(),
        clock=SystemClock(),
        log=lambda *_a, **_k: None,
    )
    connection.link = link
    link._connection = connection  # type: ignore[assignment]  # as much of it as publish uses
    batch = Batch(gateway="gw-a", stream=bytes(16), rows=pack_rows([]), sent_at=1, started_at=1)

    link.publish(batch)

    assert not connection.is_stuck
    assert link.is_free
