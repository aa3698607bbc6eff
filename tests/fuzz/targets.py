"""What the fuzzer calls: each target reads bytes from outside and may refuse in one way only.

Every target takes any bytes and returns, or raises the error that its reader promises; whatever
else it raises is a find. `seeds` are where the fuzzer begins.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from decoders import uplink
from decoders.batch import decode_rows
from decoders.decode import decode_lorawan, decode_wmbus
from decoders.drivers.registry import known_formats
from decoders.errors import DecodeError
from decoders.explain import explain_lorawan, explain_wmbus
from decoders.lorawan.phy import parse_phy
from decoders.uplink import Ack, Batch, Row, RowKind, pack_rows
from decoders.uplink_fields import UplinkError
from decoders.value import value
from edge_agent.clock import SystemClock
from edge_agent.keys import Given, KeyFileUnusable, given_by
from edge_agent.keys_sealed import opened, sealed, sealed_in
from edge_agent.private_key import PrivateKey, PrivateKeyUnusable, private_key_of
from edge_agent.sources import gwmp, multitech
from edge_agent.sources.amber import AmberFramer
from edge_agent.sources.chirpstack_protobuf import event_in
from edge_agent.sources.gwmp import BadDatagram
from edge_agent.sources.imst import ImstFramer
from edge_agent.sources.lines import BadLine, frames_of
from edge_agent.sources.protobuf import BadProtobuf
from edge_agent.sources.uplinks import BadEvent
from field_sim.soak.seeds import DEV_EUI, KEY, seeds_by_radio

FORMATS: Final = known_formats()
NOW_US: Final = 1_772_452_800_000_000
LEAST_BATCH: Final = 1  # frames of one length from which the batch is swept: here always
CLOCK: Final = SystemClock()
OWN: Final = PrivateKey(b"EC")


@value
class Target:
    """One reader of bytes. most_bytes: no longer input is tried."""

    says: str
    reads: Callable[[bytes], object]
    refuses: tuple[type[Exception], ...]
    seeds: Callable[[], Sequence[bytes]]
    most_bytes: int = 300


def key_file(given: bytes) -> None:
    """One reader or the other, by the first byte, as an agent looks at it."""
    if given.startswith(b'{"aquacis_keys":'):
        opened(sealed_in(given, "it"), gateway="norte", private_key=OWN)
    else:
        given_by(given.decode("utf-8", "replace"), "it", newer={})


def private_key(given: bytes) -> None:
    private_key_of(given.decode("latin-1"))


def wmbus(given: bytes) -> None:
    kept, frame = _frame_in(given)
    decode_wmbus(frame, key=KEY, formats=FORMATS, already_decrypted=kept)


def explained(given: bytes) -> None:
    kept, frame = _frame_in(given)
    assert explain_wmbus(frame, key=KEY, formats=FORMATS, already_decrypted=kept)
    assert explain_lorawan(frame, port=1, f_cnt=1, dev_eui=DEV_EUI)


def _frame_in(given: bytes) -> tuple[bool, bytes]:
    """The first byte tells how the rest is meant: bit 0 kept after decryption, bit 1 L is right."""
    how, frame = (given[0], given[1:]) if given else (0, b"")
    if how & 2 and frame:
        frame = bytes((min(len(frame) - 1, 255),)) + frame[1:]
    return bool(how & 1), frame


def payload(given: bytes) -> None:
    decode_lorawan(given, port=1, f_cnt=1, dev_eui=DEV_EUI)


def batch(given: bytes) -> None:
    """One frame, as a row between two others of its length: swept, and alone, with one answer."""
    kind = RowKind.LORAWAN if given[:1] and given[0] & 1 else RowKind.WMBUS
    frame = _frame_in(given)[1]
    rows = pack_rows(
        Row(seq=number, heard_at=0, kind=kind, radio=DEV_EUI, payload=frame) for number in (1, 2, 3)
    )
    swept, alone = (
        decode_rows(
            rows, keys=lambda _: KEY, formats=known_formats(), sweeping=way, least=LEAST_BATCH
        )
        for way in (True, False)
    )
    for name in ("register_l", "has_register", "info_code", "counter", "integrity", "litres"):
        assert (getattr(swept, name) == getattr(alone, name)).all(), name


def messages(given: bytes) -> None:
    """Both directions; what is read can be written again and says the same."""
    uplink.claimed_stream(given)
    try:
        read = uplink.decode_batch(given)
    except UplinkError:
        uplink.decode_ack(given)
        return
    assert uplink.decode_batch(uplink.encode_batch(read)).rows == read.rows


def lines(given: bytes) -> None:
    for line in given.decode("utf-8", "replace").splitlines():
        frames_of(line, now_us=NOW_US)


def datagrams(given: bytes) -> None:
    kind = gwmp.identifier(given)
    if kind is gwmp.Identifier.PUSH_DATA:
        gwmp.pushed(given)
    elif kind is gwmp.Identifier.PULL_RESP:
        gwmp.downlink(given)


def multitech_events(given: bytes) -> None:
    multitech.heard_in(given, clock=CLOCK)


def serial(given: bytes) -> None:
    """Cut what two kinds of receivers say, in two deliveries: a cut may be anywhere."""
    half = given[0] if given else 0
    for framer in (ImstFramer(), AmberFramer()):
        for part in (given[1 : 1 + half], given[1 + half :]):
            framer.cut(part)
        framer.silence()


def _kept_or_not(frames: Sequence[bytes]) -> list[bytes]:
    return [bytes((how,)) + frame for frame in frames for how in range(4)]


def _radio(name: str) -> Callable[[], Sequence[bytes]]:
    return lambda: seeds_by_radio()[name]


def _either_frame() -> Sequence[bytes]:
    return _kept_or_not([*seeds_by_radio()["wmbus"], *seeds_by_radio()["payload"]])


def _messages() -> Iterator[bytes]:
    frame = seeds_by_radio()["wmbus"][0]
    rows = pack_rows([Row(seq=1, heard_at=NOW_US, kind=RowKind.WMBUS, payload=frame)])
    for held in (rows, pack_rows(())):
        yield uplink.encode_batch(
            Batch(
                gateway="cerro",
                stream=bytes(uplink.STREAM_BYTES),
                sent_at=NOW_US,
                started_at=NOW_US,
                health={"heard": 1},
                rows=held,
            )
        )
    yield uplink.encode_ack(
        Ack(stream=bytes(uplink.STREAM_BYTES), upto=1, credit=9, rejected=((1, "crc"),), cloud_at=1)
    )


def _lines() -> Iterator[bytes]:
    frame = seeds_by_radio()["wmbus"][0].hex()
    yield frame.encode()
    for level in ("-70", "-\u00b2", "-" + "9" * 5000):
        yield f"C1;1;1;2026-03-02 12:00:00.000;{level};-9;12345678;0x{frame}".encode()
    yield json.dumps(
        {"telegram_hex": frame, "key_hex": KEY.hex(), "heard_at": "2026-03-02"}
    ).encode()
    yield json.dumps({"payload_hex": "7844", "fport": 1, "dev_eui": f"{DEV_EUI:016x}"}).encode()


def _datagrams() -> Iterator[bytes]:
    data = base64.b64encode(seeds_by_radio()["phy"][0]).decode()
    heard = {"rxpk": [{"data": data, "rssi": -80, "lsnr": 7.5, "datr": "SF7BW125", "stat": 1}]}
    yield bytes.fromhex("02000100") + bytes(8) + json.dumps(heard).encode()
    yield bytes.fromhex("02000103") + json.dumps({"txpk": {"data": data}}).encode()


def _multitech() -> Iterator[bytes]:
    said = {"deveui": "00-13-ea-00-01-02-03-04", "port": 1, "data": "eEQ=", "fcnt": 3, "size": 2}
    yield json.dumps(said).encode()


def _serial() -> Iterator[bytes]:
    frame = seeds_by_radio()["wmbus"][0]
    yield b"\x07\xa5\x02\x03" + frame
    yield b"\x07\xff\x03" + frame + b"\x00"


_DECODE_ERROR = (DecodeError,)


def _key_files() -> list[bytes]:
    meters = Given(assigned=frozenset({"KAW-53885758"}), meters={"KAW-53885758": {1: KEY}})
    lorawan = {"version": "1.0", "dev_addr": "01AB23CD", "app_s_key": KEY.hex(), "f_cnt_up": 7}
    lines: list[dict[str, object]] = [
        {"meter": "KAW-53885758", "key_hex": KEY.hex(), "version": 2},
        {"meter": "0013EA0001020304", "lorawan": lorawan},
    ]
    whole = sealed(meters, gateway="norte", private_keys=[OWN], random=bytes)
    return [whole, *(json.dumps(line).encode() for line in lines)]


def _pem() -> list[bytes]:
    der = bytes.fromhex("30310201010420") + bytes(31) + b"\7"
    der += bytes.fromhex("a00a06082a8648ce3d030107")
    body = base64.b64encode(der)
    return [b"-----BEGIN EC PRIVATE KEY-----\n" + body + b"\n-----END EC PRIVATE KEY-----\n"]


TARGETS: Mapping[str, Target] = {
    "keys": Target(
        says="a gateway's key file, sealed and in lines",
        reads=key_file,
        refuses=(KeyFileUnusable,),
        seeds=_key_files,
        most_bytes=1000,
    ),
    "private-key": Target(
        says="private keys in PEM",
        reads=private_key,
        refuses=(PrivateKeyUnusable,),
        seeds=_pem,
        most_bytes=1000,
    ),
    "wmbus": Target(
        says="wM-Bus frames: link, extended link, authentication, transport, records",
        reads=wmbus,
        refuses=_DECODE_ERROR,
        seeds=lambda: _kept_or_not(seeds_by_radio()["wmbus"]),
    ),
    "payload": Target(
        says="LoRaWAN payloads of M-Bus records",
        reads=payload,
        refuses=_DECODE_ERROR,
        seeds=_radio("payload"),
    ),
    "phy": Target(
        says="LoRaWAN PHYPayloads", reads=parse_phy, refuses=_DECODE_ERROR, seeds=_radio("phy")
    ),
    "batch": Target(
        says="frames in a batch, swept and one at a time",
        reads=batch,
        refuses=(),
        seeds=_either_frame,
    ),
    "explain": Target(
        says="the words of decode --explain", reads=explained, refuses=(), seeds=_either_frame
    ),
    "uplink": Target(
        says="CBOR messages of both directions",
        reads=messages,
        refuses=(UplinkError,),
        seeds=lambda: list(_messages()),
        most_bytes=1000,
    ),
    "lines": Target(
        says="hex, rtl-wmbus and JSON lines",
        reads=lines,
        refuses=(BadLine,),
        seeds=lambda: list(_lines()),
        most_bytes=8000,
    ),
    "protobuf": Target(
        says="ChirpStack's uplink events in protobuf",
        reads=event_in,
        refuses=(BadProtobuf,),
        seeds=lambda: [bytes.fromhex("22083030303030303031380740015203784400")],
    ),
    "gwmp": Target(
        says="datagrams of a packet forwarder",
        reads=datagrams,
        refuses=(BadDatagram,),
        seeds=lambda: list(_datagrams()),
        most_bytes=1000,
    ),
    "multitech": Target(
        says="uplinks of a MultiTech network server",
        reads=multitech_events,
        refuses=(BadEvent,),
        seeds=lambda: list(_multitech()),
        most_bytes=1000,
    ),
    "serial": Target(
        says="what IMST and Amber receivers say on a serial port",
        reads=serial,
        refuses=(),
        seeds=lambda: list(_serial()),
    ),
}
