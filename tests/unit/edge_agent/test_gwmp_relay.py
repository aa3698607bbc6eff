"""Whose way back is kept when there are too many, and which server is listened to."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import pytest

from edge_agent.sources import gwmp_relay
from edge_agent.sources.gwmp_relay import Endpoint, Upstream
from tests.gwmp_ends import tapped, udp
from tests.radio import GATEWAY, push_data


def test_of_too_many_forwarders_the_one_silent_longest_makes_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gwmp_relay, "MAX_FLOWS", 2)
    with tapped() as tap, udp() as one, udp() as two, udp() as three:
        _, first = tap.up(one, b"1")
        _, second = tap.up(two, b"2")
        tap.up(one, b"1")
        tap.up(three, b"3")

        assert tap.feed.figures()["gwmp_forwarders"] == 2
        assert tap.up(one, b"1")[1] == first
        assert tap.up(two, b"2")[1] != second


def test_who_proves_little_takes_nobodys_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gwmp_relay, "MAX_FLOWS", 3)
    with tapped() as tap, ExitStack() as opened:
        pulls, pushes, *others = (opened.enter_context(udp()) for _ in range(20))
        _, first = tap.up(pulls, b"\x02\x00\x01\x02" + GATEWAY)
        _, second = tap.up(pushes, push_data())
        for other in others:
            tap.up(other, b"x")
        tap.server.sendto(b"\x02\x00\x01\x03{}", first)
        tap.server.sendto(b"\x02\x00\x01\x01", second)

        assert pulls.recv(100) == b"\x02\x00\x01\x03{}"
        assert pushes.recv(100) == b"\x02\x00\x01\x01"

        tap.up(others[0], b"\x02\x00\x01\x02" + GATEWAY)
        tap.up(others[1], b"\x02\x00\x01\x02" + GATEWAY)  # takes the way of who only pushes
        others[2].sendto(b"x", tap.address)
        assert tap.figure("not_passed") == 1
        assert tap.up(pulls, b"\x02\x00\x01\x02" + GATEWAY)[1] == first


def answers(monkeypatch: pytest.MonkeyPatch, *given: list[str]) -> Upstream:
    """A server whose name has these addresses, one list after the other."""
    rest = iter(given)

    def found(host: str, port: int, *, type: int, flags: int = 0) -> object:
        if flags:
            raise socket.gaierror("a name, no number")
        return [(socket.AF_INET, type, 17, "", (address, port)) for address in next(rest)]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    return Upstream(Endpoint(host="ns.example", port=1700))


def test_an_address_is_kept_as_long_as_the_name_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = answers(
        monkeypatch, ["10.0.0.1", "10.0.0.2"], ["10.0.0.2", "10.0.0.1"], ["10.0.0.2", "10.0.0.3"]
    )
    used = []
    for _ in range(3):
        upstream._look_up(0)
        assert upstream.address is not None
        used.append(upstream.address[0])

    assert used == ["10.0.0.1", "10.0.0.1", "10.0.0.2"]


def test_an_old_server_is_listened_to_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = answers(monkeypatch, ["10.0.0.1"], ["10.0.0.2", "10.0.0.3"], ["10.0.0.3"])

    def heard(host: str, *, after_s: float = 0.0) -> bool:
        now_s = time.monotonic() + after_s
        return upstream.answers_from((host, 1700), now_s=now_s, idle_s=300)

    for _ in range(3):
        upstream._look_up(0)

    assert heard("10.0.0.1")
    assert heard("10.0.0.2", after_s=290)
    assert not heard("10.0.0.1", after_s=310)
    assert heard("10.0.0.3", after_s=90_000)
    assert not heard("10.0.0.9")
    assert not upstream.answers_from(("10.0.0.3", 1701), now_s=0, idle_s=300)
