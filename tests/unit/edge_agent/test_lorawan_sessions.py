"""Whose frame it is, which counter it has, and what is believed: sessions, joins and restarts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from decoders.lorawan.phy import DataFrame, JoinRequest, SealedJoinAccept, parse_phy
from decoders.lorawan.security import Radio, Session, session_1_0
from edge_agent.keys import LorawanKeys
from edge_agent.lorawan_joins import ANSWER_S, MAX_ASKED
from edge_agent.lorawan_memory import MAX_RETIRED, MAX_SESSIONS, name_of, unpack
from edge_agent.lorawan_sessions import MAX_GAP, Opened, Refused, Sessions
from tests.radio import Device, key

VECTORS = Path(__file__).parents[2] / "vectors" / "lorawan"
EUI = 0x70B3D54990000001
SESSION_1_1 = Session(
    f_nwk_s_int_key=key(11),
    s_nwk_s_int_key=key(12),
    nwk_s_enc_key=key(13),
    app_s_key=key(14),
    is_1_1=True,
)


def meter(**how: Any) -> Device:
    return Device(dev_eui=EUI, **how)


def counter_of(outcome: Opened | Refused) -> int:
    assert isinstance(outcome, Opened), outcome
    return outcome.counter


def test_an_uplink_of_a_known_session_is_opened() -> None:
    device = meter()
    sessions = Sessions([device.handed_over()])

    opened = sessions.opened(device.uplink(b"water", counter=70_000, port=7))

    assert opened == Opened(
        dev_eui=EUI, dev_addr=device.dev_addr, counter=70_000, port=7, payload=b"water"
    )


def test_frames_of_others_are_foreign_and_frames_with_wrong_keys_are_not_believed() -> None:
    device, other = meter(), meter(dev_addr=0x01020304)
    impostor = meter(session=session_1_0(nwk_s_key=key(8), app_s_key=key(9)))
    sessions = Sessions([device.handed_over()])

    assert sessions.opened(other.uplink()) == Refused(code="foreign")
    assert sessions.opened(impostor.uplink()) == Refused(code="wrong_mic")
    assert sessions.knows(device.dev_addr)
    assert not sessions.knows(other.dev_addr)


def test_a_frame_is_taken_once_and_an_older_one_never() -> None:
    device = meter()
    sessions = Sessions([device.handed_over()])
    old, new = device.uplink(counter=5), device.uplink(counter=6)

    assert counter_of(sessions.opened(new)) == 6
    assert sessions.opened(new) == Refused(code="repeated")
    assert sessions.opened(old) == Refused(code="replayed")


def test_the_counter_goes_on_over_sixteen_bits() -> None:
    device = meter()
    sessions = Sessions([device.handed_over()])

    heard = [sessions.opened(device.uplink(counter=c)) for c in (65_534, 65_535, 65_536, 131_073)]

    assert [counter_of(opened) for opened in heard] == [65_534, 65_535, 65_536, 131_073]
    assert sessions.opened(device.uplink(counter=65_536)) == Refused(code="replayed")


def test_a_gap_beyond_the_limit_is_not_believed() -> None:
    device = meter()
    sessions = Sessions([device.handed_over()], gap=16_384)

    assert counter_of(sessions.opened(device.uplink(counter=300_000))) == 300_000
    assert counter_of(sessions.opened(device.uplink(counter=316_384))) == 316_384
    assert sessions.opened(device.uplink(counter=332_769)) == Refused(code="wrong_mic")


def test_a_session_says_where_its_counter_stood_when_it_was_handed_over() -> None:
    device = meter()
    sessions = Sessions([device.handed_over(f_cnt_up=9_000_000)])

    assert counter_of(sessions.opened(device.uplink(counter=9_000_001))) == 9_000_001
    assert MAX_GAP < 9_000_000
    fresh = Sessions([device.handed_over(f_cnt_up=500)])
    assert isinstance(fresh.opened(device.uplink(counter=499)), Refused)


def test_devices_that_share_an_address_are_told_apart_by_their_keys() -> None:
    devices = [
        Device(dev_eui=EUI + i, session=session_1_0(nwk_s_key=key(20 + i), app_s_key=key(40 + i)))
        for i in range(5)
    ]
    sessions = Sessions([device.handed_over() for device in devices])

    heard = [sessions.opened(device.uplink(bytes([i]))) for i, device in enumerate(devices)]

    assert [(o.dev_eui - EUI, o.payload) for o in heard if isinstance(o, Opened)] == [
        (i, bytes([i])) for i in range(5)
    ]
    assert sessions.opened(devices[3].uplink(counter=0)) == Refused(code="repeated")


def test_the_code_of_1_1_covers_channel_and_rate() -> None:
    device = meter(session=SESSION_1_1)
    sessions = Sessions([device.handed_over()])
    frame = device.uplink(radio=Radio(tx_dr=3, tx_ch=11))

    assert sessions.opened(frame, radios=()) == Refused(code="wrong_mic")
    assert sessions.opened(frame, radios=((3, 10),)) == Refused(code="wrong_mic")
    assert counter_of(sessions.opened(frame, radios=((3, 10), (3, 11)))) == 0


def test_the_code_of_1_1_covers_the_downlink_that_is_answered() -> None:
    device = meter(session=SESSION_1_1)
    sessions = Sessions([device.handed_over()])
    answer = device.uplink(f_ctrl=0x20, radio=Radio(conf_f_cnt=70_007, tx_dr=3, tx_ch=11))

    assert isinstance(sessions.opened(answer, radios=((3, 11),)), Refused)
    assert sessions.sent_down(device.confirmed_downlink(70_007)) == (EUI,)
    assert sessions.sent_down(device.confirmed_downlink(70_007)) == ()
    assert isinstance(sessions.opened(answer, radios=((3, 11),)), Opened)


def test_half_a_1_1_session_is_none() -> None:
    device = meter(session=SESSION_1_1)

    assert not Sessions([device.handed_over(s_nwk_s_int_key=None)]).knows(device.dev_addr)


def test_a_join_that_passes_by_gives_the_next_session() -> None:
    device = meter()
    sessions = Sessions([device.roots()])

    assert sessions.asked(device.join_request(), now_s=0)
    accept = device.accepted(join_nonce=7, dev_addr=0x01AA0001)
    assert sessions.answered(accept, now_s=5) == EUI

    assert counter_of(sessions.opened(device.uplink())) == 0
    assert sessions.answered(accept, now_s=6) is None  # sent again in the second window


def test_the_old_session_is_believed_until_the_new_one_is_used() -> None:
    device = meter()
    sessions = Sessions([device.roots()])
    sessions.asked(device.join_request(), now_s=0)
    sessions.answered(device.accepted(join_nonce=1, dev_addr=0x01AA0001), now_s=1)
    before = [device.uplink(counter=c) for c in (3, 4, 5)]
    assert counter_of(sessions.opened(before[0])) == 3
    sessions.asked(device.join_request(), now_s=100)
    sessions.answered(device.accepted(join_nonce=2, dev_addr=0x01AA0002), now_s=101)

    assert counter_of(sessions.opened(before[1])) == 4  # it never heard the accept
    assert counter_of(sessions.opened(device.uplink())) == 0  # it did, after all
    assert sessions.opened(before[2]) == Refused(code="foreign")


def test_an_accept_may_answer_any_of_several_requests() -> None:
    device = meter()
    sessions = Sessions([device.roots()])
    for at_s in range(3):
        sessions.asked(device.join_request(), now_s=at_s)
    device.dev_nonce -= 1  # the server answers the second

    sessions.answered(device.accepted(join_nonce=1, dev_addr=0x01AA0001), now_s=4)

    assert isinstance(sessions.opened(device.uplink()), Opened)
    _, packed = sessions.memory_of(EUI)
    memory = unpack(packed)
    assert memory is not None
    assert len(memory.sessions) == 1  # the siblings are gone


def test_a_request_heard_by_many_antennas_is_one_request() -> None:
    device = meter()
    sessions = Sessions([device.roots()])
    first = device.join_request()
    accept = device.accepted(join_nonce=1, dev_addr=0x01AA0001)
    sessions.asked(first, now_s=0)
    later = device.join_request()
    for _ in range(MAX_ASKED + 1):
        sessions.asked(later, now_s=1)

    assert sessions.answered(accept, now_s=2) == EUI


def test_an_accept_for_nobody_or_too_late_changes_nothing() -> None:
    device, stranger = meter(), Device(dev_eui=EUI + 1, app_key=key(99))
    sessions = Sessions([device.roots()])

    assert not sessions.asked(stranger.join_request(), now_s=0)
    stranger.join_request()
    accept = stranger.accepted(join_nonce=1, dev_addr=0x01AA0001)
    assert sessions.answered(accept, now_s=0) is None
    sessions.asked(device.join_request(), now_s=0)
    assert sessions.answered(accept, now_s=0) is None
    late = device.accepted(join_nonce=1, dev_addr=0x01AA0001)
    assert sessions.answered(late, now_s=ANSWER_S + 1) is None


def test_a_forged_join_request_is_not_noted() -> None:
    device = meter()
    sessions = Sessions([device.roots()])
    genuine = device.join_request()
    forged = JoinRequest(join_eui=genuine.join_eui, dev_eui=EUI, dev_nonce=999, mic=genuine.mic)

    assert not sessions.asked(forged, now_s=0)


def test_a_1_1_device_joins_and_joins_anew() -> None:
    device = meter(nwk_key=key(77))
    sessions = Sessions([device.roots()])
    radio, sent_with = Radio(tx_dr=3, tx_ch=11), ((3, 11),)
    assert sessions.asked(device.join_request(), now_s=0)
    assert sessions.answered(device.accepted(join_nonce=1, dev_addr=0x01AA0001), now_s=1) == EUI
    assert isinstance(sessions.opened(device.uplink(radio=radio), radios=sent_with), Opened)

    rejoin = device.rejoin_request(4)
    assert sessions.asked(rejoin, now_s=50)
    accept = device.accepted(join_nonce=2, dev_addr=0x01AA0002, rejoin=rejoin)
    assert sessions.answered(accept, now_s=51) == EUI

    opened = sessions.opened(device.uplink(b"anew", radio=radio), radios=sent_with)
    assert isinstance(opened, Opened)
    assert (opened.dev_addr, opened.counter, opened.payload) == (0x01AA0002, 0, b"anew")


def test_a_1_1_rejoin_is_followed_after_a_restart_too() -> None:
    device = meter(nwk_key=key(77))
    sessions = Sessions([device.roots()])
    radio, sent_with = Radio(tx_dr=3, tx_ch=11), ((3, 11),)
    sessions.asked(device.join_request(), now_s=0)
    sessions.answered(device.accepted(join_nonce=1, dev_addr=0x01AA0001), now_s=1)
    sessions.opened(device.uplink(radio=radio), radios=sent_with)

    restarted = Sessions([device.roots()], dict([sessions.memory_of(EUI)]))
    rejoin = device.rejoin_request(4)

    assert restarted.asked(rejoin, now_s=0)
    accept = device.accepted(join_nonce=2, dev_addr=0x01AA0002, rejoin=rejoin)
    assert restarted.answered(accept, now_s=1) == EUI


def test_new_session_keys_are_handed_over_while_it_runs() -> None:
    device = meter()
    sessions = Sessions([device.handed_over()])
    first, lost = device.uplink(counter=10), device.uplink(counter=11)
    sessions.opened(first)
    device.session = session_1_0(nwk_s_key=key(31), app_s_key=key(32))
    device.dev_addr = 0x01AA0009

    sessions.renew([device.handed_over()])

    assert sessions.opened(lost) == Refused(code="foreign")  # its keys are gone
    assert counter_of(sessions.opened(device.uplink(counter=0))) == 0


def test_keys_that_are_read_again_unchanged_forget_no_counter() -> None:
    device = meter()
    sessions = Sessions([device.handed_over()])
    frame = device.uplink(counter=10)
    sessions.opened(frame)

    sessions.renew([device.handed_over()])
    assert sessions.opened(frame) == Refused(code="repeated")
    sessions.renew([])
    assert sessions.opened(frame) == Refused(code="foreign")
    sessions.renew([device.handed_over()])
    assert sessions.opened(frame) == Refused(code="repeated")


def test_a_session_that_comes_back_has_its_counter_still() -> None:
    device = meter()
    old_keys, frame = device.handed_over(), device.uplink(counter=10)
    sessions = Sessions([old_keys])
    sessions.opened(frame)
    device.session = session_1_0(nwk_s_key=key(31), app_s_key=key(32))
    sessions.renew([device.handed_over()])

    sessions.renew([old_keys])

    assert sessions.opened(frame) == Refused(code="repeated")


def test_a_restart_forgets_no_counter_and_no_join() -> None:
    device = meter()
    both = [LorawanKeys(dev_eui=EUI, app_key=device.app_key)]
    sessions = Sessions(both)
    sessions.asked(device.join_request(), now_s=0)
    sessions.answered(device.accepted(join_nonce=9, dev_addr=0x01AA0001), now_s=1)
    frame = device.uplink(counter=70_000)
    sessions.opened(frame)
    name, packed = sessions.memory_of(EUI)

    restarted = Sessions(both, {name: packed})

    assert restarted.opened(frame) == Refused(code="repeated")
    assert counter_of(restarted.opened(device.uplink(counter=70_001))) == 70_001


def test_a_session_that_was_left_stays_left_though_its_keys_are_still_in_the_file() -> None:
    device = meter()
    handed = device.handed_over(app_key=device.app_key)
    old = [device.uplink(counter=c) for c in (1, 2)]
    sessions = Sessions([handed])
    sessions.opened(old[0])
    sessions.asked(device.join_request(), now_s=0)
    sessions.answered(device.accepted(join_nonce=9, dev_addr=0x01AA0001), now_s=1)
    assert isinstance(sessions.opened(device.uplink()), Opened)

    restarted = Sessions([handed], dict([sessions.memory_of(EUI)]))

    assert restarted.opened(old[1]) == Refused(code="foreign")
    assert isinstance(restarted.opened(device.uplink()), Opened)


def test_a_session_in_the_key_file_stays_left_after_any_number_of_joins() -> None:
    device = meter()
    handed = device.handed_over(app_key=device.app_key)
    old = [device.uplink(counter=c) for c in (1, 2)]
    sessions = Sessions([handed])
    sessions.opened(old[0])
    for nonce in range(2 * MAX_RETIRED):
        sessions.asked(device.join_request(), now_s=60 * nonce)
        accept = device.accepted(join_nonce=nonce, dev_addr=0x01AA0000 + nonce)
        sessions.answered(accept, now_s=60 * nonce + 1)
        assert isinstance(sessions.opened(device.uplink()), Opened)
        if nonce % 5 == 0:
            sessions.renew([handed])
    memory = unpack(sessions.memory_of(EUI)[1])

    restarted = Sessions([handed], dict([sessions.memory_of(EUI)]))

    assert memory is not None
    assert len(memory.retired) == 1 + MAX_RETIRED
    assert restarted.opened(old[1]) == Refused(code="foreign")
    assert isinstance(restarted.opened(device.uplink()), Opened)


def test_what_is_remembered_holds_no_key() -> None:
    device = meter()
    sessions = Sessions([device.handed_over(app_key=device.app_key)])
    sessions.opened(device.uplink())
    sessions.asked(device.join_request(), now_s=0)
    sessions.answered(device.accepted(join_nonce=9, dev_addr=0x01AA0001), now_s=1)
    sessions.opened(device.uplink())

    name, packed = sessions.memory_of(EUI)

    assert name == name_of(EUI) == "s/70b3d54990000001"
    secrets = (key(1), key(2), key(3), device.session.f_nwk_s_int_key, device.session.app_s_key)
    assert all(secret not in packed for secret in secrets)
    assert len(packed) < 100


@pytest.mark.parametrize(
    "packed", [b"", b"\xff", b"\x80", b"\x83\x01\x81\x80\x80", b"\x83\x02\x80\x80"]
)
def test_a_damaged_memory_is_as_none(packed: bytes) -> None:
    device = meter()
    sessions = Sessions([device.handed_over()], {name_of(EUI): packed})

    assert isinstance(sessions.opened(device.uplink()), Opened)


def test_joins_that_nobody_confirms_do_not_pile_up() -> None:
    device = meter()
    sessions = Sessions([device.handed_over(app_key=device.app_key)])
    used = device.uplink(counter=1), device.uplink(counter=2)
    sessions.opened(used[0])
    for nonce in range(3 * MAX_SESSIONS):
        sessions.asked(device.join_request(), now_s=60 * nonce)
        sessions.answered(device.accepted(join_nonce=nonce, dev_addr=nonce), now_s=60 * nonce + 1)

    memory = unpack(sessions.memory_of(EUI)[1])

    assert memory is not None
    assert len(memory.sessions) == MAX_SESSIONS
    assert isinstance(sessions.opened(used[1]), Opened)  # the used one is never dropped
    assert isinstance(sessions.opened(device.uplink()), Opened)


def test_what_a_real_server_published_is_what_comes_out() -> None:
    recorded = json.loads((VECTORS / "chirpstack_frames.json").read_text())["vectors"]
    of_run = [v for v in recorded if "run json" in v["source"] and "frame" in v]
    status_device = next(v for v in recorded if v.get("name") == "status")
    sessions = Sessions(
        [
            LorawanKeys(dev_eui=EUI, app_key=bytes.fromhex(of_run[0]["app_key"])),
            LorawanKeys(
                dev_eui=EUI + 1,
                dev_addr=int(status_device["dev_addr"], 16),
                nwk_s_key=bytes.fromhex(status_device["nwk_s_key"]),
                app_s_key=bytes.fromhex(status_device["app_s_key"]),
            ),
        ]
    )

    heard, published = set(), set()
    for at, vector in enumerate(of_run):
        frame = parse_phy(bytes.fromhex(vector["frame"]))
        if isinstance(frame, JoinRequest):
            sessions.asked(frame, now_s=at)
        elif isinstance(frame, SealedJoinAccept):
            sessions.answered(frame, now_s=at)
        elif isinstance(frame, DataFrame) and frame.is_uplink:
            outcome = sessions.opened(frame)
            if isinstance(outcome, Opened) and outcome.port:
                heard.add((outcome.dev_addr, outcome.counter, outcome.port, outcome.payload.hex()))
        if vector.get("published"):
            place = int(vector["dev_addr"], 16), vector["counter"]
            published.add((*place, vector["f_port"], vector["clear"]))

    assert heard == published
    assert len(heard) == 17
