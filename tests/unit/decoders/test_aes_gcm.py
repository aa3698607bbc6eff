"""AES-256-GCM on both back ends: the published examples, and the tags that must not fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders import aes_gcm, aes_pure
from decoders.aes_gcm import Backend, NotAuthentic

BACKENDS: list[Backend] = [aes_gcm.BACKEND, aes_gcm.PurePython()]
KEY, NONCE = bytes(range(32)), bytes(range(12))


def by_name(backend: Backend) -> str:
    return backend.name


def test_pure_python_knows_the_longer_key_of_fips_197() -> None:
    plain = bytes.fromhex("00112233445566778899aabbccddeeff")

    sealed = aes_pure.PurePython().ecb_encrypt(bytes(range(32)), plain)

    assert sealed.hex() == "8ea2b7ca516745bfeafc49904b496089"


@pytest.mark.parametrize("backend", BACKENDS, ids=by_name)
def test_both_give_the_published_answers(backend: Backend) -> None:
    assert aes_gcm.is_right(backend)
    # Cases 13 and 14 of McGrew and Viega: nothing sealed, and one block of zeros.
    nothing = backend.seal(bytes(32), bytes(12), b"", b"")
    zeros = backend.seal(bytes(32), bytes(12), bytes(16), b"")
    assert nothing.hex() == "530f8afbc74536b9a963b4f1c4cb738b"
    assert zeros.hex() == "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"


@given(plain=st.binary(max_size=100), beside=st.binary(max_size=40))
def test_either_opens_what_the_other_sealed(plain: bytes, beside: bytes) -> None:
    first, second = (backend.seal(KEY, NONCE, plain, beside) for backend in BACKENDS)

    assert first == second
    assert [b.unseal(KEY, NONCE, first, beside) for b in BACKENDS] == [plain, plain]


@pytest.mark.parametrize("backend", BACKENDS, ids=by_name)
def test_no_changed_bit_is_opened(backend: Backend) -> None:
    sealed = backend.seal(KEY, NONCE, b"sixteen and more", b"beside")

    for place in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(NotAuthentic):
            backend.unseal(KEY, NONCE, bytes(changed), b"beside")
    for key, nonce, beside in (
        (bytes(32), NONCE, b"beside"),
        (KEY, bytes(12), b"beside"),
        (KEY, NONCE, b"besides"),
    ):
        with pytest.raises(NotAuthentic):
            backend.unseal(key, nonce, sealed, beside)


def test_less_than_a_tag_is_not_opened() -> None:
    with pytest.raises(NotAuthentic):
        aes_gcm.unseal(KEY, NONCE, bytes(15))


def test_the_interpreters_own_libcrypto_is_used_where_there_is_one() -> None:
    assert aes_gcm.choose_backend().name == "libcrypto"


def test_a_machine_without_libcrypto_or_with_a_wrong_one_uses_python(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as wrong:
        wrong.setattr(aes_gcm, "is_right", lambda backend: False)
        assert aes_gcm.choose_backend().name == "python"

    def missing(path: str) -> None:
        raise OSError(path)

    monkeypatch.setattr("decoders.aes_gcm.ctypes.CDLL", missing)
    assert aes_gcm.choose_backend().name == "python"
