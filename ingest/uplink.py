"""The uplink: what cars publish goes to Kafka; the broker gets its PUBACK only after Kafka has it.

    broker -> Connection -> receive -> accept (pure) -> Outbox -> Kafka
       ^---------- PUBACK, in order of receipt ------------'

Account, always: received = produced + rejected + in flight (an empty status is none of them: it says
nothing and is counted by itself, `accept.clears_status`). Killing this process or Kafka loses
nothing that a broker keeps: without PUBACK it delivers again (so Kafka may have a message twice; the
twin applies it once). While Kafka is away the window fills, reading pauses, the broker queues.
Cars that ask for it are told what Kafka has of them (`ingest.acks`). Beside it all, what was rejected
and is driven again is judged once more (`ingest.redrive`).
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from types import MappingProxyType
from typing import Protocol

from confluent_kafka import Producer

from ingest import outbox as kafka_outbox
from ingest import redrive
from ingest.accept import Accepted, accept, clears_status
from ingest.acks import Acks, Asked, Claims, asked
from ingest.connection import Receipt
from ingest.door import EVERY_S, Door
from ingest.mqtt import Client
from ingest.outbox import Outbox
from ingest.packets import Publish
from ingest.process import DRAIN_S, Readiness, await_ids, await_topics, first, run
from ingest.rate import RateLimit
from ingest.relay import Relay
from ingest.settings import UplinkSettings
from ingest.shard import Shard
from twin.kit import logs, metrics
from twin.kit.clock import Clock, SystemClock
from twin.wire import codec, topics
from twin.wire.errors import Reason
from twin.wire.telemetry import Validation

log = logs.get(__name__)

_TOPICS = [
    topics.TELEMETRY,
    topics.PRESENCE,
    topics.REPORTED,
    topics.OUTCOMES,
    topics.REJECTED,
    topics.REDRIVE,
]


_ACKS_AT_ONCE = 500
"""Acks that are sent before messages get their turn."""


class Source(Protocol):
    """What the rate limit needs to know of a broker's client."""

    @property
    def sharers(self) -> int:
        """Processes that the broker deals out telemetry to."""

    def behind(self, now: float) -> bool:
        """Whether what comes at `now` (`time.monotonic`) may have waited at the broker."""


class Uplink:
    """Takes messages, sends records, gives receipts back."""

    def __init__(
        self,
        outbox: Outbox,
        mode: Validation,
        clock: Clock,
        max_bytes: int = codec.MAX_MESSAGE_BYTES,
        acks: Claims | None = None,
        rate: int = 0,
        sources: Mapping[int, Source] = MappingProxyType({}),
    ) -> None:
        """`rate`: most messages/s of a car on one topic of a broker; 0 = no limit, else `sources` has
        the client of each shard before a message of it comes."""
        self._outbox = outbox
        self._acks = acks
        self._mode: Validation = mode
        self._clock = clock
        self._max_bytes = max_bytes
        self._rate = rate
        self._sources = sources
        self._limits: dict[int, RateLimit] = {}
        self.received = 0
        self.rejected: Counter[Reason] = Counter()
        """By reason, whether Kafka has them yet or not."""
        # For cars that send no sequence. Grows over restarts, too: nobody sends 1,000 a ms.
        self._counter = clock.now_ms() * 1000

    def receive(
        self, shard: int, message: Publish, receipt: Receipt, *, waited: bool = False
    ) -> None:
        """Callback of a client, in order of receipt. `waited`: at the broker, as the client of the shard
        cannot know."""
        if clears_status(message):
            metrics.UPLINK_CLEARED.inc()
            receipt.ack()
            return
        arrived = time.monotonic()
        self._counter += 1
        self.received += 1
        limit = self._limits.get(shard)
        if limit is None and self._rate:
            limit = self._limits[shard] = RateLimit(self._rate)
        source = None if limit is None else self._sources[shard]
        accepted = accept(
            message,
            shard=shard,
            ingested_at=self._clock.now_ms(),
            counter=self._counter,
            mode=self._mode,
            max_bytes=self._max_bytes,
            limit=limit,
            backlog=waited or (source is not None and source.behind(arrived)),
            sharers=1 if source is None else source.sharers,
        )
        metrics.UPLINK_ACCOUNT.received(accepted.kind)
        if accepted.reason is not None:
            self.rejected[accepted.reason] += 1
        wants_ack = self._acks is not None and accepted.kind == "telemetry"
        question = asked(message.payload) if wants_ack else None
        self._outbox.send(
            accepted.record, partial(self._safe, accepted, receipt, arrived, question, shard)
        )

    def _safe(
        self,
        accepted: Accepted,
        receipt: Receipt,
        arrived: float,
        question: Asked | None,
        shard: int,
    ) -> None:
        receipt.ack()
        vehicle_id = accepted.record.key
        if self._acks is not None and question is not None and vehicle_id is not None:
            self._acks.safe(vehicle_id, question, shard)
        if accepted.reason is None:
            metrics.UPLINK_ACCOUNT.produced(accepted.kind)
            if accepted.suspect:
                metrics.UPLINK_SUSPECT.inc()
        else:
            metrics.UPLINK_ACCOUNT.rejected(accepted.reason)
        metrics.UPLINK_SECONDS.observe(time.monotonic() - arrived)


