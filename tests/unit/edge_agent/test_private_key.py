"""A private key says the same however its file was written, and is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.private_key import (
    PrivateKeyUnusable,
    hkdf_sha256,
    private_key_of,
    read_private_key,
)

# Made for these tests by OpenSSL 3.0: `ecparam -genkey`, `ec`, `ec -no_public`, `pkcs8 -topk8`,
# `genrsa -traditional`, `genpkey -algorithm ed25519`.
SEC1 = """\
-----BEGIN EC PARAMETERS-----
BggqhkjOPQMBBw==
-----END EC PARAMETERS-----
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIPI2Ep7H277Y+KgrDGaEDyobCKnhhH4n8q5buzklkFxdoAoGCCqGSM49
AwEHoUQDQgAEW8gvVnY2L5qalSpmq1q+EfnaqwjLe7YHbl8OqApO8Tt3R4a8mi7M
8O5CIWsCvLDrb72Coxwr0USMtp8G4R1RXQ==
-----END EC PRIVATE KEY-----
"""
SEC1_WITHOUT_PUBLIC = """\
-----BEGIN EC PRIVATE KEY-----
MDECAQEEIPI2Ep7H277Y+KgrDGaEDyobCKnhhH4n8q5buzklkFxdoAoGCCqGSM49
AwEH
-----END EC PRIVATE KEY-----
"""
EC_PKCS8 = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg8jYSnsfbvtj4qCsM
ZoQPKhsIqeGEfifyrlu7OSWQXF2hRANCAARbyC9WdjYvmpqVKmarWr4R+dqrCMt7
tgduXw6oCk7xO3dHhryaLszw7kIhawK8sOtvvYKjHCvRRIy2nwbhHVFd
-----END PRIVATE KEY-----
"""
PKCS1 = """\
-----BEGIN RSA PRIVATE KEY-----
MIICXQIBAAKBgQCv+BJcUeuPijlf7L012PDfTWcfktb6InlCpgEsMStnCJZnNPKi
CtuKABQyyGTMorYUxtDvneq9irV0a/QYB+dSeyyqX1suDKbCjuALmDk+4suOhqE6
ond5eQ+/TW3OW0gMQ0q+kf6ZTO0BOmfHmT74QPTdaoyoQ3KrMspkMP/YTQIDAQAB
AoGBAIPXK3p77i+3clFKgGDtz1qfFZp0XBlA5vVmhw5jMI+bwYRGCVwbIm18raV2
uv8PEbjzVOuSt6OXX2iA0XuHwGmupl0+tDNC6yfKGenc+V+HIE4StXFhWS9HuM7g
C4XStM9MRr3L3nAJPYevlrmNa+bBp0RxzKjvh0hkmk1DCjvBAkEA5zOR/0ppP/Sk
ReSAXKX6rf8JhCasdFiUO6SO8T7aAnA5DHmk3JYDhLzLSP0xUoIWBo+wXisK6H41
IQZX/mFIiQJBAMLX599X/LnEoimmcnPwS8NvOHKFtkzYz3vgq33HLCm9YafLzZDE
EGXh2vg70JMO0f7C8qvBpWIgtFzOqc81WKUCQQCaOKg2pqg2ZTX++UE2i/D/h5QN
ds6qfTvD3S0Md2RtI/ap/6qdCeQm8tiXQ21XIDcZAVggOI36L9W4xcaEhNghAkAZ
rZScZZ8j6FsqvAnnZ6rEddrtlNuiowwtGj3flKkoUxIUqBJOWtiCZNKT1mY1i0V3
mr+ajSm7le3PMVlFupUVAkA/lz6gi6dlr56OUoyZGpz+Tvnq02eKJTu0p8zA8U59
4PuNQH9eWZUuO2n2PREu7i1a2FhNw2Hsm4VNk1SoIdFA
-----END RSA PRIVATE KEY-----
"""
RSA_PKCS8 = """\
-----BEGIN PRIVATE KEY-----
MIICdwIBADANBgkqhkiG9w0BAQEFAASCAmEwggJdAgEAAoGBAK/4ElxR64+KOV/s
vTXY8N9NZx+S1voieUKmASwxK2cIlmc08qIK24oAFDLIZMyithTG0O+d6r2KtXRr
9BgH51J7LKpfWy4MpsKO4AuYOT7iy46GoTqid3l5D79Nbc5bSAxDSr6R/plM7QE6
Z8eZPvhA9N1qjKhDcqsyymQw/9hNAgMBAAECgYEAg9crenvuL7dyUUqAYO3PWp8V
mnRcGUDm9WaHDmMwj5vBhEYJXBsibXytpXa6/w8RuPNU65K3o5dfaIDRe4fAaa6m
XT60M0LrJ8oZ6dz5X4cgThK1cWFZL0e4zuALhdK0z0xGvcvecAk9h6+WuY1r5sGn
RHHMqO+HSGSaTUMKO8ECQQDnM5H/Smk/9KRF5IBcpfqt/wmEJqx0WJQ7pI7xPtoC
cDkMeaTclgOEvMtI/TFSghYGj7BeKwrofjUhBlf+YUiJAkEAwtfn31f8ucSiKaZy
c/BLw284coW2TNjPe+CrfccsKb1hp8vNkMQQZeHa+DvQkw7R/sLyq8GlYiC0XM6p
zzVYpQJBAJo4qDamqDZlNf75QTaL8P+HlA12zqp9O8PdLQx3ZG0j9qn/qp0J5Cby
2JdDbVcgNxkBWCA4jfov1bjFxoSE2CECQBmtlJxlnyPoWyq8CednqsR12u2U26Kj
DC0aPd+UqShTEhSoEk5a2IJk0pPWZjWLRXeav5qNKbuV7c8xWUW6lRUCQD+XPqCL
p2Wvno5SjJkanP5O+erTZ4olO7SnzMDxTn3g+41Af15ZlS47afY9ES7uLVrYWE3D
YeybhU2TVKgh0UA=
-----END PRIVATE KEY-----
"""
ED25519 = """\
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEII1gTRD1GF3Tt2NZo6YiALdnqNr3rx0Q8x0Aa1c9fYOa
-----END PRIVATE KEY-----
"""
ENCRYPTED = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAiS1fvZRREOMwICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEEZlBGT5HXleUEZ4l5APDewEgZBf
Zv3KeSqWtqhrk322Ed/Bng+Wdw79a8qoAn2B1GvnQORYTm+cL4d/Ho3MoQw0nM1v
+4CHKV2vyRFd5drUU1TEH8yRoR3CXByUHMZb+sNYEUFClB69Q8iJ7bitJHSnNef0
FEJfBiHUeu11seuspI6RqZ78g6UGhLKrBdfjcyLa8bnjxnd6e933BKsObTF673Q=
-----END ENCRYPTED PRIVATE KEY-----
"""
ENCRYPTED_SEC1 = """\
-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-128-CBC,DCE54F32FD9A1CB821B9F78654C872D1

