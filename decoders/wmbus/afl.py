"""The authentication and fragmentation layer (CI 90): a keyed code over the transport layer.

AFLL(1) FCL(2) [MCL(1)] [KI(2)] [MCR(4)] [MAC(4-16)] [ML(2)], the bits of FCL say which.
Its code is AES-CMAC with a key derived from the meter's, its number and the message counter, so
it tells a wrong key and damaged bytes alike. Source: EN 13757-7:2018, 6; OMS Vol. 2, 6 and 9.
"""

from __future__ import annotations

import hmac

from decoders import aes
from decoders.errors import Malformed, Truncated, Unsupported, WrongKey
from decoders.value import value

LAYER = "afl"
CI_AFL = 0x90
_RESERVED = 0x8100
_MORE, _MCLP, _MLP, _MCRP, _MACP, _KIP = 0x4000, 0x2000, 0x1000, 0x0800, 0x0400, 0x0200
_FIELDS = ((_MCLP, 1), (_KIP, 2), (_MCRP, 4), (_MACP, 0), (_MLP, 2))  # 0: MCL says how many bytes
# authentication type of MCL → bytes of the code that are sent (all are AES-CMAC-128)
_MAC_BYTES = {3: 2, 4: 4, 5: 8, 6: 12, 7: 16}
_FROM_METER_ENCRYPTION, _FROM_METER_MAC = 0x00, 0x01  # derivation constants


@value
class Authentication:
    """What the layer carried.

    message_counter  MCR as sent (4 bytes); None when the message has none
    mac              the code; empty when there is none
    mac_at           where it stands in the frame
    signed_head      what the code covers in front of the transport layer: MCL, MCR, ML
    payload          transport layer, from its CI on
    payload_at       where that starts in the frame
    """

    message_counter: bytes | None
    mac: bytes
    mac_at: int
    signed_head: bytes
    payload: bytes
    payload_at: int


def read_afl(encoded: bytes, *, at: int) -> Authentication:
    """Read the layer from its CI on; `at` is where that is. Raises Truncated, Unsupported."""
    end = 2 + (encoded[1] if len(encoded) > 1 else 2)
    if len(encoded) <= end or end < 4:
        raise Truncated(LAYER, at + len(encoded), f"AFL of {end - 2} bytes and a payload behind it")
    control = encoded[2] | encoded[3] << 8
    if control & (_MORE | _RESERVED | 0xFF):
        raise Unsupported(LAYER, at + 2, "a message in fragments: only whole ones are read")
    i, mac_at = 4, at
    parts: dict[int, bytes] = {}
    for bit, fixed in _FIELDS:
        if control & bit:
            if bit == _MACP:
                mac_at = at + i
            size = fixed or _mac_bytes(parts.get(_MCLP, b""), at)
            parts[bit] = encoded[i : i + size]
            i += size
    if i != end:
        raise Malformed(LAYER, at + 1, f"AFL has {end - 2} bytes, its fields {i - 2}")
    mac = parts.get(_MACP, b"")
    head = b"".join(parts.get(bit, b"") for bit in (_MCLP, _MCRP, _MLP))
    return Authentication(
        message_counter=parts.get(_MCRP),
        mac=mac,
        mac_at=mac_at,
        signed_head=head,
        payload=encoded[end:],
        payload_at=at + end,
    )


def check(found: Authentication, key: bytes, *, identification: bytes) -> None:
    """Check the code. Raises WrongKey, Unsupported.

    identification  ID(4) of the meter as sent: the code's key depends on it
    """
    if found.message_counter is None:
        raise Unsupported(LAYER, found.mac_at, "a code without a message counter to derive its key")
    signing = mac_key(key, found.message_counter, identification=identification)
    code = aes.cmac(signing, found.signed_head + found.payload)
    if not hmac.compare_digest(code[: len(found.mac)], found.mac):
        detail = "the code does not fit: another key, or damaged bytes"
        raise WrongKey(LAYER, found.mac_at, detail)


def encryption_key(key: bytes, message_counter: bytes, *, identification: bytes) -> bytes:
    """The key of one message in security mode 7 (key derivation function A of OMS)."""
    return _derived(key, _FROM_METER_ENCRYPTION, message_counter, identification)


def mac_key(key: bytes, message_counter: bytes, *, identification: bytes) -> bytes:
    """The key of one message's code."""
    return _derived(key, _FROM_METER_MAC, message_counter, identification)


def _derived(key: bytes, constant: int, message_counter: bytes, identification: bytes) -> bytes:
    """Derive a key for one message: CMAC(key, constant MCR ID 07…07)."""
    seed = bytes((constant,)) + message_counter + identification
    return aes.cmac(key, seed.ljust(aes.BLOCK_BYTES, b"\x07"))


def _mac_bytes(control: bytes, at: int) -> int:
    kind = control[0] & 0x0F if control else -1
    if kind not in _MAC_BYTES:
        raise Unsupported(LAYER, at + 4, f"authentication type {kind} is not AES-CMAC")
    return _MAC_BYTES[kind]
