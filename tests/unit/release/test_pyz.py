"""One file that every Python from 3.10 on runs, the same on each, and the same when built again."""

from __future__ import annotations

import glob
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from edge_agent import leaks, memory, scan
from edge_agent.outbox import Outbox
from release import pyz, wheels
from tests.unit.release.conftest import interpreters

ROOT = Path(__file__).parents[3]
ALONE = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}
IMPORT_ALL = """
import importlib, sys, zipfile
for name in sorted(zipfile.ZipFile(sys.argv[1]).namelist()):
    if name.endswith(".py") and name.startswith(("edge_agent/", "decoders/")):
        module = name[:-3].replace("/", ".").removesuffix(".__init__")
        if not module.endswith("__main__"):
            try:
                importlib.import_module(module)
            except ModuleNotFoundError as missing:
                print(module, missing.name)
"""


def run(python: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *arguments],
        capture_output=True,
        check=False,
        text=True,
        env={**ALONE, **more},
        cwd="/",
    )


@pytest.mark.parametrize("python", interpreters())
def test_it_passes_its_selftest_on_every_interpreter_here(python: str, archive: Path) -> None:
    ran = run(python, str(archive), "selftest", "--json")

    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert json.loads(ran.stdout)["with"]["aes"] == "libcrypto"


def test_every_interpreter_here_and_aes_without_a_library_give_the_same_answers(
    archive: Path,
) -> None:
    digest, vectors = ROOT / "release" / "vector_digest.py", ROOT / "tests" / "vectors"
    said = [
        json.loads(run(python, str(digest), str(vectors), *more, PYTHONPATH=str(archive)).stdout)
        for python in interpreters()
        for more in ([], ["--pure"])
        if not more or python == sys.executable
    ]

    assert len({answer["digest"] for answer in said}) == 1
    assert {answer["aes"] for answer in said} == {"libcrypto", "python"}
    assert said[0]["answers"] > 2_000


def test_the_same_sources_give_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    again = tmp_path / "elsewhere" / "again.pyz"

    pyz.build(again, wheels.fetched(pyz.ROOT))

    assert again.read_bytes() == archive.read_bytes()
    assert again.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    assert os.access(again, os.X_OK)


def test_each_module_is_there_as_source_and_compiled_for_the_gateways_python(
    archive: Path,
) -> None:
    with zipfile.ZipFile(archive) as packed:
        names = set(packed.namelist())
        core = packed.read("edge_agent/core.pyc")
    sources = {name for name in names if name.endswith(".py")}
    asked = "import importlib.util; print(importlib.util.MAGIC_NUMBER.hex())"
    magic = run(pyz.compiling_python(), "-c", asked).stdout.strip()

    assert {name + "c" for name in sources} <= names
    assert {"edge_agent/__main__.py", "decoders/decode.py", "cbor2/__init__.py"} <= sources
    assert not [n for n in names if n.startswith(("decoders/batch", "decoders/spec"))]
    assert not [name for name in names if name.endswith((".so", ".pyi"))]
    assert core[:4].hex() == magic
    assert core[4] == 1, "a hash that nobody checks: the source may not even be read"


def test_the_licences_of_what_is_inside_are_inside(archive: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        names = packed.namelist()

    assert {"LICENSE", "NOTICE"} <= set(names)
    for library in ("cbor2", "paho_mqtt"):
        assert [n for n in names if n.startswith(f"{library}-") and "/licenses/" in n]


def test_what_is_vendored_is_what_the_project_says_the_edge_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = project["project"]["optional-dependencies"]["edge"]

    assert sorted(wheels.RUNTIME) == sorted(re.split("[<>=]", name)[0] for name in needed)


def test_every_module_loads_from_it_without_anything_installed(archive: Path) -> None:
    """numpy and SciPy apart: the scan asks for them in a process of its own."""
    python = next((p for p in interpreters() if "pyenv" in p or p.startswith("/usr")), None)
    if python is None:
        pytest.skip("no Python here but the environment's own, which has everything installed")

    ran = run(python, "-c", IMPORT_ALL, str(archive), PYTHONPATH=str(archive))

    assert ran.returncode == 0, ran.stderr
    missing = {line.split()[1] for line in ran.stdout.splitlines()}
    assert missing <= {"numpy", "scipy"}, ran.stdout


def test_the_nightly_scans_child_runs_from_it(archive: Path, tmp_path: Path) -> None:
    """The step of a night's flow, or word that this Python has no SciPy."""
    outbox = Outbox(tmp_path / "outbox.db", new_stream=lambda: bytes(16), now_us=0)
    flow = None
    for hour in range(31):
        flow, _ = leaks.feed(flow, "m", (hour * leaks.HOUR_US, hour * 9))
    outbox.append([], {"m/KAW-00000001": memory.pack(memory.Meter(flow=flow))})
    nights = tmp_path / "nights.cbor"
    scan.write_nights(nights, {"KAW-00000001": bytes([0] * 20 + [9] * 12)})
    asked = (
        "import pathlib, sys; from edge_agent import scan; print(scan.__file__);"
        " print(scan.in_child(*map(pathlib.Path, sys.argv[1:])))"
    )

    ran = run(
        sys.executable,
        "-c",
        asked,
        str(tmp_path / "outbox.db"),
        str(nights),
        PYTHONPATH=str(archive),
    )
    outbox.close()

    assert ran.returncode == 0, ran.stderr
    where, said = ran.stdout.splitlines()
    assert where.startswith(str(archive))
    told = "kind='night_flow', rate_lph=9" if find_spec("scipy") else scan.THE_CLOUDS
    assert told in said


def test_a_c_extension_of_another_cbor2_is_not_taken(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "_cbor2.py").write_text("raise SystemExit('taken')")

    ran = run(sys.executable, str(archive), "selftest", PYTHONPATH=str(tmp_path))

    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_an_older_python_is_told_what_is_needed(archive: Path) -> None:
    older = [
        python
        for home in ("3.8", "3.9")
        for python in glob.glob(os.path.expanduser(f"~/.pyenv/versions/{home}.*/bin/python"))
        if run(python, "-c", "pass").returncode == 0
    ]
    if not older:
        pytest.skip("no Python before 3.10 is on this machine")

    ran = run(older[0], str(archive), "selftest")

    assert ran.returncode == 1
    assert "needs Python 3.10" in ran.stderr


def test_the_lock_is_cut_to_what_runs_on_a_gateway() -> None:
    lock = (ROOT / "requirements" / "edge.txt").read_text()

    kept = wheels.runtime_lock(lock)

    named = [line.split("==")[0] for line in kept.splitlines() if not line.startswith(" ")]
    assert named == ["cbor2", "paho-mqtt"]
    assert kept.count("--hash=") >= 2


def test_sources_that_do_not_compile_are_refused() -> None:
    with pytest.raises(pyz.NotCompiled):
        pyz.compiled({"broken.py": b"def"}, sys.executable)
