"""Encode what other meters than Kamstrup's send: OMS security modes 5 and 7, every ELL, wired.

The counterpart of `decoders.encode`, layer by layer; property tests hold both to the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence

from decoders import aes
from decoders.ids import MeterId
from decoders.value import value
from decoders.wmbus import afl, ell, link
from decoders.wmbus.compact import compacted
from decoders.wmbus.crc import crc16
from decoders.wmbus.link import Form
from decoders.wmbus.records import Record, join
from decoders.wmbus.transport import MODE_CBC, MODE_DERIVED_KEY, MODE_NONE

_CONTROL = 0x44  # SND-NR: a meter speaks unasked
_FILL = b"\x2f"
_LONG_CI = {False: 0x72, True: 0x73}
_SHORT_CI = {False: 0x7A, True: 0x7B}
_MAX_BLOCKS = 15
_WHOLE_WITH_CODE = b"\x00\x2c"  # FCL: not fragmented; MCL, MCR and MAC follow
_CMAC_8 = 0x25  # MCL: AES-CMAC of 8 bytes, with a message counter
_DERIVED_KEY = 0x10  # key derivation of mode 7 by CMAC, key 0


@value
class Sealing:
    """How a transport layer is protected.

    mode             0, 5 or 7
    message_counter  of mode 7, 32 bits
    """

    mode: int = MODE_NONE
    key: bytes | None = None
    message_counter: int = 0


CLEAR = Sealing()


def transport_layer(
    records: Sequence[Record],
    *,
    meter: MeterId,
    access_number: int,
    status: int = 0,
    long: bool = False,
    compact: bool = False,
    sealing: Sealing = CLEAR,
) -> bytes:
    """A transport layer, with the authentication layer in front of it in mode 7.

    long  the header carries the meter's identity (CI 72), else not (7A)
    Raises ValueError when more than fifteen blocks were to be encrypted.
    """
    sent = compacted(tuple(records)) if compact else join(records)
    wire = meter.to_wire()
    ci = (_LONG_CI if long else _SHORT_CI)[compact]
    identity = wire[2:6] + wire[:2] + wire[6:] if long else b""
    head = bytes((ci,)) + identity + bytes((access_number & 0xFF, status))
    if sealing.mode == MODE_NONE:
        return head + bytes(2) + sent
    sent = _FILL * 2 + sent
    sent += _FILL * (-len(sent) % aes.BLOCK_BYTES)
    blocks = len(sent) // aes.BLOCK_BYTES
    if blocks > _MAX_BLOCKS:
        raise ValueError(f"{blocks} blocks, at most {_MAX_BLOCKS} can be announced")
    head += bytes((blocks << 4, sealing.mode))
    assert sealing.key is not None
    if sealing.mode == MODE_CBC:
        vector = wire + bytes((access_number & 0xFF,)) * 8
        return head + aes.cbc_encrypt(sealing.key, vector, sent)
    assert sealing.mode == MODE_DERIVED_KEY
    return _authenticated(head + bytes((_DERIVED_KEY,)), sent, wire[2:6], sealing)


def behind_ell(
    payload: bytes,
    *,
    ci: int,
    sender: MeterId,
    access_number: int,
    meter: MeterId | None = None,
    session_number: int = 0,
    key: bytes | None = None,
    form: Form = Form.STRIPPED,
) -> bytes:
    """A frame with an extended link layer of any kind around `payload` (from its CI on).

    ci              0x8C, 0x8D, 0x8E or 0x8F
    sender          who transmits: the link layer's address
    meter           whom it is sent for (8E, 8F)
    session_number  of 8D and 8F; it says whether `key` encrypts
    """
    control = 0x20
    wire = sender.to_wire()
    head = bytes((ci, control, access_number & 0xFF))
    own = wire
    if ci in (ell.CI_ADDRESS, ell.CI_ADDRESS_SESSION):
        assert meter is not None
        own = meter.to_wire()
        head += own
    if ci in (ell.CI_SESSION, ell.CI_ADDRESS_SESSION):
        session = session_number.to_bytes(4, "little")
        head += session
        payload = crc16(payload).to_bytes(2, "little") + payload
        if key is not None:
            assert session[3] >> 5 == 1, "the session number says that nothing is encrypted"
            block = ell.counter_block(address=own, communication_control=control, session=session)
            payload = aes.ctr(key, block, payload)
    return link.wrap(bytes((_CONTROL,)) + wire + head + payload, form)


def without_ell(payload: bytes, *, sender: MeterId, form: Form = Form.STRIPPED) -> bytes:
    """A frame without an extended link layer around `payload` (from its CI on)."""
    return link.wrap(bytes((_CONTROL,)) + sender.to_wire() + payload, form)


def _authenticated(head: bytes, sent: bytes, identification: bytes, sealing: Sealing) -> bytes:
    """Mode 7: encrypted with a key of this message alone, then signed with another."""
    assert sealing.key is not None
    counter = sealing.message_counter.to_bytes(4, "little")
    key = afl.encryption_key(sealing.key, counter, identification=identification)
    transport = head + aes.cbc_encrypt(key, bytes(aes.BLOCK_BYTES), sent)
    signed = bytes((_CMAC_8,)) + counter
    mac_key = afl.mac_key(sealing.key, counter, identification=identification)
    code = aes.cmac(mac_key, signed + transport)[:8]
    layer = _WHOLE_WITH_CODE + signed + code
    return bytes((afl.CI_AFL, len(layer))) + layer + transport
