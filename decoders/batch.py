"""Many telegrams at once, as numpy columns: the same answers as one at a time.

Nearly all of a utility's traffic is of a few layouts and is decoded in sweeps, thousands of frames
each: hourly LoRaWAN profiles (`batch_profiles`) and encrypted wM-Bus frames (`batch_wmbus`).
Whatever is not exactly of such a layout goes through `decoders.decode`. These three modules are
the only ones here that need numpy, so a gateway does without them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from decoders import batch_profiles, batch_wmbus
from decoders.batch_profiles import Swept
from decoders.batch_wmbus import Opened
from decoders.decode import claimed_sender, decode_lorawan, decode_wmbus
from decoders.errors import DecodeError, WrongKey
from decoders.formats import Formats
from decoders.identity import HASH_BYTES, KIND_LORAWAN, frame_hash, hash_of
from decoders.ids import dev_eui_text
from decoders.reading import Integrity, Telegram
from decoders.uplink import COLUMNS, RowFlag, RowKind, Rows
from decoders.value import value
from decoders.wmbus import link

NO_INSTANT = -1  # local_at of a register whose telegram tells no time
NOBODY = -1
Bools = npt.NDArray[np.bool_]
Int16s = npt.NDArray[np.int16]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
_NUMPY = {"Q": "<u8", "q": "<i8", "B": "u1", "b": "i1", "h": "<i2", "H": "<u2", "I": "<u4"}


@value
class Columns:
    """What a batch's telegrams say. Rows that are no telegrams (anomalies, reports) are left out.

    (frames,) in the order of the rows:
      row           index in the batch
      name          index into `names` of the sender; NOBODY where the link layer was unreadable
      refused       index into `codes` of why it is no telegram; -1 for a good one
      counter       ELL session number, access number, or LoRaWAN frame counter
      frame         16 bytes, the frame's identity (V16); zeros for a refused one
      integrity     of `Integrity`; 0 for a refused one
      key           which of the meter's keys opened it: 0 the newest, 1 the one before, …
      register_l, info_code   0 where `has_register`, `has_info` is False
    (readings,) by frame, newest first:
      of_frame      index of the frame
      local_at      µs since 1970 of the meter's own clock read as if it were UTC; NO_INSTANT where
                    the telegram has none (wM-Bus: the register as it is when heard)
      litres        the cumulative register
    errors    (frame, error) of every refused frame
    layouts   (frame, heads) of full wM-Bus frames whose integrity was checked: they teach a format
    doubts    (frame, names) of frames with a check that failed beside a stronger one that passed
    """

    row: Int32s
    name: Int64s
    names: tuple[str, ...]
    refused: Int16s
    codes: tuple[str, ...]
    counter: Int64s
    frame: npt.NDArray[np.void]
    integrity: Int16s
    key: Int16s
    register_l: Int64s
    has_register: Bools
    info_code: Int64s
    has_info: Bools
    of_frame: Int64s
    local_at: Int64s
    litres: Int64s
    errors: tuple[tuple[int, DecodeError], ...]
    layouts: tuple[tuple[int, bytes], ...]
    doubts: tuple[tuple[int, tuple[str, ...]], ...]

    @property
    def details(self) -> Mapping[int, str]:
        """Why each refused frame was refused, in words, by frame."""
        return {frame: str(error) for frame, error in self.errors}


Keys = Callable[[str], "bytes | Sequence[bytes] | None"]
"""The AES key of a wM-Bus meter by natural id; all of them, newest first, where it was changed."""


def decode_rows(
    rows: Rows,
    *,
    keys: Keys,
    formats: Formats,
    newest: Callable[[str], bytes | None] | None = None,
    sweeping: bool = True,
    least: int = batch_wmbus.LEAST,
) -> Columns:
    """Decode every telegram of a batch.

    keys      looked up by natural id; older keys are tried when the newest is wrong, because a
              backlog may hold frames from before a change of key
    formats   compact layouts; full frames of this batch are learned into it as they come, so a
              compact frame may follow in the same batch
    newest    the newest of a meter's `keys`, where that is known quicker; None asks `keys`. For a
              sweep only: a frame it has no key for is decoded alone, with `keys`
    sweeping  False decodes one at a time throughout (the oracle of the property test)
    least     wM-Bus frames of one length from which on sweeping them pays
    Raises nothing: a frame that is refused has its error in the result.
    """
    columns = _Rows(rows)
    result = _Result(len(columns.index))
    left = np.ones(len(columns.index), np.bool_)
    if sweeping:
        for swept in batch_profiles.sweep(
            columns.payload,
            start=columns.start,
            length=columns.length,
            frames=np.flatnonzero(columns.kind == RowKind.LORAWAN),
        ):
            left[swept.frames] = False
            _add_swept(result, columns, swept)
        for opened in batch_wmbus.sweep(
            columns.payload,
            start=columns.start,
            length=columns.length,
            frames=columns.sealed_wmbus(),
            key_of=newest or _newest_of(keys),
            formats=formats,
            least=least,
        ):
            left[opened.frames] = False
            _add_opened(result, opened)
    for frame in np.flatnonzero(left).tolist():
        _add_one(result, columns, frame, keys=keys, formats=formats)
    return result.columns(columns)


class _Rows:
    """The telegrams among a batch's rows, as numpy columns; `index` is their row."""

    def __init__(self, rows: Rows) -> None:
        whole = {
            name: np.frombuffer(rows.columns[name], _NUMPY[code]) for name, code in COLUMNS.items()
        }
        lengths = whole["length"].astype(np.int64)
        kind = whole["kind"]
        self.index = np.flatnonzero((kind == RowKind.WMBUS) | (kind == RowKind.LORAWAN))
        self.bytes = rows.payload
        self.payload: npt.NDArray[np.uint8] = np.frombuffer(rows.payload, np.uint8)
        self.length: Int64s = lengths[self.index]
        self.start: Int64s = (np.cumsum(lengths) - lengths)[self.index]
        self.kind = kind[self.index]
        self.flags = whole["flags"][self.index]
        self.radio = whole["radio"][self.index]
        self.port = whole["port"][self.index]
        self.counter = whole["counter"][self.index]

    def sealed_wmbus(self) -> Int64s:
        """Frames of wM-Bus that were not decrypted before they came."""
        sealed = (self.flags & RowFlag.ALREADY_DECRYPTED) == 0
        return np.flatnonzero((self.kind == RowKind.WMBUS) & sealed)

    def network_integrity(self, frames: Int64s) -> Int16s:
        """What is known of LoRaWAN frames: their MIC, where a network server says it checked it."""
        checked = (self.flags[frames] & RowFlag.NETWORK_CHECKED) != 0
        return np.where(checked, Integrity.MAC, Integrity.NONE).astype(np.int16)

    def payload_of(self, frame: int) -> bytes:
        start = int(self.start[frame])
        return self.bytes[start : start + int(self.length[frame])]


