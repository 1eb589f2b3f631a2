"""The model for cars: what the topic `models` says last, kept retained at every broker.

    Kafka models (key engine/edge) -> Shelf -> models/engine, retained, QoS 1

The package is passed on as it is: the car checks it (`models.edge`). Every downlink reads the whole
topic, without a group, and puts the newest package on each broker, again after each lost connection:
a broker may have forgotten. All put the same, so it does not matter who was last. An empty record takes
the model away. A broker that refuses (no retained messages, no right) is told of and asked again when
there is another package or connection.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from confluent_kafka import Consumer, TopicPartition

from ingest.errors import ConnectionLost
from twin.kit import kafka, logs, metrics
from twin.wire import topics

log = logs.get(__name__)

_WAIT_S: Final = 0.5
_REFUSED: Final = 0x80


class Publisher(Protocol):
    """What the shelf needs of a client."""

    async def connected(self) -> None:
        """Return when messages can be published."""

    async def publish(
        self, topic: str, payload: bytes, *, expiry_s: int | None = None, retain: bool = False
    ) -> int:
        """Publish at QoS 1; reason code. Raises `ConnectionLost`."""


class Shelf:
    """Keeps the newest package at each of `brokers`; `reader` is a consumer without a group's duties."""

    def __init__(self, reader: Consumer, brokers: int) -> None:
        self._reader = reader
        self._package: bytes | None = None
        self._due = [asyncio.Event() for _ in range(brokers)]

    def lost(self, shard: int) -> None:
        """The connection to a broker was lost: it may have forgotten what it retained."""
        if self._package is not None:
            self._due[shard].set()

    async def run(self, clients: Sequence[Publisher]) -> None:
        """Read, and publish by the client of each broker, until cancelled; nothing less ends it."""
        self._reader.assign([TopicPartition(topics.MODELS, 0, 0)])
        tasks = [
            asyncio.create_task(self._keep(shard, client)) for shard, client in enumerate(clients)
        ]
        try:
            while True:
                # A thread waits for Kafka; what it takes is bounded by one call.
                for message in await asyncio.to_thread(self._reader.consume, 100, _WAIT_S):
                    error = message.error()
                    if error is not None:
                        kafka.log_error(error)
                    elif message.key() == topics.EDGE_MODEL.encode():
                        self._package = message.value() or b""
                        for due in self._due:
                            due.set()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _keep(self, shard: int, client: Publisher) -> None:
        due = self._due[shard]
        while True:
            await due.wait()
            await client.connected()
            due.clear()
            package = self._package or b""
            try:
                code = await client.publish(topics.EDGE_TOPIC, package, retain=True)
            except ConnectionLost:
                due.set()
                continue
            if code >= _REFUSED:
                log.warning("the broker does not take the model for cars", shard=shard, code=code)
            else:
                log.info("the model for cars is at the broker", shard=shard, bytes=len(package))
            metrics.DOWNLINK_MODEL.labels(str(shard)).set(len(package) if code < _REFUSED else 0)
