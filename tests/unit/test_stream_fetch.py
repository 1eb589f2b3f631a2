"""The source of the inputs against a client that gives what real Kafka hardly ever does."""

import threading
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Message
from faust.types import TP

from twin.stream.fetch import InputsUnreadable, Record, Source

IN = TP("in", 0)
OTHER = TP("in", 1)


class Client:
    """librdkafka's consumer: remembers what was assigned, gives out what it is told to."""

    def __init__(self) -> None:
        self.assigned: dict[TP, int] = {}
        self.calls: list[tuple[str, dict[TP, int]]] = []
        self.polls: list[list[Message]] = []
        self.refuses = False
        self.error_cb: Any = None
        self.errors: list[KafkaError] = []
        self.may_wait = False
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def consume(self, most: int, timeout: float) -> list[Message]:
        assert timeout == 0 or self.may_wait, "the event loop would wait"
        for error in self.errors:
            self.error_cb(error)
        poll = self.polls.pop(0)
        assert len(poll) <= most
        return poll

    def incremental_assign(self, partitions: list[Any]) -> None:
        if self.refuses:
            raise KafkaException(KafkaError(KafkaError._FATAL, "fenced"))
        new = {TP(p.topic, p.partition): p.offset for p in partitions}
        assert not self.assigned.keys() & new.keys(), "assigned twice"
        self.assigned |= new
        self.calls.append(("assign", new))

    def incremental_unassign(self, partitions: list[Any]) -> None:
        for p in partitions:
            del self.assigned[TP(p.topic, p.partition)]
        self.calls.append(("unassign", {TP(p.topic, p.partition): -1 for p in partitions}))


@pytest.fixture
def client(monkeypatch):
    made = Client()

    def consumer(*_: Any, error_cb: Any, **__: Any) -> Client:
        made.error_cb = error_cb
        return made

    monkeypatch.setattr("twin.stream.fetch.kafka.consumer", consumer)
    return made


@pytest.fixture
def source(client):
    """Placed at 10 in both partitions."""
    made = Source("kafka:9092", "group", "client")
    made.place({IN: 10, OTHER: 10})
    client.calls.clear()
    return made


def message(tp: TP, offset: int, error: int | None = None, fatal: bool = False) -> Message:
    return Message(
        topic=tp.topic,
        partition=tp.partition,
        offset=offset,
        timestamp=(1, 1000 + offset),
        key=b"k",
        value=b"%d" % offset,
        headers=[("h", b"1")],
        error=None if error is None else KafkaError(error, "what Kafka says", fatal),
    )


def batch(tp: TP, *offsets: int) -> list[Message]:
    return [message(tp, offset) for offset in offsets]


def taken(source: Source, client: Client, *messages: Message) -> list[tuple[TP, list[int]]]:
    client.polls = [list(messages)]
    return [(tp, [record.offset for record in run]) for tp, run in source.take(100)]


def test_a_record_has_what_the_message_has(source, client):
    """Under the names that the worker reads."""
    client.polls = [batch(IN, 10)]
    [(tp, [record])] = source.take(1)
    assert (tp, record) == (IN, Record("in", 0, 10, 1010, b"k", b"10", [("h", b"1")]))


def test_records_come_as_runs_of_one_partition(source, client):
    """In the order in which Kafka gave them."""
    mixed = [*batch(IN, 10, 11), *batch(OTHER, 10), *batch(IN, 12)]
    assert taken(source, client, *mixed) == [(IN, [10, 11]), (OTHER, [10]), (IN, [12])]
    assert taken(source, client, *batch(IN, 13)) == [(IN, [13])]
    assert client.calls == []


def test_nothing_is_nothing(source, client):
    """An empty poll."""
    assert taken(source, client) == []


def test_a_hole_is_read_again_and_believed_when_kafka_repeats_it(source, client):
    """The first look hands nothing of the partition over; the second is the answer."""
    first = taken(source, client, *batch(IN, 12, 13), *batch(OTHER, 10), *batch(IN, 14))
    assert first == [(OTHER, [10])]
    assert client.calls == [("unassign", {IN: -1}), ("assign", {IN: 10})]
    assert taken(source, client, *batch(IN, 12, 13)) == [(IN, [12, 13])]
    assert taken(source, client, *batch(IN, 14)) == [(IN, [14])]
    assert len(client.calls) == 2


def test_a_hole_behind_taken_records_is_read_again_from_behind_them(source, client):
    """What was taken does not come twice."""
    assert taken(source, client, *batch(IN, 10), *batch(OTHER, 10), *batch(IN, 12)) == [
        (IN, [10]),
        (OTHER, [10]),
    ]
    assert client.calls == [("unassign", {IN: -1}), ("assign", {IN: 11})]


def test_a_hole_that_was_none_is_forgotten(source, client):
    """The second look finds the records of the hole: they come, and nothing is passed over."""
    taken(source, client, *batch(IN, 12))
    assert taken(source, client, *batch(IN, 10, 11, 12)) == [(IN, [10, 11, 12])]


def test_another_hole_is_looked_at_again(source, client):
    """A hole that grew between two looks is not yet known."""
    taken(source, client, *batch(IN, 12))
    assert taken(source, client, *batch(IN, 14)) == []
    assert client.calls == 2 * [("unassign", {IN: -1}), ("assign", {IN: 10})]


def test_the_same_hole_after_a_rebalance_is_looked_at_again(source, client):
    """Though the partition stayed."""
    taken(source, client, *batch(IN, 12))
    source.place({IN: 10, OTHER: 10})
    client.calls.clear()
    assert taken(source, client, *batch(IN, 12)) == []
    assert client.calls == [("unassign", {IN: -1}), ("assign", {IN: 10})]


def test_a_partition_that_stays_is_not_fetched_anew(source, client):
    """One that was elsewhere, is new or has gone is."""
    third = TP("in", 2)
    taken(source, client, *batch(IN, 10, 11))
    source.place({IN: 12, third: 5})
    assert client.calls == [("unassign", {OTHER: -1}), ("assign", {third: 5})]
    client.calls.clear()
    source.place({IN: 11, third: 5})
    assert client.calls == [("unassign", {IN: -1}), ("assign", {IN: 11})]
    assert taken(source, client, *batch(IN, 11), *batch(third, 5)) == [(IN, [11]), (third, [5])]
    client.calls.clear()
    source.place({})
    assert client.assigned == {}


def test_records_from_before_our_place_mean_that_the_log_is_another(source, client):
    """They would be taken for repeated ones, until the new log is as long as the old."""
    with pytest.raises(InputsUnreadable, match=r"in partition 0 gives offset 0 where 10 is next"):
        taken(source, client, *batch(IN, 0))


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError._BAD_MSG,
        KafkaError._BAD_COMPRESSION,
    ],
)
def test_an_error_that_does_not_heal_is_said_with_its_partition(source, client, code):
    """librdkafka would stand still, or skip the records that it cannot read."""
    with pytest.raises(InputsUnreadable, match=r"input in\[1\]: what Kafka says"):
        taken(source, client, *batch(IN, 10), message(OTHER, 10, code))


def test_an_error_that_heals_is_waited_out(source, client):
    """What came beside it is taken, and the next is the next."""
    flaky = message(IN, 11, KafkaError._TRANSPORT)
    assert taken(source, client, *batch(IN, 10), flaky, *batch(OTHER, 10)) == [
        (IN, [10]),
        (OTHER, [10]),
    ]
    assert taken(source, client, *batch(IN, 11)) == [(IN, [11])]


def test_an_error_of_no_topic_is_waited_out_unless_the_client_is_finished(source, client):
    """As that of a group which has no coordinator just now: we are no member."""
    away = KafkaError(KafkaError.COORDINATOR_NOT_AVAILABLE, "away")
    assert taken(source, client, Message(error=away)) == []
    finished = KafkaError(KafkaError._FATAL, "finished", True)
    with pytest.raises(InputsUnreadable, match="finished"):
        taken(source, client, Message(error=finished))


