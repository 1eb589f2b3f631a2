"""Messages of cars that somebody drives again: topic `redrive` -> judged once more -> Kafka.

    Kafka -> Feed -> judge (pure) -> Outbox -> Kafka -> commit of the offset

A message is judged as of the time when it first arrived, so a clock that was ahead still is; the rate
limit is not asked, for somebody wished it. What fails again is rejected with one attempt more. An offset
is committed when Kafka has the results of all before it: a crash repeats records and loses none.
"""

import asyncio
from functools import partial
from typing import Final

from confluent_kafka import Producer

from ingest.accept import Accepted, accept
from ingest.feed import Feed, Taken
from ingest.outbox import Outbox
from ingest.packets import Publish
from ingest.process import DRAIN_S, first
from ingest.rejected import rejection
from ingest.settings import UplinkSettings
from ingest.window import Entry
from twin.kit import kafka, logs, metrics
from twin.kit.clock import Clock
from twin.wire import codec, redrive, topics
from twin.wire.errors import Misaddressed
from twin.wire.rejected import Headers
from twin.wire.telemetry import Validation

log = logs.get(__name__)

GROUP: Final = "cartwin-redrive"
WAITING: Final = 1000


def judge(
    value: bytes | None,
    headers: Headers,
    *,
    now_ms: int,
    counter: int,
    mode: Validation,
    max_bytes: int = codec.MAX_MESSAGE_BYTES,
) -> Accepted:
    """What becomes of a record of topic `redrive`. Pure.

    `now_ms` counts as its arrival unless it names one before that; `counter`, `mode` and `max_bytes` as
    for `accept`.
    """
    told = redrive.read(headers)
    before: Headers = [*told.originals, ("attempts", b"%d" % told.attempts)]
    if told.redriven_by is not None:
        before.append(("redriven-by", told.redriven_by.encode()))
    arrived = told.ingested_at if 0 < told.ingested_at <= now_ms else now_ms
    if not told.source.startswith(redrive.MQTT):
        error = Misaddressed(
            f"source {told.source[:120]!r} is not accepted in topic {topics.REDRIVE}: mqtt:<topic> is",
            reason="unknown_topic",
        )
        record = rejection(
            error, source=told.source, at_ms=arrived, key=None, value=value, headers=before
        )
        return Accepted(record, "unknown", error.reason)
    return accept(
        Publish(
            told.source.removeprefix(redrive.MQTT), value or b"", content_type=told.content_type
        ),
        shard=told.shard,
        ingested_at=arrived,
        counter=counter,
        mode=mode,
        max_bytes=max_bytes,
        before=before,
    )


class Redrive:
    """Takes records of topic `redrive` and sends what becomes of them.

    Its outbox is not the uplink's: the account of what brokers deliver knows nothing of these messages.
    """

    def __init__(self, outbox: Outbox, settings: UplinkSettings, clock: Clock) -> None:
        self._outbox = outbox
        self._settings = settings
        self._clock = clock
        # For messages without a sequence: grows over restarts, nobody drives 1,000 a ms.
        self._counter = clock.now_ms() * 1000

    def take(self, taken: Taken) -> None:
        """Judge a record; it is done when Kafka has the result. Raises `KafkaRefused`."""
        message, entry = taken
        self._counter += 1
        headers = kafka.headers_of(message)
        judged = judge(
            message.value(),
            [(name, content or b"") for name, content in headers or ()],
            now_ms=self._clock.now_ms(),
            counter=self._counter,
            mode=self._settings.validation,
            max_bytes=self._settings.message_max_bytes,
        )
        self._outbox.send(judged.record, partial(_safe, judged, entry))


def _safe(judged: Accepted, entry: Entry[int]) -> None:
    entry.done = True
    metrics.UPLINK_REDRIVEN.labels("accepted" if judged.reason is None else "rejected").inc()


async def serve(settings: UplinkSettings, producer: Producer, clock: Clock) -> None:
    """Drive again until cancelled; then finish what is under way, commit and leave.

    Raises `KafkaRefused`.
    """
    outbox = Outbox(producer)
    redriving = Redrive(outbox, settings, clock)
    consumer = kafka.consumer(settings.kafka_bootstrap, GROUP, "cartwin-uplink")
    feed = Feed(consumer, topics.REDRIVE, WAITING, GROUP)

    async def pump() -> None:
        while True:
            for taken in await feed.next():
                redriving.take(taken)

    try:
        await first(asyncio.ensure_future(pump()), asyncio.shield(outbox.failed))
    finally:
        try:
            async with asyncio.timeout(DRAIN_S):
                await outbox.drained()
        except TimeoutError:
            log.warning("stopped with redriven messages under way; they are read again")
        finally:
            await feed.close()
            outbox.close()
