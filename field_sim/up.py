"""`python3 tasks.py up`: the whole platform, live, on this machine, until Ctrl-C."""

from __future__ import annotations

import argparse
import errno
import fcntl
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Protocol

from cloud import __main__ as commands
from cloud.kernel.clock import ClockUnreadable
from cloud.kernel.config import ConfigurationInvalid, state_folder
from cloud.kernel.state import prepare
from field_sim import city, input_file, input_report
from field_sim.broker import Broker, BrokerFailed, free_port, port_is_free
from field_sim.clock_file import ClockFile
from field_sim.enrolment import city_agents, registered
from field_sim.meters import HOUR_US
from field_sim.progress import HistoryShown
from field_sim.sandbox import DEMO_USERS, ROOT, Sandbox, UpFailed
from field_sim.supervisor import Pids
from field_sim.texts import replace_text
from field_sim.town import HISTORY_H, Plan, build

SPEED = 60
METERS = 200
SEED = 7
ROOM_BYTES = 1_500_000_000  # PostgreSQL's reserve, its log, forty days of history, raw batches
TRUSTED_SPEED = 600  # faster, a round trip of a second is ten of the city's minutes
POLL_S = 0.2

DESCRIPTION = """\
Starts PostgreSQL, an MQTT broker, the cloud, four gateways with their agents, and a city of 200
meters; prints the address of the pages and who may sign in. On the first start forty days of
history run through the real code first (a few minutes; the pages work meanwhile), and
then the city lives at 60 times the speed of the wall. Ctrl-C stops everything; the next start
goes on where this one stopped.
"""
EXAMPLES = """\
examples:
  python3 tasks.py up                          the city; its history the first time
  python3 tasks.py up --speed 1 --port 8000    in real time, at http://127.0.0.1:8000/
  python3 tasks.py up --input telegrams.jsonl  your telegrams instead, with the real clock
  AQUACIS_STATE=/srv/demo python3 tasks.py up  its data elsewhere; a second city beside the first
  AQUACIS_BROKER=nats python3 tasks.py up      on NATS, where mosquitto is installed too

A line of --input, in JSON:
  {"telegram_hex": "2A44…", "key_hex": "28F6…", "heard_at": "2026-03-01T10:00:00Z",
   "gateway": "norte"}
  {"payload_hex": "7844…", "fport": 1, "dev_eui": "0013EA0001020304", "f_cnt": 7, "heard_at": …}
also: "prior_telegrams_hex": [full frames that teach a compact one], "already_decrypted": true.
Stored is what a gateway stores: of a wM-Bus meter one telegram an hour, changes and extremes; of
unreadable telegrams and lines 60 an hour and code. What became of the file is said at its end.
A folder holds a city or telegrams of yours, never both.

exit codes: 0 stopped by a signal · 1 could not start or go on; the reason is in Spanish with a
code · 2 wrong usage. Logs: <state>/logs/. Passwords: <state>/users.json (yours alone to read).
"""


@dataclass
class Signals:
    """SIGINT, SIGTERM and a closed terminal: the first asks, the second insists."""

    count: int = 0

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._heard)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup means it to live on
            signal.signal(signal.SIGHUP, self._heard)

    def _heard(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1
        if self.count == 1:
            say("\nDeteniendo todo en orden… (otra vez Ctrl-C: de inmediato)")
            raise Stopped

    def insist(self) -> bool:
        return self.count > 1


class Stopped(BaseException):
    """Somebody asked us to stop; like KeyboardInterrupt, no one's to catch but ours."""


class Shown(Protocol):
    """What a person waits for, told as it comes."""

    def show(self) -> None:
        """Look, and say what is new. Called five times a second."""
        ...

    def close(self) -> None: ...


def say(text: str) -> None:
    with suppress(OSError):  # a terminal that was closed must not keep us from stopping in order
        print(text, flush=True)


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python3 tasks.py up",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--input", type=Path, metavar="FILE", help="JSON lines; - is stdin")
    parser.add_argument(
        "--speed", type=positive, default=SPEED, help=f"of the city's clock ({SPEED})"
    )
    parser.add_argument("--port", type=a_port, help="of the pages and the API (a free one)")
    parser.add_argument("--broker-port", type=a_port, help="of MQTT (a free one)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of a new city ({SEED})")
    parser.add_argument("--meters", type=positive, default=METERS, help=f"in a new city ({METERS})")
    parser.add_argument(
        "--history",
        type=positive,
        default=HISTORY_H,
        metavar="HOURS",
        help=f"of a new city's past ({HISTORY_H})",
    )
    return parser.parse_args(given)


def positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 100_000:
        raise argparse.ArgumentTypeError("de 1 a 100 000")
    return number


def a_port(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 65_535:
        raise argparse.ArgumentTypeError("de 1 a 65535")
    return number


def locked(state: Path) -> IO[str]:
    """Take this state for ourselves. Raises UpFailed when another `up` has it."""
    file = (state / "up.lock").open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        url = ""
        if (state / "endpoints.json").exists():
            url = json.loads((state / "endpoints.json").read_text()).get("url", "")
        file.close()
        raise UpFailed("already_running", f"ya está en marcha en esta carpeta: {url}") from None
    return file


def require_room(state: Path) -> None:
    free = shutil.disk_usage(state).free
    if free < ROOM_BYTES:
        raise UpFailed(
            "disk_full",
            f"quedan {free // 1_000_000} MB en el disco de {state} y hacen falta "
            f"{ROOM_BYTES // 1_000_000} MB: libere espacio o elija otro con AQUACIS_STATE",
        )


def http_port(state: Path, asked: int | None) -> int:
    """Return the port asked for, else the last one if it is free, else a free one."""
    kept = state / "http_port"
    if asked is not None:
        if not port_is_free(asked):
            raise UpFailed("port_taken", f"el puerto {asked} ya está en uso: elija otro con --port")
        return asked
    last = int(kept.read_text()) if kept.exists() else 0
    port = last if last and port_is_free(last) else free_port()
    replace_text(kept, str(port))
    return port


def require_same_kind(state: Path, *, with_input: bool) -> None:
    """Raise UpFailed where a city's folder is to get telegrams of yours, or the other way round."""
    other = "elija otra carpeta: AQUACIS_STATE=/otra/carpeta python3 tasks.py up"
    if with_input and (state / "city.json").exists():
        raise UpFailed(
            "state_has_city",
            f"en {state} ya hay una ciudad simulada; para telegramas suyos {other}",
        )
    if not with_input and any(state.glob("agents/*/input.jsonl")):
        raise UpFailed(
            "state_has_input", f"en {state} ya hay telegramas de --input; para la ciudad {other}"
        )


def known_city(state: Path) -> city.Progress:
    """Read how far the city has got. Raises UpFailed for a file that does not say."""
    try:
        return city.progress_of(state)
    except (ValueError, KeyError, TypeError) as error:
        raise UpFailed(
            "city_unreadable",
            f"{state / 'city.json'} está dañado ({error}): bórrelo y empiece otra",
        ) from error


def city_sandbox(state: Path, told: argparse.Namespace) -> tuple[Sandbox, Plan]:
    """Describe the sandbox with a city; begin the city if there is none yet."""
    now_us, port = city.wall_us(), http_port(state, told.port)  # refused before anything is begun
    if not (state / "city.json").exists():
        clock = ClockFile(state / "clock.json").course
        end_h = (clock.sim_us if clock else now_us) // HOUR_US
        plan = Plan(seed=told.seed, meters=told.meters, first_h=end_h - told.history, end_h=end_h)
        city.lay_down(state, plan)
    progress = known_city(state)
    plan = progress.plan
    if told.speed > TRUSTED_SPEED:
        say(
            f"Aviso: a más de {TRUSTED_SPEED} veces la velocidad real, un viaje de ida y vuelta "
            "dura más de diez minutos simulados: no se podrá confiar en los relojes de los "
            "gateways y sus lecturas quedarán marcadas así [speed_untrusted]"
        )
    speed = 1 if progress.in_history else told.speed
    ClockFile(state / "clock.json").resume(wall_us=now_us, speed=speed)
    town = build(plan)

    def command(broker: Broker) -> Sequence[str]:
        return (
            *(sys.executable, "-m", "field_sim.city", "--state", str(state)),
            *("--broker-port", str(broker.port), "--speed", str(told.speed)),
        )

    sandbox = Sandbox(
        state=state,
        agents=city_agents(state, town),
        meters=registered(town),
        http_port=port,
        clock=f"file:{state / 'clock.json'}",
        city=command,
        broker_port=told.broker_port,
    )
    return sandbox, plan


def input_sandbox(state: Path, told: argparse.Namespace) -> Sandbox:
    """Describe the sandbox that reads a file, with the real clock."""
    port = http_port(state, told.port)
    telegrams = [input_file.understood(line) for line in input_file.read_lines(told.input)]
    agents = input_file.agents_for(state, telegrams)
    say(input_report.begun(str(told.input), telegrams))
    return Sandbox(
        state=state,
        agents=agents,
        meters=input_file.keys_of(telegrams),
        http_port=port,
        clock="system",
        city=None,
        broker_port=told.broker_port,
    )


def announce(sandbox: Sandbox, took_s: float) -> None:
    say(f"\nAquaCIS está en marcha:  {sandbox.url}/   (lista en {took_s:.0f} s)\n")
    say("  para entrar  contraseña")
    for name, password in sandbox.users().items():
        who = f"({DEMO_USERS[name][2]})" if name in DEMO_USERS else ""
        say(f"  {name:<11}  {password}  {who}".rstrip())
    say(f"\n  broker MQTT {sandbox.broker.url if sandbox.broker else ''}")
    say(f"  datos y bitácoras en {sandbox.state}")
    say("  Ctrl-C lo detiene todo\n")


def watch(sandbox: Sandbox, shown: Shown) -> None:
    """Keep everything running, until a signal. Raises ServerError when the database is lost."""
    assert sandbox.platform is not None
    while True:
        failure = sandbox.platform.failure
        if failure is not None:
            raise failure
        for line in sandbox.revive():
            say(line)
        shown.show()
        time.sleep(POLL_S)


def run(told: argparse.Namespace, signals: Signals) -> int:
    began = time.monotonic()
    state = state_folder(ROOT)
    prepare(state)
    lock = locked(state)
    sandbox: Sandbox | None = None
    shown: Shown | None = None
    try:
        require_room(state)
        require_same_kind(state, with_input=told.input is not None)
        if ended := Pids(state / "processes.json").end_leftovers():
            say(f"Quedaban procesos de una vez anterior; se detuvieron: {', '.join(ended)}")
        if told.input is not None:
            sandbox = input_sandbox(state, told)
        else:
            sandbox, plan = city_sandbox(state, told)
            shown = HistoryShown(state / "city.json", total_h=plan.end_h - plan.first_h)
        sandbox.start()
        announce(sandbox, time.monotonic() - began)
        sandbox.let_go()
        watch(sandbox, shown or input_report.InputShown(sandbox, say))
    except Stopped:
        return 0
    finally:
        if shown is not None:
            shown.close()
        if sandbox is not None:
            sandbox.stop(force=signals.insist)
            say("Todo detenido.")
        lock.close()
    return 0


def main(given: Sequence[str] | None = None) -> int:
    told = arguments(given)
    os.umask(0o077)  # what lies in the state folder is ours, whoever makes it
    signals = Signals()
    signals.install()
    try:
        return run(told, signals)
    except Stopped:
        return 0
    except EXPECTED as error:
        code, message = in_spanish(error)
        print(f"up: {message} [{code}]", file=sys.stderr)
    return 1


EXPECTED = (
    *commands.EXPECTED,
    UpFailed,
    BrokerFailed,
    ConfigurationInvalid,
    ClockUnreadable,
    OSError,
)


def in_spanish(error: Exception) -> tuple[str, str]:
    """Return the code and the words of an error that an operator can mend."""
    if isinstance(error, UpFailed | BrokerFailed):
        return error.code, error.message
    if isinstance(error, ConfigurationInvalid):
        return "configuration_invalid", str(error)
    if isinstance(error, ClockUnreadable):
        return "clock_unreadable", f"el reloj de la ciudad está dañado; borre {error.path}"
    if isinstance(error, OSError):
        where = "" if error.filename is None else f" ({error.filename})"
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return "disk_full", f"no queda espacio en disco{where}"
        return "system_refused", f"el sistema no lo permite: {error.strerror or error}{where}"
    _, code, message = commands.told(error)
    return code, message


if __name__ == "__main__":
    raise SystemExit(main())
