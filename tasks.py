#!/usr/bin/env python3
"""The one entry point of a clone: `python3 tasks.py --help`.

Standard library only. It makes the environment that the locks in `requirements/` describe
(`.venv/<name>-<hash of the lock>`, so a changed lock is a new environment) and runs the
project's own commands inside it.
"""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent
ENVIRONMENTS = ROOT / ".venv"
PACKAGES = ("decoders", "edge_agent", "cloud", "field_sim", "release")
CLOUD_PYTHON = (3, 11)
EDGE_PYTHON = (3, 10)
SCRIPTS = {"aquacis": "cloud", "aquacis-edge": "edge_agent"}
VERMIN = ("-q", "-t=3.10-", "--eval-annotations", "--no-tips", "--violations")
SYSTEM_AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
)
LOCKS = {"cloud": CLOUD_PYTHON, "edge": EDGE_PYTHON, "node": CLOUD_PYTHON, "fuzz": CLOUD_PYTHON}

USAGE = """\
python3 tasks.py COMMAND

  up [--input FILE] [--speed N] [--port P]  the whole platform, live, here; Ctrl-C stops it
  test [PYTEST ARGS]                        every test: python3 tasks.py test -k 'bus or routes'
  check                                     format, lint, types, import rules, minimum Python
  bench [NAME] [--json]                     figures, each beside the bare limit of the same run
  soak NAME [--n N] [--seed S]              as `soak --help` lists them: kills, outage, …
  fuzz [TARGET…] [--seconds N]              coverage-guided, everything that reads foreign bytes
  pyz [--out FOLDER]                        the gateway's agent as one file and as packages: dist/
  arm [SYSTEM…]                             the agent on emulated ARM gateways: memory, instructions
  lock [--upgrade]                          compile requirements/*.in into locks without URLs;
                                            versions stay where they still serve, or the newest
  web                                       build the web pages
  x CMD…                                    run CMD inside: python3 tasks.py x aquacis --help

State lives in .aquacis/ (as root in a folder under /var/tmp); AQUACIS_STATE moves it.
AQUACIS_NODE=wheel builds the pages with the Node.js of a wheel instead of the machine's.
Exit codes: 0 fine, 1 something failed, 2 wrong usage, 3 the environment could not be made.
"""


def fail(message: str, code: int = 3) -> NoReturn:
    print(f"tasks.py: {message}", file=sys.stderr)
    raise SystemExit(code)


def runs(python: str, at_least: tuple[int, int]) -> bool:
    """Say whether `python` starts and is recent enough: a version manager's shim may not."""
    probe = f"import sys; sys.exit(sys.version_info[:2] < {at_least!r})"
    try:
        return subprocess.run([python, "-c", probe], capture_output=True).returncode == 0
    except OSError:
        return False


def find_python(wanted: tuple[int, int], *, exact: bool) -> str | None:
    """Return an interpreter of version `wanted` (or newer, unless `exact`), or None."""
    if sys.version_info[:2] == wanted or (not exact and sys.version_info[:2] > wanted):
        return sys.executable
    name = f"python{wanted[0]}.{wanted[1]}"
    homes = glob.glob(os.path.expanduser(f"~/.pyenv/versions/{wanted[0]}.{wanted[1]}.*/bin/python"))
    for candidate in [shutil.which(name), *homes]:
        if candidate and runs(candidate, wanted):
            return candidate
    return None


def lock_of(name: str) -> Path:
    return ROOT / "requirements" / f"{name}.txt"


def environment(name: str) -> Path | None:
    """Return the ready environment `name`, made now if need be.

    None only for `edge` on a machine without the gateway's Python 3.10.
    """
    python = find_python(LOCKS[name], exact=name == "edge")
    if python is None:
        if name == "edge":
            return None
        fail(
            f"needs Python {'.'.join(map(str, LOCKS[name]))} or newer; this is "
            f"{sys.version.split()[0]} and no other was found on PATH"
        )
    stamp = hashlib.sha256(lock_of(name).read_bytes() + python.encode()).hexdigest()[:12]
    home = ENVIRONMENTS / f"{name}-{stamp}"
    if not (home / ".complete").exists():
        make_environment(home, python, lock_of(name))
    return home


