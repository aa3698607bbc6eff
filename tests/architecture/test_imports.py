"""The import rules hold, and each of them is seen to catch what it forbids."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("decoders", "edge_agent", "cloud", "field_sim")

# contract → (module that is given a forbidden line, the line)
VIOLATIONS = {
    "the tree points one way": ("decoders/value.py", "import cloud.kernel.clock"),
    "inside the cloud, the composition root is on top and the kernel below": (
        "cloud/kernel/clock.py",
        "import cloud.metering.model",
    ),
    "the edge and the cloud share only the decoders and the leak rules": (
        "edge_agent/core.py",
        "import cloud.kernel.clock",
    ),
    "of the edge, the cloud and the city may know the leak rules only": (
        "cloud/metering/service.py",
        "import edge_agent.outbox",
    ),
    "inside a context, imports point at the rules": (
        "cloud/metering/rules.py",
        "import cloud.metering.store",
    ),
    "the functional core does no input or output": ("cloud/metering/rules.py", "import psycopg"),
}


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    keep_python = shutil.ignore_patterns("node_modules", "dist", "__pycache__", "*.npz")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=keep_python)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_import_keeps_the_rules() -> None:
    linted = lint(ROOT)

    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("contract", VIOLATIONS)
def test_each_rule_catches_what_it_forbids(contract: str, tree: Path) -> None:
    module, line = VIOLATIONS[contract]
    path = tree / module
    path.write_text(path.read_text() + f"\n{line}\n")

    linted = lint(tree)

    assert linted.returncode != 0
    assert f"{contract} BROKEN" in linted.stdout


def test_every_rule_is_broken_on_purpose_by_a_test() -> None:
    said = [line.partition(" KEPT") for line in lint(ROOT).stdout.splitlines()]

    assert {contract for contract, kept, _ in said if kept} == set(VIOLATIONS)