async def _watch(uplink: Uplink, door: Door) -> None:
    """Look at the door for ever."""
    while True:
        door.look(time.monotonic(), uplink.received, uplink.rejected)
        await asyncio.sleep(EVERY_S)


async def serve(
    settings: UplinkSettings, producer: Producer, readiness: Readiness, stop: asyncio.Event
) -> None:
    """Run until `stop`, then finish what is under way and leave the sessions at the brokers."""
    if not await await_topics(producer, _TOPICS, readiness, stop):
        return
    if not await await_ids(settings, readiness, stop):
        return
    outbox = Outbox(producer)
    clock, door = SystemClock(), Door()
    # Worker 0 tells cars, the others tell it.
    acks, relay = Acks(), Relay(settings.uplink_worker)
    metrics.UPLINK_ACK_SESSIONS.set_function(partial(len, acks))
    metrics.UPLINK_OUTBOX.set_function(partial(len, outbox))
    clients: dict[int, Client] = {}
    uplink = Uplink(
        outbox,
        settings.validation,
        clock,
        settings.message_max_bytes,
        acks if settings.uplink_worker == 0 else relay,
        rate=settings.uplink_vehicle_rate,
        sources=clients,
    )
    shards = tuple(
        Shard(
            settings,
            number,
            broker,
            partial(uplink.receive, number),
            on_left=partial(uplink.receive, number, waited=True),
            told=relay,
            acks=acks,
        )
        for number, broker in settings.shards.items()
    )
    clients |= {number: shard.client for number, shard in zip(settings.shards, shards, strict=True)}
    readiness.brokers, readiness.outbox, readiness.door = shards, outbox, door
    async with AsyncExitStack() as stack:
        stack.callback(outbox.close)
        for shard in shards:
            await stack.enter_async_context(shard)
        await first(
            asyncio.ensure_future(stop.wait()),
            asyncio.shield(outbox.failed),
            asyncio.ensure_future(_watch(uplink, door)),
            asyncio.ensure_future(redrive.serve(settings, producer, clock)),
            asyncio.ensure_future(_tell(acks, clients, settings.uplink_ack_s)),
            *(asyncio.shield(task) for shard in shards for task in shard.tasks),
        )
        try:
            async with asyncio.timeout(DRAIN_S):
                await asyncio.gather(*(shard.stop(outbox) for shard in shards))
        except TimeoutError:
            log.warning(
                "stopped with messages under way; brokers send them again", count=len(outbox)
            )
        await _tell_once(acks, clients)


async def _tell(acks: Acks, clients: Mapping[int, Client], every_s: float) -> None:
    """Tell cars what Kafka has of them, again and again."""
    while True:
        await asyncio.sleep(every_s)
        await _tell_once(acks, clients)


async def _tell_once(acks: Acks, clients: Mapping[int, Client]) -> None:
    for number, ack in enumerate(acks.due(), 1):
        # One that is not taken is told again when the car shows that it does not know.
        if clients[ack.shard].publish_once(ack.topic, ack.payload):
            metrics.UPLINK_ACKS.inc()
        if number % _ACKS_AT_ONCE == 0:
            await asyncio.sleep(0)


def main() -> int:
    """Entry of `python -m ingest uplink`."""
    settings = UplinkSettings.load()
    producer = kafka_outbox.producer(settings.kafka_bootstrap, "cartwin-uplink")
    return run("uplink", settings, partial(serve, settings, producer))
