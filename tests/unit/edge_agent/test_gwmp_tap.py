"""The tap between real sockets: everything passes unchanged, and its meters are heard."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import pytest

from decoders.lorawan.phy import parse_phy
from decoders.uplink import RowFlag, RowKind
from edge_agent.clock import SystemClock
from edge_agent.inputs import BadInput, Heard, SourceChanged, SourceMemory
from edge_agent.keys import LorawanKeys
from edge_agent.lorawan_memory import name_of
from edge_agent.lorawan_sessions import Sessions
from edge_agent.sources import gwmp_relay, gwmp_tap
from edge_agent.sources.gwmp_relay import Endpoint, Upstream
from edge_agent.sources.gwmp_tap import MAX_WAITING_BYTES, GwmpTap
from edge_agent.sources.port import Inbox
from edge_agent.sources.supervisor import Supervised
from tests.gwmp_ends import LOOPBACK, SOON_S, port_of, recorded_exchange, tapped, udp
from tests.radio import GATEWAY, Device, pull_resp, push_data, rxpk

VECTORS = Path(__file__).parents[2] / "vectors" / "lorawan"
EUI = 0x70B3D54990000001


def published_by_the_server() -> tuple[list[LorawanKeys], list[tuple[int, int, int, str]]]:
    """Root or session keys of the recorded meters, and what ChirpStack published of them."""
    vectors = json.loads((VECTORS / "chirpstack_frames.json").read_text())["vectors"]
    of_run = [v for v in vectors if "run json" in v["source"] and v.get("direction") == "up"]
    status = next(v for v in vectors if v.get("name") == "status")
    app_key = next(v["app_key"] for v in vectors if v["kind"] == "join-request")
    keys = [
        LorawanKeys(dev_eui=EUI, app_key=bytes.fromhex(app_key)),
        LorawanKeys(
            dev_eui=EUI + 1,
            dev_addr=int(status["dev_addr"], 16),
            nwk_s_key=bytes.fromhex(status["nwk_s_key"]),
            app_s_key=bytes.fromhex(status["app_s_key"]),
        ),
    ]
    published = [
        (int(v["dev_addr"], 16), v["counter"], v["f_port"], v["clear"])
        for v in of_run
        if v["published"]
    ]
    return keys, published


def test_a_recorded_exchange_passes_byte_for_byte_both_ways_while_its_meters_are_heard() -> None:
    keys, published = published_by_the_server()
    peers: dict[str, tuple[str, int]] = {}
    with tapped(keys) as tap, udp() as push, udp() as pull:
        forwarder = {"push": push, "pull": pull}
        for said in recorded_exchange():
            flow, datagram = said["flow"], said["datagram"]
            if said["way"] == "up":
                received, peer = tap.up(forwarder[flow], datagram)
                assert peers.setdefault(flow, peer) == peer
            else:
                tap.server.sendto(datagram, peers[flow])
                received, sender = forwarder[flow].recvfrom(65_535)
                assert sender == tap.address
            assert received == datagram
        heard = tap.heard(len(published))
        for name, last in (("join_requests", 3), ("replayed", 5), ("passed_down", 55)):
            tap.figure(name, last)  # counted after it was sent, and read later still
        figures = tap.feed.figures()

    assert peers["push"] != peers["pull"]
    assert [(h.session, h.counter, h.port, h.frame.hex()) for h in heard] == published
    assert {h.flags for h in heard} == {int(RowFlag.NETWORK_CHECKED)}
    assert {h.radio for h in heard} == {EUI, EUI + 1}
    assert (figures["gwmp_joined"], figures["gwmp_crc"], figures["gwmp_replayed"]) == (2, 1, 5)
    assert (figures["gwmp_passed_up"], figures["gwmp_passed_down"]) == (55, 55)


def test_a_heard_frame_is_the_one_that_the_network_server_would_hand_over() -> None:
    device = Device(dev_eui=EUI)
    before = SystemClock().now_us()
    with tapped([device.handed_over()]) as tap, udp() as forwarder:
        tap.up(forwarder, push_data(rxpk(device.uplink(b"\x01\x02", counter=70_000, port=1))))
        (heard,) = tap.heard(1)

    assert heard == Heard(
        kind=RowKind.LORAWAN,
        frame=b"\x01\x02",
        heard_at=heard.heard_at,
        flags=int(RowFlag.NETWORK_CHECKED),
        radio=EUI,
        session=device.dev_addr,
        counter=70_000,
        port=1,
        rssi=-97,
        snr=22,
        memory=heard.memory,
    )
    assert before <= heard.heard_at <= SystemClock().now_us()
    assert heard.memory is not None
    assert heard.memory.name == name_of(EUI)


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\x02",
        b"\x02\x00\x01\x00" + GATEWAY + b"{not json",
        b"\x02\x00\x01\x00" + GATEWAY + b'{"rxpk":[7,{"data":"="}]}',
        b"\x02\x00\x01\x0a" + GATEWAY,
        b"\x09\xff\xfe\xfd",
        bytes(range(256)) * 255,
    ],
)
def test_what_nobody_understands_passes_unchanged_both_ways(datagram: bytes) -> None:
    with tapped() as tap, udp() as forwarder:
        received, peer = tap.up(forwarder, datagram)
        tap.server.sendto(datagram, peer)

        assert received == datagram
        assert forwarder.recv(65_535) == datagram


def test_malformed_json_is_counted_reported_and_followed_by_what_comes_next() -> None:
    device = Device(dev_eui=EUI)
    bad = b"\x02\x00\x01\x00" + GATEWAY + b'{"rxpk":['
    with tapped([device.handed_over()]) as tap, udp() as forwarder:
        assert tap.up(forwarder, bad)[0] == bad
        tap.up(forwarder, push_data({"data": 5}, rxpk(device.uplink())))
        report = tap.inbox.get(SOON_S)
        tap.heard(1)

        assert tap.figure("malformed", 2) == 2

    assert isinstance(report, BadInput)
    assert (report.code, report.given) == ("malformed", bad)


def test_each_forwarder_has_its_own_way_and_gets_its_own_answers() -> None:
    with tapped() as tap, ExitStack() as opened:
        forwarders = [opened.enter_context(udp()) for _ in range(8)]
        peers = []
        for number, forwarder in enumerate(forwarders):
            pull_data = b"\x02\x00" + bytes([number]) + b"\x02" + bytes(7) + bytes([number])
            received, peer = tap.up(forwarder, pull_data)
            assert received == pull_data
            peers.append(peer)
        for number, peer in reversed(list(enumerate(peers))):
            tap.server.sendto(b"\x02\x00\x00\x03" + bytes([number]), peer)

        assert len(set(peers)) == 8
        answers = [forwarder.recv(100)[-1] for forwarder in forwarders]
        assert tap.feed.figures()["gwmp_forwarders"] == 8

    assert answers == list(range(8))


def test_a_downlink_finds_its_way_long_after_the_pull_as_long_as_the_forwarder_pulls() -> None:
    with tapped(idle_s=1.0) as tap, udp() as forwarder:
        _, first = tap.up(forwarder, b"\x02\x00\x01\x02" + GATEWAY)
        for _ in range(4):
            time.sleep(0.4)
            _, again = tap.up(forwarder, b"\x02\x00\x01\x02" + GATEWAY)
            assert again == first
        tap.server.sendto(b"\x02\x00\x01\x03{}", first)

        assert forwarder.recv(100) == b"\x02\x00\x01\x03{}"


def test_a_forwarder_that_fell_silent_is_forgotten_and_met_anew() -> None:
    with tapped(idle_s=0.3) as tap, udp() as forwarder:
        tap.up(forwarder, b"\x02\x00\x01\x02" + GATEWAY)
        until_s = time.monotonic() + SOON_S
        while tap.feed.figures()["gwmp_forwarders"] and time.monotonic() < until_s:
            time.sleep(0.05)

        assert tap.feed.figures()["gwmp_forwarders"] == 0
        received, peer = tap.up(forwarder, b"\x02\x00\x02\x02" + GATEWAY)
        tap.server.sendto(b"x", peer)
        assert (received[2], forwarder.recv(10)) == (2, b"x")


def test_only_the_servers_own_datagrams_go_down() -> None:
    with tapped() as tap, udp() as forwarder, udp() as stranger:
        _, peer = tap.up(forwarder, b"\x02\x00\x01\x02" + GATEWAY)
        stranger.sendto(b"\x02\x00\x01\x03{}", peer)
        assert tap.figure("strays") == 1
        tap.server.sendto(b"ours", peer)

        assert forwarder.recv(100) == b"ours"


def test_forwarding_goes_on_while_the_agent_takes_nothing_and_what_was_not_read_is_counted() -> (
    None
):
    device = Device(dev_eui=EUI)
    inbox = Inbox(most=1)
    filler = rxpk(b"\xe0" + bytes(200))
    datagrams = [
        push_data(rxpk(device.uplink(counter=c)), *[filler] * 60, token=c) for c in range(60)
    ]
    assert sum(map(len, datagrams)) > 2 * MAX_WAITING_BYTES
    with tapped([device.handed_over()], inbox=inbox) as tap, udp() as forwarder:
        passed = [tap.up(forwarder, datagram)[0] for datagram in datagrams]
        tap.up(forwarder, b"\x02\x00\x01\x02" + GATEWAY)  # the copies before it are made by then
        not_read = tap.figure("not_read")
        heard = tap.heard(len(datagrams) - not_read)

    assert passed == datagrams
    counted = [h.counter for h in heard]
    assert counted == sorted(set(counted))
    assert 10 < len(heard) < 50


def test_a_fault_of_ours_in_one_frame_leaves_the_others_and_the_forwarding_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Device(dev_eui=EUI)

    def broken(phy: bytes) -> object:
        if phy[0] == 0xE0:
            raise ZeroDivisionError
        return parse_phy(phy)

    monkeypatch.setattr("edge_agent.sources.gwmp_tap.parse_phy", broken)
    with tapped([device.handed_over()]) as tap, udp() as forwarder:
        tap.up(forwarder, push_data(rxpk(b"\xe0abc")))
        tap.up(forwarder, push_data(rxpk(device.uplink())))
        report = tap.inbox.get(SOON_S)

        assert isinstance(report, BadInput)
        assert report.code == "internal"
        assert len(tap.heard(1)) == 1


def test_a_join_and_mac_commands_are_remembered_though_they_are_no_rows() -> None:
    device = Device(dev_eui=EUI)
    with tapped([device.roots()]) as tap, udp() as forwarder:
        _, peer = tap.up(forwarder, push_data(rxpk(device.join_request())))
        tap.figure("join_requests")
        tap.server.sendto(pull_resp(device.accepted(join_nonce=1, dev_addr=0x01AA0001)), peer)
        joined = tap.inbox.get(SOON_S)
        tap.up(forwarder, push_data(rxpk(device.uplink(b"\x02", port=0))))
        counted = tap.inbox.get(SOON_S)

    assert isinstance(joined, SourceMemory)
    assert isinstance(counted, SourceMemory)
    assert joined.name == counted.name == name_of(EUI)
    restarted = Sessions([device.roots()], {counted.name: counted.packed})
    assert restarted.knows(0x01AA0001)


def test_keys_handed_over_while_it_runs_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gwmp_tap, "KEYS_EACH_S", 0.05)
    device = Device(dev_eui=EUI)
    offered: list[Iterable[LorawanKeys]] = []

    def new_keys() -> Iterable[LorawanKeys] | None:
        return offered.pop() if offered else None

    with tapped(new_keys=new_keys) as tap, udp() as forwarder:
        tap.up(forwarder, push_data(rxpk(device.uplink())))
        tap.figure("foreign")
        offered.append([device.handed_over()])
        while offered:
            time.sleep(0.01)
        time.sleep(0.05)
        tap.up(forwarder, push_data(rxpk(device.uplink())))

        assert tap.heard(1)[0].counter == 1


def test_a_key_file_that_cannot_be_used_is_reported_and_the_old_keys_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gwmp_tap, "KEYS_EACH_S", 0.05)
    device = Device(dev_eui=EUI)
    faults = [ValueError("torn")]

    def new_keys() -> None:
        if faults:
            raise faults.pop()

    with tapped([device.handed_over()], new_keys=new_keys) as tap, udp() as forwarder:
        report = tap.inbox.get(SOON_S)
        tap.up(forwarder, push_data(rxpk(device.uplink())))

        assert isinstance(report, BadInput)
        assert report.code == "keys_unusable"
        assert len(tap.heard(1)) == 1


def test_a_port_that_is_taken_is_reported_and_tried_again() -> None:
    inbox = Inbox()
    with udp() as taken, udp() as server:
        feed = GwmpTap(
            listen=Endpoint(host=LOOPBACK, port=port_of(taken)),
            server=Endpoint(host=LOOPBACK, port=port_of(server)),
            clock=SystemClock(),
            sessions=Sessions(()),
            new_keys=lambda: None,
            region="us915",
            idle_s=60,
        )
        source = Supervised(feed, name="gwmp", inbox=inbox)
        source.start()
        down = inbox.get(SOON_S)
        taken.close()
        up = inbox.get(SOON_S)
        source.stop()

    assert isinstance(down, SourceChanged)
    assert (down.kind, "in use" in down.reason) == ("source_down", True)
    assert isinstance(up, SourceChanged)
    assert up.kind == "source_up"


def test_a_server_that_cannot_be_found_yet_loses_no_meter() -> None:
    device = Device(dev_eui=EUI)
    upstream = Upstream(Endpoint(host="no.such.host.invalid", port=1700))
    assert upstream.address is None
    with tapped([device.handed_over()]) as tap, udp() as forwarder:
        tap.feed._relay.upstream.address = None  # as before the name is known
        forwarder.sendto(push_data(rxpk(device.uplink())), tap.address)

        assert len(tap.heard(1)) == 1
        assert tap.figure("not_passed") == 1


def test_a_name_is_looked_up_beside_the_forwarding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gwmp_relay, "RESOLVE_AGAIN_S", 0.01)
    real, calls = socket.getaddrinfo, []

    def found_at_last(host: str, *rest: object, **more: object) -> object:
        calls.append(host)
        if host == "ns.example" and len(calls) < 4:
            raise socket.gaierror("temporary failure")
        return real(LOOPBACK, *rest, **more)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(socket, "getaddrinfo", found_at_last)
    inbox = Inbox()
    with udp() as server, udp() as forwarder:
        feed = GwmpTap(
            listen=Endpoint(host=LOOPBACK, port=0),
            server=Endpoint(host="ns.example", port=port_of(server)),
            clock=SystemClock(),
            sessions=Sessions(()),
            new_keys=lambda: None,
            region="us915",
            idle_s=60,
        )
        source = Supervised(feed, name="gwmp", inbox=inbox)
        source.start()
        inbox.get(SOON_S)
        while len(calls) < 4:
            time.sleep(0.01)
        time.sleep(0.05)
        assert feed.listening is not None
        forwarder.sendto(b"hello", (LOOPBACK, feed.listening.port))
        received = server.recv(100)
        source.stop()

    assert received == b"hello"


def test_a_stopped_tap_has_read_what_had_come_and_leaves_its_port() -> None:
    device = Device(dev_eui=EUI)
    with tapped([device.handed_over()]) as tap, udp() as forwarder:
        address = tap.address
        for _ in range(50):
            tap.up(forwarder, push_data(rxpk(device.uplink())))
        tap.source.stop()

        assert len(tap.heard(50)) == 50
        udp(address[1]).close()
