"""AES in plain Python (FIPS 197): right, slow, and there when libcrypto is not."""

from __future__ import annotations

from functools import lru_cache

_BLOCK = 16


def _times(a: int, b: int) -> int:
    """Multiply in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = a << 1 ^ (0x11B if a & 0x80 else 0)
        b >>= 1
    return product


def _substitution() -> bytes:
    inverse = [0] * 256
    for a in range(1, 256):
        if not inverse[a]:
            b = next(b for b in range(1, 256) if _times(a, b) == 1)
            inverse[a], inverse[b] = b, a
    box = bytearray(256)
    for a, b in enumerate(inverse):
        rotated = b | b << 8
        box[a] = (b ^ rotated >> 7 ^ rotated >> 6 ^ rotated >> 5 ^ rotated >> 4 ^ 0x63) & 0xFF
    return bytes(box)


_S = _substitution()
_S_BACK = bytes(_S.index(a) for a in range(256))
_BY = {factor: bytes(_times(a, factor) for a in range(256)) for factor in (2, 3, 9, 11, 13, 14)}
_SHIFT = tuple((4 * (column + row) + row) % 16 for column in range(4) for row in range(4))
_SHIFT_BACK = tuple(_SHIFT.index(place) for place in range(16))


@lru_cache(maxsize=256)
def _round_keys(key: bytes) -> tuple[bytes, ...]:
    """Expand a key of 16 or 32 bytes to the 11 or 15 keys of its rounds."""
    words = [key[i : i + 4] for i in range(0, len(key), 4)]
    each, constant = len(words), 1
    for i in range(each, 4 * (each + 7)):
        word = words[-1]
        if i % each == 0:
            word = bytes(_S[a] for a in word[1:] + word[:1])
            word = bytes((word[0] ^ constant,)) + word[1:]
            constant = _times(constant, 2)
        elif each == 8 and i % each == 4:
            word = bytes(_S[a] for a in word)
        words.append(_xor(words[-each], word))
    return tuple(b"".join(words[i : i + 4]) for i in range(0, len(words), 4))


def _xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b))  # noqa: B905  CTR's last block is shorter


def _mix(state: bytes, factors: tuple[int, int, int, int]) -> bytes:
    tables = [_BY.get(factor) for factor in factors]
    out = bytearray(_BLOCK)
    for column in range(0, _BLOCK, 4):
        for row in range(4):
            mixed = 0
            for k in range(4):
                a = state[column + (row + k) % 4]
                table = tables[k]
                mixed ^= a if table is None else table[a]
            out[column + row] = mixed
    return bytes(out)


def _encrypt_block(keys: tuple[bytes, ...], block: bytes) -> bytes:
    state = _xor(block, keys[0])
    last = len(keys) - 1
    for number in range(1, last + 1):
        state = bytes(_S[state[place]] for place in _SHIFT)
        if number < last:
            state = _mix(state, (2, 3, 1, 1))
        state = _xor(state, keys[number])
    return state


def _decrypt_block(keys: tuple[bytes, ...], block: bytes) -> bytes:
    state = block
    last = len(keys) - 1
    for number in range(last, 0, -1):
        state = _xor(state, keys[number])
        if number < last:
            state = _mix(state, (14, 11, 13, 9))
        state = bytes(_S_BACK[state[place]] for place in _SHIFT_BACK)
    return _xor(state, keys[0])


def _blocks(data: bytes) -> list[bytes]:
    return [data[i : i + _BLOCK] for i in range(0, len(data), _BLOCK)]


class PurePython:
    """The same four operations as `decoders.aes.Backend`."""

    name = "python"

    def ecb_encrypt(self, key: bytes, data: bytes) -> bytes:
        keys = _round_keys(key)
        return b"".join(_encrypt_block(keys, block) for block in _blocks(data))

    def cbc_encrypt(self, key: bytes, iv: bytes, data: bytes) -> bytes:
        keys, out = _round_keys(key), [iv]
        for block in _blocks(data):
            out.append(_encrypt_block(keys, _xor(out[-1], block)))
        return b"".join(out[1:])

    def cbc_decrypt(self, key: bytes, iv: bytes, data: bytes) -> bytes:
        keys, out = _round_keys(key), []
        for block in _blocks(data):
            out.append(_xor(_decrypt_block(keys, block), iv))
            iv = block
        return b"".join(out)

    def ctr(self, key: bytes, counter: bytes, data: bytes) -> bytes:
        keys, number, out = _round_keys(key), int.from_bytes(counter, "big"), []
        for block in _blocks(data):
            out.append(_xor(block, _encrypt_block(keys, number.to_bytes(_BLOCK, "big"))))
            number = (number + 1) % (1 << 128)
        return b"".join(out)
