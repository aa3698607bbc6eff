"""AES-128 on the libcrypto that the interpreter already carries, by ctypes.

Gateways have no wheels of `cryptography`, but every Python with hashlib is linked to OpenSSL. The
symbols used here are the same in OpenSSL 1.1.1 and 3. Pure Python is the last resort.
Contexts belong to a thread: ctypes drops the GIL, and a shared one gave wrong results.
"""

from __future__ import annotations

import ctypes
import hashlib
import threading
from collections.abc import Iterator
from typing import Protocol

from decoders import aes_pure

KEY_BYTES = BLOCK_BYTES = 16
_ZERO = bytes(BLOCK_BYTES)
_SONAMES = ("libcrypto.so.3", "libcrypto.so.1.1")


class Backend(Protocol):
    """The four operations everything else is made of. Key, iv: 16 bytes; blocks: whole."""

    name: str

    def ecb_encrypt(self, key: bytes, data: bytes) -> bytes: ...
    def cbc_encrypt(self, key: bytes, iv: bytes, data: bytes) -> bytes: ...
    def cbc_decrypt(self, key: bytes, iv: bytes, data: bytes) -> bytes: ...
    def ctr(self, key: bytes, counter: bytes, data: bytes) -> bytes: ...


def ctr(key: bytes, counter: bytes, data: bytes) -> bytes:
    """Encrypt or decrypt `data` of any length; `counter` is the first 16-byte counter block."""
    assert len(key) == KEY_BYTES
    assert len(counter) == BLOCK_BYTES
    return BACKEND.ctr(key, counter, data)


def ecb_encrypt(key: bytes, data: bytes) -> bytes:
    """Encrypt whole blocks, each on its own."""
    assert len(key) == KEY_BYTES
    assert len(data) % BLOCK_BYTES == 0
    return BACKEND.ecb_encrypt(key, data)


def ecb_decrypt(key: bytes, data: bytes) -> bytes:
    """Decrypt whole blocks, each on its own: one chained block at a time, from a zero vector."""
    blocks = (data[at : at + BLOCK_BYTES] for at in range(0, len(data), BLOCK_BYTES))
    return b"".join(cbc_decrypt(key, _ZERO, block) for block in blocks)


def cbc_encrypt(key: bytes, iv: bytes, data: bytes) -> bytes:
    """Encrypt whole blocks, chained, without padding."""
    assert len(key) == KEY_BYTES
    assert len(iv) == BLOCK_BYTES
    assert len(data) % BLOCK_BYTES == 0
    return BACKEND.cbc_encrypt(key, iv, data)


def cbc_decrypt(key: bytes, iv: bytes, data: bytes) -> bytes:
    """Decrypt whole blocks, chained, without padding."""
    assert len(key) == KEY_BYTES
    assert len(iv) == BLOCK_BYTES
    assert len(data) % BLOCK_BYTES == 0
    return BACKEND.cbc_decrypt(key, iv, data)


def cmac(key: bytes, message: bytes) -> bytes:
    """AES-CMAC (RFC 4493), all 16 bytes."""
    whole = len(message) > 0 and len(message) % BLOCK_BYTES == 0
    mask = _double(ecb_encrypt(key, _ZERO))
    if not whole:
        mask = _double(mask)
        message = message + b"\x80" + bytes(-(len(message) + 1) % BLOCK_BYTES)
    last = int.from_bytes(message[-BLOCK_BYTES:], "big") ^ int.from_bytes(mask, "big")
    return cbc_encrypt(key, _ZERO, message[:-BLOCK_BYTES] + last.to_bytes(16, "big"))[-16:]


def _double(block: bytes) -> bytes:
    doubled = int.from_bytes(block, "big") << 1
    if doubled >> 128:
        doubled = (doubled & (1 << 128) - 1) ^ 0x87
    return doubled.to_bytes(BLOCK_BYTES, "big")


class _Library:
    """The handful of libcrypto's functions that AES needs, typed."""

    def __init__(self, path: str) -> None:
        pointer, number = ctypes.c_void_p, ctypes.c_int
        library = ctypes.CDLL(path)
        self.new = library.EVP_CIPHER_CTX_new
        self.new.restype, self.new.argtypes = pointer, []
        self.free = library.EVP_CIPHER_CTX_free
        self.free.restype, self.free.argtypes = None, [pointer]
        self.set_padding = library.EVP_CIPHER_CTX_set_padding
        self.set_padding.restype, self.set_padding.argtypes = number, [pointer, number]
        self.init = library.EVP_CipherInit_ex
        self.init.restype = number
        self.init.argtypes = [pointer, pointer, pointer, ctypes.c_char_p, ctypes.c_char_p, number]
        self.update = library.EVP_CipherUpdate
        self.update.restype = number
        self.update.argtypes = [pointer, pointer, pointer, ctypes.c_char_p, number]
        self.algorithms: dict[str, int] = {}
        for mode in ("ecb", "cbc", "ctr"):
            algorithm = getattr(library, f"EVP_aes_128_{mode}")
            algorithm.restype, algorithm.argtypes = pointer, []
            self.algorithms[mode] = algorithm()


