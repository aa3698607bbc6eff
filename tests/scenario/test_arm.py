"""The same answers on the gateways' processors, emulated, and with the older OpenSSL.

The whole of it, with memory and instructions, is `tasks.py arm`; here runs what takes seconds. A
machine without the emulator or the archive says what it did not run.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from release import pyz, wheels
from release.arm import checks, emulator, roots
from release.arm.roots import CannotEmulate, Root

FIRST = "armel"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("arm") / pyz.NAME
    pyz.build(built, wheels.fetched(pyz.ROOT))
    return built


def made(root: Root) -> Root:
    """Return the root, made now if it is not in the cache; about ten seconds."""
    try:
        return roots.ready(root)
    except CannotEmulate as missing:
        pytest.skip(f"{root.name} cannot be made here: {missing}")


@pytest.mark.xdist_group("arm")
@pytest.mark.parametrize("name", emulator.GATEWAYS)
def test_a_gateways_processor_answers_as_this_machine_does(name: str, archive: Path) -> None:
    if not any(map(shutil.which, emulator.PROGRAMS)):
        pytest.skip(f"no emulator: on Debian, apt-get install {emulator.PACKAGE}")
    root, _ = emulator.GATEWAYS[name]
    if name != FIRST and not root.made:
        pytest.skip(f"{name} is made by tasks.py arm; {FIRST}, the oldest processor, runs always")
    made(root)
    machine = emulator.gateway(name)

    found = checks.answers(machine, archive)

    assert found["digest"] == checks.answers(emulator.here(), archive)["digest"]
    assert found["aes"] == "libcrypto"
    assert found["machine"].startswith("armv")
    assert checks.selftest(machine, archive)["ok"]


@pytest.mark.xdist_group("arm")
def test_openssl_1_1_1_answers_as_openssl_3_does(archive: Path) -> None:
    library = made(roots.AMD64_BULLSEYE).libcrypto_1_1

    try:
        found = checks.answers(emulator.here(), archive, libcrypto=library)
    except checks.NotAsExpected as wrong:
        if "cannot open shared object" in str(wrong) or "wrong ELF class" in str(wrong):
            pytest.skip(f"this machine does not load it: {wrong}")
        raise

    assert found["library"] == "libcrypto.so.1.1"
    assert found["digest"] == checks.answers(emulator.here(), archive)["digest"]


def test_what_the_guest_holds_is_told_from_what_the_emulator_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inside = f"{emulator.BASE:x}-{emulator.BASE + 0x1000:x} r-xp 00000000 08:01 7 /usr/bin/python3"
    outside = "55550000-55560000 rw-p 00000000 00:00 0 [heap]"
    smaps = f"{inside}\nRss: 12 kB\nPrivate_Dirty: 4 kB\n{outside}\nRss: 900 kB\n"
    monkeypatch.setattr(Path, "read_text", lambda *_: smaps)

    assert emulator.guest_kib(1) == 12
    assert emulator.guest_kib(1, private=True) == 4


def test_where_no_archive_is_named_nothing_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AQUACIS_ARM_CACHE", str(tmp_path))
    monkeypatch.delenv("AQUACIS_DEBIAN_MIRROR", raising=False)
    monkeypatch.setattr(roots, "SOURCES", (str(tmp_path / "no.sources"),))

    with pytest.raises(CannotEmulate, match="apt"):
        roots.ready(roots.ARMEL)

    assert not roots.ARMEL.made
