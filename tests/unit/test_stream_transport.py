"""The poll transport where real Kafka cannot be made to do it: late records, late answers, errors."""

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import KafkaError
from faust.types import TP, Message
from mode import Service

from twin.stream import Poll, PollSchema, StreamApp
from twin.stream.fetch import InputsUnreadable, Record
from twin.stream.member import Member
from twin.stream.recovery import Recovery
from twin.stream.transport import WAIT_S, Consumer

IN = TP("in", 0)
OTHER = TP("in", 1)
BULK = TP("bulk", 0)


class Source:
    """The client of the inputs: gives what it is told to give, and remembers where it was sent."""

    def __init__(self) -> None:
        self.placed: list[dict[TP, int]] = []
        self.polls: list[Any] = []
        self.faults: list[Exception] = []
        self.closed = False
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        assert threading.current_thread() is not threading.main_thread(), "the event loop waits"
        self.waits.append(seconds)

    def place(self, places: dict[TP, int]) -> None:
        self.placed.append(dict(places))
        if self.faults:
            raise self.faults.pop()

    def take(self, most: int) -> Any:
        return self.polls.pop(0)(most) if self.polls else []

    def behind(self) -> dict[tuple[str, int], int]:
        return {(tp.topic, tp.partition): 3 for tp in (self.placed[-1] if self.placed else {})}

    def close(self) -> None:
        self.closed = True


class Thread(Service):
    """Faust's consumer thread, in the caller's loop."""

    def __init__(self) -> None:
        super().__init__()
        self.assigned = {IN, OTHER}
        self.offsets: dict[TP, int | None] = {}
        self.commits: list[dict[TP, int]] = []
        self.full: list[bool] = []

    def agent_is_full(self) -> None:
        self.full.append(True)

    def agent_has_room(self) -> None:
        self.full.append(False)

    def assignment(self) -> set[TP]:
        return self.assigned

    async def committed(self) -> dict[TP, int | None]:
        return {tp: self.offsets.get(tp) for tp in self.assigned}

    async def earliest_offsets(self, *tps: TP) -> dict[TP, int]:
        return dict.fromkeys(tps, 7)

    async def commit(self, offsets: dict[TP, int]) -> bool:
        self.commits.append(dict(offsets))
        return True


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
    """An app with one input and one table, its consumer, and the clients; nothing is started."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    thread, source = Thread(), Source()
    monkeypatch.setattr(Consumer, "_new_consumer_thread", lambda _: thread)
    monkeypatch.setattr(Consumer, "_new_source", lambda _: source)
    app = StreamApp(
        "unit",
        broker="kafka://localhost",
        store="memory://",
        topic_partitions=2,
        broker_max_poll_records=3,
        bulk_topics=frozenset({"bulk"}),
    )
    app.Table("t", changelog_topic=app.topic("log", schema=PollSchema()), partitions=2)
    app.consumer_generation_id = 1
    app.restorer = restored = Restored()
    faults: list[Exception] = []
    app.on_fault = faults.append
    consumer: Any = app.consumer
    consumer._active_partitions = {IN, OTHER}
    yield SimpleNamespace(
        app=app,
        consumer=consumer,
        source=source,
        thread=thread,
        restored=restored,
        faults=faults,
        run=loop.run_until_complete,
    )
    asyncio.set_event_loop(None)
    loop.close()


def run_of(tp: TP, *offsets: int) -> tuple[TP, list[Record]]:
    return tp, [Record(*tp, offset, -1, None, b"", None) for offset in offsets]


def placed(parts: Any, place: int) -> Any:
    """The consumer, sent by Faust to `place` in all inputs."""
    parts.thread.offsets = {IN: place, OTHER: place}
    parts.run(parts.consumer.perform_seek())
    return parts.consumer


class Rounds:
    """What Faust's fetcher says: go on, for so many rounds."""

    def __init__(self, rounds: int) -> None:
        self._left = rounds

    @property
    def should_stop(self) -> bool:
        self._left -= 1
        return self._left < 0


def taking(consumer: Any) -> list[Poll]:
    """Where the polls come that are handed over; the agent begins each at once."""
    given: list[Poll] = []

    async def callback(message: Any) -> None:
        given.append(message.value)
        message.value.begin()

    consumer.callback = callback
    return given


def test_a_seek_goes_to_committed_offsets_or_the_oldest_records(parts):
    """No committed offset means the oldest record, which need not be 0."""
    parts.thread.offsets = {IN: 0}
    parts.run(parts.consumer.perform_seek())
    assert parts.source.placed == [{IN: 0, OTHER: 7}]
    assert parts.consumer.places() == {IN: 0, OTHER: 7}


def test_a_poll_has_the_records_in_order_and_the_place_behind_them(parts):
    """Of all partitions, also of one that comes twice in it."""
    consumer = placed(parts, 10)
    given = taking(consumer)
    parts.source.polls = [lambda _: [run_of(IN, 10), run_of(OTHER, 10, 11), run_of(IN, 11)]]
    parts.run(consumer._drain_messages(Rounds(1)))
    [poll] = given
    assert [(r.partition, r.offset) for r in poll.records] == [(0, 10), (1, 10), (1, 11), (0, 11)]
    assert poll.ends == {IN: 12, OTHER: 12}


