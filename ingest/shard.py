"""All that an uplink does at one broker: reads it, tries its queue, hears of drops, leaves in order.

Beside that the workers of a shard tell what they know (`ingest.relay`), and worker 0, which hears them,
takes what is left of those that are no more (`ingest.orphans`).

Whether a broker keeps enough for who is away it does not say, so it is tried with a session of our own
once it is connected, and again when the broker has no session for us (it is another, or was made
anew), or some time after it did not pass. Worker 0 does that for all workers of a shard.
"""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from ingest import probe, relay
from ingest.acks import Acks
from ingest.connection import OnMessage
from ingest.drops import TOPIC, Drops
from ingest.errors import IngestError, KafkaRefused
from ingest.mqtt import Client
from ingest.orphans import Orphans
from ingest.outbox import Outbox
from ingest.relay import Relay
from ingest.settings import UplinkSettings
from twin.kit import logs, metrics
from twin.kit.mqtt_address import Broker
from twin.wire.errors import WireError

log = logs.get(__name__)

AGAIN_S: Final = 60.0
"""From a try of the queue that failed to the next one."""


class Shard:
    """The broker number `number` and our session there.

    `on_left`: gets what sessions of others held, which may have waited for long. What this worker tells
    worker 0 comes from `told`; what it hears of others as worker 0 goes to `acks`.
    """

    def __init__(
        self,
        settings: UplinkSettings,
        number: int,
        broker: Broker,
        on_message: OnMessage,
        on_left: OnMessage,
        told: Relay,
        acks: Acks,
    ) -> None:
        topology = settings.topology
        self._number = number
        self._first = topology.worker == 0
        self._told = told
        self._acks = acks
        self._leaves = topology.leaves_for_good
        self._drops = Drops(number)
        self._count = settings.uplink_queue_probe if self._first else 0
        self.client = Client(
            broker,
            topology.client_id(number),
            access=settings.access,
            topology=topology,
            on_message=on_message,
            on_reconnect=self._reconnects,
            side={TOPIC: self._drops.told, self._topic: self._heard} if self._first else {},
            window=settings.uplink_window,
            marks=settings.uplink_vehicle_rate > 0,
        )
        self._orphans = Orphans(
            number, topology, self.client.connector, on_left, settings.uplink_window
        )
        self._queue = "what the broker keeps was not tried yet" if self._count else ""
        self._trial: asyncio.Task[None]
        self._telling: asyncio.Task[None]
        self._looking: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        await self.client.__aenter__()
        broker = self.client.broker
        self._trial = asyncio.create_task(self._try_queue(), name=f"queue of {broker}")
        self._telling = asyncio.create_task(self._tell(), name=f"workers of {broker}")
        self._looking = asyncio.create_task(self._look(), name=f"orphans of {broker}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        duties = (self._trial, self._telling, self._looking)
        for task in duties:
            task.cancel()
        await asyncio.wait(duties)
        await self.client.__aexit__(kind, error, trace)

    @property
    def tasks(self) -> tuple[asyncio.Task[None], ...]:
        """Done only when something gave up, with the reason."""
        duties = (self._telling, self._looking) if self._first else (self._telling,)
        return (self.client.ended, *duties)

    def faults(self) -> dict[str, str]:
        """Why messages are not taken from this broker, or would not be kept by it."""
        faults = self.client.faults()
        if self._queue and not self.client.fault:
            faults[f"{self.client.broker} queue"] = self._queue
        return faults

    async def stop(self, outbox: Outbox) -> None:
        """Take no more, and return when Kafka has what was taken. Raises `KafkaRefused`.

        A worker that others take over from takes what its session holds first, and ends it. When it
        is not done, by the time that the caller gives it, the session stays at the broker.
        """
        if not self._leaves:
            self._looking.cancel()
            await asyncio.wait((self._looking,))
            self.client.hold()
            await outbox.drained()
            return
        try:
            await self.client.leave()
            await outbox.drained()
            self._say()
            await self.client.end_session()
        except KafkaRefused:
            raise
        except IngestError as error:
            self._stays(str(error))
            self.client.hold()
            await outbox.drained()
        except asyncio.CancelledError:
            self._stays("there was no time to take it all")
            raise
        else:
            log.info("left for good", broker=str(self.client.broker))

    def _stays(self, why: str) -> None:
        log.warning(
            "the session stays at the broker: start this worker again to take what it holds",
            broker=str(self.client.broker),
            session=self.client.client_id,
            why=why,
        )

    # --- The other workers ------------------------------------------------------------------------

    @property
    def _topic(self) -> str:
        return relay.topic(self._number)

    def _say(self) -> None:
        """Tell worker 0, which we may be; what the broker does not take now is not told."""
        for message in self._told.messages(self._number):
            self.client.publish_once(self._topic, message)

    def _heard(self, message: bytes) -> None:
        try:
            told = relay.read(message)
        except WireError as error:
            log.warning(
                "what no worker says came on our topic",
                broker=str(self.client.broker),
                topic=self._topic,
                why=str(error),
            )
            return
        self._orphans.roll.heard(told.worker)
        for claim in told.claims:
            self._acks.take(claim, self._number)

    async def _tell(self) -> None:
        while True:
            await self.client.connected()
            self._say()
            await asyncio.sleep(relay.EVERY_S)

    async def _look(self) -> None:
        """One number at a time and not more often than they are heard: no burst of connections."""
        while self._first:
            await asyncio.sleep(relay.EVERY_S)
            if self.client.level is not None:
                await self._orphans.look(self.client.level)

    def _reconnects(self) -> None:
        metrics.UPLINK_RECONNECTS.labels(str(self._number)).inc()
        self._orphans.roll.anew()

    # --- The queue --------------------------------------------------------------------------------

    async def _try_queue(self) -> None:
        while self._count:
            await self.client.connected()
            self.client.fresh.clear()
            self._queue = await self._why_too_short()
            if self._queue:
                log.warning("queue too short", broker=str(self.client.broker), why=self._queue)
                with suppress(TimeoutError):
                    async with asyncio.timeout(AGAIN_S):
                        await self.client.fresh.wait()
            else:
                await self.client.fresh.wait()

    async def _why_too_short(self) -> str:
        """A sentence for the operator; empty when the broker keeps what it should."""
        level = self.client.level
        if level is None:
            return self.client.fault
        try:
            kept = await probe.keeps(
                self.client.connector, level, self.client.client_id, self._count
            )
        except IngestError as error:
            return (
                f"what the broker keeps for who is away cannot be tried: {error}"
                " (UPLINK_QUEUE_PROBE=0 does without)"
            )
        if kept == self._count:
            return ""
        self._drops.caused(self._count - kept)
        return (
            f"of {self._count} messages the broker kept {kept} for a session that was away: more are"
            " lost without a word in an outage. Raise its limit of queued messages (Mosquitto:"
            " max_queued_messages, HiveMQ: max-queued-messages; `cartwin broker config` writes it)"
        )
