"""One thread that starts the server, watches it, starts it again, and stops it.

The kernel ties "die with your parent" to the *thread* that forked, so every start happens in
this thread, which lives as long as the process that wants the server.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cloud.kernel import postgres_pidfile
from cloud.kernel.postgres_cluster import Folders
from cloud.kernel.postgres_disk import Disk
from cloud.kernel.postgres_errors import MEBIBYTE, PortTaken, ServerError, ServerFailed
from cloud.kernel.postgres_install import Programs

READY_TIMEOUT_S = 300  # crash recovery replays up to max_wal_size
IN_USE_TIMEOUT_S = 60  # a dead server's last query may still run; measured 7 s
STOP_TIMEOUT_S = 60
RESTARTS_MAX = 3  # within RESTARTS_WINDOW_S; more is a fault that restarting does not mend
RESTARTS_WINDOW_S = 60
PORT_ATTEMPTS = 20
LOG_BYTES_MAX = 16 * MEBIBYTE
_POLL_S = 0.02
_WATCH_S = 0.5
_TAIL_BYTES = 16_000

_log = logging.getLogger(__name__)


@dataclass
class Keeper:
    """Keeps one server alive. `start` returns when it is ready, `stop` when it is gone."""

    folders: Folders
    programs: Programs
    disk: Disk
    port_wanted: int  # 0: any free one
    on_ready: Callable[[int, int], None]  # (port, process id); called at every start
    on_given_up: Callable[[ServerError], None] = lambda _: None
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    failure: ServerError | None = None
    _thread: threading.Thread | None = None
    _ready: threading.Event = field(default_factory=threading.Event)
    _stop: threading.Event = field(default_factory=threading.Event)
    _log_seen: int = 0

    def start(self) -> None:
        """Start the server and wait until it answers. Raises `ServerError`."""
        self._thread = threading.Thread(target=self._keep, name="postgres-keeper", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self.failure is not None:
            raise self.failure

    def stop(self) -> None:
        """Stop the server: fast shutdown, after `STOP_TIMEOUT_S` immediate; never a bare kill."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _keep(self) -> None:
        try:
            self._launch()
            self._ready.set()
            self._watch()
        except ServerError as error:
            self._give_up(error)
            _log.error("POSTGRES_FAILED", extra={"code": error.code, "reason": str(error)})
        except OSError as error:  # its own files: a full disk, a folder taken away
            self._give_up(ServerFailed("the keeper of postgres failed", str(error)))
            _log.exception("POSTGRES_KEEPER_FAILED")
        finally:
            self._end()
            self._ready.set()

    def _give_up(self, error: ServerError) -> None:
        self.failure = error
        with contextlib.suppress(OSError):  # no room to say so: they see that nobody answers
            self.on_given_up(error)

    def _launch(self) -> None:
        """Start the server on a port that is free, whatever the last one left behind."""
        self.disk.make_room_to_recover()
        postgres_pidfile.clear(self.folders.data, timeout_s=IN_USE_TIMEOUT_S)
        give_up_s = time.monotonic() + IN_USE_TIMEOUT_S
        ports_left = PORT_ATTEMPTS
        while not self._stop.is_set():
            port = self.port or self.port_wanted or _free_port()
            words = self._attempt(port)
            if words is None:
                self.port = port
                assert self.process is not None
                self.on_ready(port, self.process.pid)
                return
            if "could not create any TCP/IP sockets" in words:
                ports_left -= 1
                if self.port_wanted or self.port or not ports_left:
                    raise PortTaken(port)  # also at a restart: clients know no other port
            elif "still in use" not in words and "already exists" not in words:
                raise ServerFailed(f"postgres in {self.folders.data} ended", words)
            elif time.monotonic() > give_up_s:
                raise ServerFailed("the former server's processes do not end", words)
            else:
                self._stop.wait(_WATCH_S)

    def _attempt(self, port: int) -> str | None:
        """Start the server once; return None when it is ready, else its last words."""
        started_s = time.monotonic()
        self._shorten_log()
        with self.folders.log.open("ab") as output:
            self._log_seen = begin = output.tell()
            self.process = self.programs.start(
                *("postgres", "-D", str(self.folders.data), "-p", str(port)),
                death_signal=signal.SIGINT,
                output=output,
            )
        while self.process.poll() is None:
            if postgres_pidfile.is_ready(self.folders.data, self.process.pid):
                took_ms = round((time.monotonic() - started_s) * 1000)
                _log.info("POSTGRES_READY", extra={"port": port, "took_ms": took_ms})
                return None
            if self._stop.is_set() or time.monotonic() - started_s > READY_TIMEOUT_S:
                self._end()
                raise ServerFailed("postgres did not get ready", self._log_since(begin))
            self._mind_disk()
            time.sleep(_POLL_S)
        return self._log_since(begin)

    def _watch(self) -> None:
        """Start the server again whenever it ends by itself; raise when it does not stay."""
        restarts: deque[float] = deque(maxlen=RESTARTS_MAX)
        while not self._stop.wait(_WATCH_S):
            assert self.process is not None
            self._mind_disk()
            self._shorten_log()
            code = self.process.poll()
            if code is None:
                continue
            now_s = time.monotonic()
            if len(restarts) == RESTARTS_MAX and now_s - restarts[0] < RESTARTS_WINDOW_S:
                raise ServerFailed("postgres does not stay up", self._log_since(0))
            restarts.append(now_s)
            _log.warning("POSTGRES_ENDED", extra={"exit_code": code, "restarts": len(restarts)})
            self._stop.wait(_WATCH_S * 2 ** (len(restarts) - 1))
            try:
                self._launch()
            except (ServerError, OSError) as error:  # counts as one more end
                _log.warning("POSTGRES_RESTART_FAILED", extra={"reason": str(error)})

    def _mind_disk(self) -> None:
        """Let the ballast go when the server died of a full disk; lay it again when it can."""
        new_words, self._log_seen = self._log_since(self._log_seen), self._log_size()
        died = any("PANIC" in line and "No space left" in line for line in new_words.splitlines())
        if died and self.disk.drop_ballast():
            _log.error("DISK_FULL", extra={"free_bytes": self.disk.free_bytes()})
        elif not died and not self.disk.ballast.exists() and self.disk.take_ballast():
            _log.info("BALLAST_LAID", extra={"free_bytes": self.disk.free_bytes()})

    def _end(self) -> None:
        process = self.process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            _log.error("POSTGRES_STOP_SLOW", extra={"waited_s": STOP_TIMEOUT_S})
            process.send_signal(signal.SIGQUIT)
            process.wait()

    def _log_size(self) -> int:
        return self.folders.log.stat().st_size if self.folders.log.exists() else 0

    def _log_since(self, offset: int) -> str:
        """Return what the log gained since `offset`, at most its last `_TAIL_BYTES`."""
        if not self.folders.log.exists():
            return ""
        with self.folders.log.open("rb") as file:
            file.seek(max(offset, self._log_size() - _TAIL_BYTES))
            return file.read().decode(errors="replace")

    def _shorten_log(self) -> None:
        """Keep one old log. The server appends, so its file may be emptied under it."""
        log: Path = self.folders.log
        if self._log_size() > LOG_BYTES_MAX:
            with contextlib.suppress(OSError):  # no room for the old one: then only the new
                shutil.copyfile(log, log.with_suffix(".log.1"))
            os.truncate(log, 0)
            self._log_seen = 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