def make_environment(home: Path, python: str, lock: Path) -> None:
    """Build an environment; the mark at the end tells a killed install from a whole one."""
    print(f"Installing {lock.name} into {home.relative_to(ROOT)} (once per lock)", file=sys.stderr)
    started = time.monotonic()
    shutil.rmtree(home, ignore_errors=True)
    made = subprocess.run([python, "-m", "venv", "--without-pip", str(home)])
    if made.returncode != 0:
        fail(f"{python} -m venv failed; on Debian: apt-get install python3-venv")
    inside = str(home / "bin" / "python")
    pip = next((p for p in (python, sys.executable) if has_pip(p)), None)
    if pip is None:
        fail(f"{python} has no pip; on Debian: apt-get install python3-pip")
    flags = ["--require-hashes", "--no-deps", "--disable-pip-version-check", "-q"]
    installed = subprocess.run(
        [pip, "-m", "pip", "--python", inside, "install", *flags, "-r", str(lock)]
    )
    if installed.returncode != 0:
        fail("the package index did not deliver what the lock names (see above); try again")
    site = next((home / "lib").glob("python3*/site-packages"))
    (site / "aquacis.pth").write_text(f"{ROOT}\n")
    for script, module in SCRIPTS.items():
        path = home / "bin" / script
        # not a `#!` line: a path may hold spaces, and be longer than one may be
        path.write_text(f'#!/bin/sh\nexec "{inside}" -P -m {module} "$@"\n')
        path.chmod(0o755)
    (home / ".complete").touch()
    print(f"Installed in {time.monotonic() - started:.0f} s", file=sys.stderr)


def has_pip(python: str) -> bool:
    return subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0


def cloud_environment() -> tuple[Path, dict[str, str]]:
    home = environment("cloud")
    assert home is not None
    variables = dict(os.environ)
    variables["VIRTUAL_ENV"] = str(home)
    variables["PATH"] = f"{home / 'bin'}{os.pathsep}{variables.get('PATH', os.defpath)}"
    variables["PYTHONPATH"] = str(ROOT)
    return home, variables


def run(*command: str, folder: Path = ROOT) -> int:
    """Run a command in the foreground, in the cloud's environment; return its exit code."""
    home, prepared = cloud_environment()
    executable = home / "bin" / command[0]
    first = str(executable) if executable.exists() else command[0]
    try:
        return subprocess.run([first, *command[1:]], cwd=folder, env=prepared).returncode
    except FileNotFoundError:
        fail(f"no such command: {command[0]}", 2)
    except KeyboardInterrupt:
        return 130


def become(*command: str) -> NoReturn:
    """Replace this process by a command of the environment, so that signals reach it directly."""
    home, prepared = cloud_environment()
    os.execve(str(home / "bin" / command[0]), [*command], prepared)


def node_variables() -> dict[str, str]:
    """Return what `node` and `npm` need: a PATH that has them (the machine's, or a wheel's) and
    the authorities this machine trusts, since Node.js brings a list of its own.
    """
    variables = {"PATH": os.environ.get("PATH", os.defpath), "npm_config_update_notifier": "false"}
    authorities = next((f for f in SYSTEM_AUTHORITIES if os.path.exists(f)), None)
    if authorities and "NODE_EXTRA_CA_CERTS" not in os.environ:
        variables["NODE_EXTRA_CA_CERTS"] = authorities
    use_wheel = os.environ.get("AQUACIS_NODE") == "wheel"
    if use_wheel or not (shutil.which("node") and shutil.which("npm")):
        home = environment("node")
        assert home is not None
        variables["PATH"] = f"{home / 'bin'}{os.pathsep}{variables['PATH']}"
    return variables


def web() -> int:
    """Build the web pages unless what was built came from these very sources."""
    source = ROOT / "cloud" / "portal" / "web"
    digest = hashlib.sha256()
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        relative = path.relative_to(source)
        if relative.parts[0] not in {"node_modules", "dist"}:
            digest.update(str(relative).encode() + b"\0" + path.read_bytes())
    stamp = source / "dist" / ".built-from"
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return 0
    print("Building the web pages (once per change)", file=sys.stderr)
    prepared = {**os.environ, **node_variables()}
    for command in (["npm", "ci", "--no-audit", "--no-fund"], ["npm", "run", "build"]):
        npm = shutil.which(command[0], path=prepared["PATH"])
        if npm is None:
            fail("npm was not found; AQUACIS_NODE=wheel brings one")
        built = subprocess.run(
            [npm, *command[1:]], cwd=source, env=prepared, stdout=subprocess.PIPE, text=True
        )
        if built.returncode != 0:
            print(built.stdout, file=sys.stderr)
            fail(f"{' '.join(command)} failed in {source.relative_to(ROOT)}")
    stamp.write_text(digest.hexdigest())
    return 0


