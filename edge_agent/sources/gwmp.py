"""GWMP: what Semtech's packet forwarder, and Kerlink's, say to a network server over UDP. Pure.

    version(1) token(2) identifier(1), then
    from the forwarder   0 PUSH_DATA   gateway EUI(8) JSON {"rxpk": […], "stat": {…}}
                         2 PULL_DATA   gateway EUI(8)
                         5 TX_ACK      gateway EUI(8) [JSON]
    from the server      1 PUSH_ACK    nothing
                         4 PULL_ACK    nothing
                         3 PULL_RESP   JSON {"txpk": {…}}

Source: PROTOCOL.TXT of Lora-net/packet_forwarder v4.0.1, protocol versions 1 and 2; `rsig` (one
entry for each antenna) as Kerlink and Semtech's gateway v2 send it and ChirpStack reads it.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final

from decoders.lorawan.phy import MAX_PHY_BYTES
from decoders.uplink import NO_RSSI, NO_SNR
from decoders.value import value

HEAD_BYTES: Final = 4  # version, token, identifier
EUI_BYTES: Final = 8
VERSIONS: Final = frozenset({1, 2})
CRC_FAILED: Final = -1
QUARTER_DB: Final = 4
URL_SAFE: Final = str.maketrans("-_", "+/")  # the specification's own examples mix both alphabets


class Identifier(IntEnum):
    """The fourth byte of a datagram."""

    PUSH_DATA = 0
    PUSH_ACK = 1
    PULL_DATA = 2
    PULL_RESP = 3
    PULL_ACK = 4
    TX_ACK = 5


class BadDatagram(Exception):
    """A PUSH_DATA or PULL_RESP that cannot be read. It is passed on all the same."""


@value
class Reception:
    """One radio frame as a gateway heard it.

    phy      PHYPayload
    crc_ok   the radio's own check; a frame without one counts as good, its MIC will tell
    rssi     dBm of the antenna that heard best, NO_RSSI where nothing is said
    snr      quarter dB, NO_SNR where nothing is said
    datr     "SF7BW125"; "" for FSK
    freq_hz  0 where nothing is said
    """

    phy: bytes
    crc_ok: bool = True
    rssi: int = NO_RSSI
    snr: int = NO_SNR
    datr: str = ""
    freq_hz: int = 0


@value
class Pushed:
    """What a PUSH_DATA brings: its receptions, and how many entries could not be read."""

    receptions: tuple[Reception, ...]
    unreadable: int = 0


def identifier(datagram: bytes) -> Identifier | None:
    """Return what kind of datagram it is; None when it is not GWMP that we know."""
    if len(datagram) < HEAD_BYTES or datagram[0] not in VERSIONS or datagram[3] > Identifier.TX_ACK:
        return None
    return Identifier(datagram[3])


def pushed(datagram: bytes) -> Pushed:
    """Read the receptions of a PUSH_DATA. Raises BadDatagram.

    A frame that several channels or antennas heard comes once, as it was heard best.
    """
    said = _json(datagram[HEAD_BYTES + EUI_BYTES :])
    entries = said.get("rxpk", [])
    if not isinstance(entries, list):
        raise BadDatagram(f"rxpk: a list is expected, got {type(entries).__name__}")
    receptions: dict[bytes, Reception] = {}
    unreadable = 0
    for entry in entries:
        reception = _reception(entry)
        if reception is None:
            unreadable += 1
            continue
        other = receptions.setdefault(reception.phy, reception)
        if _heard_better(reception, other):
            receptions[reception.phy] = reception
    return Pushed(receptions=tuple(receptions.values()), unreadable=unreadable)


def downlink(datagram: bytes) -> bytes:
    """Return the PHYPayload that a PULL_RESP asks to send. Raises BadDatagram."""
    packet = _json(datagram[HEAD_BYTES:]).get("txpk")
    phy = _phy(packet) if isinstance(packet, dict) else None
    if phy is None:
        raise BadDatagram("txpk: an object with data is expected")
    return phy


def _json(text: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadDatagram(f"JSON: {error}") from None
    if not isinstance(said, dict):
        raise BadDatagram(f"a JSON object is expected, got {type(said).__name__}")
    return said


def _reception(entry: object) -> Reception | None:
    if not isinstance(entry, dict):
        return None
    phy = _phy(entry)
    if phy is None:
        return None
    rssi, snr = _level(entry)
    megahertz, datr = _number(entry, "freq"), entry.get("datr")
    return Reception(
        phy=phy,
        crc_ok=entry.get("stat") != CRC_FAILED,
        rssi=rssi,
        snr=snr,
        datr=datr if isinstance(datr, str) else "",
        freq_hz=0 if megahertz is None else round(megahertz * 1_000_000),
    )


def _heard_better(one: Reception, other: Reception) -> bool:
    return (one.crc_ok, one.snr, one.rssi) > (other.crc_ok, other.snr, other.rssi)


def _phy(packet: Mapping[str, Any]) -> bytes | None:
    text = packet.get("data")
    if not isinstance(text, str):
        return None
    padded = text.rstrip("=").translate(URL_SAFE)
    padded += "=" * (-len(padded) % 4)
    try:
        phy = base64.b64decode(padded, validate=True)
    except (binascii.Error, ValueError):
        return None
    return phy if 0 < len(phy) <= MAX_PHY_BYTES else None


def _level(entry: Mapping[str, Any]) -> tuple[int, int]:
    """Return dBm and quarter dB of the antenna with the best signal-to-noise ratio."""
    antennas = entry.get("rsig")
    several = antennas if isinstance(antennas, list) else []
    heard = [_antenna(antenna) for antenna in (entry, *several) if isinstance(antenna, dict)]
    snr, rssi = max(heard)
    return (
        NO_RSSI if rssi == -math.inf else max(-32767, min(32767, round(rssi))),
        NO_SNR if snr == -math.inf else max(-127, min(127, round(snr * QUARTER_DB))),
    )


def _antenna(entry: Mapping[str, Any]) -> tuple[float, float]:
    """Return (dB, dBm); minus infinity where nothing is said."""
    rssi, snr = _number(entry, "rssi"), _number(entry, "lsnr")
    if rssi is None:
        rssi = _number(entry, "rssic")
    return (-math.inf if snr is None else snr, -math.inf if rssi is None else rssi)


def _number(entry: Mapping[str, Any], name: str) -> float | None:
    given = entry.get(name)
    if isinstance(given, bool) or not isinstance(given, int | float):
        return None
    try:
        number = float(given)
    except OverflowError:
        return None
    return number if math.isfinite(number) and abs(number) < 1e9 else None
