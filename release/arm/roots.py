"""Root file systems of other processors, from Debian's archive, in a cache outside the clone.

apt resolves and checks signatures in a private state folder and `dpkg-deb` unpacks; nothing of the
packages runs, nothing of this machine changes, and root is not needed. A root is made in about ten
seconds, once. The archive is the one that this machine's own apt uses, or AQUACIS_DEBIAN_MIRROR.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from decoders.value import value

KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
SOURCES: Final = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")
ATTEMPTS: Final = 3  # a mirror in the middle of its own update answers with wrong sizes
PAUSE_S: Final = 5.0
TIMEOUT_S: Final = 300.0
WHOLE: Final = ".complete"
GUEST_PYTHON: Final = ("python3", "ca-certificates")
GUEST_VERSION: Final = (3, 11)  # of bookworm


class CannotEmulate(Exception):
    """Something that emulation needs is not to be had on this machine; says what."""


@value
class Root:
    """A file system: `name` in the cache, made of `packages` of one Debian suite."""

    name: str
    architecture: str
    suite: str
    packages: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Where it lies, whether it was made already or not."""
        return cache() / self.name

    @property
    def python(self) -> Path:
        return self.path / "usr" / "bin" / "python3.11"

    @property
    def libcrypto_1_1(self) -> Path:
        """OpenSSL 1.1.1, which only bullseye has."""
        found = sorted((self.path / "usr" / "lib").glob("*/libcrypto.so.1.1"))
        if not found:
            raise CannotEmulate(f"{self.name} holds no libcrypto.so.1.1")
        return found[0]

    @property
    def made(self) -> bool:
        return (self.path / WHOLE).exists()


ARMEL: Final = Root(name="armel", architecture="armel", suite="bookworm", packages=GUEST_PYTHON)
ARMHF: Final = Root(name="armhf", architecture="armhf", suite="bookworm", packages=GUEST_PYTHON)
ARMHF_BULLSEYE: Final = Root(
    name="armhf-bullseye", architecture="armhf", suite="bullseye", packages=("libssl1.1",)
)
AMD64_BULLSEYE: Final = Root(
    name="amd64-bullseye", architecture="amd64", suite="bullseye", packages=("libssl1.1",)
)


def cache() -> Path:
    """Return the folder of all roots: AQUACIS_ARM_CACHE, or a folder in the user's cache."""
    given = os.environ.get("AQUACIS_ARM_CACHE")
    if given:
        return Path(given)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "aquacis-arm"


def ready(root: Root) -> Root:
    """Return `root`, made now if need be. Raises CannotEmulate."""
    if root.made:
        return root
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise CannotEmulate(f"{program} is not here: roots are made on Debian or its kin")
    work = cache() / f"{root.name}.apt"
    shutil.rmtree(root.path, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)
    try:
        debs = _downloaded(root, work)
        for deb in debs:
            _run(["dpkg-deb", "-x", str(deb), str(root.path)])
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if "python3" in root.packages:
        _compile_library(root)
    (root.path / WHOLE).touch()
    return root


def _downloaded(root: Root, work: Path) -> Sequence[Path]:
    """Return the packages of `root` and all they depend on."""
    for folder in ("lists/partial", "archives/partial", "etc/apt.conf.d", "etc/preferences.d"):
        (work / folder).mkdir(parents=True)
    source = f"deb [arch={root.architecture} signed-by={KEYRING}] {mirror()} {root.suite} main\n"
    (work / "etc" / "sources.list").write_text(source)
    (work / "status").touch()
    options = _options(root.architecture, work)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _run(["apt-get", *options, "-qq", "update"])
            _run(["apt-get", *options, "-qq", "-y", "--download-only", "install", *root.packages])
            break
        except CannotEmulate:
            if attempt == ATTEMPTS:
                raise
            time.sleep(PAUSE_S)
    return sorted((work / "archives").glob("*.deb"))


def _options(architecture: str, work: Path) -> list[str]:
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures::": architecture,
        "Dir::State": work,
        "Dir::State::status": work / "status",  # empty: nothing is installed there yet
        "Dir::State::lists": work / "lists",
        "Dir::Cache": work,
        "Dir::Cache::archives": work / "archives",
        "Dir::Etc::sourcelist": work / "etc" / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "APT::Install-Recommends": 0,
        "APT::Sandbox::User": "root",  # the folder may be closed to apt's own user
        "APT::Update::Error-Mode": "any",  # else an archive that is away counts as fine
        "Acquire::Languages": "none",
        "Debug::NoLocking": 1,
    }
    return [part for name, given in settings.items() for part in ("-o", f"{name}={given}")]


def mirror() -> str:
    """Return the archive's address. Raises CannotEmulate."""
    given = os.environ.get("AQUACIS_DEBIAN_MIRROR")
    if given:
        return given
    for path in map(Path, SOURCES):
        text = path.read_text("utf-8") if path.exists() else ""
        found = re.search(r"^URIs:\s*(\S+)|^deb\s+(?:\[[^\]]*\]\s+)?(\S+)", text, re.MULTILINE)
        if found:
            return found[1] or found[2]
    raise CannotEmulate("apt names no archive here; AQUACIS_DEBIAN_MIRROR can")


def _compile_library(root: Root) -> None:
    """Compile the guest's standard library, which a package's script would do.

    Without it each start compiles it anew: three times as slow, and 4 MiB more resident.
    """
    if sys.version_info[:2] == GUEST_VERSION:
        python = sys.executable
    else:
        found = shutil.which("python{}.{}".format(*GUEST_VERSION))
        if found is None:
            print("no Python 3.11 here: the guest starts from sources, slower and larger",
                  file=sys.stderr)  # fmt: skip
            return
        python = found
    library = root.path / "usr" / "lib" / "python{}.{}".format(*GUEST_VERSION)
    command = [python, "-m", "compileall", "-q", "-s", str(root.path), "-p", "/", str(library)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode not in {0, 1}:  # 1: lib2to3's tests hold broken files on purpose
        raise CannotEmulate(f"the guest's library was not compiled: {ran.stderr[-300:]}")


def _run(command: Sequence[str]) -> None:
    try:
        ran = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        )
    except subprocess.TimeoutExpired:
        raise CannotEmulate(f"{command[0]} did not end within {TIMEOUT_S:.0f} s") from None
    if ran.returncode != 0:
        said = (ran.stderr or ran.stdout).strip().splitlines()
        raise CannotEmulate(f"{command[0]}: {said[-1] if said else 'failed'}")
