"""AES on both back ends against the published examples."""

from __future__ import annotations

import threading

import pytest

from decoders import aes, aes_pure
from decoders.aes import Backend

BACKENDS: list[Backend] = [aes.BACKEND, aes_pure.PurePython()]
KEY = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
PLAIN = bytes.fromhex(
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)


def by_name(backend: Backend) -> str:
    return backend.name


@pytest.mark.parametrize("backend", BACKENDS, ids=by_name)
def test_a_block_encrypts_as_in_fips_197(backend: Backend) -> None:
    key, plain = bytes(range(16)), bytes.fromhex("00112233445566778899aabbccddeeff")

    assert backend.ecb_encrypt(key, plain).hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"


@pytest.mark.parametrize("backend", BACKENDS, ids=by_name)
def test_chaining_runs_both_ways_as_in_sp_800_38a(backend: Backend) -> None:
    sealed = bytes.fromhex(
        "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2"
        "73bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7"
    )

    assert backend.cbc_encrypt(KEY, bytes(range(16)), PLAIN) == sealed
    assert backend.cbc_decrypt(KEY, bytes(range(16)), sealed) == PLAIN


@pytest.mark.parametrize("backend", BACKENDS, ids=by_name)
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 36, 64])
def test_counting_takes_any_length_as_in_sp_800_38a(backend: Backend, size: int) -> None:
    counter = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    sealed = bytes.fromhex(
        "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
        "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee"
    )

    assert backend.ctr(KEY, counter, PLAIN[:size]) == sealed[:size]


@pytest.mark.parametrize(
    ("size", "mac"),
    [
        (0, "bb1d6929e95937287fa37d129b756746"),
        (16, "070a16b46b4d4144f79bdd9dd04a287c"),
        (40, "dfa66747de9ae63030ca32611497c827"),
        (64, "51f0bebf7e3b9d92fc49741779363cfe"),
    ],
)
def test_cmac_is_that_of_rfc_4493(size: int, mac: str) -> None:
    assert aes.cmac(KEY, PLAIN[:size]).hex() == mac


def test_the_interpreters_own_libcrypto_is_used_where_there_is_one() -> None:
    assert aes.choose_backend().name == "libcrypto"


def test_a_library_that_answers_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aes, "is_right", lambda backend: False)

    assert aes.choose_backend().name == "python"


def test_a_machine_without_libcrypto_still_decrypts(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str) -> None:
        raise OSError(path)

    monkeypatch.setattr("decoders.aes.ctypes.CDLL", missing)

    backend = aes.choose_backend()

    assert backend.name == "python"
    assert aes.is_right(backend)


def test_a_payload_longer_than_any_before_gets_the_room_it_needs() -> None:
    long = PLAIN * 50

    sealed = aes.ctr(KEY, bytes(16), long)

    assert aes.ctr(KEY, bytes(16), sealed) == long


def test_threads_do_not_share_a_cipher() -> None:
    expected = {n: aes.ctr(bytes([n]) * 16, bytes(16), PLAIN) for n in range(4)}
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(2000):
            if aes.ctr(bytes([number]) * 16, bytes(16), PLAIN) != expected[number]:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong
