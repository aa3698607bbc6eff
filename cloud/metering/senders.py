"""Who sent a batch: its stream and its clock, before and after the batch is recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg

from cloud.kernel import outbox, telemetry
from cloud.metering import clock_offsets, early, edge_protocol, store, stream_store
from cloud.metering.clock_offsets import UNKNOWN, Offset, Sample
from cloud.metering.edge_protocol import Taking
from cloud.metering.frames import Uplinked
from cloud.metering.model import Gateway, Loss, Stream
from cloud.metering.preparing import Prepared
from cloud.metering.recording import Source
from cloud.metering.registry import Meter
from decoders.batch import Columns as Decoded
from decoders.uplink import Ack, Batch
from decoders.value import value

Connection = psycopg.Connection[Any]

SHARED_FRAMES_LOOKED_UP = 64  # of one batch, to compare clocks by: enough for a median


class StreamMoved(Exception):
    """The stream went on between reading and locking it: the message is taken again."""


@value
class Sender:
    """What is known of a batch's sender before its rows are looked at."""

    gateway: Gateway
    stream: Stream  # as it was before this batch
    is_new: bool
    samples: tuple[Sample, ...]
    offset: Offset


@value
class Decision:
    """All that is known of a batch before anything is locked. `prepared` None: no row to take."""

    sender: Sender
    taking: Taking
    offset: Offset
    shared: tuple[int | None, int] = (None, 0)  # µs, frames
    prepared: Prepared | None = None
    sha256: bytes = b""


def sender_of(connection: Connection, batch: Batch, received_at: int) -> Sender:
    gateway = store.gateway_of(connection, batch.gateway)
    stream = stream_store.stream_of(connection, gateway, batch.stream)
    before = [Sample(offset_us=offset, uncertainty_us=u) for offset, u in gateway.samples]
    samples = clock_offsets.remember(
        before,
        clock_offsets.sample(
            sent_at=batch.sent_at,
            received_at=received_at,
            echo_cloud_at=batch.echo_cloud_at,
            echo_age_us=batch.echo_age_us,
        ),
    )
    believed = Offset(
        offset_us=gateway.offset_us,
        uncertainty_us=gateway.uncertainty_us,
        trusted=gateway.trusted,
    )
    return Sender(
        gateway=gateway,
        stream=stream
        or Stream(
            gateway_key=gateway.gateway_key,
            stream=batch.stream,
            upto=0,
            head=0,
            head_at=None,
            started_at=batch.started_at,
        ),
        is_new=stream is None,
        samples=samples,
        offset=clock_offsets.estimate(samples) if samples else believed,
    )


def shared_offset(
    connection: Connection,
    gateway: Gateway,
    up: Uplinked,
    decoded: Decoded,
    *,
    meters: Mapping[str, Meter],
) -> tuple[Offset, int]:
    """Return the gateway's offset by frames that trusted gateways heard too, and how many."""
    good = np.flatnonzero((decoded.refused < 0) & ~up.is_doubtful[decoded.row])
    some = good[:: max(1, len(good) // SHARED_FRAMES_LOOKED_UP)][:SHARED_FRAMES_LOOKED_UP]
    heard_at = up.heard_at[decoded.row[some]].tolist()
    here = dict(zip((frame.tobytes() for frame in decoded.frame[some]), heard_at, strict=True))
    names = {decoded.names[name] for name in decoded.name[some].tolist()}
    keys = [meters[name].meter_key for name in names if name in meters]
    if not keys:
        return UNKNOWN, 0
    elsewhere = store.heard_elsewhere(connection, gateway, here, meter_keys=keys)
    if not elsewhere:
        return UNKNOWN, 0
    reference, theirs = max(elsewhere.items(), key=lambda item: len(item[1]))
    differences = [here[frame] - at for frame, at in theirs.items()]
    offsets = store.offsets_of(connection, [reference])
    shared = clock_offsets.from_shared_frames(differences, reference=offsets[reference])
    return shared, len(differences)


def taking_of(sender: Sender, batch: Batch, up: Uplinked) -> Taking:
    """Decide which rows of a batch are to be taken."""
    if batch.early:
        return edge_protocol.take_early(stream=sender.stream, seqs=up.seq, acked=batch.acked)
    return edge_protocol.take(
        stream=sender.stream,
        seqs=up.seq,
        lost=batch.lost,
        gaps=batch.gaps,
        acked=batch.acked,
        head=batch.head,
    )


def answer_to(batch: Batch, decision: Decision, *, credit: int, cloud_at: int) -> Ack:
    """Return what to answer once a decision is committed."""
    taking = decision.taking
    rejected = decision.prepared.rejected if decision.prepared else ()
    return Ack(
        stream=batch.stream,
        upto=taking.upto,
        rejected=tuple((each.row.seq, each.code) for each in rejected),
        credit=credit,
        resend_from=taking.resend_from,
        cloud_at=cloud_at,
        early=early.room_for(replace(decision.sender.stream, early=taking.early)),
        took=taking.took,
        answers=batch.sent_at,
        seen=early.seen(decision.sender.stream),
    )


def lock(connection: Connection, sender: Sender, batch: Batch) -> None:
    """Lock the gateway. Raises StreamMoved when its stream is not as it was."""
    gateway = store.gateway_of(connection, sender.gateway.id, lock=True)
    now = stream_store.stream_of(connection, gateway, batch.stream)
    if (now is None) != sender.is_new or (now is not None and now != sender.stream):
        raise StreamMoved(f"gateway {gateway.id}")


def source_of(gateway: Gateway, batch: Batch, received_at: int) -> Source:
    return Source(
        gateway=gateway,
        batch_key=0,
        stream=batch.stream,
        received_at=received_at,
        traceparent=telemetry.child(batch.traceparent),
        new_id=outbox.new_ids(received_at),
    )


def close(
    connection: Connection, batch: Batch, decision: Decision, source: Source
) -> tuple[Loss, ...]:
    """Move the stream on, record losses and the gateway's clock; return losses new to us."""
    sender, taking = decision.sender, decision.taking
    correction_us = decision.offset.correction_us
    losses = [each.moved(-correction_us) for each in taking.losses]
    if sender.is_new:
        before = stream_store.newest_stream(connection, sender.gateway)
        started_at = batch.started_at - correction_us
        loss = edge_protocol.loss_by_new_stream(before, stream=batch.stream, started_at=started_at)
        losses += [] if loss is None else [loss]
    reported_at = source.received_at
    new = [
        each
        for each in losses
        if stream_store.record_loss(connection, sender.gateway, each, reported_at=reported_at)
    ]
    in_order = decision.prepared is not None and not batch.early
    heard_at = decision.prepared.last_heard_at if decision.prepared and in_order else None
    newer_head = batch.head >= sender.stream.head
    stream_store.save_stream(
        connection,
        replace(
            sender.stream,
            upto=taking.upto,
            head=max(batch.head, sender.stream.head, taking.upto),
            head_at=batch.head_at if newer_head and batch.head else sender.stream.head_at,
            last_heard_at=heard_at if heard_at is not None else sender.stream.last_heard_at,
            resend=False,
            early=taking.early,
        ),
        seen_at=reported_at,
    )
    store.save_gateway(
        connection,
        sender.gateway,
        batch=batch,
        offset=decision.offset,
        samples=sender.samples,
        shared=decision.shared,
        seen_at=reported_at,
    )
    return tuple(new)
