"""The transport layer's header: who the data is about, and how it is protected.

72  ID(4) M(2) V T ACC STS CFG(2)    long
7A  ACC STS CFG(2)                   short
78  nothing                          none
79  signature(2) full CRC(2)         none, compact records; 73 and 7B with long and short header
Security mode 7 has one more byte behind CFG (key derivation) and needs the layer below, AFL.
Source: EN 13757-7:2018, 7; OMS Vol. 2, 7.
"""

from __future__ import annotations

from decoders import aes
from decoders.errors import KeyMissing, Truncated, UnknownFormat, Unsupported, WrongKey
from decoders.value import value
from decoders.wmbus import afl
from decoders.wmbus.afl import Authentication

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
HEADER_CIS = frozenset(_HEADERS)
MODE_NONE, MODE_CBC, MODE_DERIVED_KEY = 0, 5, 7
MODES = frozenset({MODE_NONE, MODE_CBC, MODE_DERIVED_KEY})
MODE_NAMES = {
    0: "no encryption",
    1: "a maker's own",
    2: "DES",
    3: "DES",
    4: "AES-CBC, fixed vector",
    5: "AES-CBC",
    7: "AES-CBC, derived key",
    8: "AES-CTR with CMAC",
    9: "AES-GCM",
    10: "AES-CCM",
    13: "TLS",
}
CLEAR = frozenset({MODE_NONE})
_FILL = b"\x2f\x2f"


@value
class Header:
    """A transport header and the records behind it, in clear.

    address     M(2) A(6) of the meter as the link layer would send them; None without long header
    status      the STS byte; None without a header
    fill_found  True when decryption left the two known bytes of modes 5 and 7
    records_at  where `records` start in the frame
    authentic   True when the keyed code of the layer below was there and fits
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
    authentic: bool = False


def read_header(
    payload: bytes,
    *,
    at: int,
    address: bytes | None = None,
    key: bytes | None = None,
    already_decrypted: bool = False,
    modes: frozenset[int] = MODES,
    authentication: Authentication | None = None,
) -> Header:
    """Read the transport layer from its CI on; `at` is where that is in the frame.

    address         M and A of the layers below: vectors and derived keys depend on it
    modes           security modes that may occur here
    authentication  the layer below, where there is one
    Raises Truncated, UnknownFormat, Unsupported, KeyMissing, WrongKey.
    """
    ci, size, compact = _kind_of(payload, at=at)
    if size == _NONE:
        return Header(ci=ci, compact=compact, records=payload[1:], records_at=at + 1)
    config = payload[size - 1] | payload[size] << 8
    mode = _mode_of(config, modes, at=at + size - 1)
    start = 1 + size + (mode == MODE_DERIVED_KEY)
    if len(payload) < start:
        raise Truncated(LAYER, at + len(payload), "security mode 7 has one more header byte")
    own = payload[5:7] + payload[1:5] + payload[7:9] if size == _LONG else None
    meter = own or address or bytes(8)
    checkable = None if already_decrypted else key
    authentic = _is_authentic(authentication, checkable, identification=meter[2:6])
    records = payload[start:]
    if mode != MODE_NONE and not already_decrypted:
        vector = meter + bytes((payload[size - 3],)) * 8
        how = _Sealed(config=config, vector=vector, authentication=authentication)
        records = _decrypt(records, how, key=key, at=at + start)
    fill_found = mode != MODE_NONE and records[:2] == _FILL
    if compact and fill_found:  # full records skip fill by themselves
        records, start = records[2:], start + 2
    return Header(
        ci=ci,
        compact=compact,
        records=records,
        records_at=at + start,
        address=own,
        access_number=payload[size - 3],
        status=payload[size - 2],
        security_mode=mode,
        fill_found=fill_found,
        authentic=authentic,
    )


def _kind_of(payload: bytes, *, at: int) -> tuple[int, int, bool]:
    """(CI, header bytes, records are compact). Raises Truncated, UnknownFormat."""
    if not payload:
        raise Truncated(LAYER, at, "no CI field")
    ci = payload[0]
    if ci not in _HEADERS:
        raise UnknownFormat(LAYER, at, f"CI {ci:02X} starts no transport layer known here")
    size, compact = _HEADERS[ci]
    if len(payload) < 1 + size:
        raise Truncated(LAYER, at + len(payload), f"CI {ci:02X} needs a header of {size} bytes")
    return ci, size, compact


def _is_authentic(
    authentication: Authentication | None, key: bytes | None, *, identification: bytes
) -> bool:
    """Check the keyed code where there is one, and a key to check it. Raises WrongKey."""
    if authentication is None or not authentication.mac or key is None:
        return False
    afl.check(authentication, key, identification=identification)
    return True


def _mode_of(config: int, modes: frozenset[int], *, at: int) -> int:
    """The security mode of a configuration field. Raises Unsupported."""
    mode = config >> 8 & 0x1F
    if mode not in modes:
        detail = f"security mode {mode} ({MODE_NAMES.get(mode, 'reserved')}) cannot be opened here"
        raise Unsupported(LAYER, at, detail)
    return mode


@value
class _Sealed:
    """How the first `blocks` blocks of the records are encrypted."""

    config: int
    vector: bytes  # of mode 5: M(2) A(6) of the meter, access number eight times
    authentication: Authentication | None

    @property
    def mode(self) -> int:
        return self.config >> 8 & 0x1F

    @property
    def blocks(self) -> int:
        return self.config >> 4 & 0x0F


def _decrypt(records: bytes, how: _Sealed, *, key: bytes | None, at: int) -> bytes:
    """Open the blocks of security modes 5 and 7. 2F2F says whether the key was right."""
    sealed = aes.BLOCK_BYTES * how.blocks
    if sealed == 0:
        return records
    if len(records) < sealed:
        raise Truncated(LAYER, at + len(records), f"{how.blocks} encrypted blocks are announced")
    if key is None:
        raise KeyMissing(LAYER, at, f"encrypted in security mode {how.mode}, and no key was given")
    if how.mode == MODE_DERIVED_KEY:
        key, vector = _derived_key(key, how, at=at), bytes(aes.BLOCK_BYTES)
    else:
        vector = how.vector
    opened = aes.cbc_decrypt(key, vector, records[:sealed])
    if opened[:2] != _FILL:
        raise WrongKey(LAYER, at, f"security mode {how.mode} did not decrypt to 2F2F")
    return opened + records[sealed:]


def _derived_key(key: bytes, how: _Sealed, *, at: int) -> bytes:
    authentication = how.authentication
    if authentication is None or authentication.message_counter is None:
        raise Unsupported(LAYER, at, "security mode 7 without a message counter of AFL")
    counter = authentication.message_counter
    return afl.encryption_key(key, counter, identification=how.vector[2:6])
