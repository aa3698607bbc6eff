"""`aquacis intake`: messages of gateways in, answers out. The only asyncio of metering.

One subscription for all gateways (the embedded broker grants shared ones and delivers nothing)
hands each message to one of a few worker threads, always the same for a gateway, so that its
batches stay in order. A worker answers after its commit; the answer is published on the gateway's
own topic. What cannot be taken now (database away, queue full) is simply not answered: the gateway
sends it again.
"""

from __future__ import annotations

import asyncio
import os
import queue
import signal
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, NoReturn
from urllib.parse import urlsplit

import aiomqtt
import psycopg

from cloud.kernel import telemetry
from cloud.kernel.blobs import BlobDamaged, BlobMissing
from cloud.kernel.config import Settings, without_password
from cloud.kernel.keyvault import UnwrapRefused
from cloud.kernel.platform import Platform
from cloud.metering import metrics_page
from cloud.metering.senders import StreamMoved
from cloud.metering.service import Metering
from decoders.value import value

TOPIC_UP = "aquacis/1/gateway/+/up"
WORKERS = 2  # threads; more than the cores brings nothing
QUEUED_MAX = 64  # messages waiting for one worker: seconds of work; more is sent again anyway
INCOMING_MAX = 1000  # messages the client holds before it drops some
RECONNECT_S = (0.5, 15.0)  # first and longest pause between attempts
PAUSE_S = 1.0
ATTEMPTS = 3  # of one message, when the fault is ours
EXIT_REFUSED = 77  # EX_NOPERM: the broker does not let us read
EXIT_DIED = 70  # EX_SOFTWARE: a worker thread ended; whoever supervises us starts anew
WATCH_S = 1.0
GRANTED_MAX = 2  # SUBACK codes above it are refusals (MQTT 3.1.1 §3.9.3)
STOP_S = 10.0  # for the batch under way

log = telemetry.logger(__name__)

MESSAGES = telemetry.counter(
    "aquacis_intake_messages_total", "Messages of gateways, by outcome.", "outcome"
)
SECONDS = telemetry.histogram("aquacis_intake_seconds", "From a message's arrival to its commit.")


OUR_FAULTS: tuple[type[Exception], ...] = (
    psycopg.OperationalError,  # also a full disk, out of memory, a transaction ended by the server
    psycopg.InterfaceError,
    StreamMoved,
    OSError,
    MemoryError,
    UnwrapRefused,
    BlobMissing,
    BlobDamaged,
)
"""What says nothing about the message: it is not answered, so it comes again."""


class TakerDied(Exception):
    """A worker thread has ended although nobody asked it to."""


class SubscriptionRefused(Exception):
    """The broker is reached and lets us in, but not read the gateways' topics."""

    def __init__(self, *, topic: str, codes: Sequence[object]) -> None:
        super().__init__(f"the broker refuses to let us read {topic} ({codes}): check its ACL")


@value
class Message:
    """One publication on a gateway's topic."""

    gateway: str
    payload: bytes
    received_at: int  # µs
    arrived_s: float  # monotonic


Answer = Callable[[str, bytes], None]


