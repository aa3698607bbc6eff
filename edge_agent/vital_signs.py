"""Tell whoever supervises this process that its loop turns, and in one line how it does.

The loop itself says it already: a `health` line once a minute, `commit_failed` once a second while
the disk is full. So this listens to the log. systemd hears it on its notify socket (READY once the
loop turns, then a watchdog beat; sd_notify(3)); MultiTech's app-manager reads it from a
`status.json` with a pid and at most 160 characters (multitech.net, "Application Status").
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

MOST_CHARACTERS: Final = 160  # that app-manager shows
BEATS: Final = frozenset(("health", "commit_failed"))
STOPPED: Final = frozenset(("stopped", "subscription_refused"))
READABLE: Final = 0o644  # app-manager may be another user; there is nothing private in it

Log = Callable[..., None]


class VitalSigns:
    """Hears what the agent logs and passes on what a supervisor wants of it."""

    def __init__(
        self,
        *,
        status_file: Path | None = None,
        environment: Mapping[str, str] = os.environ,
        pid: int | None = None,
    ) -> None:
        """`environment`: systemd puts NOTIFY_SOCKET there."""
        self._status_file = status_file
        self._notify_socket = environment.get("NOTIFY_SOCKET")
        self._pid = os.getpid() if pid is None else pid
        self._ready = False

    def watching(self, log: Log) -> Log:
        """Return a log that does what `log` does and is listened to."""

        def watched(event: str, **said: object) -> None:
            log(event, **said)
            self.heard(event, said)

        return watched

    def heard(self, event: str, said: Mapping[str, object]) -> None:
        """Take one line of the log."""
        if event in BEATS:
            words = in_words(event, said)
            first, self._ready = not self._ready, True
            self._notify(f"{'READY=1' if first else 'WATCHDOG=1'}\nSTATUS={words}")
            self._write(words)
        elif event in STOPPED:
            self._notify("STOPPING=1")
            self._write("stopped" if event == "stopped" else "the broker refused this gateway")

    def _notify(self, message: str) -> None:
        if self._notify_socket is None:
            return
        address = self._notify_socket
        if address.startswith("@"):
            address = f"\0{address[1:]}"
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
            sending.connect(address)
            sending.send(message.encode())

    def _write(self, words: str) -> None:
        """Replace the status file; a full disk is no reason to stop."""
        if self._status_file is None:
            return
        scratch = self._status_file.with_name(f".{self._status_file.name}.{self._pid}")
        with suppress(OSError):
            scratch.write_text(json.dumps({"pid": self._pid, "AppInfo": words}) + "\n")
            scratch.chmod(READABLE)
            scratch.replace(self._status_file)


def in_words(event: str, said: Mapping[str, object]) -> str:
    """Return the agent's state for people, in at most 160 characters."""
    if event == "commit_failed":
        words = f"cannot write to the disk: {said.get('reason')}"
    else:
        words = (
            f"{said.get('meters', 0)} meters, {said.get('heard', 0)} frames heard, "
            f"{said.get('outbox_pending', 0)} rows wait for the cloud, "
            f"{_mib(said.get('resident_kib'))} MiB"
        )
    return words[:MOST_CHARACTERS]


def _mib(kib: object) -> int:
    return kib // 1024 if isinstance(kib, int) else 0
