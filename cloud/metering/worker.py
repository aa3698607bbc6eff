"""What takes messages one after another: a connection, a memory of the registry, a decoder.

A batch is decided on without a lock (decode, mint meters, make partitions, keep the raw bytes) and
recorded in one short transaction that checks first that its stream has not moved meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg

from cloud.kernel import outbox
from cloud.kernel.blobs import BlobStore
from cloud.kernel.config import Administration
from cloud.kernel.db import Database
from cloud.kernel.events import Event
from cloud.kernel.keyvault import KeyVault
from cloud.metering import (
    clock_offsets,
    layouts,
    preparing,
    reading_store,
    recording,
    senders,
    store,
)
from cloud.metering.clock_offsets import UNKNOWN, Offset
from cloud.metering.frames import Uplinked, likely_names, uplinked
from cloud.metering.layout_store import PostgresLayouts
from cloud.metering.model import Gateway, Loss
from cloud.metering.preparing import Prepared
from cloud.metering.recording import Recorded, Source
from cloud.metering.registry import Registry, touch
from cloud.metering.senders import Decision, StreamMoved
from decoders import DECODER_VERSION
from decoders.batch import Columns as Decoded
from decoders.batch import decode_rows
from decoders.uplink import Ack, Batch, ClockStep, Rows
from decoders.value import value

Connection = psycopg.Connection[Any]

CONTEXT = "metering"
CREDIT_ROWS = 16_384  # four full batches: the network stays busy while one is being committed
ATTEMPTS_MAX = 5  # another worker may move the same gateway's stream meanwhile
UNKNOWN_METERS = ("provisional", "refuse")


@value
class Taken:
    """The answer to a batch, and what was recorded of it."""

    ack: Ack
    prepared: Prepared | None = None
    recorded: Recorded | None = None
    losses: tuple[Loss, ...] = ()


class Worker:
    """Takes batches, one at a time; each process or thread has its own."""

    def __init__(
        self,
        database: Database,
        *,
        blobs: BlobStore,
        vault: KeyVault,
        administrations: Sequence[Administration],
        unknown_meters: str = "provisional",
    ) -> None:
        assert unknown_meters in UNKNOWN_METERS
        self.registry = Registry(vault, administrations)
        self._database = database
        self._blobs = blobs
        self._mints = unknown_meters == "provisional"
        self._connection: Connection | None = None
        self._partitions: set[int] = set()
        self._keeper = ThreadPoolExecutor(1, "keep-raw")  # a disk is slow while we decode

    def connection(self) -> Connection:
        """Return the worker's connection, opened again when it was lost; no open transaction."""
        if self._connection is None or self._connection.closed:
            self._connection = self._database.connect(CONTEXT)
            reading_store.prepare(self._connection)
            self._connection.commit()
        return self._connection

    def recover(self) -> None:
        """Forget what may not be true after a failure, and end its transaction."""
        self.registry.forget()
        self._partitions.clear()
        if self._connection is not None and not self._connection.closed:
            self._connection.rollback()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._keeper.shutdown()

    def take(
        self, batch: Batch, message: bytes, *, received_at: int, believed: Offset | None = None
    ) -> Taken:
        """Take over what follows on what is stored; the answer is true once this returns.

        believed   what was believed of the gateway's clock when the batch came first
        Raises store.GatewayUnknown, psycopg.Error; nothing is recorded then.
        """
        connection = self.connection()
        careful = False
        for _ in range(ATTEMPTS_MAX):
            try:
                decision = self._decide(connection, batch, message, received_at, believed)
                return self._commit(
                    connection, batch, message, decision, received_at=received_at, careful=careful
                )
            except (StreamMoved, reading_store.StateBehind) as moved:
                careful |= isinstance(moved, reading_store.StateBehind)
                self.recover()
        raise StreamMoved(f"gateway {batch.gateway}: {ATTEMPTS_MAX} attempts")

    def again(
        self,
        rows: Rows,
        *,
        index: int,
        source: Source,
        offset: Offset,
        steps: Sequence[ClockStep] = (),
    ) -> tuple[Prepared, Recorded | None]:
        """Take one row of an earlier batch again, in the caller's transaction.

        rows   that row alone; `index` is its place in its batch
        steps  of the batch; none where the row's instant has them in it
        Nothing is recorded when it is refused again (`Prepared.rejected`).
        """
        connection = self.connection()
        self.registry.refresh(connection)
        up = uplinked(rows, steps)
        decoded = self._decoded(
            connection, rows, up, gateway=source.gateway, now_us=source.received_at
        )
        prepared = preparing.prepare(
            rows,
            up,
            decoded,
            taken=range(1),
            meters=self.registry.meters,
            offset=offset,
            received_at=source.received_at,
        ).at_row(index)
        if prepared.rejected:
            return prepared, None
        self._make_partitions(connection, prepared)
        recorded = recording.record(connection, prepared, source, careful=True)
        store.close_batch(connection, source.batch_key, recorded.counts)
        self._publish(connection, recorded, ())
        return prepared, recorded

    def read_again(self, batch: Batch, *, received_at: int) -> tuple[Uplinked, Decoded]:
        """Decode the rows of an earlier message; ends the open transaction.

        Raises store.GatewayUnknown, psycopg.Error.
        """
        connection = self.connection()
        gateway = store.gateway_of(connection, batch.gateway)
        self.registry.refresh(connection)
        up = uplinked(batch.rows, batch.steps)
        decoded = self._decoded(connection, batch.rows, up, gateway=gateway, now_us=received_at)
        connection.commit()
        return up, decoded

    def _decide(
        self,
        connection: Connection,
        batch: Batch,
        message: bytes,
        received_at: int,
        believed: Offset | None,
    ) -> Decision:
        sender = senders.sender_of(connection, batch, received_at)
        up = uplinked(batch.rows, batch.steps)
        taking = senders.taking_of(sender, batch, up)
        decision = Decision(sender=sender, taking=taking, offset=believed or sender.offset)
        if taking.rows:
            kept = self._keeper.submit(self._blobs.put, message)
            decision = self._prepared(
                connection, batch, up, decision, received_at=received_at, compare=believed is None
            )
            decision = replace(decision, sha256=bytes.fromhex(kept.result()))
        connection.commit()
        return decision

    def _prepared(
        self,
        connection: Connection,
        batch: Batch,
        up: Uplinked,
        decision: Decision,
        *,
        received_at: int,
        compare: bool,
    ) -> Decision:
        """Decode and judge the rows. `compare`: also the clock, by frames that others heard."""
        gateway = decision.sender.gateway
        self.registry.refresh(connection)
        decoded = self._decoded(connection, batch.rows, up, gateway=gateway, now_us=received_at)
        shared, frames = UNKNOWN, 0
        if compare:
            shared, frames = senders.shared_offset(
                connection, gateway, up, decoded, meters=self.registry.meters
            )
        offset = clock_offsets.agreed(decision.offset, shared)
        prepared = preparing.prepare(
            batch.rows,
            up,
            decoded,
            taken=range(decision.taking.begin, decision.taking.end),
            skip=decision.taking.skip,
            meters=self.registry.meters,
            offset=offset,
            received_at=received_at,
        )
        self._make_partitions(connection, prepared)
        prepared = replace(prepared, layouts=self.registry.unknown_among(prepared.layouts))
        return replace(
            decision, prepared=prepared, offset=offset, shared=(shared.offset_us, frames)
        )

    def _decoded(
        self, connection: Connection, rows: Rows, up: Uplinked, *, gateway: Gateway, now_us: int
    ) -> Decoded:
        """Decode every telegram; afterwards the registry knows every meter that may be known."""
        registry = self.registry
        registry.use(connection)
        registry.find(connection, likely_names(rows, up))
        decoded = self._read_with_keys(rows)
        unknown = layouts.unknown_in(decoded)
        if unknown and self._found(connection, unknown, now_us=now_us):
            decoded = self._read_with_keys(rows)
        suspected = preparing.anomaly_meters(rows, up)
        named = suspected.union(decoded.names)
        registry.find(connection, named)
        strangers = named.difference(registry.meters) if self._mints else set()
        if strangers:
            good = np.unique(decoded.name[decoded.refused < 0]).tolist()
            heard = strangers.intersection(suspected.union(decoded.names[name] for name in good))
            if registry.mint(connection, heard, gateway=gateway, now_us=now_us):
                connection.commit()
        return decoded

    def _read_with_keys(self, rows: Rows) -> Decoded:
        registry = self.registry
        return decode_rows(
            rows,
            keys=registry.keys,
            newest=registry.newest_keys.get,
            formats=registry.formats,
        )

    def _found(self, connection: Connection, unknown: Sequence[bytes], *, now_us: int) -> bool:
        """Search for the layouts of compact frames; say whether one is known now. Commits."""
        found = layouts.search(unknown, PostgresLayouts(connection), now_us=now_us)
        for layout in found:
            self.registry.formats.learn(layout)
        if found:
            touch(connection)
        connection.commit()
        return bool(found)

    def _make_partitions(self, connection: Connection, prepared: Prepared) -> None:
        reading_store.ensure_partitions(
            connection,
            register_at=prepared.readings.register_at,
            heard_at=prepared.receptions.heard_at,
            known=self._partitions,
        )

    def _commit(
        self,
        connection: Connection,
        batch: Batch,
        message: bytes,
        decision: Decision,
        *,
        received_at: int,
        careful: bool,
    ) -> Taken:
        senders.lock(connection, decision.sender, batch)
        source = senders.source_of(decision.sender.gateway, batch, received_at)
        prepared, recorded = decision.prepared, None
        if prepared is not None:
            batch_key = store.open_batch(
                connection,
                source.gateway,
                batch=batch,
                sha256=decision.sha256,
                bytes_received=len(message),
                received_at=received_at,
                offset=decision.offset,
                decoder_version=DECODER_VERSION,
            )
            source = replace(source, batch_key=batch_key)
            recording.bury(connection, prepared, source)
            recorded = recording.record(connection, prepared, source, careful=careful)
            store.close_batch(connection, batch_key, recorded.counts)
        losses = senders.close(connection, batch, decision, source)
        self._publish(connection, recorded, [recording.loss_event(loss, source) for loss in losses])
        connection.commit()
        return Taken(
            ack=senders.answer_to(batch, decision, credit=CREDIT_ROWS, cloud_at=received_at),
            prepared=prepared,
            recorded=recorded,
            losses=losses,
        )

    def _publish(
        self, connection: Connection, recorded: Recorded | None, more: Sequence[Event]
    ) -> None:
        if recorded is not None and recorded.learned:
            touch(connection)
        ours = () if recorded is None else recorded.events
        outbox.publish(connection, [*ours, *more], blobs=self._blobs)
