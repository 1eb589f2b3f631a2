"""The poll transport where real Kafka cannot be made to do it: holes, late records, late answers."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP, Message
from mode import Service

from twin.stream import Poll, PollSchema, StreamApp
from twin.stream.transport import Consumer

IN = TP("in", 0)
OTHER = TP("in", 1)
LOG = TP("log", 0)


class Client:
    """The Kafka client: remembers where it was sent."""

    def __init__(self, assigned: set[TP]) -> None:
        self.assigned = assigned
        self.seeks: list[tuple[TP, int]] = []

    def assignment(self) -> frozenset[TP]:
        return frozenset(self.assigned)

    def seek(self, tp: TP, offset: int) -> None:
        self.seeks.append((tp, offset))


class Thread(Service):
    """Faust's consumer thread, in the caller's loop."""

    def __init__(self, client: Client) -> None:
        super().__init__()
        self.client = client
        self.committed: dict[TP, int | None] = {}
        self.commits: list[dict[TP, int]] = []
        self.polls: list[Any] = []

    def _ensure_consumer(self) -> Client:
        return self.client

    async def call_thread(self, call: Any, *args: Any) -> Any:
        return await call(*args)

    def assignment(self) -> set[TP]:
        return self.client.assigned

    async def seek_to_committed(self) -> dict[TP, int | None]:
        return {tp: self.committed.get(tp) for tp in self.client.assigned}

    async def earliest_offsets(self, *tps: TP) -> dict[TP, int]:
        return dict.fromkeys(tps, 7)

    async def commit(self, offsets: dict[TP, int]) -> bool:
        self.commits.append(dict(offsets))
        return True

    async def getmany(self, *_: Any, **__: Any) -> Any:
        return self.polls.pop(0)()


@pytest.fixture
def parts(monkeypatch):
    """An app with one input and one table, its consumer, and the client; nothing is started."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    client = Client({IN, OTHER, LOG})
    thread = Thread(client)
    monkeypatch.setattr(Consumer, "_new_consumer_thread", lambda _: thread)
    app = StreamApp("unit", broker="kafka://localhost", store="memory://", topic_partitions=2)
    app.Table("t", changelog_topic=app.topic(LOG.topic, schema=PollSchema()), partitions=2)
    app.consumer_generation_id = 1
    consumer: Any = app.consumer
    consumer._active_partitions = {IN, OTHER, LOG}
    yield SimpleNamespace(
        app=app, consumer=consumer, client=client, thread=thread, run=loop.run_until_complete
    )
    asyncio.set_event_loop(None)
    loop.close()


def batch(*offsets: int) -> list[Any]:
    return [SimpleNamespace(offset=offset) for offset in offsets]


def offsets(records: list[Any]) -> list[int]:
    return [record.offset for record in records]


def placed(parts: Any, place: int) -> Any:
    """The consumer, sent by Faust to `place` in all inputs."""
    parts.thread.committed = {IN: place, OTHER: place}
    parts.run(parts.consumer.perform_seek())
    parts.client.seeks.clear()
    return parts.consumer


def test_a_seek_goes_to_committed_offsets_or_the_oldest_records(parts):
    """No committed offset means the oldest record, which need not be 0; a changelog stays."""
    parts.thread.committed = {IN: 0}
    parts.run(parts.consumer.perform_seek())
    assert sorted(parts.client.seeks) == [(IN, 0), (OTHER, 7)]


def test_records_that_follow_are_taken_as_they_are(parts):
    """In sequence there is nothing to read again."""
    consumer = placed(parts, 10)
    assert offsets(parts.run(consumer._in_sequence(IN, batch(10, 11)))) == [10, 11]
    assert parts.client.seeks == []


def test_a_hole_is_read_again_and_believed_when_kafka_repeats_it(parts):
    """The first look hands over nothing and goes back; the second is the answer."""
    consumer = placed(parts, 10)
    assert parts.run(consumer._in_sequence(IN, batch(12, 13))) == []
    assert parts.client.seeks == [(IN, 10)]
    assert offsets(parts.run(consumer._in_sequence(IN, batch(12, 13)))) == [12, 13]
    assert parts.client.seeks == [(IN, 10)]


def test_a_hole_that_was_none_is_forgotten(parts):
    """The second look finds the records of the hole: they come, and nothing is skipped."""
    consumer = placed(parts, 10)
    parts.run(consumer._in_sequence(IN, batch(12)))
    assert offsets(parts.run(consumer._in_sequence(IN, batch(10, 11, 12)))) == [10, 11, 12]


