"""The LoRaWAN sessions of the devices whose keys this gateway was given. Pure.

A frame on the air names a DevAddr, which several devices may share, and sixteen of the thirty-two
bits of its counter. Whose it is, under which keys and with which counter, its integrity code
tells: it is tried for each session of the address and each counter that may be meant. A counter
counts up only; what is not above the newest one was heard before, whoever sends it again.

A device has one session in use, and perhaps newer ones that nobody has used yet: handed over with
the key file, or of a join that passed by. The old one is believed until the first frame of a newer
one, and never again after it.
Source: LoRaWAN L2 1.0.4 (TS001), 4.3.1.5, 4.4; LoRaWAN 1.1, 4.3.1.5, 4.4, 6.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from decoders.lorawan.phy import DataFrame, JoinRequest, MType, RejoinRequest, SealedJoinAccept
from decoders.lorawan.security import COUNTERS, Radio, crypt_payload, data_mic
from decoders.value import value
from edge_agent.lorawan_devices import Device, DeviceKeys, Live, device_of, memory_of, siblings
from edge_agent.lorawan_joins import Joins, Roots
from edge_agent.lorawan_memory import (
    MAX_SESSIONS,
    Memory,
    mark_of,
    name_of,
    pack,
    unpack,
)

WRAP: Final = 1 << 16  # counters that look alike on the air
# Frames that a gateway may have missed. LoRaWAN 1.0.x had 16,384 (MAX_FCNT_GAP), 1.1 and ChirpStack
# have no limit: the integrity code covers all 32 bits, so a gap proves nothing. This one bounds the
# work to 16 tries a frame, and is an hourly meter's hundred years.
MAX_GAP: Final = 16 * WRAP
LOOK_BACK: Final = 2 * WRAP  # for a better word than "wrong_mic" where an old frame is sent again


@value
class Opened:
    """A frame whose integrity code fits: who sent it, its 32-bit counter, its clear payload."""

    dev_eui: int
    dev_addr: int
    counter: int
    port: int | None
    payload: bytes


@value
class Refused:
    """code: foreign | wrong_mic | repeated | replayed"""

    code: str


class Sessions:
    """All sessions, by DevAddr. Not thread-safe: one thread hears."""

    def __init__(
        self,
        keys: Iterable[DeviceKeys],
        memory: Mapping[str, bytes] | None = None,
        *,
        gap: int = MAX_GAP,
    ) -> None:
        """`memory`: what `memory_of` returned before the last restart, by name."""
        self._gap = gap
        self._memory = dict(memory or {})
        self._devices: dict[int, Device] = {}
        self._by_address: dict[int, list[tuple[Device, Live]]] = {}
        self._joins = Joins()
        self.renew(keys)

    def renew(self, keys: Iterable[DeviceKeys]) -> None:
        """Take the keys as they are now: new sessions are added, devices left out are forgotten.

        What was heard of a session that stays is kept, and so is a session that came of a join.
        """
        before, self._devices = self._devices, {}
        for given in keys:
            known = before.pop(given.dev_eui, None)
            memory = self._memory_before(given.dev_eui) if known is None else memory_of(known)
            self._devices[given.dev_eui] = device_of(given, memory)
        self._memory |= {name_of(d.dev_eui): pack(memory_of(d)) for d in before.values()}
        self._by_address = {}
        for device in self._devices.values():
            self._list(device)
            for live in device.sessions:
                if live.joined is not None:
                    self._joins.knows_join_eui(device.dev_eui, live.joined.join_eui)

    def knows(self, dev_addr: int) -> bool:
        """Say whether a device of ours has this address; most of what is heard is of others."""
        return dev_addr in self._by_address

    def opened(
        self, frame: DataFrame, *, radios: Iterable[tuple[int, int]] = ()
    ) -> Opened | Refused:
        """Check an uplink, and open it.

        radios   (data rate index, channel index) that it may have been sent with; 1.1 covers them
        """
        candidates = self._by_address.get(frame.dev_addr, [])
        if not candidates:
            return Refused(code="foreign")
        tried = tuple(radios)
        for _, live in candidates:
            same = live.last is not None and live.last % WRAP == frame.f_cnt
            if same and _fits(frame, live, live.newest, tried):
                return Refused(code="repeated")
        for device, live in candidates:
            for counter in counters(frame.f_cnt, above=live.newest, gap=self._gap_of(live)):
                if _fits(frame, live, counter, tried):
                    return self._believed(device, live, frame, counter)
        for _, live in candidates:
            if any(_fits(frame, live, counter, tried) for counter in _heard_before(frame, live)):
                return Refused(code="replayed")
        return Refused(code="wrong_mic")

    def asked(self, request: JoinRequest | RejoinRequest, *, now_s: float) -> bool:
        """Note a join-request on its way; False when it is not of ours, or not genuine."""
        device = self._devices.get(request.dev_eui)
        if device is None or device.roots is None:
            return False
        return self._joins.asked(request, device.roots, now_s=now_s)

    def answered(self, accept: SealedJoinAccept, *, now_s: float) -> int | None:
        """Follow a join-accept on its way to a device; return whose session it may have begun."""
        found = self._joins.answered(accept, self._roots_of, now_s=now_s)
        if found is None:
            return None
        dev_eui, sessions = found
        device, begun = self._devices[dev_eui], False
        for new in sessions:
            mark = mark_of(new.session, new.dev_addr)
            if mark not in device.retired and all(live.mark != mark for live in device.sessions):
                live = Live(mark=mark, dev_addr=new.dev_addr, keys=new.session, joined=new.joined)
                self._add(device, live)
                begun = True
        return dev_eui if begun else None

    def sent_down(self, frame: DataFrame) -> tuple[int, ...]:
        """Note a confirmed downlink: a 1.1 device signs it as answered; return whose it was."""
        if frame.mtype is not MType.CONFIRMED_DOWN:
            return ()
        noted = []
        for device, live in self._by_address.get(frame.dev_addr, ()):
            if live.keys.is_1_1 and live.conf_f_cnt != frame.f_cnt:
                live.conf_f_cnt = frame.f_cnt
                noted.append(device.dev_eui)
        return tuple(noted)

    def memory_of(self, dev_eui: int) -> tuple[str, bytes]:
        """Return the device's checkpoint, its name and its bytes."""
        return name_of(dev_eui), pack(memory_of(self._devices[dev_eui]))

    def _roots_of(self, dev_eui: int) -> Roots | None:
        device = self._devices.get(dev_eui)
        return None if device is None else device.roots

    def _gap_of(self, live: Live) -> int:
        """A session that nobody has used here may have counted for years."""
        return MAX_GAP if live.last is None else self._gap

    def _believed(self, device: Device, live: Live, frame: DataFrame, counter: int) -> Opened:
        if live.last is None:
            self._leave_older(device, live)
        live.last = counter
        return Opened(
            dev_eui=device.dev_eui,
            dev_addr=live.dev_addr,
            counter=counter,
            port=frame.f_port,
            payload=crypt_payload(frame, live.keys, f_cnt=counter),
        )

    def _leave_older(self, device: Device, used: Live) -> None:
        """The device uses `used`: it has left what came before, and never got its siblings."""
        place = device.sessions.index(used)
        left = [live for live in device.sessions[:place] if not siblings(live, used)]
        rest = [live for live in device.sessions[place + 1 :] if not siblings(live, used)]
        self._unlist(device)
        device.leave(live.mark for live in left)
        device.sessions = [used, *rest]
        self._list(device)

    def _add(self, device: Device, live: Live) -> None:
        """Add a session as the newest; of too many, the oldest that nobody used makes room."""
        self._unlist(device)
        device.sessions.append(live)
        if len(device.sessions) > MAX_SESSIONS:
            unused = (old for old in device.sessions if old.last is None)
            device.sessions.remove(next(unused))
        self._list(device)

    def _list(self, device: Device) -> None:
        for live in device.sessions:
            self._by_address.setdefault(live.dev_addr, []).append((device, live))

    def _unlist(self, device: Device) -> None:
        for address in {live.dev_addr for live in device.sessions}:
            others = [pair for pair in self._by_address[address] if pair[0] is not device]
            if others:
                self._by_address[address] = others
            else:
                del self._by_address[address]

    def _memory_before(self, dev_eui: int) -> Memory:
        packed = self._memory.pop(name_of(dev_eui), None)
        return (unpack(packed) if packed is not None else None) or Memory()


