"""How far the city's history has got: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LINE_EACH_S = 15.0


class HistoryShown:
    """Reads city.json, which the city writes each second."""

    def __init__(self, path: Path, *, total_h: int) -> None:
        self._path = path
        self._total_h = total_h
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._said_s = 0.0
        self._began = False
        self._ended = False

    def show(self) -> None:
        """Look, and show what is new. Cheap enough for five times a second."""
        if self._ended:
            return
        history = json.loads(self._path.read_text()).get("history")
        if history is None:
            self._end()
            return
        if not self._began:
            self._began = True
            self._begin()
        if self._bar is not None:
            self._bar.update(self._task, completed=history["done"])
        elif time.monotonic() - self._said_s >= LINE_EACH_S:
            self._said_s = time.monotonic()
            done, left_s = history["done"], history["eta_s"]
            left = "" if left_s is None else f", faltan unos {left_s} s"
            print(
                f"historia: {done * 100 // self._total_h} % "
                f"({done} de {self._total_h} horas{left})",
                flush=True,
            )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _begin(self) -> None:
        if sys.stdout.isatty():
            self._bar = Progress(
                TextColumn("historia"),
                BarColumn(),
                TextColumn("{task.completed:.0f} de {task.total:.0f} horas"),
                TimeRemainingColumn(),
            )
            self._task = self._bar.add_task("historia", total=self._total_h)
            self._bar.start()

    def _end(self) -> None:
        self._ended = True
        self.close()
        if self._began:
            print("historia: completa; la ciudad sigue en vivo", flush=True)
