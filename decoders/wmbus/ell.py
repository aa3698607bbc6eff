"""The extended link layer: CI 8C, 8D, 8E, 8F, with AES-128-CTR and the payload's own checksum.

8C  CC ACC                         8E  CC ACC M2(2) A2(6)
8D  CC ACC SN(4) PLCRC(2)          8F  CC ACC M2(2) A2(6) SN(4) PLCRC(2)

Encryption starts at PLCRC. CTR itself never fails, so PLCRC, a checksum over everything after
it, is what tells a wrong key. Source: EN 13757-4:2019, 13.2; OMS Vol. 2, 6.
"""

from __future__ import annotations

from decoders import aes
from decoders.errors import CrcMismatch, KeyMissing, Truncated, Unsupported, WrongKey
from decoders.value import value
from decoders.wmbus.crc import crc16
from decoders.wmbus.link import Frame

LAYER = "ell"
CI_SHORT, CI_SESSION, CI_ADDRESS, CI_ADDRESS_SESSION = 0x8C, 0x8D, 0x8E, 0x8F
_ADDRESS_BYTES = 8
_CI_AT = 9  # in Frame.body
_NO_ENCRYPTION, _AES_128_CTR = 0, 1
# Hop count and "repeated" change on the way, so they count as zero in the counter block.
_CC_CHANGED_BY_REPEATERS = 0x12


@value
class Opened:
    """What the extended link layer carried.

    payload          transport layer, from its CI on, in clear
    payload_at       where it starts, counted from L
    access_number    None without an extended link layer
    session_number   32 bits: session, time, encryption; None where the CI has none
    payload_checked  True when PLCRC was there and fits
    address          of the meter, when the frame was sent on its behalf (8E, 8F); else None
    """

    payload: bytes
    payload_at: int
    access_number: int | None
    session_number: int | None
    payload_checked: bool
    address: bytes | None


def open_frame(frame: Frame, *, key: bytes | None, already_decrypted: bool) -> Opened:
    """Read and decrypt the extended link layer of `frame`; frames without one pass through.

    already_decrypted  the caller knows that the payload is in clear although the header says
                       otherwise (a log kept after decryption); never guessed
    Raises Truncated, KeyMissing, WrongKey, CrcMismatch, Unsupported.
    """
    body = frame.body
    ci = body[_CI_AT]
    if ci not in (CI_SHORT, CI_SESSION, CI_ADDRESS, CI_ADDRESS_SESSION):
        return Opened(
            payload=body[_CI_AT:],
            payload_at=frame.ci_at,
            access_number=None,
            session_number=None,
            payload_checked=False,
            address=None,
        )
    has_address = ci in (CI_ADDRESS, CI_ADDRESS_SESSION)
    has_session = ci in (CI_SESSION, CI_ADDRESS_SESSION)
    after_access = _CI_AT + 3
    after_address = after_access + (_ADDRESS_BYTES if has_address else 0)
    start = after_address + (6 if has_session else 0)
    if len(body) <= start:
        raise Truncated(LAYER, len(body) + 1, f"CI {ci:02X} needs more than {start} bytes")
    session = int.from_bytes(body[after_address : after_address + 4], "little")
    clear = (
        _clear(
            frame,
            at=after_address,
            own=body[after_access:after_address],
            key=key,
            already_decrypted=already_decrypted,
        )
        if has_session
        else body[start:]
    )
    return Opened(
        payload=clear,
        payload_at=start + 1,
        access_number=body[_CI_AT + 2],
        session_number=session if has_session else None,
        payload_checked=has_session,
        address=body[after_access:after_address] if has_address else None,
    )


def counter_block(*, address: bytes, communication_control: int, session: bytes) -> bytes:
    """First AES counter block: M(2) A(6) CC SN(4) FN(2) BC(1); FN and BC start at zero."""
    control = communication_control & ~_CC_CHANGED_BY_REPEATERS & 0xFF
    return address + bytes((control,)) + session + bytes(3)


def _clear(
    frame: Frame, *, at: int, own: bytes, key: bytes | None, already_decrypted: bool
) -> bytes:
    """Decrypt from PLCRC on and check it.

    at   where SN starts in the body
    own  the meter's address, where another device (8F) sends on its behalf; else empty
    """
    body = frame.body
    session, sealed = body[at : at + 4], body[at + 4 :]
    encryption = session[3] >> 5
    if encryption not in (_NO_ENCRYPTION, _AES_128_CTR):
        raise Unsupported(LAYER, at + 1, f"encryption {encryption} of SN is not AES-128-CTR")
    if encryption != _AES_128_CTR or already_decrypted:
        if not _fits(sealed):
            raise CrcMismatch(LAYER, at + 5, "the payload does not fit its checksum")
        return sealed[2:]
    if key is None:
        raise KeyMissing(LAYER, at + 5, "encrypted with AES-128-CTR, and no key was given")
    # No public telegram shows whose address counts in an 8F frame: the checksum decides.
    for address in (own, frame.address) if own else (frame.address,):
        block = counter_block(
            address=address, communication_control=body[_CI_AT + 1], session=session
        )
        opened = aes.ctr(key, block, sealed)
        if _fits(opened):
            return opened[2:]
    doubt = "" if frame.checked else ", or the frame is damaged: it has no checksum to tell"
    raise WrongKey(LAYER, at + 5, f"the decrypted payload does not fit its checksum{doubt}")


def _fits(opened: bytes) -> bool:
    return crc16(opened[2:]) == opened[0] | opened[1] << 8