def counters(sent: int, *, above: int, gap: int = MAX_GAP) -> Iterator[int]:
    """The 32-bit counters, lowest first, that a frame carrying `sent` may mean.

    sent    sixteen bits
    above   newest counter that passed; -1: none yet
    gap     how far above it the frame's may be

    >>> list(counters(0x0001, above=0xFFFF, gap=16_384))
    [65537]
    """
    assert 0 <= sent < WRAP
    first = above + 1 + (sent - above - 1) % WRAP
    return iter(range(first, min(above + gap, COUNTERS - 1) + 1, WRAP))


def _heard_before(frame: DataFrame, live: Live) -> Iterator[int]:
    """The counters below the last one, newest first, that the frame may have had."""
    if live.last is None:
        return iter(())
    nearest = live.last - 1 - (live.last - 1 - frame.f_cnt) % WRAP
    return iter(range(nearest, max(-1, live.last - LOOK_BACK), -WRAP))


def _fits(frame: DataFrame, live: Live, counter: int, radios: tuple[tuple[int, int], ...]) -> bool:
    """Say whether the frame's integrity code is the one of this session and counter."""
    if not live.keys.is_1_1:
        return data_mic(frame, live.keys, f_cnt=counter) == frame.mic
    for rate, channel in radios:
        radio = Radio(conf_f_cnt=live.conf_f_cnt or 0, tx_dr=rate, tx_ch=channel)
        expected = data_mic(frame, live.keys, f_cnt=counter, radio=radio)
        if expected == frame.mic:
            return True
        if expected[2:] != frame.mic[2:]:
            return False  # this half does not depend on the radio
    return False
