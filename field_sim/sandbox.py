"""The whole platform on one machine: which processes there are, with what settings, in what order.

PostgreSQL is kept by this process itself (`cloud.kernel.postgres`); everything else is a child:
broker, intake, API and pages, one agent for each gateway, and the city. `up` supervises them.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cloud import app
from cloud.kernel import config
from cloud.kernel.auth.principal import ALL_ADMINISTRATIONS, Role
from cloud.kernel.auth.users import ensure_user, user_named
from cloud.kernel.platform import Platform
from cloud.metering.registry import NewMeter
from cloud.metering.service import Metering
from decoders.value import value
from field_sim import broker as brokers
from field_sim import gateway_keys
from field_sim.broker import CITY, CLOUD, LOOPBACK, Broker
from field_sim.supervisor import Child, Pids, wait_or_kill
from field_sim.surroundings import CITY_PASSWORD, bare, toml
from field_sim.texts import replace_text

ROOT = Path(__file__).resolve().parents[1]
ADMINISTRATION = "queretaro"
READY_TIMEOUT_S = 90.0
POLL_S = 0.1

# name → roles, administrations, who that is: who may sign in to the sandbox
DEMO_USERS: Mapping[str, tuple[tuple[Role, ...], tuple[str, ...], str]] = {
    "admin": ((Role.ADMIN,), (ALL_ADMINISTRATIONS,), "administración: todo"),
    "raul": ((Role.NETWORK,), (ADMINISTRATION,), "red: gateways y rechazos"),
    "sofia": ((Role.SUPERVISOR,), (ADMINISTRATION,), "supervisión"),
    "ana": ((Role.CLERK,), (ADMINISTRATION,), "ventanilla: lecturas"),
    "beto": ((Role.FIELD,), (ADMINISTRATION,), "campo"),
}


class UpFailed(Exception):
    """The sandbox cannot run; the message is Spanish, for people, the code for machines."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@value
class Agent:
    """One gateway: what its agent listens to, and the keys it is given.

    sources   as in `edge_agent.config`
    keys      {meter's natural id: key in hex}
    """

    gateway: str
    name: str
    application: str
    sources: tuple[Mapping[str, object], ...]
    keys: Mapping[str, str]
    clock_error_us: int = 0