class _Context:
    """One cipher context of one mode and direction, with its output buffer. Never shared."""

    def __init__(self, library: _Library, mode: str, encrypt: bool) -> None:
        self._library = library
        self._encrypt = int(encrypt)
        self._written = ctypes.c_int(0)
        self._written_at = ctypes.byref(self._written)
        self._room = 0
        self._grow(256)
        self._context = library.new()
        algorithm = library.algorithms[mode]
        # Naming the algorithm only once is 1.6 times faster: OpenSSL 3 fetches it each time.
        started = library.init(self._context, algorithm, None, _ZERO, _ZERO, self._encrypt)
        if not self._context or started != 1:
            raise OSError(f"libcrypto refused AES-128-{mode}")
        library.set_padding(self._context, 0)

    def _grow(self, size: int) -> None:
        self._room = size
        self._buffer = ctypes.create_string_buffer(size + BLOCK_BYTES)

    def run(self, key: bytes, iv: bytes, data: bytes) -> bytes:
        size = len(data)
        if size > self._room:
            self._grow(size)
        library, context = self._library, self._context
        # Not `assert`: that vanishes under -O and would hand out noise.
        if (
            library.init(context, None, None, key, iv, self._encrypt) != 1
            or library.update(context, self._buffer, self._written_at, data, size) != 1
            or self._written.value != size
        ):
            raise OSError("libcrypto failed to run AES-128")
        return self._buffer.raw[:size]

    def __del__(self) -> None:
        if getattr(self, "_context", None):
            self._library.free(self._context)


class _Libcrypto:
    """AES by OpenSSL, with the contexts of each thread kept for its next call."""

    name = "libcrypto"

    def __init__(self, path: str) -> None:
        self._library = _Library(path)
        self._local = threading.local()  # holds plain contexts: its own subclass is never freed

    def _context(self, mode: str, encrypt: bool) -> _Context:
        slot = f"{mode}{int(encrypt)}"
        context: _Context | None = getattr(self._local, slot, None)
        if context is None:
            context = _Context(self._library, mode, encrypt)
            setattr(self._local, slot, context)
        return context

    def ecb_encrypt(self, key: bytes, data: bytes) -> bytes:
        return self._context("ecb", True).run(key, _ZERO, data)

    def cbc_encrypt(self, key: bytes, iv: bytes, data: bytes) -> bytes:
        return self._context("cbc", True).run(key, iv, data)

    def cbc_decrypt(self, key: bytes, iv: bytes, data: bytes) -> bytes:
        return self._context("cbc", False).run(key, iv, data)

    def ctr(self, key: bytes, counter: bytes, data: bytes) -> bytes:
        try:
            context: _Context = self._local.ctr1
        except AttributeError:
            context = self._context("ctr", True)
        return context.run(key, counter, data)


def is_right(backend: Backend) -> bool:
    """Whether a backend gives the published answers (FIPS-197 C.1, SP 800-38A F.2, F.5)."""
    counting = bytes(range(16))
    plain = bytes.fromhex("00112233445566778899aabbccddeeff")
    key = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    text = bytes.fromhex("6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51")
    chained = bytes.fromhex("7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2")
    counter = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    counted = bytes.fromhex("874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff")
    return (
        backend.ecb_encrypt(counting, plain).hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"
        and backend.cbc_encrypt(key, counting, text) == chained
        and backend.cbc_decrypt(key, counting, chained) == text
        and backend.ctr(key, counter, text) == counted
        and backend.ctr(key, counter, text[:21]) == counted[:21]
    )


def libraries() -> Iterator[str]:
    """Name where libcrypto may be, likeliest first.

    hashlib's own extension names libcrypto among its dependencies, so looking the symbols up
    through it finds the very library that the interpreter runs on, without a search or a compiler.
    """
    extension: str | None = getattr(getattr(hashlib, "_hashlib", None), "__file__", None)
    if extension is not None:
        yield extension
    yield from _SONAMES


def choose_backend() -> Backend:
    """libcrypto where it loads and answers right, else pure Python."""
    for path in libraries():
        try:
            backend = _Libcrypto(path)
            if is_right(backend):
                return backend
        except (OSError, AttributeError):
            continue
    return aes_pure.PurePython()


BACKEND: Backend = choose_backend()
