"""`aquacis intake` as a process of its own, for tests that want a whole cloud behind a broker."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloud.kernel.db import Database
from field_sim.broker import Broker

APPLICATIONS = {"cerro": "11111111-app", "centro": "22222222-app"}
INTAKE = """
import json, sys
from pathlib import Path
from cloud import app
from cloud.kernel import telemetry
from cloud.kernel.config import GatewayConfig, Settings
from cloud.kernel.db import Database
from cloud.metering import intake
given = json.loads(sys.argv[1])
telemetry.configure("intake")
settings = Settings(
    state=Path(given["state"]),
    broker_url=given["url"],
    broker_user=given["user"],
    broker_password=given["password"],
    gateways=tuple(GatewayConfig(id=g, administration="queretaro") for g in ("cerro", "centro")),
)
platform = app.assemble(settings, Database(given["dsn"], Path(given["passwords"])))
sys.exit(intake.main(platform))
"""


@contextmanager
def intake_process(
    broker: Broker, database: Database, state: Path, *, user: str = "cloud"
) -> Iterator[subprocess.Popen[bytes]]:
    given = {
        "state": str(state),
        "url": broker.url,
        "user": user,
        "password": broker.passwords[user],
        "dsn": database.admin_dsn,
        "passwords": str(database.passwords_path),
    }
    with (state / "intake.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", INTAKE, json.dumps(given)],
            cwd=Path(__file__).parents[1],
            stderr=log,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)