Dco0MJfcyIUW37zhp9oh8cawuXL/aSzOQ8K7FheiKfmpCZGU6vl/5cbB8Rb68LtI
PFqqEZMAqFwPeAI4RFMIKlPLW9nw+Wd6D/bRa3EgEjq0htrEDKmbv0eUq8XnhjM1
HfX+qO2Ur/X2n0Qmn/7Dlvr8dbpdBTAGJ2RdVosVQoc=
-----END EC PRIVATE KEY-----
"""


def named(pem: str) -> str:
    return private_key_of(pem).name


def test_a_key_is_the_same_in_every_form() -> None:
    assert named(SEC1) == named(SEC1_WITHOUT_PUBLIC) == named(EC_PKCS8)
    assert named(PKCS1) == named(RSA_PKCS8)
    assert len({named(SEC1), named(PKCS1), named(ED25519)}) == 3


def test_a_key_is_found_beside_its_certificate_and_with_other_line_ends() -> None:
    certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"

    assert named(certificate + EC_PKCS8) == named(SEC1)
    assert named("some text\r\n" + EC_PKCS8.replace("\n", "\r\n")) == named(SEC1)


def test_two_purposes_and_two_salts_give_keys_that_say_nothing_of_each_other() -> None:
    key = private_key_of(SEC1)

    made = {
        key.derived(b"one", 32),
        key.derived(b"two", 32),
        key.derived(b"one", 32, salt=b"salt"),
        private_key_of(PKCS1).derived(b"one", 32),
    }

    assert len(made) == 4
    assert key.derived(b"one", 32) in made


def test_derivation_is_that_of_rfc_5869() -> None:
    made = hkdf_sha256(
        bytes([0x0B] * 22), salt=bytes(range(13)), info=bytes(range(0xF0, 0xFA)), size=42
    )
    without_salt = hkdf_sha256(bytes([0x0B] * 22), salt=b"", info=b"", size=42)

    assert made.hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    assert without_salt.hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


def test_a_key_shows_its_name_alone(tmp_path: Path) -> None:
    path = tmp_path / "gateway.key"
    path.write_text(SEC1)
    path.chmod(0o600)
    key = read_private_key(path)

    assert repr(key) == f"PrivateKey({key.name})"
    assert not hasattr(key, "__dict__")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "private_key_absent"),
        ("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "private_key_absent"),
        (SEC1.replace("END EC", "END"), "private_key_absent"),
        (ENCRYPTED, "private_key_encrypted"),
        (ENCRYPTED_SEC1, "private_key_encrypted"),
        (EC_PKCS8.replace("MIGH", "MIGI"), "private_key_malformed"),
        (EC_PKCS8.replace("MIGH", "M*GH"), "private_key_malformed"),
        (PKCS1.replace("RSA PRIVATE", "EC PRIVATE"), "private_key_malformed"),
        (SEC1.replace("EC PRIVATE", "PRIVATE"), "private_key_malformed"),
        (SEC1.replace("EC PRIVATE", "DSA PRIVATE"), "private_key_malformed"),
        (SEC1_WITHOUT_PUBLIC.replace("oAoG", "oAAG"), "private_key_malformed"),
        ("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----", "private_key_malformed"),
    ],
)
def test_what_is_no_usable_key_is_refused_with_a_code(tmp_path: Path, text: str, code: str) -> None:
    path = tmp_path / "gateway.key"
    path.write_text(text)
    path.chmod(0o600)

    with pytest.raises(PrivateKeyUnusable) as refused:
        read_private_key(path)

    assert refused.value.code == code
    assert "gateway.key" in str(refused.value)
    assert not any(line in str(refused.value) for line in text.splitlines() if len(line) > 40)


@pytest.mark.parametrize("pem", [SEC1, EC_PKCS8, PKCS1, RSA_PKCS8, ED25519])
def test_no_damage_leads_anywhere_but_to_a_refusal_or_to_another_key(pem: str) -> None:
    lines = pem.splitlines(keepends=True)
    start = next(i for i, line in enumerate(lines) if "PRIVATE KEY" in line) + 1

    found: set[str] = set()
    for place in range(0, len(lines[start]) - 1, 3):
        damaged = [*lines]
        damaged[start] = lines[start][:place] + "//" + lines[start][place + 2 :]
        try:
            found.add(named("".join(damaged)))
        except PrivateKeyUnusable as refused:
            found.add(refused.code)

    assert found
    assert all(len(name) == 16 for name in found - {"private_key_malformed"})


def test_a_file_that_others_can_read_or_that_is_absent_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gateway.key"
    path.write_text(SEC1)
    path.chmod(0o640)

    with pytest.raises(PrivateKeyUnusable, match="chmod 600"):
        read_private_key(path)
    with pytest.raises(PrivateKeyUnusable, match="No such file"):
        read_private_key(tmp_path / "absent")
