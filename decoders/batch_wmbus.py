"""Encrypted wM-Bus frames by the thousand: AES one call a frame, all the rest in numpy sweeps.

A frame is swept when it is of the plainest kind: L fits, extended link layer 8D with AES-128-CTR,
a key at hand, a layout that the store knows already, a driver that claims the meter, and every
checksum fits: PLCRC, the full CRC of a compact frame, format B's where there is one. Anything else
is left for the decoder that takes one at a time, so the answers are the same by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from decoders import aes
from decoders.drivers.registry import Reader, reader_for_meter
from decoders.errors import DecodeError
from decoders.formats import Formats, signature_of
from decoders.identity import KIND_WMBUS
from decoders.ids import MeterId
from decoders.value import value
from decoders.wmbus import ell
from decoders.wmbus.crc import PAIRS
from decoders.wmbus.records import Shape, layout_of, shapes_of, split

Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]
Names = npt.NDArray[np.str_]
LEAST = 32  # frames of one length; below, numpy's fixed cost exceeds what it saves
_ONE_BLOCK = 128  # longest format B frame with a single checksum
_ADDRESS, _CI, _CC, _SESSION, _SEALED = 2, 10, 11, 13, 17  # byte offsets in a frame
_FULL, _COMPACT = 0x78, 0x79
_SUMS = 4  # signature and full CRC of a compact frame
_CC_KEPT = ~0x12 & 0xFF  # see decoders.wmbus.ell.counter_block
_INTEGERS = frozenset({1, 2, 3, 4, 6})  # of up to six bytes: int64 holds their litres
_MAX_LAYOUTS = 16  # of full frames of one length in one batch
_NAME_CHARACTERS = 12
_HEX_DIGITS = np.frombuffer(b"0123456789ABCDEF", np.uint8).astype(np.uint32)
_TABLE = np.frombuffer(PAIRS, np.uint16)


@value
class Opened:
    """Frames of one layout and meter type, (frames,) each; register_l, info_code 0 where not.

    names   natural ids of the senders
    hashed  what each frame's identity hashes: see `decoders.identity.frame_hash`
    """

    frames: Int64s
    names: Names
    hashed: Bytes
    counter: Int64s
    register_l: Int64s
    has_register: Bools
    info_code: Int64s
    has_info: bool
    layout: bytes  # of full frames; empty for compact ones


@value
class _Clear:
    """Decrypted frames of one length: `sent` as received, `clear` from the transport CI on."""

    frames: Int64s
    names: Names
    sent: Bytes
    clear: Bytes

    def only(self, mine: Bools) -> _Clear:
        return _Clear(
            frames=self.frames[mine],
            names=self.names[mine],
            sent=self.sent[mine],
            clear=self.clear[mine],
        )


def sweep(
    payload: Bytes,
    *,
    start: Int64s,
    length: Int64s,
    frames: Int64s,
    key_of: Callable[[str], bytes | None],
    formats: Formats,
    least: int = LEAST,
) -> Iterator[Opened]:
    """Decode those of `frames` that are plain; the others are in no result.

    payload        all payloads of a batch, one after another
    start, length  of each frame's payload in it
    key_of         the newest key of the meter with this natural id
    """
    sizes, counts = np.unique(length[frames], return_counts=True)
    for size in sizes[counts >= least].tolist():
        if not _SEALED + 4 < size <= _ONE_BLOCK:
            continue
        of_size = frames[length[frames] == size]
        sent = payload[start[of_size][:, None] + np.arange(size)]
        plain = (sent[:, 0] == size - 1) & (sent[:, 1] == 0x44)
        plain &= (sent[:, _CI] == ell.CI_SESSION) & (sent[:, _SESSION + 3] >> 5 == 1)
        checked = plain & _fits_format_b(sent)
        for mine, end in ((checked, size - 2), (plain & ~checked, size)):
            if mine.any():
                opened = _decrypted(of_size[mine], sent[mine, :end], key_of)
                yield from _by_layout(opened, formats)


def checksums(sent: Bytes) -> npt.NDArray[np.uint16]:
    """CRC-16/EN-13757 of each row."""
    if sent.shape[1] & 1:  # a zero in front changes nothing
        sent = np.concatenate([np.zeros((len(sent), 1), np.uint8), sent], axis=1)
    pairs = sent[:, 0::2].astype(np.uint16) << 8 | sent[:, 1::2]
    register = np.zeros(len(sent), np.uint16)
    for column in pairs.T:
        register = _TABLE[register ^ column]
    return register ^ np.uint16(0xFFFF)


def _fits_format_b(sent: Bytes) -> Bools:
    fits: Bools = checksums(sent[:, :-2]) == (sent[:, -2].astype(np.uint16) << 8 | sent[:, -1])
    return fits


def names_of(addresses: Bytes) -> Names:
    """Natural ids of addresses as sent, (frames, 8): "KAW-53885758"."""
    letters = addresses[:, 0].astype(np.uint16) | addresses[:, 1].astype(np.uint16) << 8
    text = np.empty((len(addresses), _NAME_CHARACTERS), np.uint32)
    for place, shift in enumerate((10, 5, 0)):
        text[:, place] = (letters >> shift & 0x1F) + 64
    text[:, 3] = ord("-")
    serial = addresses[:, 5:1:-1]
    text[:, 4::2] = _HEX_DIGITS[serial >> 4]
    text[:, 5::2] = _HEX_DIGITS[serial & 0x0F]
    names: Names = text.view(f"<U{_NAME_CHARACTERS}")[:, 0]
    return names


def _decrypted(frames: Int64s, sent: Bytes, key_of: Callable[[str], bytes | None]) -> _Clear:
    """Decrypt frames whose key is at hand; keep those whose PLCRC fits."""
    blocks = np.zeros((len(sent), aes.BLOCK_BYTES), np.uint8)
    blocks[:, :8] = sent[:, _ADDRESS:_CI]
    blocks[:, 8] = sent[:, _CC] & _CC_KEPT
    blocks[:, 9:13] = sent[:, _SESSION:_SEALED]
    names = names_of(sent[:, _ADDRESS:_CI])
    width = sent.shape[1] - _SEALED
    keyed, out, ctr = np.ones(len(sent), np.bool_), [], aes.BACKEND.ctr
    counters = rows_of(blocks)
    sealed = rows_of(np.ascontiguousarray(sent[:, _SEALED:]))
    of_row = zip(names.tolist(), counters, sealed, strict=True)
    for number, (name, counter, one) in enumerate(of_row):
        key = key_of(name)
        if key is None:
            keyed[number] = False
            out.append(one)
        else:
            out.append(ctr(key, counter, one))
    opened = np.frombuffer(b"".join(out), np.uint8).reshape(len(sent), width)
    clear = opened[:, 2:]
    every = _Clear(frames=frames, names=names, sent=sent, clear=clear)
    return every.only(keyed & (checksums(clear) == _word(opened, 0)))


def rows_of(table: Bytes) -> list[bytes]:
    """The rows of a contiguous table, as bytes."""
    width, packed = table.shape[1], table.tobytes()
    return [packed[at : at + width] for at in range(0, len(packed), width)]


def _word(rows: Bytes, at: int) -> npt.NDArray[np.uint16]:
    pair = np.ascontiguousarray(rows[:, at : at + 2])
    word: npt.NDArray[np.uint16] = pair.view("<u2")[:, 0]
    return word


def _by_layout(opened: _Clear, formats: Formats) -> Iterator[Opened]:
    compact = opened.only(opened.clear[:, 0] == _COMPACT)
    if len(compact.frames) and compact.clear.shape[1] > 1 + _SUMS:
        signatures = _word(compact.clear, 1)
        for signature in np.unique(signatures).tolist():
            layouts = formats.layouts(signature)
            if len(layouts) == 1:
                signed = compact.only(signatures == signature)
                yield from _of_compact(signed, shapes_of(layouts[0]))
    full = opened.only(opened.clear[:, 0] == _FULL)
    for _ in range(_MAX_LAYOUTS):
        if not len(full.frames):
            return
        layout = _layout(full.clear[0, 1:].tobytes())
        mine = _has_heads(full.clear, shapes_of(layout))
        # a layout that is new is taught by a frame taken alone: what comes after depends on it
        if mine.any() and layout in formats.layouts(signature_of(layout)):
            yield from _of_full(full.only(mine), shapes_of(layout))
        mine[0] = True
        full = full.only(~mine)


def _layout(application: bytes) -> bytes:
    try:
        return layout_of(split(application, at=0))
    except DecodeError:
        return b""


def _has_heads(clear: Bytes, shapes: tuple[Shape, ...]) -> Bools:
    """Which full frames are exactly these records, without fill."""
    mine, at = np.ones(len(clear), np.bool_), 1
    for shape in shapes:
        head = np.frombuffer(shape.head, np.uint8)
        if shape.size is None or at + len(head) + shape.size > clear.shape[1]:
            return np.zeros(len(clear), np.bool_)
        mine &= (clear[:, at : at + len(head)] == head).all(axis=1)
        at += len(head) + shape.size
    return mine if at == clear.shape[1] else np.zeros(len(clear), np.bool_)


def _of_full(opened: _Clear, shapes: tuple[Shape, ...]) -> Iterator[Opened]:
    data, at = {}, 1
    for shape in shapes:
        at += len(shape.head)
        assert shape.size is not None
        data[shape] = opened.clear[:, at : at + shape.size]
        at += shape.size
    layout = b"".join(shape.head for shape in shapes)
    yield from _by_type(opened, shapes, data, layout)


def _of_compact(opened: _Clear, shapes: tuple[Shape, ...]) -> Iterator[Opened]:
    """Rebuild the full frames and keep those whose own checksum agrees."""
    data, parts, at = {}, [], 1 + _SUMS
    for shape in shapes:
        if shape.size is None or at + shape.size > opened.clear.shape[1]:
            return
        data[shape] = opened.clear[:, at : at + shape.size]
        head = np.frombuffer(shape.head, np.uint8)
        parts += [np.broadcast_to(head, (len(opened.frames), len(head))), data[shape]]
        at += shape.size
    if at != opened.clear.shape[1]:
        return
    agrees = checksums(np.concatenate(parts, axis=1)) == _word(opened.clear, 3)
    data = {shape: columns[agrees] for shape, columns in data.items()}
    yield from _by_type(opened.only(agrees), shapes, data, b"")


def _by_type(
    opened: _Clear, shapes: tuple[Shape, ...], data: dict[Shape, Bytes], layout: bytes
) -> Iterator[Opened]:
    """Split by maker, version and medium, which name the driver."""
    kinds = np.ascontiguousarray(opened.sent[:, (2, 3, 8, 9)]).view(np.uint32)[:, 0]
    for kind in np.unique(kinds):
        mine = kinds == kind
        first = opened.sent[mine][0, _ADDRESS:_CI].tobytes()
        reader = reader_for_meter(MeterId.from_wire(first))
        if reader is not None and _sweepable(shapes, reader):
            columns = {shape: rows[mine] for shape, rows in data.items()}
            yield _measured(opened.only(mine), columns, reader, layout)


def _sweepable(shapes: tuple[Shape, ...], reader: Reader) -> bool:
    """No record twice, no instant, no profile, and the register a plain integer in m3."""
    if len(set(shapes)) < len(shapes):
        return False
    for shape in shapes:
        meaning = shape.meaning
        if meaning is not None and (meaning.unit == "datetime" or meaning.profile):
            return False
        if shape.head == reader.register:
            in_m3 = meaning is not None and meaning.unit == "m3" and meaning.exponent <= 1
            if not in_m3 or shape.data_field not in _INTEGERS:
                return False
    return True


def _measured(opened: _Clear, data: dict[Shape, Bytes], reader: Reader, layout: bytes) -> Opened:
    count = len(opened.frames)
    register_l, has_register = np.zeros(count, np.int64), np.zeros(count, np.bool_)
    info_code, has_info = np.zeros(count, np.int64), False
    for shape, rows in data.items():
        if shape.head in reader.info_codes:
            info_code, has_info = _number(rows, signed=False), True
        elif shape.head == reader.register and shape.meaning is not None:
            digits = _number(rows, signed=True)
            has_register = digits != -(1 << 8 * rows.shape[1] - 1)
            shift = shape.meaning.exponent + 3
            litres = digits * 10**shift if shift >= 0 else digits // 10**-shift
            register_l = np.where(has_register, litres, 0)
    kind = np.full((count, 1), KIND_WMBUS, np.uint8)
    big_endian = opened.sent[:, _SEALED - 1 : _SESSION - 1 : -1]
    address, body = opened.sent[:, _ADDRESS:_CI], opened.sent[:, 1:]
    hashed = np.concatenate([kind, address, big_endian, body], axis=1)
    return Opened(
        frames=opened.frames,
        names=opened.names,
        hashed=hashed,
        counter=_number(opened.sent[:, _SESSION:_SEALED], signed=False),
        register_l=register_l,
        has_register=has_register,
        info_code=info_code,
        has_info=has_info,
        layout=layout,
    )


def _number(rows: Bytes, *, signed: bool) -> Int64s:
    """Little-endian integers of up to eight bytes."""
    width = rows.shape[1]
    number = np.zeros(len(rows), np.int64)
    for place in range(width):
        number |= rows[:, place].astype(np.int64) << 8 * place
    if signed and width < 8:
        number = np.where(rows[:, -1] & 0x80, number - (1 << 8 * width), number)
    return number
