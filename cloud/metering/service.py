"""What the utility can do with telegrams: take them, try refused ones again, register meters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import psycopg

from cloud.kernel.blobs import BlobStore
from cloud.kernel.config import Administration, GatewayConfig
from cloud.kernel.db import Database
from cloud.kernel.keyvault import KeyVault
from cloud.kernel.platform import Platform
from cloud.metering import dead_letters, importing, registry, store, stream_store
from cloud.metering.clock_offsets import UNKNOWN, Offset
from cloud.metering.dead_letters import REJECTED
from cloud.metering.figures import Room, counted
from cloud.metering.model import Gateway, Rejection
from cloud.metering.registry import NewMeter
from cloud.metering.replaying import Replayed, Replaying
from cloud.metering.store import GatewayUnknown
from cloud.metering.worker import CREDIT_ROWS, Worker
from decoders import uplink
from decoders.uplink import Ack
from decoders.uplink_fields import Malformed, UplinkError

UNKNOWN_STREAM = bytes(uplink.STREAM_BYTES)
"""Stands for the stream of a message that does not even say that."""


class Metering:
    """Takes messages and replays refused ones, one at a time: each thread or process has its own.

    clock            µs since 1970, for answers and operators' actions; facts carry `received_at`
    require_intake   raises DiskNearlyFull while nothing may be taken in
    """

    def __init__(
        self,
        database: Database,
        *,
        blobs: BlobStore,
        vault: KeyVault,
        administrations: Sequence[Administration],
        clock: Callable[[], int],
        unknown_meters: str = "provisional",
        require_intake: Callable[[], None] = lambda: None,
    ) -> None:
        self._room = Room(require_intake)
        self._blobs = blobs
        self._vault = vault
        self._administrations = tuple(administrations)
        self._clock = clock
        self._worker = Worker(
            database,
            blobs=blobs,
            vault=vault,
            administrations=administrations,
            unknown_meters=unknown_meters,
        )
        self._replaying = Replaying(self._worker, blobs=blobs, clock=clock)

    @classmethod
    def on(cls, platform: Platform) -> Self:
        """Return a service that stands on the platform's parts."""
        return cls(
            platform.database,
            blobs=platform.blobs,
            vault=platform.vault,
            administrations=platform.settings.administrations,
            clock=platform.clock.now_us,
            unknown_meters=platform.settings.unknown_meters,
            require_intake=platform.require_intake,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database connection."""
        self._worker.close()

    def ingest(
        self,
        message: bytes,
        topic_gateway: str,
        received_at: int,
        *,
        believed: Offset | None = None,
    ) -> bytes | None:
        """Take a message of a gateway's topic and return the answer for it, once all is committed.

        believed   for a replay from raw batches: what was believed of the gateway's clock when
                   this one came (`batch_offset`), since hellos that taught it are not kept

        Returns None when nobody should be answered: a stranger, or one gateway on another's
        topic. Calling it twice with the same message has the effect of calling it once.
        While the disk is nearly full nothing is written: gateways are told to wait (credit 0).
        Raises psycopg.Error when nothing could be recorded: do not answer, it comes again.
        """
        try:
            if not self._room.is_there():
                return self._wait(message, topic_gateway)
            return self._ingest(message, topic_gateway, received_at, believed)
        except BaseException:
            self._worker.recover()
            raise

    def raw(self, address: str) -> bytes:
        """Return a batch as it was received. Raises blobs.BlobMissing, BlobDamaged."""
        return self._blobs.get(address)

    def batch_offset(self, address: str) -> Offset:
        """Return what was believed of the gateway's clock for the batch of this SHA-256 (hex)."""
        connection = self._worker.connection()
        offset = store.offset_of_sha256(connection, bytes.fromhex(address))
        connection.commit()
        return offset or UNKNOWN

    def set_aside(
        self, message: bytes, topic_gateway: str, received_at: int, *, detail: str
    ) -> bytes | None:
        """Keep a message that `ingest` failed on as a dead letter, and answer it as unreadable, so
        that its gateway finds the row that does it. Raises psycopg.Error.
        """
        failed = UplinkError(detail)
        return self._unreadable(message, topic_gateway, received_at, failed, code=Rejection.FAILED)

    def replay(self, dead_letter_key: int) -> Replayed:
        """Try a dead letter again as it came in. Raises dead_letters.DeadLetterUnknown."""
        return self._replaying.replay(dead_letter_key)

    def dismiss(self, dead_letter_key: int) -> str:
        """Set a dead letter aside for good; its bytes stay. Returns its state: one that was closed
        before stays what it was. Raises DeadLetterUnknown.
        """
        connection = self._worker.connection()
        with connection.transaction():
            letter = dead_letters.letter(connection, dead_letter_key, blobs=self._blobs)
            state = letter.state
            if state == "open":
                state = "dismissed"
                dead_letters.settle(connection, dead_letter_key, state=state, now_us=self._clock())
        connection.commit()
        return state

    def register_gateways(self, gateways: Sequence[GatewayConfig]) -> None:
        """Register the configured gateways."""
        connection = self._worker.connection()
        for gateway in sorted(gateways, key=lambda one: one.id):
            store.register_gateway(
                connection,
                id=gateway.id,
                administration=gateway.administration,
                name=gateway.name,
                expected_per_hour=gateway.expected_per_hour,
            )
        connection.commit()

    def import_meters(self, meters: Sequence[NewMeter]) -> tuple[int, int]:
        """Register meters and radio keys; return how many of each are new.

        Raises importing.MeterRefused: then none was.
        """
        connection = self._worker.connection()
        try:
            counted = importing.import_meters(
                connection,
                meters,
                vault=self._vault,
                now_us=self._clock(),
                administrations=self._administrations,
            )
        except BaseException:
            self._worker.recover()
            raise
        connection.commit()
        return counted

    def rewrap_keys(self) -> int:
        """Wrap every radio key under the vault's newest version; return how many changed."""
        connection = self._worker.connection()
        changed = registry.rewrap_keys(connection, vault=self._vault)
        connection.commit()
        return changed

    def mark_all_for_resend(self) -> int:
        """After a restore: ask every stream to send again what follows on what is stored."""
        connection = self._worker.connection()
        streams = stream_store.mark_all_for_resend(connection)
        connection.commit()
        return streams

    def resend_requests(self) -> list[tuple[str, bytes]]:
        """Return (gateway id, answer to publish) for each stream that a restore left behind."""
        connection = self._worker.connection()
        streams = stream_store.streams_to_resend(connection)
        connection.commit()
        return [
            (
                gateway,
                self._answer(stream=each.stream, upto=each.upto, resend_from=each.upto + 1),
            )
            for gateway, each in streams
        ]

    def _ingest(
        self, message: bytes, topic_gateway: str, received_at: int, believed: Offset | None
    ) -> bytes | None:
        try:
            batch = uplink.decode_batch(message)
        except UplinkError as error:
            return self._unreadable(message, topic_gateway, received_at, error)
        if batch.gateway != topic_gateway:
            detail = f"a message of gateway {batch.gateway}"
            self._bury(
                message, topic_gateway, received_at, code=Rejection.FOREIGN_TOPIC, detail=detail
            )
            return None
        try:
            taken = self._worker.take(batch, message, received_at=received_at, believed=believed)
        except GatewayUnknown as error:
            self._worker.recover()
            self._bury(
                message,
                topic_gateway,
                received_at,
                code=Rejection.UNKNOWN_GATEWAY,
                detail=str(error),
            )
            return None
        except psycopg.DataError as error:
            # the last net: a value that our checks let through and the database does not
            self._worker.recover()
            refused = Malformed(f"{type(error).__name__}: {error}")
            return self._unreadable(message, topic_gateway, received_at, refused)
        counted(taken)
        ack = taken.ack
        return self._answer(
            stream=ack.stream,
            upto=ack.upto,
            resend_from=ack.resend_from,
            rejected=ack.rejected,
            early=ack.early,
            took=ack.took,
            answers=ack.answers,
            seen=ack.seen,
        )

    def _wait(self, message: bytes, topic_gateway: str) -> bytes | None:
        """Answer that no row is wanted now; None for what is no message of a known gateway."""
        connection = self._worker.connection()
        try:
            batch = uplink.decode_batch(message)
            gateway = store.gateway_of(connection, topic_gateway)
        except (UplinkError, GatewayUnknown):
            return None
        finally:
            connection.rollback()
        if batch.gateway != topic_gateway:
            return None
        known = stream_store.stream_of(connection, gateway, batch.stream)
        connection.rollback()
        upto = 0 if known is None else known.upto
        return self._answer(
            stream=batch.stream, upto=upto, resend_from=None, credit=0, answers=batch.sent_at
        )

    def _unreadable(
        self,
        message: bytes,
        topic_gateway: str,
        received_at: int,
        error: UplinkError,
        *,
        code: str = "",
    ) -> bytes | None:
        """Keep a message that has no row numbers, and say so to its gateway (edge_protocol)."""
        code = code or error.code
        stream = uplink.claimed_stream(message)
        gateway = self._bury(
            message, topic_gateway, received_at, code=code, detail=error.detail, stream=stream
        )
        if gateway is None:
            return None
        connection = self._worker.connection()
        known = None
        if stream is not None:
            known = stream_store.stream_of(connection, gateway, stream)
        elif (known := stream_store.newest_stream(connection, gateway)) is not None:
            stream = known.stream
        connection.commit()
        upto = 0 if known is None else known.upto
        readable_later = code == Rejection.VERSION
        return self._answer(
            stream=stream or UNKNOWN_STREAM,
            upto=upto,
            resend_from=None if readable_later else upto + 1,
            rejected=((0, code),),
            answers=uplink.claimed_sent(message),
        )

    def _bury(
        self,
        message: bytes,
        topic_gateway: str,
        received_at: int,
        *,
        code: str,
        detail: str,
        stream: bytes | None = None,
    ) -> Gateway | None:
        """Keep a whole message as a dead letter; return the gateway whose topic it came on."""
        connection = self._worker.connection()
        try:
            gateway = store.gateway_of(connection, topic_gateway)
        except GatewayUnknown:
            gateway = None
        dead_letters.bury_message(
            connection,
            message,
            code=code,
            detail=detail,
            topic_gateway=topic_gateway,
            gateway=gateway,
            stream=stream,
            received_at=received_at,
            blobs=self._blobs,
        )
        connection.commit()
        REJECTED.labels(code).inc()
        return gateway

    def _answer(
        self,
        *,
        stream: bytes,
        upto: int,
        resend_from: int | None,
        rejected: tuple[tuple[int, str], ...] = (),
        credit: int = CREDIT_ROWS,
        early: int = 0,
        took: int | None = None,
        answers: int | None = None,
        seen: int = 0,
    ) -> bytes:
        ack = Ack(
            stream=stream,
            upto=upto,
            credit=credit,
            rejected=rejected,
            resend_from=resend_from,
            cloud_at=self._clock(),
            early=early,
            took=took,
            answers=answers,
            seen=seen,
        )
        return uplink.encode_ack(ack)
