"""AES-256-GCM (NIST SP 800-38D) on the libcrypto that the interpreter already carries, by ctypes.

Written for a gateway's key file: sealed seldom, opened once at each start. So a context lives for
one call and no longer, and the pure Python of the last resort may be slow. See `decoders.aes`.
"""

from __future__ import annotations

import ctypes
import hmac
from typing import Final, Protocol

from decoders import aes, aes_pure

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16

_ENCRYPT, _DECRYPT = 1, 0
_SET_NONCE_BYTES, _GET_TAG, _SET_TAG = 0x9, 0x10, 0x11  # EVP_CTRL_AEAD_… of openssl/evp.h
_REDUCTION: Final = 0xE1 << 120  # x^128 + x^7 + x^2 + x + 1, bits reflected


class NotAuthentic(Exception):
    """The tag does not fit: another key, another nonce, or somebody changed what was sealed."""


class Backend(Protocol):
    """Key: 32 bytes; nonce: 12 bytes; `beside` is authenticated and not encrypted."""

    name: str

    def seal(self, key: bytes, nonce: bytes, plain: bytes, beside: bytes) -> bytes: ...
    def unseal(self, key: bytes, nonce: bytes, sealed: bytes, beside: bytes) -> bytes: ...


def seal(key: bytes, nonce: bytes, plain: bytes, *, beside: bytes = b"") -> bytes:
    """Return the ciphertext and its 16-byte tag. One nonce serves one key once, ever."""
    assert len(key) == KEY_BYTES
    assert len(nonce) == NONCE_BYTES
    return BACKEND.seal(key, nonce, plain, beside)


def unseal(key: bytes, nonce: bytes, sealed: bytes, *, beside: bytes = b"") -> bytes:
    """Return what `seal` sealed. Raises NotAuthentic, and then nothing of it was returned."""
    assert len(key) == KEY_BYTES
    assert len(nonce) == NONCE_BYTES
    if len(sealed) < TAG_BYTES:
        raise NotAuthentic("shorter than its tag")
    return BACKEND.unseal(key, nonce, sealed, beside)


class _Library:
    """The handful of libcrypto's functions that GCM needs, typed."""

    def __init__(self, path: str) -> None:
        pointer, number = ctypes.c_void_p, ctypes.c_int
        library = ctypes.CDLL(path)
        self.new = library.EVP_CIPHER_CTX_new
        self.new.restype, self.new.argtypes = pointer, []
        self.free = library.EVP_CIPHER_CTX_free
        self.free.restype, self.free.argtypes = None, [pointer]
        self.control = library.EVP_CIPHER_CTX_ctrl
        self.control.restype, self.control.argtypes = number, [pointer, number, number, pointer]
        self.init = library.EVP_CipherInit_ex
        self.init.restype = number
        self.init.argtypes = [pointer, pointer, pointer, ctypes.c_char_p, ctypes.c_char_p, number]
        self.update = library.EVP_CipherUpdate
        self.update.restype = number
        self.update.argtypes = [pointer, pointer, pointer, ctypes.c_char_p, number]
        self.final = library.EVP_CipherFinal_ex
        self.final.restype, self.final.argtypes = number, [pointer, pointer, pointer]
        algorithm = library.EVP_aes_256_gcm
        algorithm.restype, algorithm.argtypes = pointer, []
        self.algorithm: int = algorithm()


class _Libcrypto:
    name = "libcrypto"

    def __init__(self, path: str) -> None:
        self._library = _Library(path)

    def seal(self, key: bytes, nonce: bytes, plain: bytes, beside: bytes) -> bytes:
        return b"".join(self._run(key, nonce, plain, beside, None))

    def unseal(self, key: bytes, nonce: bytes, sealed: bytes, beside: bytes) -> bytes:
        tag = sealed[-TAG_BYTES:]
        return self._run(key, nonce, sealed[:-TAG_BYTES], beside, tag)[0]

    def _run(
        self, key: bytes, nonce: bytes, data: bytes, beside: bytes, tag: bytes | None
    ) -> tuple[bytes, bytes]:
        """Encrypt, or decrypt where a tag is given; return the result and the tag."""
        library = self._library
        context = library.new()
        if not context:
            raise OSError("libcrypto gave no context")
        try:
            return self._within(context, (key, nonce, data, beside), tag)
        finally:
            library.free(context)  # OpenSSL clears the key in it

    def _within(
        self, context: int, given: tuple[bytes, bytes, bytes, bytes], tag: bytes | None
    ) -> tuple[bytes, bytes]:
        library = self._library
        key, nonce, data, beside = given
        direction = _ENCRYPT if tag is None else _DECRYPT
        room = ctypes.create_string_buffer(len(data) + aes.BLOCK_BYTES)
        written = ctypes.c_int(0)
        # Not `assert`: that vanishes under -O and would hand out noise.
        started = (
            library.init(context, library.algorithm, None, None, None, direction) == 1
            and library.control(context, _SET_NONCE_BYTES, NONCE_BYTES, None) == 1
            and library.init(context, None, None, key, nonce, direction) == 1
        )
        worked = (
            started
            and (
                not beside
                or library.update(context, None, ctypes.byref(written), beside, len(beside)) == 1
            )
            and library.update(context, room, ctypes.byref(written), data, len(data)) == 1
            and written.value == len(data)
        )
        if not worked:
            raise OSError("libcrypto failed to run AES-256-GCM")
        if tag is not None:
            expected = ctypes.create_string_buffer(tag, TAG_BYTES)
            if library.control(context, _SET_TAG, TAG_BYTES, expected) != 1:
                raise OSError("libcrypto refused the tag")
        rest = ctypes.create_string_buffer(aes.BLOCK_BYTES)
        if library.final(context, rest, ctypes.byref(written)) != 1:
            raise NotAuthentic("the tag does not fit")
        made = ctypes.create_string_buffer(TAG_BYTES)
        if tag is None and library.control(context, _GET_TAG, TAG_BYTES, made) != 1:
            raise OSError("libcrypto gave no tag")
        return room.raw[: len(data)], made.raw


