"""Small text files that a kill or a power cut leaves old or new, never half or empty."""

from __future__ import annotations

from pathlib import Path

from cloud.kernel import private_files


def replace_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, its owner's alone to read. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    private_files.write(path, text.encode())