def up(arguments: list[str]) -> NoReturn:
    web()
    become("python", "-m", "field_sim.up", *arguments)


def test(arguments: list[str]) -> int:
    web()
    failed = run("python", "-m", "pytest", *arguments)
    if not arguments:
        failed = edge_tests() or failed
    return failed


def edge_tests() -> int:
    """Run the gateway's tests on the gateway's Python, where this machine has one."""
    home = environment("edge")
    if home is None:
        print("tasks.py: no Python 3.10 here: the edge's tests ran on the cloud's Python only")
        return 0
    print("\nThe gateway's tests on Python 3.10:", flush=True)
    prepared = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [str(home / "bin" / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    # the cloud's fixtures and xdist are not there, and not wanted
    alone = ["-o", "addopts=--strict-markers --import-mode=importlib", "--confcutdir=tests/unit"]
    tests = ["tests/unit/decoders", "tests/unit/edge_agent"]
    return subprocess.run([*command, *alone, *tests], cwd=ROOT, env=prepared).returncode


def fuzz(arguments: list[str]) -> int:
    """Fuzz in an environment of its own: nobody else needs the fuzzer."""
    home = environment("fuzz")
    assert home is not None
    command = [str(home / "bin" / "python"), "-m", "tests.fuzz", *arguments]
    try:
        return subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
        ).returncode
    except KeyboardInterrupt:
        return 130


def check() -> int:
    """Run every static check; all of them, so that one run shows all there is to mend."""
    steps = [
        ("ruff", "format", "--check", "."),
        ("ruff", "check", "."),
        ("mypy", *PACKAGES, "tests", "tasks.py"),
        # decoders/batch*.py need numpy, whose types are those of the cloud's Python
        (
            "mypy",
            "--python-version",
            "3.10",
            "--exclude",
            "decoders/batch",
            "decoders",
            "edge_agent",
        ),
        ("vermin", *VERMIN, "decoders", "edge_agent"),
        ("lint-imports", "--no-cache"),
    ]
    failed = []
    for step in steps:
        print(f"· {' '.join(step)}", flush=True)
        if run(*step) != 0:
            failed.append(" ".join(step[:2]))
    if failed:
        print(f"check: failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def lock(arguments: list[str]) -> int:
    if arguments not in ([], ["--upgrade"]):
        print(USAGE, file=sys.stderr)
        return 2
    for name, version in LOCKS.items():
        compiled = run(
            *("uv", "pip", "compile", "-q", "--generate-hashes", "--universal", *arguments),
            *("--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"),
            *("--python-version", ".".join(map(str, version))),
            *(f"requirements/{name}.in", "-o", f"requirements/{name}.txt"),
        )
        if compiled != 0:
            return compiled
        if "://" in lock_of(name).read_text():
            fail(f"requirements/{name}.txt names a URL; a lock may not", 1)
    return 0


def commands() -> dict[str, Callable[[list[str]], int]]:
    """Return what each command does with its arguments."""
    return {
        "up": up,
        "test": test,
        "bench": lambda arguments: run("python", "-m", "field_sim.bench", *arguments),
        "soak": lambda arguments: run("python", "-m", "field_sim.soak", *arguments),
        "fuzz": fuzz,
        "pyz": lambda arguments: run("python", "-m", "release", *arguments),
        "arm": lambda arguments: run("python", "-m", "release.arm", *arguments),
        "x": lambda arguments: run(*arguments, folder=Path.cwd()),
        "check": lambda _: check(),
        "lock": lock,
        "web": lambda _: web(),
    }


def main() -> int:
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in {"-h", "--help", "help"}:
        print(USAGE)
        return 0
    takes_arguments = command not in {"check", "web"}
    if command not in commands() or (arguments and not takes_arguments) or sys.argv[1:] == ["x"]:
        print(USAGE, file=sys.stderr)
        return 2
    return commands()[command](arguments)


if __name__ == "__main__":
    raise SystemExit(main())