@pytest.mark.parametrize("fatal", [False, True])
def test_what_the_client_says_beside_its_messages_ends_it_if_it_does_not_heal(
    source, client, fatal
):
    """That a topic has gone is told so, and that the client is finished."""
    client.errors = [KafkaError(KafkaError._ALL_BROKERS_DOWN, "away")]
    assert taken(source, client, *batch(IN, 10)) == [(IN, [10])]
    code = KafkaError._FATAL if fatal else KafkaError.UNKNOWN_TOPIC_OR_PART
    client.errors = [KafkaError(code, "in [0]: no more", fatal)]
    with pytest.raises(InputsUnreadable, match=r"inputs: in \[0\]: no more"):
        taken(source, client)


def test_a_client_that_refuses_partitions_is_said(source, client):
    """Not an exception of the library's."""
    client.refuses = True
    with pytest.raises(InputsUnreadable, match="the inputs cannot be read: fenced"):
        source.place({IN: 0})


def waited(source: Source, client: Client, *messages: Message) -> None:
    """A wait that ends with these messages."""
    client.may_wait = True
    client.polls = [list(messages)]
    source.wait(0.05)
    client.may_wait = False


def test_what_ends_a_wait_is_the_first_that_is_taken(source, client):
    """In sequence with what comes behind it, and within the number asked for."""
    waited(source, client, *batch(IN, 10))
    assert taken(source, client, *batch(IN, 11), *batch(OTHER, 10)) == [
        (IN, [10, 11]),
        (OTHER, [10]),
    ]
    waited(source, client, *batch(IN, 12))
    client.polls = []
    assert [len(run) for _, run in source.take(1)] == [1]
    waited(source, client)
    assert taken(source, client) == []


def test_who_has_something_does_not_wait(source, client):
    """A wait whose end nobody has looked at is not another one's."""
    waited(source, client, *batch(IN, 10))
    source.wait(3600.0)
    assert taken(source, client, *batch(IN, 11)) == [(IN, [10, 11])]


def test_an_error_that_ends_a_wait_is_raised_when_it_is_taken(source, client):
    """Not in the thread, where nobody hears of it."""
    waited(source, client, message(IN, 10, KafkaError.TOPIC_AUTHORIZATION_FAILED))
    with pytest.raises(InputsUnreadable):
        taken(source, client)


def test_what_ended_a_wait_is_dropped_when_its_partition_is_read_anew(source, client):
    """And kept where the partition stays as it is."""
    waited(source, client, *batch(IN, 10))
    source.place({IN: 10, OTHER: 7})
    assert taken(source, client, *batch(IN, 11), *batch(OTHER, 7)) == [(IN, [10, 11]), (OTHER, [7])]
    waited(source, client, *batch(IN, 12))
    source.place({IN: 5})
    assert taken(source, client, *batch(IN, 5)) == [(IN, [5])]


@pytest.mark.parametrize("call", ["place", "close"])
def test_the_client_is_left_alone_while_a_thread_waits_in_it(source, client, call):
    """It is not closed under the thread's feet, nor given other partitions."""
    inside, leave, order = threading.Event(), threading.Event(), []

    def consume(_most: int, _seconds: float) -> list[Message]:
        inside.set()
        leave.wait(10)
        order.append("consumed")
        return []

    client.consume = consume
    waiting = threading.Thread(target=source.wait, args=(0.05,))
    waiting.start()
    assert inside.wait(10)

    def change() -> None:
        source.place({}) if call == "place" else source.close()
        order.append(call)

    changing = threading.Thread(target=change)
    changing.start()
    changing.join(0.05)
    assert order == []
    leave.set()
    for thread in (waiting, changing):
        thread.join(10)
    assert order == ["consumed", call]
