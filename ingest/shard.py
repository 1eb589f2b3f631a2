"""All that an uplink does at one broker: reads it, tries its queue, hears of drops, leaves in order.

Whether a broker keeps enough for who is away it does not say, so it is tried with a session of our own
once it is connected, and again when the broker has no session for us (it is another, or was made
anew), or some time after it did not pass. Worker 0 does that for all workers of a shard.
"""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from ingest import probe
from ingest.connection import OnMessage
from ingest.drops import TOPIC, Drops
from ingest.errors import IngestError, KafkaRefused
from ingest.mqtt import Client
from ingest.outbox import Outbox
from ingest.settings import Broker, UplinkSettings
from twin.kit import logs, metrics

log = logs.get(__name__)

AGAIN_S: Final = 60.0
"""From a try of the queue that failed to the next one."""


class Shard:
    """The broker number `number` and our session there."""

    def __init__(
        self, settings: UplinkSettings, number: int, broker: Broker, on_message: OnMessage
    ) -> None:
        topology = settings.topology
        self._first = topology.worker == 0
        self._leaves = topology.leaves_for_good
        self._drops = Drops(number)
        self._count = settings.uplink_queue_probe if self._first else 0
        self.client = Client(
            broker,
            topology.client_id(number),
            access=settings.access,
            topology=topology,
            on_message=on_message,
            on_reconnect=metrics.UPLINK_RECONNECTS.labels(str(number)).inc,
            side={TOPIC: self._drops.told} if self._first else {},
            window=settings.uplink_window,
            marks=settings.uplink_vehicle_rate > 0,
        )
        self._queue = "what the broker keeps was not tried yet" if self._count else ""
        self._trial: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        await self.client.__aenter__()
        self._trial = asyncio.create_task(self._try_queue(), name=f"queue of {self.client.broker}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._trial.cancel()
        await asyncio.wait((self._trial,))
        await self.client.__aexit__(kind, error, trace)

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
            self.client.hold()
            await outbox.drained()
            return
        try:
            await self.client.leave()
            await outbox.drained()
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
