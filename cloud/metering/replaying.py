"""Dead letters tried again: one row of a batch, or a whole message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from cloud.kernel import outbox, telemetry
from cloud.kernel.blobs import BlobStore
from cloud.metering import dead_letters, senders, store, stored
from cloud.metering.clock_offsets import Offset
from cloud.metering.dead_letters import DeadLetter, RejectedRow
from cloud.metering.figures import counted
from cloud.metering.model import Rejection
from cloud.metering.recording import Source
from cloud.metering.reports import INPUT_CODES
from cloud.metering.store import GatewayUnknown
from cloud.metering.worker import Connection, Worker
from decoders import DECODER_VERSION, uplink
from decoders.uplink import Batch, RowKind
from decoders.uplink_fields import UplinkError
from decoders.value import value

UNREAD = frozenset(f"input_{code}" for code in INPUT_CODES)


@value
class Replayed:
    """What a second try of a dead letter has become. `code` None: it went through."""

    dead_letter_key: int
    code: str | None
    detail: str = ""
    readings_new: int = 0


class Replaying:
    """Tries dead letters again, on a worker's connection."""

    def __init__(self, worker: Worker, *, blobs: BlobStore, clock: Callable[[], int]) -> None:
        self._worker = worker
        self._blobs = blobs
        self._clock = clock

    def replay(self, dead_letter_key: int) -> Replayed:
        """Try a dead letter again as it came in, and commit. Raises DeadLetterUnknown."""
        connection = self._worker.connection()
        try:
            letter = dead_letters.letter(connection, dead_letter_key, blobs=self._blobs)
            if letter.state == "open":
                again = self._row if letter.row is not None else self._message
                result = again(connection, letter)
            else:
                result = Replayed(
                    dead_letter_key=dead_letter_key, code=letter.code, detail=letter.state
                )
            connection.commit()
        except BaseException:
            self._worker.recover()
            raise
        return result

    def _row(self, connection: Connection, letter: DeadLetter) -> Replayed:
        assert letter.row is not None
        if letter.row.kind == RowKind.REPORT and letter.code in UNREAD:
            return Replayed(
                dead_letter_key=letter.dead_letter_key,
                code=letter.code,
                detail="what a gateway's source delivered has nothing that could be taken in",
            )
        assert letter.batch_key is not None
        assert letter.batch_row is not None
        gateway = store.gateway_of(connection, letter.topic_gateway)
        source = Source(
            gateway=gateway,
            batch_key=letter.batch_key,
            stream=b"",
            received_at=letter.received_at,
            traceparent=telemetry.new_traceparent(),
            new_id=outbox.new_ids(self._clock()),
        )
        offset = store.offset_of_batch(connection, letter.batch_key) or Offset(
            offset_us=gateway.offset_us,
            uncertainty_us=gateway.uncertainty_us,
            trusted=gateway.trusted,
        )
        prepared, recorded = self._worker.again(
            uplink.pack_rows([letter.row]), index=letter.batch_row, source=source, offset=offset
        )
        if recorded is None:
            refused = prepared.rejected[0]
            return self._refused(connection, letter, code=refused.code, detail=refused.detail)
        return self._settled(connection, letter, readings_new=recorded.counts.readings_new)

    def _message(self, connection: Connection, letter: DeadLetter) -> Replayed:
        """Take a whole message again: rows that follow on what is stored, and rows declared lost.

        It stays open while rows before it are missing.
        """
        try:
            batch = uplink.decode_batch(letter.message)
            if batch.gateway != letter.topic_gateway:
                detail = f"a message of gateway {batch.gateway}"
                return self._refused(
                    connection, letter, code=Rejection.FOREIGN_TOPIC, detail=detail
                )
            connection.rollback()  # the worker begins its own transactions
            taken = self._worker.take(batch, letter.message, received_at=letter.received_at)
        except UplinkError as error:
            return self._refused(connection, letter, code=error.code, detail=error.detail)
        except GatewayUnknown as error:
            code = Rejection.UNKNOWN_GATEWAY
            return self._refused(connection, letter, code=code, detail=str(error))
        counted(taken)
        readings = taken.recorded.counts.readings_new if taken.recorded else 0
        readings += self._past(connection, letter, batch, upto=taken.ack.upto)
        in_order = len(batch.rows) and not batch.early
        if in_order and batch.rows.column("seq")[-1] > taken.ack.upto:
            detail = f"row {taken.ack.upto + 1} of its gateway is missing before its rows"
            return self._refused(connection, letter, code=letter.code, detail=detail)
        return self._settled(connection, letter, readings_new=readings)

    def _past(self, connection: Connection, letter: DeadLetter, batch: Batch, *, upto: int) -> int:
        """Take the rows that its gateway gave up since; return how many readings are new.

        Each leaves a dead letter of its own: replayed, or open with the code it has now.
        """
        up, decoded = self._worker.read_again(batch, received_at=letter.received_at)
        gateway = store.gateway_of(connection, batch.gateway, lock=True)
        missing = stored.unaccounted(
            connection, gateway, stream=batch.stream, upto=upto, up=up, decoded=decoded
        )
        if not missing:
            return 0
        offset = senders.sender_of(connection, batch, letter.received_at).offset
        source = senders.source_of(gateway, batch, letter.received_at)
        batch_key = store.open_batch(
            connection,
            gateway,
            batch=batch,
            sha256=bytes.fromhex(self._blobs.put(letter.message)),
            bytes_received=len(letter.message),
            received_at=letter.received_at,
            offset=offset,
            decoder_version=DECODER_VERSION,
        )
        source = replace(source, batch_key=batch_key)
        return self._taken_late(connection, letter, batch, missing, source=source, offset=offset)

    def _taken_late(
        self,
        connection: Connection,
        letter: DeadLetter,
        batch: Batch,
        missing: Sequence[int],
        *,
        source: Source,
        offset: Offset,
    ) -> int:
        through: list[RejectedRow] = []
        refused: list[RejectedRow] = []
        readings = 0
        wanted = set(missing)
        for index, row in enumerate(batch.rows):
            if index not in wanted:
                continue
            prepared, recorded = self._worker.again(
                uplink.pack_rows([row]),
                index=index,
                source=source,
                offset=offset,
                steps=batch.steps,
            )
            if recorded is None:
                refused += prepared.rejected
            else:
                readings += recorded.counts.readings_new
                through.append(
                    RejectedRow(
                        index=index,
                        row=row,
                        code=letter.code,
                        detail=f"came through with dead letter {letter.dead_letter_key}",
                    )
                )
        for rows, state in ((refused, "open"), (through, "replayed")):
            dead_letters.bury_rows(
                connection,
                source.gateway,
                rows,
                stream=batch.stream,
                batch_key=source.batch_key,
                received_at=letter.received_at,
                state=state,
            )
        return readings

    def _settled(
        self, connection: Connection, letter: DeadLetter, *, readings_new: int
    ) -> Replayed:
        key = letter.dead_letter_key
        dead_letters.settle(connection, key, state="replayed", now_us=self._clock())
        return Replayed(dead_letter_key=key, code=None, readings_new=readings_new)

    def _refused(
        self, connection: Connection, letter: DeadLetter, *, code: str, detail: str
    ) -> Replayed:
        key = letter.dead_letter_key
        dead_letters.refused_again(connection, key, code=code, detail=detail, now_us=self._clock())
        return Replayed(dead_letter_key=key, code=code, detail=detail)