class Taker(threading.Thread):
    """One worker thread: its own connection and memory, messages of its own gateways."""

    def __init__(self, number: int, service: Metering, answer: Answer) -> None:
        super().__init__(name=f"intake-{number}", daemon=True)
        self._service = service
        self._answer = answer
        self._waiting: queue.Queue[Message | None] = queue.Queue(QUEUED_MAX)
        self._stopping = False

    def offer(self, message: Message) -> bool:
        """Queue a message; False when too many wait already."""
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            return False
        return True

    def stop(self) -> None:
        """End after the message under way; the others come again."""
        self._stopping = True
        with suppress(queue.Full):
            self._waiting.put_nowait(None)

    def run(self) -> None:
        try:
            while (message := self._waiting.get()) is not None and not self._stopping:
                answer = self._taken(message)
                SECONDS.observe(time.monotonic() - message.arrived_s)
                if answer is not None:
                    self._answer(message.gateway, answer)
        finally:
            self._service.close()

    def _taken(self, message: Message) -> bytes | None:
        """Take a message; whatever happens, the thread lives on."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = self._service.ingest(message.payload, message.gateway, message.received_at)
            except OUR_FAULTS as error:
                log.warning(
                    "batch_postponed",
                    gateway=message.gateway,
                    attempt=attempt,
                    error=f"{type(error).__name__}: {error}",
                )
                if self._stopping:
                    break
                time.sleep(PAUSE_S * (attempt - 1))
            except Exception as error:
                log.failure("batch_failed", error, gateway=message.gateway)
                return self._set_aside(message, error)
            else:
                MESSAGES.labels("taken" if answer is not None else "unanswered").inc()
                return answer
        MESSAGES.labels("postponed").inc()
        return None

    def _set_aside(self, message: Message, error: Exception) -> bytes | None:
        """Keep a message that breaks us as a dead letter, so that it does not block its stream."""
        MESSAGES.labels("failed").inc()
        try:
            return self._service.set_aside(
                message.payload,
                message.gateway,
                message.received_at,
                detail=f"{type(error).__name__}: {error}",
            )
        except Exception as failed:
            log.failure("dead_letter_failed", failed, gateway=message.gateway)
            return None


def main(platform: Platform) -> int:
    """Run until SIGINT or SIGTERM. Returns 0, EXIT_REFUSED when the broker refuses us, or EXIT_DIED
    when a worker thread has ended.
    """
    service = Metering.on(platform)
    service.register_gateways(platform.settings.gateways)
    service.close()
    metrics_page.publish(platform.settings)
    try:
        asyncio.run(_serve(platform))
    except SubscriptionRefused as refused:
        log.error("subscription_refused", error=str(refused))
        return EXIT_REFUSED
    except TakerDied as died:
        log.error("taker_died", error=str(died))
        return EXIT_DIED
    return 0


async def _serve(platform: Platform) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    answers: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()

    def answer(gateway: str, message: bytes) -> None:
        with suppress(RuntimeError):  # the loop has ended: the gateway asks again
            loop.call_soon_threadsafe(answers.put_nowait, (gateway, message))

    takers = [Taker(number, Metering.on(platform), answer) for number in range(WORKERS)]
    for taker in takers:
        taker.start()
    stopped = asyncio.create_task(stop.wait())
    try:
        await _until(stopped, _connected(platform, takers, answers), watch(takers))
        log.info("stopping")
    finally:
        for taker in takers:
            taker.stop()
        for taker in takers:
            await asyncio.to_thread(taker.join, STOP_S)
        stopped.cancel()


async def watch(takers: Sequence[Taker], *, every_s: float = WATCH_S) -> NoReturn:
    """Raise TakerDied once one of them has ended."""
    while True:
        for taker in takers:
            if not taker.is_alive():
                raise TakerDied(f"{taker.name} has ended")
        await asyncio.sleep(every_s)


async def _until(stopped: asyncio.Task[bool], *works: Coroutine[Any, Any, None]) -> None:
    """Run these until one of them ends or we are asked to stop. Raises what that one raised."""
    tasks = [asyncio.create_task(work) for work in works]
    await asyncio.wait({*tasks, stopped}, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, Exception):
            raise ended


async def _connected(
    platform: Platform, takers: Sequence[Taker], answers: asyncio.Queue[tuple[str, bytes]]
) -> None:
    """Stay connected, with a growing pause between attempts. Raises SubscriptionRefused."""
    pause_s, longest_s = RECONNECT_S
    url = without_password(platform.settings.broker_url)
    while True:
        try:
            async with _client(platform.settings) as client:
                await _subscribe(client)
                log.info("connected", broker=url)
                pause_s = RECONNECT_S[0]
                await _ask_again(client, platform)
                await _pump(client, platform, takers, answers)
        except (aiomqtt.MqttError, OSError) as error:
            log.warning("broker_away", broker=url, error=str(error), retry_s=pause_s)
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, longest_s)


def _client(settings: Settings) -> aiomqtt.Client:
    url = urlsplit(settings.broker_url)
    secure = url.scheme == "mqtts"
    return aiomqtt.Client(
        url.hostname or "127.0.0.1",
        url.port or (8883 if secure else 1883),
        username=settings.broker_user,
        password=settings.broker_password,
        identifier=f"aquacis-intake-{os.getpid()}",
        clean_session=True,  # gateways keep what we miss; a broker's old queue only repeats it
        keepalive=30,
        max_queued_incoming_messages=INCOMING_MAX,
        tls_context=ssl.create_default_context() if secure else None,
    )


async def _subscribe(client: aiomqtt.Client) -> None:
    granted = await client.subscribe(TOPIC_UP, qos=1)
    codes = [code if isinstance(code, int) else code.value for code in granted]
    if not codes or any(code > GRANTED_MAX for code in codes):
        raise SubscriptionRefused(topic=TOPIC_UP, codes=codes)


async def _ask_again(client: aiomqtt.Client, platform: Platform) -> None:
    """After a restore: ask the gateways for what the backup does not have."""
    with Metering.on(platform) as service:
        requests = await asyncio.to_thread(service.resend_requests)
    for gateway, request in requests:
        await client.publish(topic_down(gateway), request, qos=1)
        log.info("resend_requested", gateway=gateway)


async def _pump(
    client: aiomqtt.Client,
    platform: Platform,
    takers: Sequence[Taker],
    answers: asyncio.Queue[tuple[str, bytes]],
) -> None:
    """Hand messages to the takers and answers to the broker until the connection ends."""
    publishing = asyncio.create_task(_publish(client, answers))
    try:
        async for published in client.messages:
            gateway = published.topic.value.split("/")[3]
            message = Message(
                gateway=gateway,
                payload=published.payload,
                received_at=platform.clock.now_us(),
                arrived_s=time.monotonic(),
            )
            taker = takers[zlib.crc32(gateway.encode()) % len(takers)]
            if not taker.offer(message):
                MESSAGES.labels("postponed").inc()
    finally:
        publishing.cancel()
        with suppress(asyncio.CancelledError, aiomqtt.MqttError):
            await publishing


async def _publish(client: aiomqtt.Client, answers: asyncio.Queue[tuple[str, bytes]]) -> None:
    while True:
        gateway, message = await answers.get()
        await client.publish(topic_down(gateway), message, qos=1)


def topic_down(gateway: str) -> str:
    return f"aquacis/1/gateway/{gateway}/down"
