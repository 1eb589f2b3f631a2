"""The poll transport: subclasses of Faust's aiokafka driver. The only module that knows its insides.

Invariants (tests/integration/test_stream.py, on real Kafka):

1. Per partition, the first record handed over is the one behind the committed offset, and each next
   one is the one behind the last: a hole is read again, and only believed when Kafka repeats it.
   Aborted transactions are records like any other: Faust reads uncommitted.
2. An offset is committed only after the agent called `Poll.done` for it, and only if no seek came in
   between. Faust's own acknowledgements, which also happen for skipped and failed events, count for
   nothing.
3. At most `DEPTH` polls are out and not done, so memory is bounded by them and the client's prefetch,
   and a slow agent is a paused consumer. Polls are done in the order in which they were handed over.

Changelogs are not consumed here: the app restores them by itself (`twin.stream.recovery`).
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

import faust
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from twin.kit import logs
from twin.stream.recovery import Restorer, Tables

log = logs.get(__name__)

# Seeks wait for the poll that is under way, so this bounds the pause of a rebalance, too.
_POLL_TIMEOUT_S: Final = 0.25

_STOP_S: Final = 10.0

DEPTH: Final = 2
"""Polls that are out at once: one is decided while the outputs of the one before it are told."""


class Poll:
    """The records of one poll, in order per partition; the agent must call `done` when finished.

    An agent that cannot finish ends the process, uncommitted.
    """

    __slots__ = ("_consumer", "ends", "finished", "records", "seek")

    def __init__(
        self, records: list[Any], ends: dict[TP, int], seek: int, consumer: "Consumer"
    ) -> None:
        self.records = records
        """aiokafka ConsumerRecord: topic, partition, offset, timestamp (ms), key, value, headers."""
        self.ends = ends
        self.seek = seek
        self.finished = asyncio.Event()
        self._consumer = consumer

    def begin(self) -> None:
        """The agent has it in hand: a rebalance waits for its end."""
        self._consumer.in_hand.append(self)

    def done(self) -> None:
        """Everything that follows from these records is durable: their offsets may be committed."""
        self._consumer.finish(self)


class Consumer(driver.Consumer):
    """Faust's aiokafka consumer with polls instead of records and a place of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.in_hand: deque[Poll] = deque()
        self._out: deque[Poll] = deque()
        self._next: dict[TP, int] = {}
        self._finished: dict[TP, int] = {}
        self._holes: dict[TP, tuple[int, int]] = {}
        self._seeks = 0

    async def perform_seek(self) -> None:
        """To the committed offsets; where there is none, to the oldest record."""
        self._seeks += 1
        self._next.clear()
        self._finished.clear()
        # A hole of before may be the same again without being one.
        self._holes.clear()
        self._out.clear()
        committed = await self.seek_to_committed()
        place = {ensure_TP(tp): offset for tp, offset in committed.items()}
        unknown = [tp for tp, offset in place.items() if offset is None]
        oldest: Mapping[TP, int] = await self.earliest_offsets(*unknown) if unknown else {}
        for tp, offset in place.items():
            self._next[tp] = oldest[tp] if offset is None else offset
        # Again, and now for all: what the fetcher delivered since the first seek was passed over.
        await self._reread(place)

    def places(self) -> dict[TP, int]:
        """Of each partition the offset of the next record, after `perform_seek`: what is committed."""
        return dict(self._next)

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self.should_stop or fetcher.should_stop):
                await self.sleep(0)
                seeks, generation = self._seeks, self.app.consumer_generation_id
                records, active = await self._wait_next_records(_POLL_TIMEOUT_S)
                if self.should_stop or fetcher.should_stop:
                    return
                if not records:
                    continue
                if not self.flow_active or self._moved(seeks, generation):
                    # These may come from a place that we have left.
                    await self._reread(records)
                    continue
                await self._hand_over(records, active, seeks, generation)
        except self.consumer_stopped_errors:
            if not self.transport.app.should_stop:
                raise

    def _moved(self, seeks: int, generation: int) -> bool:
        return seeks != self._seeks or generation != self.app.consumer_generation_id

    async def _hand_over(
        self, records: Mapping[TP, list[Any]], active: Any, seeks: int, generation: int
    ) -> None:
        """Make one event of the poll and wait until there is room for another."""
        poll = Poll([], {}, seeks, self)
        for tp, batch in records.items():
            if tp not in self._next:
                continue
            if active is not None and tp not in active:
                await self._reread([tp])
                continue
            fresh = await self._in_sequence(tp, batch)
            if fresh:
                poll.records += fresh
                poll.ends[tp] = fresh[-1].offset + 1
        if not poll.records:
            return
        if self._moved(seeks, generation):
            await self._reread(poll.ends)
            return
        self._next.update(poll.ends)
        tp = next(iter(poll.ends))
        value: Any = poll
        message = ConsumerMessage(
            tp.topic, tp.partition, poll.ends[tp] - 1, 0.0, 0, None, None, value, None,
            serialized_key_size=0, serialized_value_size=0, tp=tp, generation_id=generation,
        )  # fmt: skip
        self._out.append(poll)
        await self.wait_first(self.callback(message), self.suspend_flow.wait())
        del message
        # Faust drops the event without a word when a rebalance came between: then a seek follows.
        while len(self._out) >= DEPTH and not (self.should_stop or self._moved(seeks, generation)):
            first = self._out[0]
            await self.wait_first(
                first.finished.wait(), self.suspend_flow.wait(), timeout=_POLL_TIMEOUT_S
            )
            if self.suspend_flow.is_set() and not first.finished.is_set():
                return

    async def _in_sequence(self, tp: TP, batch: list[Any]) -> list[Any]:
        """What of `batch` follows on what was handed over; a hole is fetched again once."""
        expected = self._next[tp]
        fresh = [record for record in batch if record.offset >= expected]
        if not fresh or fresh[0].offset == expected:
            return fresh
        hole = (expected, fresh[0].offset)
        if self._holes.get(tp) != hole:
            self._holes[tp] = hole
            await self._reread([tp])
            return []
        # Kafka has nothing there: expired by retention, compacted, or a transaction's marker.
        log.warning("records are gone", topic=tp.topic, partition=tp.partition, offsets=hole)
        return fresh

    async def _reread(self, tps: Iterable[TP]) -> None:
        """Set the client back to our place in `tps`."""
        await self._thread.call_thread(self._seek_back, list(tps))

    async def _seek_back(self, tps: list[TP]) -> None:
        # In the client's own thread: a seek from elsewhere would not wake its waiting fetch, or could
        # meet a partition that is just going.
        client = self._thread._ensure_consumer()
        for tp in client.assignment().intersection(tps):
            place = self._next.get(tp)
            if place is not None:
                client.seek(tp, place)

    def finish(self, poll: Poll) -> None:
        """The agent is done with `poll`, which is the oldest one that it has."""
        assert self.in_hand[0] is poll
        self.in_hand.popleft()
        if poll.seek == self._seeks:
            self._finished.update(poll.ends)
            if self._out and self._out[0] is poll:
                self._out.popleft()
        poll.finished.set()

    def ack(self, message: Any) -> bool:
        """Faust's bookkeeping only; what may be committed is said by `Poll.done`."""
        self._unacked_messages.discard(message)
        return True

    async def wait_empty(self) -> None:
        """Before partitions go: let the agent finish what it has in hand, then commit.

        A process that is told to stop waits for `_STOP_S` at most: what is in hand then stays
        uncommitted, and whoever takes over takes it again.
        """
        end = time.monotonic() + _STOP_S
        while self.in_hand and not self.should_stop:
            await self.wait_first(self.in_hand[0].finished.wait(), timeout=_POLL_TIMEOUT_S)
            if self.app.should_stop and time.monotonic() > end:
                log.warning("stopping over unfinished work", polls=len(self.in_hand))
                break
        await self.commit_and_end_transactions()

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit the place behind the last finished poll."""
        finished, self._finished = self._finished, {}
        if not finished:
            return False
        app: Any = self.app
        restorer: Restorer = app.restorer
        seeks = self._seeks
        mark = restorer.mark()
        done = await self._commit_offsets(finished, start_new_transaction=start_new_transaction)
        if done and seeks == self._seeks:
            restorer.committed(mark, finished)
        return done

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's livelock detector watches acknowledgements that do not exist here."""


class Transport(driver.Transport):
    """Faust's aiokafka transport with our consumer."""

    Consumer = Consumer


class PollSchema(faust.Schema[Any, Any]):
    """Values of stream topics are polls already: nothing is decoded, nothing can fail here."""

    def compile(self, app: Any, **_: Any) -> Any:
        """What a Faust channel calls for each message."""

        async def decode(message: Any, *, propagate: bool = False) -> Any:
            return app.create_event(None, message.value, {}, message)

        return decode


class StreamApp(faust.App):
    """A Faust app whose agents get `Poll` values, and whose tables its `restorer` restores."""

    restorer: Restorer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, TableManager=Tables, **kwargs)

    def _new_transport(self) -> Any:
        return Transport(self.conf.broker_consumer, self)
