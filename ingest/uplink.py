"""The uplink: what cars publish goes to Kafka; the broker gets its PUBACK only after Kafka has it.

    broker -> Connection -> receive -> accept (pure) -> Outbox -> Kafka
       ^---------- PUBACK, in order of receipt ------------'

Account, always: received = produced + rejected + in flight. Killing this process or Kafka loses
nothing that a broker keeps: without PUBACK it delivers again (so Kafka may have a message twice; the
twin applies it once). While Kafka is away the window fills, reading pauses, the broker queues.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from functools import cache, partial

from confluent_kafka import Producer

from ingest import outbox as kafka_outbox
from ingest.accept import Accepted, accept
from ingest.connection import Receipt
from ingest.mqtt import Client
from ingest.outbox import Outbox
from ingest.packets import Publish
from ingest.process import DRAIN_S, Readiness, await_topics, first, run
from ingest.settings import UplinkSettings
from twin.kit import logs, metrics
from twin.kit.clock import Clock, SystemClock
from twin.wire import topics
from twin.wire.telemetry import Validation

log = logs.get(__name__)

_TOPICS = [topics.TELEMETRY, topics.PRESENCE, topics.REPORTED, topics.OUTCOMES, topics.REJECTED]


# Looking a label up costs more than counting; kinds and reasons are few.
_received = cache(metrics.UPLINK_RECEIVED.labels)
_produced = cache(metrics.UPLINK_PRODUCED.labels)
_rejected = cache(metrics.UPLINK_REJECTED.labels)


class Uplink:
    """Takes messages, sends records, gives receipts back."""

    def __init__(self, outbox: Outbox, mode: Validation, clock: Clock) -> None:
        self._outbox = outbox
        self._mode: Validation = mode
        self._clock = clock
        # For cars that send no sequence. Grows over restarts, too: nobody sends 1,000 a ms.
        self._counter = clock.now_ms() * 1000

    def receive(self, shard: int, message: Publish, receipt: Receipt) -> None:
        """Callback of a client, in order of receipt."""
        arrived = time.monotonic()
        self._counter += 1
        accepted = accept(
            message,
            shard=shard,
            ingested_at=self._clock.now_ms(),
            counter=self._counter,
            mode=self._mode,
        )
        _received(accepted.kind).inc()
        self._outbox.send(accepted.record, partial(self._safe, accepted, receipt, arrived))

    def _safe(self, accepted: Accepted, receipt: Receipt, arrived: float) -> None:
        receipt.ack()
        if accepted.reason is None:
            _produced(accepted.kind).inc()
            if accepted.suspect:
                metrics.UPLINK_SUSPECT.inc()
        else:
            _rejected(accepted.reason).inc()
        metrics.UPLINK_SECONDS.observe(time.monotonic() - arrived)


async def serve(
    settings: UplinkSettings, producer: Producer, readiness: Readiness, stop: asyncio.Event
) -> None:
    """Run until `stop`, then finish what is under way and leave the sessions at the brokers."""
    if not await await_topics(producer, _TOPICS, readiness, stop):
        return
    outbox = Outbox(producer)
    metrics.UPLINK_IN_FLIGHT.set_function(lambda: len(outbox))
    uplink = Uplink(outbox, settings.validation, SystemClock())
    clients = tuple(
        Client(
            broker,
            f"cartwin-uplink-{shard}",
            filters=topics.UP_FILTERS,
            on_message=partial(uplink.receive, shard),
            on_reconnect=metrics.UPLINK_RECONNECTS.labels(str(shard)).inc,
            window=settings.uplink_window,
        )
        for shard, broker in enumerate(settings.brokers)
    )
    readiness.clients, readiness.outbox = clients, outbox
    async with AsyncExitStack() as stack:
        stack.callback(outbox.close)
        for client in clients:
            await stack.enter_async_context(client)
        await first(
            asyncio.ensure_future(stop.wait()),
            asyncio.shield(outbox.failed),
            *(asyncio.shield(client.ended) for client in clients),
        )
        for client in clients:
            client.hold()
        try:
            async with asyncio.timeout(DRAIN_S):
                await outbox.drained()
        except TimeoutError:
            log.warning(
                "stopped with messages under way; brokers send them again", count=len(outbox)
            )


def main() -> int:
    """Entry of `python -m ingest uplink`."""
    settings = UplinkSettings.load()
    producer = kafka_outbox.producer(settings.kafka_bootstrap, "cartwin-uplink")
    return run("uplink", settings, partial(serve, settings, producer))
