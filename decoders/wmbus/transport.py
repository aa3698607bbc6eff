"""The transport layer's header: who the data is about, and how it is protected.

72  ID(4) M(2) V T ACC STS CFG(2)    long
7A  ACC STS CFG(2)                   short
78  nothing                          none
79  signature(2) full CRC(2)         none, compact records; 73 and 7B with long and short header
Source: EN 13757-7:2018, 7; OMS Vol. 2, 7.
"""

from __future__ import annotations

from decoders import aes
from decoders.errors import KeyMissing, Truncated, UnknownFormat, Unsupported, WrongKey
from decoders.value import value

LAYER = "transport"
_LONG, _SHORT, _NONE = 12, 4, 0
# CI → (header bytes, records are compact)
_HEADERS = {
    0x72: (_LONG, False),
    0x73: (_LONG, True),
    0x7A: (_SHORT, False),
    0x7B: (_SHORT, True),
    0x78: (_NONE, False),
    0x79: (_NONE, True),
}
MODE_NONE, MODE_CBC = 0, 5
MODES = frozenset({MODE_NONE, MODE_CBC})
CLEAR = frozenset({MODE_NONE})
_FILL = b"\x2f\x2f"


@value
class Header:
    """A transport header and the records behind it, in clear.

    address     M(2) A(6) of the meter as the link layer would send them; None without long header
    status      the STS byte; None without a header
    fill_found  True when decryption left the two known bytes of mode 5
    records_at  where `records` start in the frame
    """

    ci: int
    compact: bool
    records: bytes
    records_at: int
    address: bytes | None = None
    access_number: int | None = None
    status: int | None = None
    security_mode: int = MODE_NONE
    fill_found: bool = False


def read_header(
    payload: bytes,
    *,
    at: int,
    address: bytes | None = None,
    key: bytes | None = None,
    already_decrypted: bool = False,
    modes: frozenset[int] = MODES,
) -> Header:
    """Read the transport layer from its CI on; `at` is where that is in the frame.

    address  the link layer's M and A, for the initialisation vector of a short header
    modes    security modes that may occur here
    Raises Truncated, UnknownFormat, Unsupported, KeyMissing, WrongKey.
    """
    if not payload:
        raise Truncated(LAYER, at, "no CI field")
    ci = payload[0]
    if ci not in _HEADERS:
        raise UnknownFormat(LAYER, at, f"CI {ci:02X} starts no transport layer known here")
    size, compact = _HEADERS[ci]
    if len(payload) < 1 + size:
        raise Truncated(LAYER, at + len(payload), f"CI {ci:02X} needs a header of {size} bytes")
    records, records_at = payload[1 + size :], at + 1 + size
    if size == _NONE:
        return Header(ci=ci, compact=compact, records=records, records_at=records_at)
    access, config = payload[size - 3], payload[size - 1] | payload[size] << 8
    own = payload[5:7] + payload[1:5] + payload[7:9] if size == _LONG else None
    mode, fill_found = config >> 8 & 0x1F, False
    if mode not in modes:
        raise Unsupported(LAYER, at + size - 1, f"security mode {mode} cannot be opened here")
    if mode == MODE_CBC:
        if not already_decrypted:
            vector = (own or address or bytes(8)) + bytes((access,)) * 8
            blocks = config >> 4 & 0x0F
            records = _decrypt_cbc(records, blocks, key=key, vector=vector, at=records_at)
        fill_found = records[:2] == _FILL
        if compact and fill_found:  # full records skip fill by themselves
            records, records_at = records[2:], records_at + 2
    return Header(
        ci=ci,
        compact=compact,
        records=records,
        records_at=records_at,
        address=own,
        access_number=access,
        status=payload[size - 2],
        security_mode=mode,
        fill_found=fill_found,
    )


def _decrypt_cbc(
    records: bytes, blocks: int, *, key: bytes | None, vector: bytes, at: int
) -> bytes:
    """Open `blocks` blocks of security mode 5. Only 2F2F says whether the key was right."""
    sealed = aes.BLOCK_BYTES * blocks
    if sealed == 0:
        return records
    if len(records) < sealed:
        raise Truncated(LAYER, at + len(records), f"{blocks} encrypted blocks are announced")
    if key is None:
        raise KeyMissing(LAYER, at, "encrypted in security mode 5, and no key was given")
    opened = aes.cbc_decrypt(key, vector, records[:sealed])
    if opened[:2] != _FILL:
        raise WrongKey(LAYER, at, "security mode 5 did not decrypt to 2F2F")
    return opened + records[sealed:]