def test_another_hole_is_looked_at_again(parts):
    """A hole that grew between two looks is not yet known."""
    consumer = placed(parts, 10)
    parts.run(consumer._in_sequence(IN, batch(12)))
    assert parts.run(consumer._in_sequence(IN, batch(14))) == []
    assert parts.client.seeks == [(IN, 10), (IN, 10)]


def test_the_same_hole_after_a_rebalance_is_looked_at_again(parts):
    """Records that the client fetched too far ahead, twice at the same place, are not a hole."""
    consumer = placed(parts, 10)
    parts.run(consumer._in_sequence(IN, batch(12)))
    consumer = placed(parts, 10)
    assert parts.run(consumer._in_sequence(IN, batch(12))) == []
    assert parts.client.seeks == [(IN, 10)]


def test_records_from_before_our_place_are_dropped(parts):
    """What the client read again by itself comes only once."""
    consumer = placed(parts, 10)
    assert parts.run(consumer._in_sequence(IN, batch(8, 9))) == []
    assert offsets(parts.run(consumer._in_sequence(IN, batch(8, 9, 10, 11)))) == [10, 11]


def test_a_partition_that_has_gone_is_not_sought(parts):
    """A rebalance may take a partition between a poll and the seek back."""
    consumer = placed(parts, 10)
    parts.client.assigned = {OTHER}
    parts.run(consumer._reread([IN, OTHER]))
    assert parts.client.seeks == [(OTHER, 10)]


@pytest.mark.parametrize("between", ["seek", "generation", "flow"])
def test_records_of_a_poll_over_which_something_happened_are_read_again(parts, between):
    """Inputs from our place, a changelog from recovery's: else recovery would wait for ever."""
    consumer = placed(parts, 10)
    consumer._read_offset[LOG] = 5
    given: list[Any] = []

    async def callback(message: Any) -> None:
        given.append(message)

    consumer.callback = callback

    def interrupted() -> dict[TP, list[Any]]:
        if between == "seek":
            consumer._seeks += 1
        elif between == "generation":
            parts.app.consumer_generation_id += 1
        else:
            consumer.stop_flow()
        return {IN: batch(10, 11), LOG: batch(6, 7)}

    class Fetcher:
        looks = 0

        @property
        def should_stop(self) -> bool:
            # Asked before a poll and after it: stop before the next.
            self.looks += 1
            return self.looks > 2

    fetcher = Fetcher()
    parts.thread.polls = [interrupted]
    parts.run(consumer._drain_messages(fetcher))
    assert given == []
    assert sorted(parts.client.seeks) == [(IN, 10), (LOG, 5)]


def test_an_offset_is_committed_when_the_agent_is_done(parts):
    """And once: the next commit has nothing to say."""
    consumer = placed(parts, 10)
    Poll([], {IN: 12}, consumer._seeks, consumer).done()
    assert parts.run(consumer.commit()) is True
    assert parts.run(consumer.commit()) is False
    assert parts.thread.commits == [{IN: 12}]


def test_done_after_a_seek_commits_nothing(parts):
    """The place was left: another member may be far ahead of this poll."""
    consumer = placed(parts, 10)
    late = Poll([], {IN: 12}, consumer._seeks, consumer)
    done = Poll([], {OTHER: 12}, consumer._seeks, consumer)
    done.done()
    consumer = placed(parts, 20)
    late.done()
    assert parts.run(consumer.commit()) is False
    assert parts.thread.commits == []


def test_faust_acknowledging_an_event_commits_nothing(parts):
    """Faust acknowledges skipped and failed events, too."""
    consumer = placed(parts, 10)
    message = Message(
        IN.topic, IN.partition, 11, 0.0, 0, None, None, b"", None, None, 0, tp=IN, generation_id=1
    )
    assert consumer.ack(message) is True
    assert parts.run(consumer.commit()) is False
    assert parts.thread.commits == []


def test_a_rebalance_waits_for_the_poll_in_hand_and_commits_it(parts):
    """Nobody gets a partition while its records are being worked on."""
    consumer = placed(parts, 10)
    poll = Poll([], {IN: 12}, consumer._seeks, consumer)
    poll.begin()

    async def rebalance() -> None:
        waiting = asyncio.ensure_future(consumer.wait_empty())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        assert parts.thread.commits == []
        poll.done()
        await waiting

    parts.run(rebalance())
    assert parts.thread.commits == [{IN: 12}]
