"""The downlink: records of the topic `downlink` go to cars, what became of them to `deliveries`.

    Kafka -> Feed -> a lane per vehicle -> Client.publish -> Outbox -> Kafka -> commit of the offset

Order is kept per vehicle, vehicles go in parallel, up to about WAITING records. An offset is
committed when all before it are told in `deliveries` (or `rejected`), so a crash repeats a message
(cars drop ids they have seen) and never drops one. A broker that is away holds up its own cars
only, until their messages expire or it is back. When WAITING records are held up, sent ones behind them
included, the partitions are paused; then what waits for a broker that is away for AWAY_S is refused, or
one that never comes would hold up all cars. The twin sends it again when the car begins a session.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from math import ceil
from typing import Final, Protocol

from confluent_kafka import Consumer, Message, Producer

from ingest import dispatch
from ingest import outbox as kafka_outbox
from ingest.errors import ConnectionLost
from ingest.feed import Feed, Taken
from ingest.model import Shelf
from ingest.mqtt import Client
from ingest.outbox import Outbox
from ingest.process import DRAIN_S, Readiness, await_topics, first, run
from ingest.rejected import Record, rejection
from ingest.settings import DownlinkSettings
from twin.kit import kafka, logs, metrics
from twin.kit.clock import Clock, SystemClock
from twin.wire import topics
from twin.wire.errors import WireError
from twin.wire.records import Downlink

log = logs.get(__name__)

GROUP: Final = "cartwin-downlink"
WAITING: Final = 1000
AWAY_S: Final = 15.0
_LOOK_S: Final = 5.0
_TOPICS = [topics.DOWNLINK, topics.DELIVERIES, topics.REJECTED, topics.MODELS]


class Publisher(Protocol):
    """What the dispatcher needs of a client."""

    @property
    def away_s(self) -> float:
        """For how long it has not been connected; 0 while it is."""

    async def connected(self) -> None:
        """Return when messages can be published."""

    async def publish(
        self, topic: str, payload: bytes, *, expiry_s: int | None = None, retain: bool = False
    ) -> int:
        """Publish at QoS 1; reason code. Raises `ConnectionLost`."""


class Dispatcher:
    """Brings records to cars, one after the other for each vehicle. `clients`: by shard number."""

    def __init__(
        self,
        outbox: Outbox,
        clients: tuple[Publisher, ...],
        clock: Clock,
        crowded: Callable[[], bool],
    ) -> None:
        """`crowded`: whether so much waits that no more is taken."""
        self._outbox = outbox
        self._clients = clients
        self._clock = clock
        self._crowded = crowded
        self._lanes: dict[bytes | None, deque[Taken]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Never done while all is well; else holds what ends the process."""

    def take(self, taken: Taken) -> None:
        """Put a record into its vehicle's lane."""
        key = taken.message.key()
        lane = self._lanes.get(key)
        if lane is not None:
            lane.append(taken)
            return
        self._lanes[key] = deque((taken,))
        task = asyncio.create_task(self._drive(key))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def idle(self) -> None:
        """Return when every record taken so far is handed to the outbox."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def cancel(self) -> None:
        """Give up what is under way; without a commit it will come again."""
        for task in self._tasks:
            task.cancel()
        await self.idle()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not self.failed.done():
            self.failed.set_exception(error)

    async def _drive(self, key: bytes | None) -> None:
        lane = self._lanes[key]
        while lane:
            await self._handle(lane[0])
            lane.popleft()
        del self._lanes[key]

    async def _handle(self, taken: Taken) -> None:
        message, entry = taken
        try:
            order = dispatch.read(message.key(), message.value())
        except WireError as error:
            log.warning("downlink record rejected", reason=error.reason, detail=error.detail)
            record = _rejected(message, error, self._clock.now_ms())
        else:
            refused = await self._bring(order)
            metric = metrics.DOWNLINK_SENT if refused is None else metrics.DOWNLINK_REFUSED
            metric.labels(order["kind"]).inc()
            if refused is not None and dispatch.is_retained(order):
                log.warning(
                    "the broker still retains the status of a deleted twin: an uplink that starts"
                    " makes it anew",
                    vehicle_id=order["vehicle_id"],
                    shard=order["shard"],
                    why=refused,
                )
            record = dispatch.delivery(order, at=self._clock.now_ms(), refused=refused)
        self._outbox.send(record, partial(setattr, entry, "done", True))

    async def _bring(self, order: Downlink) -> str | None:
        """Publish until the broker has answered; why it is refused, None when it was taken."""
        if not 0 <= order["shard"] < len(self._clients):
            return "unknown_shard"
        client = self._clients[order["shard"]]
        topic, payload = dispatch.mqtt_topic(order), dispatch.mqtt_payload(order)
        retain = dispatch.is_retained(order)
        while True:
            left_s = dispatch.seconds_left(order, self._clock.now_ms())
            if left_s is not None and left_s <= 0:
                return "expired"
            expiry_s = None if left_s is None else ceil(left_s)
            try:
                wait_s = _LOOK_S if left_s is None else min(left_s, _LOOK_S)
                async with asyncio.timeout(wait_s):
                    await client.connected()
                code = await client.publish(topic, payload, expiry_s=expiry_s, retain=retain)
            except TimeoutError:
                if wait_s == left_s:
                    return "expired"
                if self._crowded() and client.away_s >= AWAY_S:
                    return "broker_away"
            except ConnectionLost as lost:
                log.info("publish again", ref=order["ref"], why=str(lost))
            else:
                return dispatch.refusal(code, order["kind"])


def _rejected(message: Message, error: WireError, now_ms: int) -> Record:
    headers = kafka.headers_of(message)
    return rejection(
        error,
        source=f"kafka:{message.topic()}/{message.partition()}/{message.offset()}",
        at_ms=now_ms,
        key=message.key(),
        value=message.value(),
        headers=headers if isinstance(headers, list) else (),
    )


async def serve(
    settings: DownlinkSettings,
    producer: Producer,
    consumer: Consumer,
    models: Consumer,
    readiness: Readiness,
    stop: asyncio.Event,
) -> None:
    """Run until `stop`, then finish what is under way, commit and leave."""
    if not await await_topics(producer, _TOPICS, readiness, stop):
        return
    outbox = Outbox(producer)
    # Nothing is kept in the broker's session, so replicas only need ids that differ.
    name = secrets.token_hex(4)
    shelf = Shelf(models, len(settings.brokers))
    clients = tuple(
        Client(
            broker,
            f"cartwin-downlink-{shard}-{name}",
            access=settings.access,
            on_reconnect=partial(shelf.lost, shard),
        )
        for shard, broker in enumerate(settings.brokers)
    )
    readiness.brokers, readiness.outbox = clients, outbox
    feed = Feed(consumer, topics.DOWNLINK, WAITING, GROUP)
    dispatcher = Dispatcher(outbox, clients, SystemClock(), lambda: feed.paused)

    async def pump() -> None:
        while True:
            for taken in await feed.next():
                dispatcher.take(taken)

    async with AsyncExitStack() as stack:
        stack.callback(outbox.close)
        for client in clients:
            await stack.enter_async_context(client)
        stack.push_async_callback(feed.close)
        stack.push_async_callback(dispatcher.cancel)
        await first(
            asyncio.ensure_future(stop.wait()),
            asyncio.ensure_future(pump()),
            asyncio.ensure_future(shelf.run(clients)),
            asyncio.shield(outbox.failed),
            asyncio.shield(dispatcher.failed),
            *(asyncio.shield(client.ended) for client in clients),
        )
        try:
            async with asyncio.timeout(DRAIN_S):
                await dispatcher.idle()
                await outbox.drained()
        except TimeoutError:
            log.warning("stopped with messages under way; they are read again", count=len(outbox))


def main() -> int:
    """Entry of `python -m ingest downlink`."""
    settings = DownlinkSettings.load()
    producer = kafka_outbox.producer(settings.kafka_bootstrap, "cartwin-downlink")
    consumer = kafka.consumer(settings.kafka_bootstrap, GROUP, "cartwin-downlink")
    # Assigned by hand: nothing is committed, and no group comes of it.
    models = kafka.consumer(settings.kafka_bootstrap, f"{GROUP}-models", "cartwin-downlink")
    return run("downlink", settings, partial(serve, settings, producer, consumer, models))
