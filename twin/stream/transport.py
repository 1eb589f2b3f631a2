"""The poll transport: subclasses of Faust's aiokafka driver, whose insides only this package knows.

    group (twin.stream.member): assigned -> committed offsets -> place
    records (twin.stream.fetch): place -> take -> Poll -> agent -> done -> commit

A poll costs the same however small it is, about a millisecond of the worker. So records are taken every
`GAP_S`, and those of bulk topics wait until they are `PATIENCE_S` old or many, or one of another topic
comes: nobody waits for the answer to telemetry, but somebody does for that to a command. When there is
nothing at all, a thread waits for the first record, which so is taken at once.

Invariants (tests/integration/test_stream.py and test_stream_faults.py, on real Kafka):

1. Per partition, the first record handed over is the one behind the committed offset, and each next
   one is the one behind the last: see `twin.stream.fetch`. What was taken and not handed over when a
   seek comes is dropped, and taken again by whoever has the partition then.
2. An offset is committed only after the agent called `Poll.done` for it, and only if no seek came in
   between. Faust's own acknowledgements, which also happen for skipped and failed events, count for
   nothing.
3. At most `DEPTH` polls are out and not done, so memory is bounded by them and the client's prefetch,
   and a slow agent is a paused consumer. Polls are done in the order in which they were handed over.
4. aiokafka's client fetches nothing (`twin.stream.member`). An agent that ends no poll for
   `broker_max_poll_interval` loses its partitions; nothing else that takes long does.

Changelogs are not consumed here: the app restores them by itself (`twin.stream.recovery`).
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import faust
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from twin.kit import logs, metrics
from twin.kit.kafka import LAG_EVERY_S
from twin.stream.fetch import InputsUnreadable, Record, Source
from twin.stream.horizon import Horizon
from twin.stream.member import Member
from twin.stream.recovery import Restorer, Tables

log = logs.get(__name__)

GAP_S: Final = 0.005
"""Rest before records are taken again, unless more are there than a poll holds."""

WAIT_S: Final = 0.05
"""How long the thread waits at a time; a rebalance waits for it."""

PATIENCE_S: Final = 0.01
"""How long records of bulk topics wait for others."""

_ROUND_S: Final = 0.25
"""How often what is waited for is looked at when nothing wakes us."""

_STOP_S: Final = 10.0

DEPTH: Final = 2
"""Polls that are out at once: one is decided while the outputs of the one before it are told."""


class Poll:
    """The records of one poll, in order per partition; the agent must call `done` when finished.

    An agent that cannot finish ends the process, uncommitted.
    """

    __slots__ = ("_consumer", "arrived", "ends", "finished", "records", "seek")

    def __init__(
        self, records: list[Record], ends: dict[TP, int], seek: int, consumer: "Consumer"
    ) -> None:
        self.records = records
        self.ends = ends
        self.arrived: dict[TP, int] = {}
        """When the last record of each partition did, ms."""
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
    """Faust's consumer with polls instead of records and a place of its own."""

    _thread: Member

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.in_hand: deque[Poll] = deque()
        self._out: deque[Poll] = deque()
        self._filling = Poll([], {}, 0, self)
        self._due = 0.0
        self._finished: dict[TP, int] = {}
        self._places: dict[TP, int] = {}
        self._seeks = 0
        self._most = int(self.app.conf.broker_max_poll_records)
        self._changed = asyncio.Event()
        self._source: Source | None = None
        self._lag_due = 0.0
        self._horizon = Horizon()

    def _new_consumer_thread(self) -> Member:
        return Member(self, loop=self.loop, beacon=self.beacon)

    def _new_source(self) -> Source:
        transport: Any = self.transport
        servers = driver.server_list(transport.url, transport.default_port)
        group = self.app.conf.id
        return Source(",".join(servers), group, f"{group}-inputs")

    async def perform_seek(self) -> None:
        """To the committed offsets; where there is none, to the oldest record."""
        self._seeks += 1
        self._places.clear()
        self._finished.clear()
        self._out.clear()
        self._filling = Poll([], {}, self._seeks, self)
        committed = await self._thread.committed()
        unknown = [tp for tp, offset in committed.items() if offset is None]
        oldest: Mapping[TP, int] = await self.earliest_offsets(*unknown) if unknown else {}
        self._places = {
            tp: oldest[tp] if offset is None else offset for tp, offset in committed.items()
        }
        if self._source is None:
            self._source = self._new_source()
        self._source.place(self._places)
        self._horizon.place(self._places)

    def horizons(self, now_ms: int) -> dict[int, int]:
        """Partition -> up to when (ms) all that arrived on its inputs is told (`twin.stream.horizon`)."""
        if self._source is None:
            return {}
        return self._horizon.look(self._source.end, now_ms, time.monotonic())

    def places(self) -> dict[TP, int]:
        """Of each partition the offset of the next record, after `perform_seek`: what is committed."""
        return dict(self._places)

    async def on_stop(self) -> None:
        """Commit what is finished, and end the client of the inputs."""
        await super().on_stop()
        if self._source is not None:
            await asyncio.to_thread(self._source.close)

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self.should_stop or fetcher.should_stop):
                self._tell_lag()
                if not self.flow_active or not self._active_partitions:
                    # Nothing is assigned, or it is being restored.
                    await self._rest()
                elif len(self._out) >= DEPTH:
                    self._thread.agent_is_full()
                    while self.flow_active and len(self._out) >= DEPTH and not self.should_stop:
                        await self._rest()
                    self._thread.agent_has_room()
                else:
                    runs = self._take()
                    full = len(self._filling.records) >= self._most
                    if full or self._is_due(runs):
                        await self._hand_over()
                    if full:
                        continue
                    if runs or self._filling.records:
                        await asyncio.sleep(GAP_S)
                    else:
                        assert self._source is not None
                        await asyncio.to_thread(self._source.wait, WAIT_S)
        except InputsUnreadable as error:
            app: Any = self.app
            app.on_fault(error)

    def _tell_lag(self) -> None:
        now = time.monotonic()
        if self._source is not None and now >= self._lag_due:
            self._lag_due = now + LAG_EVERY_S
            metrics.CONSUMER_BEHIND.tell(self.app.conf.id, self._source.behind())

    def _take(self) -> list[tuple[TP, list[Record]]]:
        """Fill the poll with what has arrived, and return that."""
        assert self._source is not None
        poll = self._filling
        runs = self._source.take(self._most - len(poll.records))
        if runs and not poll.records:
            self._due = time.monotonic() + PATIENCE_S
        for tp, run in runs:
            poll.records += run
            poll.ends[tp] = run[-1].offset + 1
            poll.arrived[tp] = run[-1].timestamp
        return runs

    def _is_due(self, runs: list[tuple[TP, list[Record]]]) -> bool:
        """Whether the poll waits for no more, now that `runs` have come into it."""
        app: Any = self.app
        if not all(tp.topic in app.bulk_topics for tp, _ in runs):
            return True
        return bool(self._filling.records) and time.monotonic() >= self._due

    async def _hand_over(self) -> None:
        """Make one event of the poll."""
        poll, self._filling = self._filling, Poll([], {}, self._seeks, self)
        tp = next(iter(poll.ends))
        value: Any = poll
        message = ConsumerMessage(
            tp.topic, tp.partition, poll.ends[tp] - 1, 0.0, 0, None, None, value, None,
            serialized_key_size=0, serialized_value_size=0, tp=tp,
            generation_id=self.app.consumer_generation_id,
        )  # fmt: skip
        self._out.append(poll)
        # It waits for nothing, since the flow is open. Faust drops the event without a word when a
        # rebalance begins before the agent has it: then a seek follows.
        await self.callback(message)

    async def _rest(self) -> None:
        """Until a poll is done or the flow changes, or for a while."""
        self._changed.clear()
        waking = asyncio.get_running_loop().call_later(_ROUND_S, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            waking.cancel()

    def stop_flow(self) -> None:
        """Hand nothing over."""
        super().stop_flow()
        self._changed.set()

    def resume_flow(self) -> None:
        """Hand over again."""
        super().resume_flow()
        self._changed.set()

    def finish(self, poll: Poll) -> None:
        """The agent is done with `poll`, which is the oldest one that it has."""
        assert self.in_hand[0] is poll
        self.in_hand.popleft()
        if poll.seek == self._seeks:
            self._finished.update(poll.ends)
            self._horizon.told(poll.ends, poll.arrived)
            if self._out and self._out[0] is poll:
                self._out.popleft()
        poll.finished.set()
        self._changed.set()

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
            await self.wait_first(self.in_hand[0].finished.wait(), timeout=_ROUND_S)
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
    on_fault: Callable[[Exception], Any]
    """What ends the process when the inputs cannot be read on; must not return."""

    def __init__(
        self, *args: Any, bulk_topics: frozenset[str] = frozenset(), **kwargs: Any
    ) -> None:
        super().__init__(*args, TableManager=Tables, **kwargs)
        self.bulk_topics = bulk_topics

    def horizons(self, now_ms: int) -> dict[int, int]:
        """See `Consumer.horizons`."""
        consumer: Any = self.consumer
        return dict(consumer.horizons(now_ms))

    def _new_transport(self) -> Any:
        return Transport(self.conf.broker_consumer, self)
