"""`python3 tasks.py fuzz [TARGET…] [--seconds N]`: fuzz each target, one after another.

The corpus (inputs that reached something new) stays in `.fuzz/`, so the next run goes on from it.
What breaks a target is printed as hex: it becomes a vector or a test first, then a fix.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
CORPORA = ROOT / ".fuzz"
SECONDS = 60
SLACK_S = 60  # for the start, and for the last input
FINDS = ("crash-*", "timeout-*", "oom-*")
_LOG_LINES = 25  # of a target that broke: its trace
_TRACE = (" === Uncaught", "Traceback", "==")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python3 tasks.py fuzz",
        description=__doc__,
        epilog="\n".join(f"  {name:<10} {target.says}" for name, target in TARGETS.items())
        + "\n\nexit codes: 0 nothing found · 1 something was · 2 wrong usage",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", nargs="*", metavar="TARGET", help="default: all, in turn")
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"for each ({SECONDS})")
    parser.add_argument("--seed", type=int, default=7)
    told = parser.parse_args()
    strange = [name for name in told.target if name not in TARGETS]
    if strange:
        parser.error(f"no such target: {', '.join(strange)}")
    broken = [
        name
        for name in told.target or TARGETS
        if not fuzz(name, seconds=told.seconds, seed=told.seed)
    ]
    return 1 if broken else 0


def fuzz(name: str, *, seconds: int, seed: int) -> bool:
    """Fuzz one target; print its figures, and what it broke on. Says whether it held."""
    folder = CORPORA / name
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    before = finds(folder)
    command = [sys.executable, "-m", "tests.fuzz.child", name, str(corpus)]
    ended = subprocess.run(
        [*command, str(seconds), str(seed)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds + SLACK_S,
        check=False,
    )
    new = {path: given for path, given in finds(folder).items() if path not in before}
    figures = figures_in(ended.stderr)
    print(
        f"{name:<10} {figures.get('inputs', 0):>10,} inputs  {figures.get('covered', 0):>6,} "
        f"branches  {figures.get('corpus', 0):>5,} kept  "
        f"{'holds' if ended.returncode == 0 else 'BROKE'}",
        flush=True,
    )
    if ended.returncode:
        said = (ended.stdout + ended.stderr).splitlines()
        traces = (n for n, line in enumerate(said) if line.startswith(_TRACE))
        begin = next(traces, max(0, len(said) - _LOG_LINES))
        print("\n".join(said[begin : begin + _LOG_LINES]), file=sys.stderr)
    for path, given in new.items():
        print(f"  {path.name}: {given.hex()}")
    return ended.returncode == 0


def finds(folder: Path) -> Mapping[Path, bytes]:
    """Return the inputs that broke a target, by file."""
    return {path: path.read_bytes() for each in FINDS for path in sorted(folder.glob(each))}


def figures_in(log: str) -> Mapping[str, int]:
    """Read libfuzzer's log: inputs tried, branches covered, inputs kept."""
    figures: dict[str, int] = {}
    for line in log.splitlines():
        status = re.match(r"#(\d+)\s.*cov: (\d+).*corp: (\d+)", line)
        if status:
            inputs, covered, corpus = (int(number) for number in status.groups())
            figures = {"inputs": inputs, "covered": covered, "corpus": corpus}
        tried = re.match(r"stat::number_of_executed_units:\s*(\d+)", line)
        if tried:
            figures["inputs"] = int(tried.group(1))
    return figures


if __name__ == "__main__":
    raise SystemExit(main())