class PurePython:
    """The same on `decoders.aes_pure`: about a millisecond for each 100 bytes on a laptop."""

    name = "python"

    def __init__(self) -> None:
        self._aes = aes_pure.PurePython()

    def seal(self, key: bytes, nonce: bytes, plain: bytes, beside: bytes) -> bytes:
        sealed = self._counted(key, nonce, plain)
        return sealed + self._tag(key, nonce, sealed, beside)

    def unseal(self, key: bytes, nonce: bytes, sealed: bytes, beside: bytes) -> bytes:
        tag = self._tag(key, nonce, sealed[:-TAG_BYTES], beside)
        if not hmac.compare_digest(tag, sealed[-TAG_BYTES:]):
            raise NotAuthentic("the tag does not fit")
        return self._counted(key, nonce, sealed[:-TAG_BYTES])

    def _counted(self, key: bytes, nonce: bytes, data: bytes) -> bytes:
        return self._aes.ctr(key, nonce + (2).to_bytes(4, "big"), data)

    def _tag(self, key: bytes, nonce: bytes, sealed: bytes, beside: bytes) -> bytes:
        factors = _table(int.from_bytes(self._aes.ecb_encrypt(key, bytes(16)), "big"))
        sizes = (8 * len(beside)).to_bytes(8, "big") + (8 * len(sealed)).to_bytes(8, "big")
        product = 0
        for part in (beside, sealed, sizes):
            for at in range(0, len(part), aes.BLOCK_BYTES):
                block = part[at : at + aes.BLOCK_BYTES].ljust(aes.BLOCK_BYTES, b"\0")
                product ^= int.from_bytes(block, "big")
                product = _times(product, factors)
        mask = self._aes.ecb_encrypt(key, nonce + (1).to_bytes(4, "big"))
        return (product ^ int.from_bytes(mask, "big")).to_bytes(TAG_BYTES, "big")


def _table(hashed: int) -> list[int]:
    """Return `hashed` · x^i for i in 0…127 in GF(2^128), bits reflected (SP 800-38D, 6.3)."""
    powers = [hashed]
    for _ in range(127):
        power = powers[-1]
        powers.append(power >> 1 ^ (_REDUCTION if power & 1 else 0))
    return powers


def _times(product: int, powers: list[int]) -> int:
    total = 0
    while product:
        bit = product.bit_length() - 1
        total ^= powers[127 - bit]
        product ^= 1 << bit
    return total


def is_right(backend: Backend) -> bool:
    """Whether a backend gives test case 16 of McGrew and Viega's GCM specification, and refuses."""
    key = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
    nonce = bytes.fromhex("cafebabefacedbaddecaf888")
    plain = bytes.fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    )
    beside = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    sealed = bytes.fromhex(
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
        "76fc6ece0f4e1768cddf8853bb2d551b"
    )
    try:
        backend.unseal(key, nonce, sealed[:-1] + b"\0", beside)
    except NotAuthentic:
        return (
            backend.seal(key, nonce, plain, beside) == sealed
            and backend.unseal(key, nonce, sealed, beside) == plain
        )
    return False


def choose_backend() -> Backend:
    """libcrypto where it loads and answers right, else pure Python; as `decoders.aes` does."""
    for path in aes.libraries():
        try:
            backend = _Libcrypto(path)
            if is_right(backend):
                return backend
        except (OSError, AttributeError):
            continue
    return PurePython()


BACKEND: Backend = choose_backend()