class _Result:
    """The columns while they fill."""

    def __init__(self, frames: int) -> None:
        self.name: npt.NDArray[np.object_] = np.full(frames, None, np.object_)
        self.hashes = bytearray(HASH_BYTES * frames)
        self.counter = np.zeros(frames, np.int64)
        self.integrity = np.zeros(frames, np.int16)
        self.key = np.zeros(frames, np.int16)
        self.register_l = np.zeros(frames, np.int64)
        self.has_register = np.zeros(frames, np.bool_)
        self.info_code = np.zeros(frames, np.int64)
        self.has_info = np.zeros(frames, np.bool_)
        self.readings = np.zeros(frames, np.int64)  # how many each frame gives
        self.blocks: list[Swept] = []
        self.series: list[tuple[int, tuple[tuple[int, int], ...]]] = []
        self.errors: list[tuple[int, DecodeError]] = []
        self.layouts: list[tuple[int, bytes]] = []
        self.doubts: list[tuple[int, tuple[str, ...]]] = []

    def put_hash(self, frame: int, name: bytes) -> None:
        self.hashes[HASH_BYTES * frame : HASH_BYTES * (frame + 1)] = name

    def columns(self, rows: _Rows) -> Columns:
        """Close the result: numbers for names and codes, and readings in order of frames."""
        given = self.name.tolist()
        names = [each for each in dict.fromkeys(given) if each is not None]
        number_of: dict[str | None, int] = {each: number for number, each in enumerate(names)}
        number_of[None] = NOBODY
        name = [number_of[each] for each in given]
        codes: dict[str, int] = {}
        refused = np.full(len(name), -1, np.int16)
        for frame, error in self.errors:
            refused[frame] = codes.setdefault(error.code, len(codes))
        local_at, litres = self._exploded()
        return Columns(
            row=rows.index.astype(np.int32),
            name=np.array(name, np.int64),
            names=tuple(names),
            refused=refused,
            codes=tuple(codes),
            counter=self.counter,
            frame=np.frombuffer(bytes(self.hashes), f"V{HASH_BYTES}"),
            integrity=self.integrity,
            key=self.key,
            register_l=self.register_l,
            has_register=self.has_register,
            info_code=self.info_code,
            has_info=self.has_info,
            of_frame=np.repeat(np.arange(len(name)), self.readings),
            local_at=local_at,
            litres=litres,
            errors=tuple(self.errors),
            layouts=tuple(sorted(self.layouts)),
            doubts=tuple(self.doubts),
        )

    def _exploded(self) -> tuple[Int64s, Int64s]:
        ends = np.cumsum(self.readings)
        first = ends - self.readings
        total = int(ends[-1]) if len(ends) else 0
        local_at, litres = np.empty(total, np.int64), np.empty(total, np.int64)
        for block in self.blocks:
            place = first[block.frames][:, None] + np.arange(block.litres.shape[1])
            local_at[place] = block.local_at
            litres[place] = block.litres
        for frame, series in self.series:
            at = int(first[frame])
            for offset, (instant, register) in enumerate(series):
                local_at[at + offset], litres[at + offset] = instant, register
        return local_at, litres


def _add_swept(result: _Result, rows: _Rows, swept: Swept) -> None:
    frames = swept.frames
    result.counter[frames] = rows.counter[frames]
    result.integrity[frames] = rows.network_integrity(frames)
    result.register_l[frames] = swept.litres[:, 0]
    result.has_register[frames] = True
    result.readings[frames] = swept.litres.shape[1]
    result.blocks.append(swept)
    radios, counters = rows.radio[frames].tolist(), rows.counter[frames].tolist()
    starts, ends = rows.start[frames], rows.start[frames] + rows.length[frames]
    spans = zip(starts.tolist(), ends.tolist(), strict=True)
    for frame, radio, counter, (i, j) in zip(frames.tolist(), radios, counters, spans, strict=True):
        result.name[frame] = dev_eui_text(radio)
        name = frame_hash(KIND_LORAWAN, radio.to_bytes(8, "big"), counter, rows.bytes[i:j])
        result.put_hash(frame, name)


def _newest_of(keys: Keys) -> Callable[[str], bytes | None]:
    """Look up the newest key of a meter."""

    def newest(name: str) -> bytes | None:
        held = keys(name)
        if held is None or isinstance(held, bytes):
            return held
        return next(iter(held), None)

    return newest


def _add_opened(result: _Result, opened: Opened) -> None:
    frames = opened.frames
    result.counter[frames] = opened.counter
    result.integrity[frames] = Integrity.INNER_CRC
    result.register_l[frames] = opened.register_l
    result.has_register[frames] = opened.has_register
    result.info_code[frames] = opened.info_code
    result.has_info[frames] = opened.has_info
    told = opened.has_register
    result.readings[frames] = told
    litres = opened.register_l[told][:, None]
    now = np.full_like(litres, NO_INSTANT)
    result.blocks.append(Swept(frames=frames[told], local_at=now, litres=litres))
    result.name[frames] = opened.names.astype(object)
    digests = [
        blake2b(identity, digest_size=HASH_BYTES).digest()
        for identity in batch_wmbus.rows_of(opened.hashed)
    ]
    table = np.frombuffer(result.hashes, np.uint8).reshape(-1, HASH_BYTES)
    table[frames] = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, HASH_BYTES)
    if opened.layout:
        result.layouts.extend((frame, opened.layout) for frame in frames.tolist())


def _add_one(
    result: _Result,
    rows: _Rows,
    frame: int,
    *,
    keys: Keys,
    formats: Formats,
) -> None:
    payload = rows.payload_of(frame)
    try:
        if rows.kind[frame] == RowKind.LORAWAN:
            telegram = _lorawan(result, rows, frame, payload)
        else:
            telegram = _wmbus(result, rows, frame, payload, keys=keys, formats=formats)
    except DecodeError as error:
        result.errors.append((frame, error))
        if error.layer == link.LAYER:
            result.name[frame] = None  # the address itself may be damaged
        return
    result.put_hash(frame, hash_of(telegram))
    result.counter[frame] = telegram.counter
    result.integrity[frame] = telegram.integrity
    if telegram.info_code is not None:
        result.info_code[frame], result.has_info[frame] = telegram.info_code, True
    series = telegram.series
    if telegram.register_l is not None:
        result.register_l[frame], result.has_register[frame] = telegram.register_l, True
        series = series or ((NO_INSTANT, telegram.register_l),)
    result.readings[frame] = len(series)
    result.series.append((frame, series))
    if telegram.doubts:
        result.doubts.append((frame, telegram.doubts))


def _lorawan(result: _Result, rows: _Rows, frame: int, payload: bytes) -> Telegram:
    dev_eui = int(rows.radio[frame])
    result.name[frame] = dev_eui_text(dev_eui)
    return decode_lorawan(
        payload,
        port=int(rows.port[frame]),
        f_cnt=int(rows.counter[frame]),
        dev_eui=dev_eui,
        integrity=Integrity(int(rows.network_integrity(np.array([frame]))[0])),
    )


def _wmbus(
    result: _Result,
    rows: _Rows,
    frame: int,
    payload: bytes,
    *,
    keys: Keys,
    formats: Formats,
) -> Telegram:
    sender = claimed_sender(payload)
    name = None if sender is None else str(sender)
    result.name[frame] = name
    held = None if name is None else keys(name)
    telegram, result.key[frame] = _opened(
        payload,
        [held] if held is None or isinstance(held, bytes) else held,
        formats=formats,
        already_decrypted=bool(rows.flags[frame] & RowFlag.ALREADY_DECRYPTED),
    )
    if telegram.layout and telegram.integrity is not Integrity.NONE:
        formats.learn(telegram.layout)
        result.layouts.append((frame, telegram.layout))
    return telegram


def _opened(
    payload: bytes, keys: Sequence[bytes | None], *, formats: Formats, already_decrypted: bool
) -> tuple[Telegram, int]:
    """Decode with the first key that fits; return which. Raises what the newest one raised."""
    refused: WrongKey | None = None
    for number, key in enumerate(keys or [None]):
        try:
            telegram = decode_wmbus(
                payload,
                key=key,
                formats=formats,
                already_decrypted=already_decrypted,
                names=False,
            )
            return telegram, number
        except WrongKey as error:
            refused = refused or error
    assert refused is not None
    raise refused
