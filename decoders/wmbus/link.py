"""The data link layer: one frame, whatever a receiver did to its length and checksums.

A frame on the air is L C M(2) A(6) CI… with checksums after each block. Format A counts no
checksum in L and has blocks of 10, then 16 bytes; format B counts them and has blocks of at most
126 bytes. Receivers strip the checksums and set L right, or strip them and leave L, or append
junk. L decides first, the checksums second: guessing by checksum alone drops one stripped
telegram in 65,536. Where L leaves two readings open, both are given, the likelier first, and
the layers above say which one holds.

Wired M-Bus sends 68 L L 68 C A CI… sum 16. Such a frame is taken when its long header says which
meter it is from; from CI on it is like a wireless one.
Source: EN 13757-4:2019, 12; EN 13757-2 (FT 1.2); reference telegrams in tests/vectors/telegrams.
"""

from __future__ import annotations

from enum import Enum

from decoders.errors import CrcMismatch, NotForUs, Truncated, UnknownFormat, Unsupported
from decoders.value import value
from decoders.wmbus.crc import crc16

LAYER = "link"
HEADER_BYTES = 10  # L C M(2) A(6)
MAX_L = 255
_A_FIRST, _A_NEXT = 10, 16
_B_FIRST = 126
_CRC_BYTES = 2
_WIRED_START, _WIRED_STOP = 0x68, 0x16
_WIRED_HEAD, _WIRED_CI = 4, 6  # where C and CI stand in a wired frame
# C fields of a meter that speaks first or answers (EN 13757-4, table "C-field").
_FROM_METERS = frozenset({0x08, 0x44, 0x46, 0x47, 0x48})
_TO_METERS = frozenset({0x00, 0x40, 0x53, 0x5A, 0x5B, 0x73, 0x7A, 0x7B})


class Form(Enum):
    """How the frame reached us."""

    FORMAT_A = "format A, checked"
    FORMAT_B = "format B, checked"
    STRIPPED = "checksums stripped, L right"
    STRIPPED_L_KEPT = "checksums stripped, L as on the air"
    WIRED = "wired M-Bus, checked"


WIRELESS = tuple(form for form in Form if form is not Form.WIRED)


@value
class Frame:
    """A link-layer frame.

    body     C M(2) A(6) CI…, without L and checksums: the bytes a frame's identity hashes; a
             wired frame's M and A are those of its long header
    checked  True when the link layer's own checksums were there and fit
    ci_at    where CI stands in the frame
    """

    form: Form
    body: bytes
    checked: bool
    ci_at: int = HEADER_BYTES

    @property
    def address(self) -> bytes:
        """M(2) A(6) as sent."""
        return self.body[1:9]


def frames_in(received: bytes) -> tuple[Frame, ...]:
    """Every way in which `received` can be a frame, the likeliest first; at least one.

    Raises Truncated, CrcMismatch, UnknownFormat, NotForUs, Unsupported.
    """
    if len(received) <= HEADER_BYTES:
        raise Truncated(LAYER, len(received), f"{len(received)} bytes hold no header and CI field")
    claimed = received[0] + 1
    if claimed <= HEADER_BYTES:
        raise UnknownFormat(
            LAYER, 0, f"L = {received[0]} leaves no room for a header and a CI field"
        )
    if _is_wired(received):
        return (_wired(received),)
    _expect_meter(received[1])
    if len(received) < claimed:
        return (_stripped_with_l_kept(received, claimed),)
    blocks = _a_blocks(claimed)
    if len(received) >= claimed + _CRC_BYTES * len(blocks):
        fits = [_fits(received[start:end], received[end : end + 2]) for start, end in blocks]
        if all(fits):
            body = b"".join(received[start:end] for start, end in blocks)[1:]
            return (Frame(form=Form.FORMAT_A, body=body, checked=True),)
        if any(fits):
            start, _ = blocks[fits.index(False)]
            raise CrcMismatch(LAYER, start, "a block of a format A frame does not fit its checksum")
    return _counted_by_l(received[:claimed])


def damaged_format_b(frame: Frame) -> Frame:
    """The same bytes read as a format B frame whose checksums do not fit, for a second opinion."""
    received = bytes((len(frame.body),)) + frame.body
    body = b"".join(received[start:end] for start, end in _b_blocks(len(received)))[1:]
    return Frame(form=Form.FORMAT_B, body=body, checked=False)


def wrap(body: bytes, form: Form) -> bytes:
    """Make `body` a wireless frame as it is on the air, or as a receiver hands it on.

    Raises ValueError when it is too long for its L field.
    """
    assert form in WIRELESS, "wrap_wired takes an address, too"
    if form is Form.FORMAT_A:
        return wrap_a(body)
    if form is Form.FORMAT_B:
        return wrap_b(body)
    if form is Form.STRIPPED_L_KEPT:
        return wrap_b(body)[:1] + body
    return _with_l(body, len(body))


def wrap_a(body: bytes) -> bytes:
    """Send `body` as format A: L without checksums, a checksum after each block."""
    sent = _with_l(body, len(body))
    return b"".join(
        sent[i:j] + crc16(sent[i:j]).to_bytes(2, "big")
        for i, j in _steps(len(sent), _A_FIRST, _A_NEXT)
    )


