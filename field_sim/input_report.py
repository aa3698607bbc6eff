"""What `up --input` says of a file: how much it read, what is kept of it, and what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import psycopg

from cloud.kernel.db import Connection
from decoders.value import value
from field_sim.input_file import Telegram
from field_sim.sandbox import Sandbox

LOOK_EACH_S = 1.0
LIMITS = """\
  Como en un gateway, no todo se guarda: de un medidor wM-Bus, un telegrama por hora, los cambios
  y los extremos del día; de los telegramas o líneas ilegibles, 60 por hora y código (los demás
  se cuentan). Al terminar se dice qué pasó con el archivo."""


def begun(name: str, telegrams: Sequence[Telegram]) -> str:
    """Return what was read, in Spanish, and the limits that apply to it."""
    lines: dict[str, int] = {}
    for telegram in telegrams:
        lines[telegram.gateway] = lines.get(telegram.gateway, 0) + 1
    each = ", ".join(f"{gateway} {count}" for gateway, count in lines.items())
    read = f"Se leyeron {len(telegrams)} líneas de {name}; por gateway: {each or 'ninguna'}"
    renamed = {t.named: t.gateway for t in telegrams if t.named not in {None, t.gateway}}
    names = [
        f"  el gateway «{named}» se llama aquí {gateway}" for named, gateway in renamed.items()
    ]
    return "\n".join([read, *names, LIMITS])


@value
class Outcome:
    """What became of a file's lines.

    heard      telegrams the agents took
    stored     frames in the cloud; readings that are new there, and that it had already
    rejected   {code: telegrams and lines kept as rejected}; lines have input_… codes
    """

    heard: int
    stored: int
    readings: int
    known: int
    rejected: Mapping[str, int]


class InputShown:
    """Waits until the cloud has everything the agents read, then says what became of it, once."""

    def __init__(self, sandbox: Sandbox, say: Callable[[str], None]) -> None:
        assert sandbox.platform is not None
        assert sandbox.started_at is not None
        self._database = sandbox.platform.database
        self._gateways = [agent.gateway for agent in sandbox.agents]
        self._url = sandbox.url
        self._since = sandbox.started_at
        self._say = say
        self._looked_s = 0.0
        self._said = False

    def show(self) -> None:
        if self._said or time.monotonic() - self._looked_s < LOOK_EACH_S:
            return
        self._looked_s = time.monotonic()
        try:
            with self._database.connect("metering") as connection:
                if not finished(connection, self._gateways, self._since):
                    return
                outcome = outcome_of(connection, self._gateways, self._since)
        except psycopg.OperationalError:
            return  # the server is being started again: there is a next look
        self._said = True
        self._say(told(outcome, self._url))

    def close(self) -> None:
        return


def finished(connection: Connection, gateways: Sequence[str], since: datetime) -> bool:
    """Say whether every agent has said that its file has ended; what it read came before that."""
    row = connection.execute(
        """SELECT count(DISTINCT gateway_key) FROM gateway_reports JOIN gateways USING (gateway_key)
           WHERE kind = 'source_finished' AND id = ANY (%s) AND received_at >= %s""",
        [list(gateways), since],
    ).fetchone()
    return row is not None and row[0] >= len(gateways)


def outcome_of(connection: Connection, gateways: Sequence[str], since: datetime) -> Outcome:
    """Add up what has come from the gateways since then."""
    given = [list(gateways), since]
    totals = connection.execute(
        """SELECT coalesce(sum(frames), 0)::bigint, coalesce(sum(readings_new), 0)::bigint,
                  coalesce(sum(readings_known), 0)::bigint
           FROM batches JOIN gateways USING (gateway_key)
           WHERE id = ANY (%s) AND received_at >= %s""",
        given,
    ).fetchone()
    heard = connection.execute(
        """SELECT coalesce(sum((health->>'heard')::bigint), 0)::bigint FROM gateways
           WHERE id = ANY (%s)""",
        given[:1],
    ).fetchone()
    assert totals is not None
    assert heard is not None
    rejected = connection.execute(
        """SELECT code, count(*) FROM row_dead_letters
           WHERE topic_gateway = ANY (%s) AND received_at >= %s GROUP BY code ORDER BY code""",
        given,
    )
    return Outcome(
        heard=heard[0],
        stored=totals[0],
        readings=totals[1],
        known=totals[2],
        rejected=dict(rejected.fetchall()),
    )


def told(outcome: Outcome, url: str) -> str:
    """Return the outcome in Spanish."""
    codes = ", ".join(f"{code} {count}" for code, count in outcome.rejected.items())
    return (
        "Fin del archivo; todo lo que se guarda está en la nube:\n"
        f"  telegramas leídos    {outcome.heard}\n"
        f"  tramas guardadas     {outcome.stored}\n"
        f"  lecturas             {outcome.readings} nuevas, {outcome.known} que ya estaban\n"
        f"  rechazos por código  {codes or 'ninguno'}\n"
        f"  véalo en             {url}/medidores  y  {url}/rechazos"
    )