def test_bulk_waits_for_others_until_it_is_due(parts, monkeypatch):
    """Together they are one poll, in the order in which they came."""
    monkeypatch.setattr("twin.stream.transport.PATIENCE_S", 3600.0)
    consumer = placed(parts, 10)
    given = taking(consumer)
    parts.source.polls = [lambda _, o=offset: [run_of(BULK, o)] for offset in (10, 11)]
    parts.run(consumer._drain_messages(Rounds(5)))
    assert given == []
    consumer._due = 0.0
    parts.run(consumer._drain_messages(Rounds(1)))
    assert [poll.ends for poll in given] == [{BULK: 12}]
    assert [record.offset for record in given[0].records] == [10, 11]


def test_a_record_of_another_topic_takes_bulk_along_at_once(parts, monkeypatch):
    """A command does not wait; what was there before it does not come behind it."""
    monkeypatch.setattr("twin.stream.transport.PATIENCE_S", 3600.0)
    consumer = placed(parts, 10)
    given = taking(consumer)
    parts.source.polls = [lambda _: [run_of(BULK, 10)], lambda _: [run_of(IN, 10)]]
    parts.run(consumer._drain_messages(Rounds(2)))
    assert [(r.topic, r.offset) for r in given[0].records] == [("bulk", 10), ("in", 10)]


def test_a_full_poll_does_not_wait(parts, monkeypatch):
    """And no more than what it still holds is asked for."""
    monkeypatch.setattr("twin.stream.transport.PATIENCE_S", 3600.0)
    consumer = placed(parts, 10)
    given = taking(consumer)
    asked: list[int] = []

    def take(*offsets: int) -> Any:
        return lambda most: asked.append(most) or [run_of(BULK, *offsets)]

    parts.source.polls = [take(10), take(11, 12)]
    parts.run(consumer._drain_messages(Rounds(2)))
    assert asked == [3, 2]
    assert [poll.ends for poll in given] == [{BULK: 13}]


def test_what_waits_when_a_seek_comes_is_dropped(parts, monkeypatch):
    """It is taken again, by us or by somebody else."""
    monkeypatch.setattr("twin.stream.transport.PATIENCE_S", 3600.0)
    consumer = placed(parts, 10)
    given = taking(consumer)
    parts.source.polls = [lambda _: [run_of(BULK, 10)]]
    parts.run(consumer._drain_messages(Rounds(1)))
    consumer = placed(parts, 10)
    parts.source.polls = [lambda _: [run_of(IN, 10)]]
    parts.run(consumer._drain_messages(Rounds(1)))
    assert [(poll.ends, poll.seek) for poll in given] == [({IN: 11}, 2)]


def test_no_poll_is_greater_than_the_setting_says(parts):
    """`broker_max_poll_records` bounds what is worked on at once."""
    consumer = placed(parts, 10)
    asked: list[int] = []

    def take(most: int) -> list[Any]:
        asked.append(most)
        return []

    parts.source.polls = [take]
    parts.run(consumer._drain_messages(Rounds(1)))
    assert asked == [3]


@pytest.mark.parametrize("closed", ["flow", "partitions"])
def test_nothing_is_taken_while_the_flow_is_stopped_or_nothing_is_resumed(
    parts, closed, monkeypatch
):
    """A worker that had no partitions has an open flow while its first ones are restored."""
    monkeypatch.setattr("twin.stream.transport._ROUND_S", 0.0)
    consumer = placed(parts, 10)
    given = taking(consumer)
    parts.source.polls = [lambda _: [run_of(IN, 10)]]
    if closed == "flow":
        consumer.stop_flow()
    else:
        consumer.pause_partitions({IN, OTHER})
    parts.run(consumer._drain_messages(Rounds(3)))
    assert given == []
    consumer.resume_partitions({IN, OTHER})
    consumer.resume_flow()
    parts.run(consumer._drain_messages(Rounds(1)))
    assert [poll.ends for poll in given] == [{IN: 11}]


def test_resuming_the_flow_wakes_the_transport(parts, monkeypatch):
    """It does not wait for its next round."""
    monkeypatch.setattr("twin.stream.transport._ROUND_S", 3600.0)
    consumer = placed(parts, 10)
    consumer.stop_flow()
    given = taking(consumer)
    parts.source.polls = [lambda _: [run_of(IN, 10)]]

    async def go() -> None:
        draining = asyncio.ensure_future(consumer._drain_messages(Rounds(2)))
        for _ in range(10):
            await asyncio.sleep(0)
        consumer.resume_flow()
        await draining

    parts.run(go())
    assert len(given) == 1