def wrap_b(body: bytes) -> bytes:
    """Send `body` as format B: L with checksums, at most two blocks."""
    spans = _steps(len(body) + 1, _B_FIRST, MAX_L)
    sent = _with_l(body, len(body) + _CRC_BYTES * len(spans))
    return b"".join(sent[i:j] + crc16(sent[i:j]).to_bytes(2, "big") for i, j in spans)


def wrap_wired(application: bytes, *, address: int, control: int = 0x08) -> bytes:
    """Send `application` (from CI on) over wired M-Bus. Raises ValueError when it is too long."""
    body = bytes((control, address)) + application
    if len(body) > MAX_L:
        raise ValueError(f"{len(body)} bytes do not fit a frame")
    start = bytes((_WIRED_START, len(body), len(body), _WIRED_START))
    return start + body + bytes((sum(body) & 0xFF, _WIRED_STOP))


def _is_wired(received: bytes) -> bool:
    """Whether this is laid out as a wired frame; its sum decides where C could be wireless."""
    if received[0] != _WIRED_START or received[3] != _WIRED_START or received[1] != received[2]:
        return False
    return received[1] not in _FROM_METERS | _TO_METERS or _wired_sum_fits(received)


def _wired_sum_fits(received: bytes) -> bool:
    end = _WIRED_HEAD + received[1]
    return len(received) > end and sum(received[_WIRED_HEAD:end]) & 0xFF == received[end]


def _wired(received: bytes) -> Frame:
    end = _WIRED_HEAD + received[1]
    if len(received) < end + 2:
        detail = f"a wired frame of {end + 2} bytes, got {len(received)}"
        raise Truncated(LAYER, len(received), detail)
    if received[end + 1] != _WIRED_STOP:
        raise UnknownFormat(LAYER, end + 1, "a wired frame ends with 16")
    if not _wired_sum_fits(received):
        raise CrcMismatch(LAYER, end, "a wired frame does not fit its sum")
    control, application = received[_WIRED_HEAD], received[_WIRED_CI:end]
    if control & 0x4F != 0x08:  # ACD and DFC may be set
        raise NotForUs(LAYER, _WIRED_HEAD, f"C = {control:02X} is spoken to a meter, not by one")
    if application[:1] not in (b"\x72", b"\x73") or len(application) < 9:
        detail = "no long header says which meter this wired frame is from"
        raise Unsupported(LAYER, _WIRED_CI, detail)
    meter = application[5:7] + application[1:5] + application[7:9]
    body = bytes((control,)) + meter + application
    return Frame(form=Form.WIRED, body=body, checked=True, ci_at=_WIRED_CI)


def _with_l(body: bytes, length: int) -> bytes:
    if length > MAX_L:
        raise ValueError(f"{len(body)} bytes do not fit a frame: L would be {length}")
    return bytes((length,)) + body


def _expect_meter(control: int) -> None:
    if control in _FROM_METERS:
        return
    if control in _TO_METERS:
        raise NotForUs(LAYER, 1, f"C = {control:02X} is spoken to a meter, not by one")
    raise UnknownFormat(LAYER, 1, f"C = {control:02X} is no control field of wireless M-Bus")


def _counted_by_l(received: bytes) -> tuple[Frame, ...]:
    """L and the bytes agree: a stripped frame, or format B where its checksums fit."""
    stripped = Frame(form=Form.STRIPPED, body=received[1:], checked=False)
    blocks = _b_blocks(len(received))
    if len(received) <= HEADER_BYTES + _CRC_BYTES * len(blocks):
        return (stripped,)
    if not all(_fits(received[i:j], received[j : j + 2]) for i, j in blocks):
        return (stripped,)
    body = b"".join(received[i:j] for i, j in blocks)[1:]
    return Frame(form=Form.FORMAT_B, body=body, checked=True), stripped


def _stripped_with_l_kept(received: bytes, claimed: int) -> Frame:
    """Fewer bytes than L says: only format B's checksums may be missing (they count in L)."""
    if claimed - len(received) == _CRC_BYTES * len(_b_blocks(claimed)):
        return Frame(form=Form.STRIPPED_L_KEPT, body=received[1:], checked=False)
    raise Truncated(
        LAYER, len(received), f"L = {received[0]} announces {claimed} bytes, got {len(received)}"
    )


def _a_blocks(size: int) -> list[tuple[int, int]]:
    """(start, end) of each block of format A as received, `size` bytes without checksums."""
    return [
        (i + _CRC_BYTES * number, j + _CRC_BYTES * number)
        for number, (i, j) in enumerate(_steps(size, _A_FIRST, _A_NEXT))
    ]


def _b_blocks(size: int) -> list[tuple[int, int]]:
    """(start, end) of each block of format B as received, `size` bytes with checksums."""
    if size <= _B_FIRST + _CRC_BYTES:
        return [(0, size - _CRC_BYTES)]
    return [(0, _B_FIRST), (_B_FIRST + _CRC_BYTES, size - _CRC_BYTES)]


def _steps(size: int, first: int, following: int) -> list[tuple[int, int]]:
    ends = [*range(first, size, following), size]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _fits(block: bytes, checksum: bytes) -> bool:
    return crc16(block) == int.from_bytes(checksum, "big")
