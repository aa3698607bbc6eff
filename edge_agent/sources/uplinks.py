"""What all network servers' uplinks have in common: limits, units, and how a bad one is refused."""

from __future__ import annotations

import math
from typing import Final

from decoders.uplink import MAX_PAYLOAD_BYTES, RowFlag, RowKind
from edge_agent.inputs import Heard

MAX_EVENT_BYTES: Final = 262_144  # an uplink heard by a hundred gateways is a tenth of it
QUARTER_DB: Final = 4
U32: Final = 0xFFFFFFFF
U64: Final = 0xFFFFFFFFFFFFFFFF


class BadEvent(Exception):
    """An event that is no uplink. code: malformed | oversized."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def malformed(detail: str) -> BadEvent:
    return BadEvent("malformed", detail)


def check_size(event: bytes) -> None:
    """Refuse an event before anything of it is read. Raises BadEvent."""
    if len(event) > MAX_EVENT_BYTES:
        raise BadEvent("oversized", f"{len(event)} bytes, at most {MAX_EVENT_BYTES} are read")


def uplink(
    payload: bytes,
    *,
    eui: int,
    session: int,
    counter: int,
    port: int,
    heard_at: int,
    level: tuple[int, int],
    token: object,
) -> Heard:
    """Return an uplink whose MIC a network server has checked. Raises BadEvent.

    eui, session   DevEUI and DevAddr as numbers
    level          dBm and quarter dB, see `level_of`
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise BadEvent("oversized", f"data: {len(payload)} bytes")
    numbers: tuple[tuple[str, object, int, int], ...] = (
        ("DevEUI", eui, 0, U64),
        ("DevAddr", session, 0, U32),
        ("fCnt", counter, 0, U32),
        ("fPort", port, 1, 255),
    )
    for name, given, least, most in numbers:  # JSON may say anything for a number
        if isinstance(given, bool) or not isinstance(given, int) or not least <= given <= most:
            raise malformed(f"{name}: a whole number of {least} … {most}, got {given!r:.40}")
    return Heard(
        kind=RowKind.LORAWAN,
        frame=payload,
        heard_at=heard_at,
        flags=int(RowFlag.NETWORK_CHECKED),
        radio=eui,
        session=session,
        counter=counter,
        port=port,
        rssi=level[0],
        snr=level[1],
        token=token,
    )


def level_of(rssi: float, snr: float) -> tuple[int, int]:
    """Return whole dBm and quarter dB of a signal level, within what a row holds.

    >>> level_of(-97, 7.5)
    (-97, 30)
    """
    try:
        if math.isfinite(rssi) and math.isfinite(snr):
            quarters = round(snr * QUARTER_DB)
            return max(-32767, min(32767, round(rssi))), max(-127, min(127, quarters))
    except OverflowError:
        pass  # an integer of hundreds of digits
    raise malformed("the level is no number")
