"""`python3 tasks.py pyz [--out FOLDER]`: the agent as one file, and as vendors' packages."""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from release import pyz, wheels
from release.packages import packages


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python3 tasks.py pyz",
        description=__doc__,
        epilog="exit codes: 0 built · 1 not built · 2 wrong usage",
    )
    parser.add_argument("--out", type=Path, default=pyz.ROOT / "dist", metavar="FOLDER")
    parser.add_argument(
        "--python",
        metavar="PROGRAM",
        help="compile for this one (default: 3.10 where there is one); any from 3.10 on runs it, "
        "this one starts faster and smaller",
    )
    told = parser.parse_args()
    try:
        built = build(told.out, python=told.python)
    except (wheels.WheelsUnavailable, pyz.NotCompiled) as error:
        print(f"tasks.py pyz: {error}", file=sys.stderr)
        return 1
    for path in built:
        content = path.read_bytes()
        print(f"{hashlib.sha256(content).hexdigest()}  {len(content) / 1024:6.0f} KiB  {path.name}")
    return 0


def build(folder: Path, *, python: str | None = None) -> list[Path]:
    """Build everything into `folder`; return what was built. `python`: as in `pyz.build`."""
    archive = folder / pyz.NAME
    pyz.build(archive, wheels.fetched(pyz.ROOT), python=python)
    built = [archive]
    for name, content in packages(archive.read_bytes()).items():
        path = folder / name
        path.write_bytes(content)
        built.append(path)
    return built


if __name__ == "__main__":
    raise SystemExit(main())
