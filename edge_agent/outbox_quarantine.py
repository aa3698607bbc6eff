"""Damaged outbox files that were put aside: one numbered folder each, the newest are kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge_agent.outbox_copy import siblings, synced

QUARANTINE: Final = "quarantine"
QUARANTINED_MAX: Final = 3  # files; fewer when together they would be larger than the outbox may be
NOTE: Final = "what-happened.json"

Log = Callable[..., None]


def put_aside(path: Path, *, now_us: int) -> Path:
    """Rename a file and what SQLite keeps beside it; return its new place.

    The file goes first: without its journal nobody may ever open it in its old place.
    """
    folder = path.parent / QUARANTINE
    folder.mkdir(mode=0o700, exist_ok=True)
    number = 1 + max((int(each.name.split("-")[0]) for each in _aside(folder)), default=0)
    here = folder / f"{number:06d}-{now_us}"
    here.mkdir(mode=0o700)
    synced(folder)
    os.replace(path, here / path.name)
    for each in (here, path.parent):
        synced(each)
    _follow(path, here)
    return here / path.name


def unfinished(path: Path) -> Path | None:
    """Return a file put aside whose rescue a power cut interrupted."""
    kept = _aside(path.parent / QUARANTINE)
    if not kept or path.exists() or (kept[-1] / NOTE).exists():
        return None
    aside = kept[-1] / path.name
    if not aside.exists():
        return None
    _follow(path, kept[-1])
    return aside


def bound(folder: Path, most_bytes: int, log: Log) -> None:
    """Keep the newest of what was put aside; the rest goes, and that is said."""
    size = 0
    for number, each in enumerate(reversed(_aside(folder))):
        size += sum(file.stat().st_size for file in each.iterdir())
        if number and (number >= QUARANTINED_MAX or size > most_bytes):
            drop(each, log)


def drop_others(path: Path, aside: Path | None, log: Log) -> bool:
    """Drop everything put aside but `aside`, for the outbox at `path`; say whether it was any."""
    others = [
        each for each in _aside(path.parent / QUARANTINE) if aside is None or each != aside.parent
    ]
    for each in others:
        drop(each, log)
    return bool(others)


def drop(folder: Path, log: Log) -> None:
    shutil.rmtree(folder)
    log("quarantine_dropped", folder=str(folder))


def drop_leftover(path: Path, log: Log) -> None:
    """Drop what a rescue that the power cut short at its very end had no more use for."""
    kept = _aside(path.parent / QUARANTINE)
    if kept and path.exists() and not (kept[-1] / NOTE).exists():
        drop(kept[-1], log)


def _follow(path: Path, here: Path) -> None:
    for sibling in siblings(path):
        if sibling.exists() and not sibling.name.endswith("-shm"):
            os.replace(sibling, here / sibling.name)
    for each in (here, path.parent):
        synced(each)


def _aside(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(each for each in folder.iterdir() if each.name[:6].isdigit())
