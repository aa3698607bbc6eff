"""Whatever comes over UDP, and in whatever order: nothing breaks, nothing is believed twice."""

from __future__ import annotations

import json
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from decoders.errors import DecodeError
from decoders.lorawan.phy import DataFrame, parse_phy
from decoders.lorawan.security import COUNTERS
from edge_agent.lorawan_memory import pack, unpack
from edge_agent.lorawan_sessions import MAX_GAP, WRAP, Opened, Refused, Sessions, counters
from edge_agent.sources.gwmp import BadDatagram, Reception, downlink, identifier, pushed
from tests.radio import Device, push_data, rxpk

PHYS = st.binary(min_size=1, max_size=255)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=3,
)
ENTRIES = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("data", "stat", "rssi", "lsnr", "rsig", "datr", "freq", "size"), JSON),
)


@given(st.binary(max_size=300))
def test_no_datagram_breaks_the_reader(datagram: bytes) -> None:
    identifier(datagram)
    for read in (pushed, downlink):
        try:
            read(datagram)
        except BadDatagram:
            continue


@given(st.lists(ENTRIES | JSON, max_size=2))
def test_no_json_breaks_the_reader_and_every_entry_is_accounted_for(entries: list[Any]) -> None:
    datagram = push_data()[:12] + json.dumps({"rxpk": entries}).encode()

    brought = pushed(datagram)

    assert len(brought.receptions) + brought.unreadable <= len(entries)


@given(
    st.lists(st.tuples(PHYS, st.integers(-140, 0), st.integers(-80, 60)), unique_by=lambda r: r[0])
)
def test_what_a_forwarder_says_is_read_back(heard: list[tuple[bytes, int, int]]) -> None:
    datagram = push_data(*(rxpk(phy, rssi=rssi, lsnr=snr / 4) for phy, rssi, snr in heard))

    assert pushed(datagram).receptions == tuple(
        Reception(phy=phy, rssi=rssi, snr=snr, datr="SF7BW125", freq_hz=904_500_000)
        for phy, rssi, snr in heard
    )


@given(st.integers(-1, COUNTERS - 1), st.integers(0, COUNTERS - 1), st.integers(1, MAX_GAP))
def test_a_counter_is_found_exactly_if_it_is_above_and_within_the_gap(
    above: int, counter: int, gap: int
) -> None:
    possible = list(counters(counter % WRAP, above=above, gap=gap))

    assert (counter in possible) == (above < counter <= above + gap)
    assert possible == sorted(possible)
    assert all(c % WRAP == counter % WRAP and above < c < COUNTERS for c in possible)
    assert len(possible) <= -(-gap // WRAP)


@given(st.sampled_from((0, 65_530, 131_065)), st.integers(0, 1 << 32))
def test_loss_disorder_and_duplicates_never_make_a_frame_count_twice_or_backwards(
    first: int, seed: int
) -> None:
    chance = random.Random(seed)
    sent = range(first, first + 8)
    arriving = [c for c in sent if chance.random() < 0.8 for _ in range(chance.randint(1, 2))]
    chance.shuffle(arriving)
    device = Device(dev_eui=1)
    frames = {c: device.uplink(bytes([c % 256]), counter=c) for c in sent}
    sessions = Sessions([device.handed_over()])

    newest, taken = -1, []
    for counter in arriving:
        if chance.random() < 0.3:  # the agent starts anew
            sessions = Sessions([device.handed_over()], dict([sessions.memory_of(1)]))
        outcome = sessions.opened(frames[counter])
        if counter > newest:
            assert isinstance(outcome, Opened)
            assert (outcome.counter, outcome.payload) == (counter, bytes([counter % 256]))
            newest = counter
            taken.append(counter)
        else:
            assert outcome == Refused(code="repeated" if counter == newest else "replayed")

    assert taken == sorted(set(taken))


@given(st.binary(max_size=60))
def test_no_memory_breaks_the_start(packed: bytes) -> None:
    memory = unpack(packed)

    assert memory is None or unpack(pack(memory)) == memory


@given(st.integers(0, 255), st.integers(1, 255))
def test_a_damaged_frame_is_never_believed(place: int, change: int) -> None:
    device = Device(dev_eui=1)
    sessions = Sessions([device.handed_over()])
    reception = rxpk(device.uplink(b"0123456789"))
    (good,) = pushed(push_data(reception)).receptions
    phy = bytearray(good.phy)
    phy[place % len(phy)] ^= change

    try:
        frame = parse_phy(bytes(phy))
    except DecodeError:
        return
    if isinstance(frame, DataFrame) and frame.is_uplink:
        assert isinstance(sessions.opened(frame), Refused)
