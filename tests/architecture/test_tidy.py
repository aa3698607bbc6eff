"""House rules that a linter does not know."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("decoders", "edge_agent", "cloud", "field_sim", "release")
LINES_A_FILE = 400
LINES_A_FUNCTION = 50

PURE = (
    *sorted((ROOT / "decoders").rglob("*.py")),
    *sorted((ROOT / "cloud").glob("*/rules.py")),
    *sorted((ROOT / "cloud").glob("*/model.py")),
    *sorted((ROOT / "cloud").glob("*/events.py")),
    ROOT / "edge_agent" / "core.py",
    *(
        ROOT / "edge_agent" / f"leaks{part}.py"
        for part in (
            *("", "_episodes", "_feeding", "_hours", "_interval", "_limits"),
            *("_memory", "_older", "_patterns", "_scoreboard", "_status"),
        )
    ),
)
IMPURE_CALLS = {"open", "print", "input", "uuid4", "now", "utcnow", "monotonic", "sleep", "urandom"}
# the cipher looks for the libcrypto that this interpreter has mapped; nothing else is read
IMPURE_BY_DESIGN = {(ROOT / "decoders" / "aes.py", "open")}


def sources() -> list[Path]:
    return sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py"))


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", sources(), ids=named)
def test_a_file_says_what_it_owns_and_stays_readable(path: Path) -> None:
    text = path.read_text()

    assert ast.get_docstring(ast.parse(text)), f"{named(path)} has no module docstring"
    assert len(text.splitlines()) <= LINES_A_FILE, f"{named(path)} is too long to read"


@pytest.mark.parametrize("path", sources(), ids=named)
def test_no_function_is_too_long_to_see_at_once(path: Path) -> None:
    long = {
        f.name: f.end_lineno - f.lineno + 1
        for f in functions(path)
        if f.end_lineno is not None and f.end_lineno - f.lineno + 1 > LINES_A_FUNCTION
    }

    assert not long


@pytest.mark.parametrize("path", PURE, ids=named)
def test_the_core_reads_no_clock_and_opens_nothing(path: Path) -> None:
    called = {
        node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute))
    }
    allowed = {name for where, name in IMPURE_BY_DESIGN if where == path}

    assert not called & IMPURE_CALLS - allowed


def test_no_instant_on_a_gateway_goes_through_a_time_t_that_ends_in_2038() -> None:
    asking = re.compile(r"\b(fromtimestamp|utcfromtimestamp|gmtime|localtime|mktime)\b")
    ours = [p for p in sources() if p.relative_to(ROOT).parts[0] in {"decoders", "edge_agent"}]
    code = {p: [n.attr for n in ast.walk(ast.parse(p.read_text())) if isinstance(n, ast.Attribute)]
            for p in ours}  # fmt: skip

    assert not [named(p) for p, names in code.items() if asking.search(" ".join(names))]


def test_no_promise_is_left_in_the_code() -> None:
    promise = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")

    assert not [named(p) for p in sources() if promise.search(p.read_text())]


def test_locks_name_no_host() -> None:
    locks = [*(ROOT / "requirements").glob("*.txt"), *ROOT.rglob("package-lock.json")]
    ours = [p for p in locks if "node_modules" not in p.parts and ".venv" not in p.parts]

    assert len(ours) >= 3
    assert not [named(p) for p in ours if "://" in p.read_text()]


def test_no_file_names_a_place_of_one_machine() -> None:
    home = re.compile(r"(^|[^A-Za-z0-9._/-])/(work|farm|root)/")  # no folder of one machine
    texts = {".py", ".md", ".toml", ".json", ".sql", ".ts", ".vue", ".txt", ".in", ".html"}
    ours = [p for p in tracked() if p.suffix in texts and p != Path(__file__)]

    assert not [named(p) for p in ours if p.is_file() and home.search(p.read_text())]
