"""What keeps the keys in this process: no core dump, no look into it from outside, masked crashes.

`PR_SET_DUMPABLE` 0 leaves no core, and gives /proc/PID/{mem,environ,maps…} to root: another program
of the same user can read none of them and trace nothing. A limit of 0 on cores is the second lock,
for systems where the first one does not work. What the interpreter says when it dies goes to
stderr as one JSON line in which everything that looks like a key is masked.
Source: prctl(2), core(5), proc(5), ptrace(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys
import threading
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final

from edge_agent.masking import masked

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

PR_SET_DUMPABLE: Final = 4
MAX_FRAMES: Final = 30  # of a stack, nearest the error
MAX_TEXT: Final = 500

Log = Callable[..., None]


def harden(log: Log) -> None:
    """Do all of it, for the rest of this process's life."""
    without_core_dumps()

    def crashed(
        kind: type[BaseException], error: BaseException, stack: TracebackType | None
    ) -> None:
        _tell(log, kind, error, stack)

    def in_thread(given: threading.ExceptHookArgs) -> None:
        if given.exc_type is not SystemExit:
            name = given.thread.name if given.thread else ""
            _tell(log, given.exc_type, given.exc_value, given.exc_traceback, thread=name)

    def unraisable(given: UnraisableHookArgs) -> None:
        _tell(log, given.exc_type, given.exc_value, given.exc_traceback, within="destructor")

    sys.excepthook = crashed
    threading.excepthook = in_thread
    sys.unraisablehook = unraisable


def without_core_dumps() -> None:
    """Let the kernel write no core of this process, and nobody but root read its memory."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError):  # not on Linux
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def crash(error: BaseException) -> dict[str, object]:
    """Return what may be told of an error: its kind, its masked message, where it was raised."""
    return {
        "error": type(error).__name__,
        "reason": masked(str(error))[:MAX_TEXT],
        "stack": _stack(error.__traceback__),
    }


def _tell(
    log: Log,
    kind: type[BaseException],
    error: BaseException | None,
    stack: TracebackType | None,
    **where: str,
) -> None:
    told: dict[str, object] = {"error": kind.__name__, "stack": _stack(stack)}
    if error is not None:
        told = crash(error)
    cause = error and (error.__cause__ or (not error.__suppress_context__ and error.__context__))
    if cause:
        told["cause"] = crash(cause)
    log("crashed", **where, **told)


def _stack(stack: TracebackType | None) -> list[str]:
    """Name file, line and function of each frame: no source, no values."""
    return [
        f"{frame.f_code.co_filename}:{line} {frame.f_code.co_name}"
        for frame, line in list(traceback.walk_tb(stack))[-MAX_FRAMES:]
    ]