@dataclass
class Sandbox:
    """Start it part by part with `start`; `children` in the order in which they stop."""

    state: Path
    agents: Sequence[Agent]
    meters: Sequence[NewMeter]
    http_port: int
    clock: str  # "system" or file:<path>
    city: Callable[[Broker], Sequence[str]] | None  # its command; None: no city
    broker_port: int | None = None
    children: list[Child] = field(default_factory=list)
    platform: Platform | None = None
    broker: Broker | None = None
    started_at: datetime | None = None  # by the wall: nothing was said by an agent before

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.http_port}"

    @property
    def pids(self) -> Pids:
        return Pids(self.state / "processes.json")

    def start(self) -> None:
        """Start everything and return when the API answers. Raises UpFailed and the parts' errors.

        The caller stops what has come up when this raises.
        """
        applications = {agent.gateway: agent.application for agent in self.agents}
        for name in ("logs", "agents"):  # an earlier version may have left them open
            (self.state / name).mkdir(mode=0o700, exist_ok=True)
            (self.state / name).chmod(0o700)
        self.broker = brokers.prepare(
            self.state / "broker",
            applications,
            port=self.broker_port,
            kind=brokers.chosen(os.environ.get(brokers.VARIABLE)),
        )
        command = self.broker.command
        broker = self._launch("broker", command, environment=bare({}), run_as=self.broker.run_as)
        variables = self.environment()
        self._write_config(variables)
        self.platform = app.open_platform(config.load(ROOT, variables))
        self.started_at = self.platform.wall.now()
        self._register_meters(self.platform)
        brokers.wait_ready(self.broker, broker.alive)
        python = sys.executable
        self._launch("intake", (python, "-m", "cloud", "intake"), environment=variables)
        serve = self._launch("serve", (python, "-m", "cloud", "serve"), environment=variables)
        for agent, settings in zip(self.agents, self._write_agents(), strict=True):
            command = (python, "-m", "edge_agent", "run", "--config", str(settings))
            self._launch(
                f"agent-{agent.gateway}", command, environment=bare({"PYTHONPATH": str(ROOT)})
            )
        if self.city is not None:
            own = {"PYTHONPATH": str(ROOT), CITY_PASSWORD: self.broker.passwords[CITY]}
            self._launch("city", self.city(self.broker), environment=bare(own))
        self._wait_ready(serve)

    def environment(self) -> dict[str, str]:
        """Return what every process of the cloud is told."""
        assert self.broker is not None
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "AQUACIS_STATE": str(self.state),
            "AQUACIS_CONFIG": str(self.state / config.UP_FILE),
            "AQUACIS_BROKER_URL": self.broker.url,
            "AQUACIS_BROKER_USER": CLOUD,
            "AQUACIS_BROKER_PASSWORD": self.broker.passwords[CLOUD],
            "AQUACIS_BROKER_EMBEDDED": "true",
            "AQUACIS_HTTP_HOST": LOOPBACK,
            "AQUACIS_HTTP_PORT": str(self.http_port),
            "AQUACIS_CLOCK": self.clock,
        }

    def users(self) -> dict[str, str]:
        """Make the demo's people if they are missing; return {name: password}."""
        assert self.platform is not None
        path = self.state / "users.json"
        passwords: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        for name, (roles, administrations, _) in DEMO_USERS.items():
            with self.platform.pool("kernel").connection() as connection:
                known = user_named(connection, name) is not None
            if known and name in passwords:
                continue
            passwords[name] = secrets.token_urlsafe(12)
            replace_text(path, json.dumps(passwords, indent=1))
            ensure_user(self.platform.database, name, roles, administrations, passwords[name])
        return passwords

    def let_go(self) -> None:
        """Close our own connections to the database: from here on only the children use it."""
        assert self.platform is not None
        self.platform.pools.close()

    def revive(self) -> list[str]:
        """Start children that died again, each after its back-off; say in Spanish what was seen."""
        said = []
        for child in self.children:
            died = child.revive()
            if died is not None:
                code, wait_s = died
                said.append(
                    f"el proceso {child.name} terminó (código {code}); se reinicia en "
                    f"{wait_s:g} s; vea {child.log} [process_died]"
                )
            elif child.just_revived:
                child.just_revived = False
                self.pids.write(self.children)
        return said

    def stop(self, *, force: Callable[[], bool] = lambda: False) -> None:
        """Stop everything, senders first, so that nothing is left on the way."""
        for prefix in ("city", "agent-", "intake", "serve", "broker"):
            batch = [c for c in self.children if c.name.startswith(prefix) and c.alive()]
            for child in batch:
                assert child.process is not None
                child.process.terminate()
            for child in batch:
                assert child.process is not None
                wait_or_kill(child.process, impatient=force)
        if self.platform is not None:
            self.platform.close()
        self.pids.path.unlink(missing_ok=True)

    def _launch(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        run_as: tuple[int, int] | None = None,
    ) -> Child:
        log = self.state / "logs" / f"{name}.log"
        child = Child(name=name, command=command, log=log, environment=environment, run_as=run_as)
        child.launch()
        self.children.append(child)
        self.pids.write(self.children)
        return child

    def _write_config(self, variables: Mapping[str, str]) -> None:
        """Leave what we told the cloud for commands that run beside it."""
        lines = ["", f"[administrations.{ADMINISTRATION}]", 'name = "Querétaro"']
        for agent in self.agents:
            lines += ["", f'[gateways."{agent.gateway}"]', f'administration = "{ADMINISTRATION}"']
            lines += [f"name = {json.dumps(agent.name, ensure_ascii=False)}"]
        replace_text(self.state / config.UP_FILE, toml(variables, lines))

    def _write_agents(self) -> list[Path]:
        """Write each agent's settings and seal its keys. Raises UpFailed."""
        settings = [self._write_agent(agent) for agent in self.agents]
        try:
            gateway_keys.seal(
                {path: agent.keys for path, agent in zip(settings, self.agents, strict=True)}
            )
        except gateway_keys.KeysNotSealed as error:
            raise UpFailed("keys_not_sealed", f"no se sellaron las llaves: {error}") from None
        return settings

    def _write_agent(self, agent: Agent) -> Path:
        """Write an agent's settings; they are secrets."""
        assert self.broker is not None
        folder = self.state / "agents" / agent.gateway
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)  # its outbox holds what its meters said
        (folder / "keys.jsonl").unlink(missing_ok=True)  # an earlier version kept them in the clear
        settings = {
            "gateway": agent.gateway,
            "broker": self.broker.url,
            "user": agent.gateway,
            "password": self.broker.passwords[agent.gateway],
            "state": str(folder),
            "clock": self.clock,
            "clock_offset_s": agent.clock_error_us / 1e6,
            "env": "production",  # which takes no keys in the clear
            "keys": str(folder / "keys.sealed"),
            "private_key": str(gateway_keys.private_key_in(folder)),
            "sources": list(agent.sources),
        }
        replace_text(folder / "config.json", json.dumps(settings, indent=1))
        return folder / "config.json"

    def _register_meters(self, platform: Platform) -> None:
        """Give the registry the city's meters, and the vault their keys. Safe to repeat."""
        if not self.meters:
            return
        with Metering.on(platform) as service:
            service.import_meters(self.meters)

    def _wait_ready(self, serve: Child) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            if answers(f"{self.url}/readyz"):
                return
            if not serve.alive():
                raise UpFailed("serve_failed", f"la API no arrancó:\n{tail(serve.log)}")
            time.sleep(POLL_S)
        raise UpFailed("serve_not_ready", f"la API no está lista:\n{tail(serve.log)}")


def answers(url: str) -> bool:
    """Say whether `url` answers 200 now."""
    try:
        with urllib.request.urlopen(url, timeout=3.0) as answer:  # noqa: S310  our own loopback
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def tail(log: Path, lines: int = 15) -> str:
    """Return the end of a log, to show a person why something failed."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
