"""How a guest's Python is run here: qemu's user mode, no chroot, nothing registered, no root.

`-L` lets the guest find its own libraries first and the host's files otherwise. The processor is
the gateway's and no newer: what it does not know ends in SIGILL, as it would there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from decoders.value import value
from release.arm.roots import ARMEL, ARMHF, CannotEmulate, Root

PROGRAMS: Final = ("qemu-arm", "qemu-arm-static")  # only the first can count instructions
PACKAGE: Final = "qemu-user"
BASE: Final = 0x2_0000_0000  # where the guest's 4 GiB begin in qemu's own address space
SPACE: Final = 1 << 32


@value
class Machine:
    """A processor that runs the agent. `program`: None = this machine itself."""

    name: str
    python: str
    program: str | None = None
    root: Root | None = None
    cpu: str = ""

    def command(self, *arguments: str, options: Sequence[str] = ()) -> list[str]:
        """Return how to run this machine's Python; `options` are the emulator's."""
        if self.program is None or self.root is None:
            return [self.python, *arguments]
        emulated = [self.program, "-L", str(self.root.path), "-cpu", self.cpu, *options]
        return [*emulated, self.python, *arguments]


GATEWAYS: Final = {"armel": (ARMEL, "arm926"), "armhf": (ARMHF, "cortex-a9")}


def here() -> Machine:
    """Return this machine, to compare with."""
    return Machine(name="here", python=sys.executable)


def gateway(name: str) -> Machine:
    """Return an emulated gateway, whose root is there. Raises CannotEmulate."""
    root, cpu = GATEWAYS[name]
    return Machine(name=name, python=str(root.python), program=emulator(), root=root, cpu=cpu)


def emulator() -> str:
    """Return qemu's program, installed now where we are root on Debian. Raises CannotEmulate."""
    found = _found()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        print(f"installing {PACKAGE}", file=sys.stderr)
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", PACKAGE]):
            subprocess.run(
                ["apt-get", "-qq", *command], env=quiet, capture_output=True, check=False
            )
        found = _found()
    if found is None:
        raise CannotEmulate(f"qemu-arm is not installed; on Debian: apt-get install {PACKAGE}")
    return found


def _found() -> str | None:
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


def guest_environment(**more: str) -> dict[str, str]:
    """Return an environment in which no setting of this machine's Python reaches the guest."""
    return {"PATH": os.defpath, "LC_ALL": "C.UTF-8", **more}


def instruction_counter(folder: Path) -> Path:
    """Compile the plugin that counts. Raises CannotEmulate where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise CannotEmulate("no C compiler: instructions are not counted")
    built = folder / "count_instructions.so"
    source = Path(__file__).with_suffix("").with_name("count_instructions.c")
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(built), str(source)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise CannotEmulate(f"the counting plugin does not compile: {ran.stderr.strip()[-300:]}")
    return built


def guest_kib(pid: int, *, private: bool = False) -> int:
    """Return what the guest of a qemu started with `-B BASE` holds in memory, qemu's own left out.

    private   only pages that it wrote to
    """
    wanted = ("Private_Dirty:",) if private else ("Rss:",)
    total, inside = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text("utf-8", "replace").splitlines():
        head, _, rest = line.partition(" ")
        if "-" in head and ":" not in head:
            start = int(head.partition("-")[0], 16)
            inside = BASE <= start < BASE + SPACE
        elif inside and head in wanted:
            total += int(rest.split()[0])
    return total
