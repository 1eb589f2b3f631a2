"""Records of a Kafka topic for an asyncio process: taken in order, finished in any order, committed
without a gap.

The consumer lives in one thread of its own, which does everything with it, rebalance callbacks
included. It keeps polling while nothing may be taken (partitions paused), or Kafka would take this
member for dead. `next` and `close` are awaited by one task; `Entry.done` may be set by any.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from ingest.errors import KafkaRefused
from ingest.window import Entry, Window
from twin.kit import logs
from twin.kit.kafka import Lag

log = logs.get(__name__)

POLL_S: Final = 0.2
BATCH: Final = 500


class Taken(NamedTuple):
    """A record and the place to say that it is done."""

    message: Message
    entry: Entry[int]


class Feed:
    """Records of `topic`; at most about `waiting` are taken and not done."""

    def __init__(self, consumer: Consumer, topic: str, waiting: int, group: str) -> None:
        """`group`: that of the consumer, for metrics."""
        self._consumer = consumer
        self._lag = Lag(consumer, group)
        self._topic = topic
        self._waiting = waiting
        self._windows: dict[int, Window[int]] = {}
        self._positions: dict[int, int] = {}  # next offset to read, by partition, once known
        self.paused = False
        """Whether so much waits that no more is taken."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="kafka-feed")
        consumer.subscribe(
            [topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )

    async def next(self) -> list[Taken]:
        """The next records, none after a while without any. Raises `KafkaRefused`."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._poll)

    async def close(self) -> None:
        """Commit what is done and leave the group."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._leave)
        self._thread.shutdown()

    # --- In the thread ----------------------------------------------------------------------------

    def _poll(self) -> list[Taken]:
        self._commit(asynchronous=True)
        self._pause_or_resume()
        self._lag.tell(time.monotonic())
        first = self._consumer.poll(POLL_S)
        if first is None:
            return []
        assigned = self._windows
        messages = self._consumer.consume(BATCH - 1, 0)
        if self._windows is assigned:
            messages.insert(0, first)
        # Else a rebalance came between: whoever owns the partition now reads `first` again.
        return [
            Taken(message, window.take(offset))
            for message in messages
            if not self._is_error(message)
            and (offset := message.offset()) is not None
            and (partition := message.partition()) is not None
            and (window := self._windows.get(partition)) is not None
        ]

    def _is_error(self, message: Message) -> bool:
        error = message.error()
        if error is None:
            return False
        if error.fatal():
            raise KafkaRefused(f"Kafka stops serving {self._topic}: {error.str()}")
        log.warning("kafka consumer", error=error.str(), code=error.name())
        return True

    def _pause_or_resume(self) -> None:
        held = sum(len(window) for window in self._windows.values())
        if not self.paused and held >= self._waiting:
            self._consumer.pause(self._consumer.assignment())
            self.paused = True
        elif self.paused and held <= self._waiting // 2:
            self._consumer.resume(self._consumer.assignment())
            self.paused = False

    def _commit(self, *, asynchronous: bool) -> None:
        progress = {
            partition: done[-1] + 1
            for partition, window in self._windows.items()
            if (done := window.release())
        }
        self._positions |= progress
        # What an asynchronous commit lost is made good by the next one, at the latest at the end.
        wanted = progress if asynchronous else self._positions
        if not wanted:
            return
        offsets = [TopicPartition(self._topic, *position) for position in wanted.items()]
        try:
            if asynchronous:
                self._consumer.commit(offsets=offsets, asynchronous=True)
            else:
                self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            # The records will come again, which a car notices by their ids.
            log.warning("offsets not committed", error=error.args[0].str())

    def _assigned(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._windows = {each.partition: Window() for each in partitions}
        self._positions = {}
        self.paused = False

    def _revoked(self, _consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        self._commit(asynchronous=False)
        self._windows, self._positions = {}, {}

    def _lost(self, _consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        self._windows, self._positions = {}, {}

    def _leave(self) -> None:
        self._commit(asynchronous=False)
        self._consumer.close()
