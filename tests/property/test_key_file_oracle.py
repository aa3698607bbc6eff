"""The sealed key file opened by a stranger: `cryptography`, and what the docstrings say alone."""

from __future__ import annotations

import base64
import json
import os
import struct

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders import aes_gcm
from edge_agent.keys import Given, LorawanKeys, address_of, held
from edge_agent.keys_content import content_of, given_in, held_in
from edge_agent.keys_sealed import sealed
from edge_agent.private_key import PrivateKeyUnusable, hkdf_sha256, private_key_of

CURVES: dict[str, ec.EllipticCurve] = {
    "06082a8648ce3d030107": ec.SECP256R1(),
    "06052b81040022": ec.SECP384R1(),
    "06052b81040023": ec.SECP521R1(),
}
KEY = bytes(range(16))


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, form: PrivateFormat) -> str:
    return key.private_bytes(Encoding.PEM, form, NoEncryption()).decode()


@given(
    key=st.binary(min_size=32, max_size=32),
    nonce=st.binary(min_size=12, max_size=12),
    plain=st.binary(max_size=300),
    beside=st.binary(max_size=60),
)
def test_gcm_is_that_of_cryptography(key: bytes, nonce: bytes, plain: bytes, beside: bytes) -> None:
    expected = AESGCM(key).encrypt(nonce, plain, beside)

    assert aes_gcm.seal(key, nonce, plain, beside=beside) == expected
    assert aes_gcm.unseal(key, nonce, expected, beside=beside) == plain


@given(
    secret=st.binary(min_size=1, max_size=100),
    salt=st.binary(max_size=40),
    info=st.binary(max_size=40),
    size=st.integers(1, 100),
)
def test_derivation_is_that_of_cryptography(
    secret: bytes, salt: bytes, info: bytes, size: int
) -> None:
    expected = HKDF(hashes.SHA256(), size, salt or None, info).derive(secret)

    assert hkdf_sha256(secret, salt=salt, info=info, size=size) == expected


@settings(max_examples=25, deadline=None)
@given(curve=st.sampled_from(sorted(CURVES)), scalar=st.integers(1, 2**255))
def test_an_ec_key_is_its_curve_and_its_scalar_in_either_form(curve: str, scalar: int) -> None:
    key = ec.derive_private_key(scalar, CURVES[curve])
    number = scalar.to_bytes((scalar.bit_length() + 7) // 8, "big")
    name = bytes.fromhex(curve)[2:]
    canonical = b"EC\0" + b"".join(len(p).to_bytes(4, "big") + p for p in (name, number))

    made = {
        private_key_of(pem(key, form)).derived(b"x", 32)
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL)
    }

    assert made == {HKDF(hashes.SHA256(), 32, None, b"x").derive(canonical)}


def test_an_rsa_key_is_its_primes_in_either_form() -> None:
    key = rsa.generate_private_key(65537, 2048)
    numbers = key.private_numbers()
    primes = sorted((numbers.p, numbers.q), reverse=True)
    parts = [prime.to_bytes(128, "big") for prime in primes]
    canonical = b"RSA\0" + b"".join(len(p).to_bytes(4, "big") + p for p in parts)

    made = {
        private_key_of(pem(key, form)).derived(b"x", 32)
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL)
    }

    assert made == {HKDF(hashes.SHA256(), 32, None, b"x").derive(canonical)}


def test_other_keys_are_read_or_refused_by_name() -> None:
    edwards = ed25519.Ed25519PrivateKey.generate()
    body = edwards.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    locked = edwards.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"passphrase")
    )

    assert len(private_key_of(body).name) == 16
    with pytest.raises(PrivateKeyUnusable, match="private_key_encrypted"):
        private_key_of(locked.decode())


def test_the_file_opens_by_its_description_alone() -> None:
    """HKDF of the canonical bytes opens a slot, the slot opens the content, as documented."""
    key = ec.generate_private_key(ec.SECP256R1())
    scalar = key.private_numbers().private_value
    number = scalar.to_bytes((scalar.bit_length() + 7) // 8, "big")
    name = bytes.fromhex("2a8648ce3d030107")
    canonical = b"EC\0" + b"".join(len(p).to_bytes(4, "big") + p for p in (name, number))
    given = Given(assigned=frozenset({"KAW-53885758"}), meters={"KAW-53885758": {3: KEY}})

    whole = sealed(
        given,
        gateway="norte",
        private_keys=[private_key_of(pem(key, PrivateFormat.PKCS8))],
        random=os.urandom,
    )

    header, newline, ciphertext = whole.partition(b"\n")
    said = json.loads(header)
    (slot,) = said["slots"]
    purpose = b"aquacis-edge keys 1 norte"
    wrapping = HKDF(hashes.SHA256(), 32, bytes.fromhex(slot["salt"]), purpose).derive(canonical)
    content_key = AESGCM(wrapping).decrypt(
        bytes.fromhex(slot["nonce"]), base64.b64decode(slot["wrapped"]), purpose
    )
    content = AESGCM(content_key).decrypt(
        bytes.fromhex(said["nonce"]), ciphertext, header + newline
    )
    address = bytes.fromhex("372c58578853")
    parts = (address + (3).to_bytes(2, "big") + KEY, address, b"", b"{}")
    assert content == b"".join(len(part).to_bytes(4, "big") + part for part in parts)


names = st.builds(
    lambda letters, serial: f"{letters}-{serial}",
    st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=3, max_size=3),
    st.text("0123456789ABCDEF", min_size=8, max_size=8),
)
euis = st.text("0123456789ABCDEF", min_size=16, max_size=16)
keys = st.binary(min_size=16, max_size=16)
versions = st.dictionaries(st.integers(1, 0xFFFF), keys, min_size=1, max_size=4)


@given(
    meters=st.dictionaries(names, versions, max_size=20),
    lorawan=st.dictionaries(euis, keys, max_size=5),
    others=st.frozensets(st.one_of(names, euis), max_size=10),
)
def test_what_is_packed_comes_back_and_an_agent_holds_the_same(
    meters: dict[str, dict[int, bytes]], lorawan: dict[str, bytes], others: frozenset[str]
) -> None:
    given = Given(
        assigned=others | meters.keys() | lorawan.keys(),
        meters=meters,
        lorawan={n: LorawanKeys(dev_eui=int(n, 16), app_key=key) for n, key in lorawan.items()},
    )
    some = frozenset(sorted(given.assigned)[::2])

    content = content_of(given)

    assert given_in(content) == given
    for only in (None, some):
        packed, expected = held_in(content, only=only), held(given, only=only, sealed=True)
        assert dict(packed.meters) == dict(expected.meters)
        assert packed.lorawan == expected.lorawan
        assert packed.said() == expected.said()
    for name, each in meters.items():
        found = held_in(content, only=None).meters[address_of(name)]
        assert found == tuple(each[version] for version in sorted(each, reverse=True))


@given(content=st.binary(max_size=200))
def test_bytes_that_are_no_content_are_refused(content: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError, struct.error)):
        given_in(content + b"\xff")
