"""Every way in which bytes refuse to become a reading. `advice` says what a person may do.

DecodeError
├── CrcMismatch       crc                a checksum that needs no key does not fit: damaged bytes
├── WrongKey          wrong_key          decrypted, but the checksum inside does not fit
├── KeyMissing        key_missing        encrypted, and nobody gave a key
├── Truncated         truncated          the bytes end before the layout does
├── UnknownFormat     unknown_format     no layout of ours starts like this
├── UnknownSignature  unknown_signature  a compact frame of a layout that nobody has taught yet
├── NotForUs          not_for_us         a valid frame, but not of a meter
├── Unsupported       unsupported        understood well enough to know that we cannot read it
└── Malformed         malformed          the layout contradicts itself
"""

from __future__ import annotations

from typing import ClassVar


class DecodeError(Exception):
    """Bytes that are no telegram, with the layer and the byte where that showed.

    `offset` counts from the first byte of the frame as it is without link-layer CRCs
    (wM-Bus: the L field; LoRaWAN: the first payload byte).
    """

    code: ClassVar[str] = "malformed"
    advice: ClassVar[str] = "the bytes are no telegram, or damaged: compare them with the source"

    def __init__(self, layer: str, offset: int, detail: str) -> None:
        super().__init__(layer, offset, detail)
        self.layer = layer
        self.offset = offset
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code} in {self.layer} at byte {self.offset}: {self.detail}"


class CrcMismatch(DecodeError):
    """A checksum that needs no key does not fit."""

    code = "crc"
    advice = "damaged on the way: wait for the next telegram; all of a meter: look at the receiver"


class WrongKey(DecodeError):
    """Decryption ran, but the checksum inside says that the result is noise."""

    code = "wrong_key"
    advice = "compare the key with the one in the maker's delivery file for this serial number"


class KeyMissing(DecodeError):
    """The payload is encrypted and no key was given."""

    code = "key_missing"
    advice = "give the meter's key, or say that the bytes were decrypted before they were kept"


class Truncated(DecodeError):
    """The bytes end before the layout does."""

    code = "truncated"
    advice = "the end is missing: look whether the receiver or the log cuts long telegrams"


class UnknownFormat(DecodeError):
    """No layout of ours starts like this."""

    code = "unknown_format"
    advice = "a maker's own layout, or no telegram: it takes a driver, and its description"


class UnknownSignature(DecodeError):
    """A compact frame whose layout no full frame and no driver has taught yet.

    `encoded` is that frame in clear, from its signature on: what a search for its layout needs.
    """

    code = "unknown_signature"
    advice = "a full frame of the same meter teaches it; else a second compact one may prove it"

    def __init__(
        self, layer: str, offset: int, detail: str, signature: int = 0, encoded: bytes = b""
    ) -> None:
        super().__init__(layer, offset, detail)
        self.signature = signature
        self.encoded = encoded


class NotForUs(DecodeError):
    """A valid frame that no meter sent."""

    code = "not_for_us"
    advice = "nothing is wrong: no meter sent this"


class Unsupported(DecodeError):
    """Understood well enough to know that we cannot read it."""

    code = "unsupported"
    advice = "it takes a decoder that knows this variant: docs/vocabulary.md lists what is refused"


class Malformed(DecodeError):
    """The layout contradicts itself."""

    code = "malformed"
    advice = "the bytes are damaged, or their maker strays from the standard: keep them as a vector"
