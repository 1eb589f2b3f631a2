"""The poll transport where real Kafka cannot be made to do it: holes, late records, late answers."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaError
from faust.types import TP, Message
from mode import Service

from twin.stream import Poll, PollSchema, StreamApp
from twin.stream.recovery import Recovery
from twin.stream.transport import Consumer

IN = TP("in", 0)
OTHER = TP("in", 1)


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


class Restored:
    """The application: what it was asked to restore, and what it was told to be committed."""

    def __init__(self) -> None:
        self.asked: list[dict[TP, int]] = []
        self.commits: list[tuple[int, dict[TP, int]]] = []
        self.marks = 0
        self.meanwhile: Any = lambda: None
        self.faults: list[Exception] = []

    async def restore(self, places: Any, _generation: int, _wanted: Any) -> None:
        self.asked.append(dict(places))
        self.meanwhile()
        if self.faults:
            raise self.faults.pop()

    def mark(self) -> int:
        self.marks += 1
        return self.marks

    def committed(self, mark: int, offsets: Any) -> None:
        self.commits.append((mark, dict(offsets)))


@pytest.fixture
def parts(monkeypatch):
    """An app with one input and one table, its consumer, and the client; nothing is started."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    client = Client({IN, OTHER})
    thread = Thread(client)
    monkeypatch.setattr(Consumer, "_new_consumer_thread", lambda _: thread)
    app = StreamApp("unit", broker="kafka://localhost", store="memory://", topic_partitions=2)
    app.Table("t", changelog_topic=app.topic("log", schema=PollSchema()), partitions=2)
    app.consumer_generation_id = 1
    app.restorer = restored = Restored()
    consumer: Any = app.consumer
    consumer._active_partitions = {IN, OTHER}
    yield SimpleNamespace(
        app=app,
        consumer=consumer,
        client=client,
        thread=thread,
        restored=restored,
        run=loop.run_until_complete,
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
    """No committed offset means the oldest record, which need not be 0."""
    parts.thread.committed = {IN: 0}
    parts.run(parts.consumer.perform_seek())
    assert sorted(parts.client.seeks) == [(IN, 0), (OTHER, 7)]
    assert parts.consumer.places() == {IN: 0, OTHER: 7}


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
    """They may come from a place that was left."""
    consumer = placed(parts, 10)
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
        return {IN: batch(10, 11), OTHER: batch(10)}

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
    assert sorted(parts.client.seeks) == [(IN, 10), (OTHER, 10)]


def in_hand(consumer: Any, **ends: int) -> Poll:
    """A poll that the agent has begun."""
    places = {"IN": IN, "OTHER": OTHER}
    poll = Poll([], {places[name]: end for name, end in ends.items()}, consumer._seeks, consumer)
    consumer._out.append(poll)
    poll.begin()
    return poll


def test_an_offset_is_committed_when_the_agent_is_done(parts):
    """And once: the next commit has nothing to say."""
    consumer = placed(parts, 10)
    in_hand(consumer, IN=12).done()
    assert parts.run(consumer.commit()) is True
    assert parts.run(consumer.commit()) is False
    assert parts.thread.commits == [{IN: 12}]
    assert parts.restored.commits == [(1, {IN: 12})]


def test_what_is_done_is_committed_and_what_is_not_is_not(parts):
    """Two polls are out; the second one is told later."""
    consumer = placed(parts, 10)
    first, second = in_hand(consumer, IN=12), in_hand(consumer, IN=15, OTHER=11)
    first.done()
    assert parts.run(consumer.commit()) is True
    second.done()
    assert parts.run(consumer.commit()) is True
    assert parts.thread.commits == [{IN: 12}, {IN: 15, OTHER: 11}]


def test_a_later_poll_is_not_done_before_an_earlier_one(parts):
    """Its offsets would cover the records of the earlier one."""
    consumer = placed(parts, 10)
    in_hand(consumer, IN=12)
    with pytest.raises(AssertionError):
        in_hand(consumer, IN=15).done()


def test_done_after_a_seek_commits_nothing(parts):
    """The place was left: another member may be far ahead of this poll."""
    consumer = placed(parts, 10)
    done, late = in_hand(consumer, OTHER=12), in_hand(consumer, IN=12)
    done.done()
    consumer = placed(parts, 20)
    late.done()
    assert parts.run(consumer.commit()) is False
    assert parts.thread.commits == []


def test_a_commit_that_failed_or_was_overtaken_by_a_seek_is_not_reported(parts):
    """What the application forgets for it could still be asked for."""
    consumer = placed(parts, 10)
    in_hand(consumer, IN=12).done()
    commit = parts.thread.commit

    async def refused(_offsets: Any) -> bool:
        return False

    async def overtaken(offsets: Any) -> bool:
        consumer._seeks += 1
        return await commit(offsets)

    parts.thread.commit = refused
    assert parts.run(consumer.commit()) is False
    in_hand(consumer, IN=13).done()
    parts.thread.commit = overtaken
    assert parts.run(consumer.commit()) is True
    assert parts.restored.commits == []


def test_no_more_polls_are_handed_over_than_the_depth(parts):
    """The third waits until the first is done, so a slow agent is a paused consumer."""
    consumer = placed(parts, 10)
    given: list[Poll] = []

    async def callback(message: Any) -> None:
        given.append(message.value)
        message.value.begin()

    consumer.callback = callback
    parts.thread.polls = [lambda o=offset: {IN: batch(o)} for offset in range(10, 14)]
    fetcher = SimpleNamespace(should_stop=False)

    async def go() -> None:
        draining = asyncio.ensure_future(consumer._drain_messages(fetcher))
        for expected in (2, 3, 4):
            # As many turns as it could need, and more: another poll must not come.
            for _ in range(200):
                await asyncio.sleep(0)
            assert len(given) == expected
            fetcher.should_stop = expected == 4
            given[expected - 2].done()
        await draining

    parts.run(go())
    assert [poll.ends for poll in given] == [{IN: end} for end in range(11, 15)]


def test_faust_acknowledging_an_event_commits_nothing(parts):
    """Faust acknowledges skipped and failed events, too."""
    consumer = placed(parts, 10)
    message = Message(
        IN.topic, IN.partition, 11, 0.0, 0, None, None, b"", None, None, 0, tp=IN, generation_id=1
    )
    assert consumer.ack(message) is True
    assert parts.run(consumer.commit()) is False
    assert parts.thread.commits == []


def test_a_rebalance_waits_for_the_polls_in_hand_and_commits_them(parts):
    """Nobody gets a partition while its records are being worked on."""
    consumer = placed(parts, 10)
    polls = [in_hand(consumer, IN=12), in_hand(consumer, IN=13)]

    async def rebalance() -> None:
        waiting = asyncio.ensure_future(consumer.wait_empty())
        for poll in polls:
            for _ in range(10):
                await asyncio.sleep(0)
            assert not waiting.done()
            assert parts.thread.commits == []
            poll.done()
        await waiting

    parts.run(rebalance())
    assert parts.thread.commits == [{IN: 13}]


@pytest.fixture
def recovery(parts, monkeypatch):
    """The recovery of an app whose flow is resumed without a broker."""
    made: Any = Recovery(parts.app, parts.app.tables)
    made.resumed = []

    async def resume(assigned: set[TP]) -> None:
        made.resumed.append(assigned)

    monkeypatch.setattr(made, "_resume", resume)

    async def rebalance(*assigned: TP, generation: int = 1) -> None:
        made.on_partitions_revoked(set())
        parts.client.assigned = set(assigned)
        await made.on_rebalance(set(assigned), set(), set(), generation)
        if made._wish is not None:
            await made._fulfil(made._wish)

    made.rebalance = lambda *tps, **told: parts.run(rebalance(*tps, **told))
    return made


def test_what_is_assigned_is_restored_from_the_committed_offsets_and_resumed(parts, recovery):
    """All of it, in every rebalance."""
    parts.thread.committed = {IN: 5, OTHER: 8}
    recovery.rebalance(IN, OTHER)
    recovery.rebalance(OTHER)
    assert parts.restored.asked == [{IN: 5, OTHER: 8}, {OTHER: 8}]
    assert recovery.resumed == [{IN, OTHER}, {OTHER}]


def test_a_worker_that_is_left_without_partitions_lets_go_of_all(parts, recovery):
    """What it had belongs to somebody else: restoring it again would drive the new owner out."""
    parts.thread.committed = {IN: 5}
    recovery.rebalance(IN)
    recovery.rebalance()
    assert parts.restored.asked == [{IN: 5}, {}]
    assert recovery.resumed == [{IN}, set()]


@pytest.mark.parametrize("between", ["revoked", "assigned", "generation"])
def test_a_restore_that_was_overtaken_resumes_nothing(parts, recovery, between):
    """The newest rebalance counts; the flow stays stopped until it is fulfilled."""
    parts.thread.committed = {IN: 5}

    def meanwhile() -> None:
        if between == "generation":
            parts.app.consumer_generation_id += 1
        else:
            recovery.on_partitions_revoked(set())
        if between == "assigned":
            recovery._wish = (1, {OTHER})

    parts.restored.meanwhile = meanwhile
    recovery.rebalance(IN)
    assert recovery.resumed == []


def test_a_restore_is_tried_again_when_kafka_is_away(parts, recovery, monkeypatch):
    """Without a new rebalance."""
    monkeypatch.setattr("twin.stream.recovery._RETRY_S", 0.0)
    parts.thread.committed = {IN: 5}
    parts.restored.faults = [KafkaError("away"), KafkaError("away")]
    recovery.rebalance(IN)
    assert len(parts.restored.asked) == 3
    assert recovery.resumed == [{IN}]
