"""How far a soak has got: a bar on stderr, where people look. Counts go to stdout."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


def bar() -> Progress:
    """Return a context manager; `add_task` and `update` are rich's."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total}"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
    )