def test_a_member_is_late_only_over_an_agent_that_ends_no_poll(parts, monkeypatch):
    """Not while it is idle or restoring."""
    monkeypatch.setattr("twin.stream.transport._ROUND_S", 0.0)
    monkeypatch.setattr("twin.stream.transport.GAP_S", 0.0)
    consumer = placed(parts, 10)
    parts.run(consumer._drain_messages(Rounds(2)))
    consumer.stop_flow()
    parts.run(consumer._drain_messages(Rounds(2)))
    assert parts.thread.full == []
    consumer.resume_flow()
    given = taking(consumer)
    parts.source.polls = [lambda _: [run_of(IN, 10)], lambda _: [run_of(IN, 11)]]

    async def go() -> None:
        draining = asyncio.ensure_future(consumer._drain_messages(Rounds(3)))
        for _ in range(100):
            await asyncio.sleep(0)
        assert parts.thread.full == [True]
        given[0].done()
        await draining

    parts.run(go())
    assert parts.thread.full == [True, False]


def test_when_there_is_nothing_a_thread_waits_for_the_first_record(parts, monkeypatch):
    """But not while bulk waits for more of it, nor right behind a poll: more may be on its way."""
    monkeypatch.setattr("twin.stream.transport.GAP_S", 0.0)
    consumer = placed(parts, 10)
    given = taking(consumer)
    parts.run(consumer._drain_messages(Rounds(2)))
    assert parts.source.waits == [WAIT_S] * 2
    parts.source.polls = [lambda _: [run_of(BULK, 10)], lambda _: [], lambda _: [run_of(IN, 10)]]
    parts.run(consumer._drain_messages(Rounds(3)))
    assert (len(given), parts.source.waits) == (1, [WAIT_S] * 2)


def test_what_cannot_be_read_ends_the_worker(parts):
    """Not the transport alone, which nobody would notice."""
    consumer = placed(parts, 10)
    fault = InputsUnreadable("gone")

    def take(_most: int) -> Any:
        raise fault

    parts.source.polls = [take]
    parts.run(consumer._drain_messages(Rounds(1)))
    assert parts.faults == [fault]


def test_the_client_of_the_group_never_plans_a_fetch(parts, monkeypatch):
    """And is late from the moment on when the agent is full."""

    async def started(_self: Any) -> None:
        """Nothing."""

    monkeypatch.setattr("faust.transport.drivers.aiokafka.AIOKafkaConsumerThread.on_start", started)
    member: Any = Member.__new__(Member)
    polling = SubscriptionState(asyncio.get_event_loop())
    member._consumer = SimpleNamespace(_fetcher=SimpleNamespace(), _subscription=polling)
    polling._last_fetch_ended = time.monotonic() - 1000
    parts.run(member.on_start())
    assert member._consumer._fetcher._get_actions_per_node({IN}) == ([], {}, None, False, [])
    assert polling.fetcher_idle_time == 0
    member.agent_is_full()
    assert 0 < polling.fetcher_idle_time < 1000
    member.agent_has_room()
    assert polling.fetcher_idle_time == 0


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
    given = taking(consumer)
    parts.source.polls = [lambda _, o=offset: [run_of(IN, o, o, o)] for offset in range(10, 14)]
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
        parts.thread.assigned = set(assigned)
        await made.on_rebalance(set(assigned), set(), set(), generation)
        if made._wish is not None:
            await made._fulfil(made._wish)

    made.rebalance = lambda *tps, **told: parts.run(rebalance(*tps, **told))
    return made


def test_what_is_assigned_is_restored_from_the_committed_offsets_and_resumed(parts, recovery):
    """All of it, in every rebalance."""
    parts.thread.offsets = {IN: 5, OTHER: 8}
    recovery.rebalance(IN, OTHER)
    recovery.rebalance(OTHER)
    assert parts.restored.asked == [{IN: 5, OTHER: 8}, {OTHER: 8}]
    assert recovery.resumed == [{IN, OTHER}, {OTHER}]


def test_a_worker_that_is_left_without_partitions_lets_go_of_all(parts, recovery):
    """What it had belongs to somebody else: restoring it again would drive the new owner out."""
    parts.thread.offsets = {IN: 5}
    recovery.rebalance(IN)
    recovery.rebalance()
    assert parts.restored.asked == parts.source.placed == [{IN: 5}, {}]
    assert recovery.resumed == [{IN}, set()]


@pytest.mark.parametrize("between", ["revoked", "assigned", "generation"])
def test_a_restore_that_was_overtaken_resumes_nothing(parts, recovery, between):
    """The newest rebalance counts; the flow stays stopped until it is fulfilled."""
    parts.thread.offsets = {IN: 5}

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
    parts.thread.offsets = {IN: 5}
    parts.restored.faults = [KafkaError("away"), KafkaError("away")]
    recovery.rebalance(IN)
    assert len(parts.restored.asked) == 3
    assert recovery.resumed == [{IN}]


def test_inputs_that_cannot_be_placed_end_the_worker(parts, recovery):
    """It resumes nothing and does not try for ever."""
    parts.thread.offsets = {IN: 5}
    parts.source.faults = [fault := InputsUnreadable("no")]
    recovery.rebalance(IN)
    assert parts.faults == [fault]
    assert (parts.restored.asked, recovery.resumed) == ([], [])
