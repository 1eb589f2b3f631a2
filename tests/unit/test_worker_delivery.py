"""Acknowledgements per batch, and what the offsets of an only writer tell."""

import asyncio
import threading
import time
from typing import Any

import pytest
from confluent_kafka import Producer

from twin import delivery
from twin.delivery import QUEUE, NotDurable, Ticket, Writer
from twin.wire import topics

PLACE = ("twins", 3)


class Message:
    def __init__(self, offset: int) -> None:
        self._offset = offset

    def offset(self) -> int:
        return self._offset


class Error:
    def str(self) -> str:
        return "too old"


class Kafka:
    """A producer of one partition; `foreign` records of others get in before the next ones."""

    def __init__(self, end: int = 0) -> None:
        self.log: list[Any] = ["before"] * end
        self.foreign = 0
        self.refuse: set[bytes] = set()
        self.full = 0
        self._reports: list[Any] = []

    def produce(self, topic, value, key, partition, on_delivery, headers=()):
        if self.full:
            self.full -= 1
            raise BufferError
        self.log += ["foreign"] * self.foreign
        self.foreign = 0
        if value in self.refuse:
            if on_delivery:
                self._reports.append((on_delivery, Error(), None))
            return
        self.log.append((key, value, list(headers or ())))
        if on_delivery:
            self._reports.append((on_delivery, None, Message(len(self.log) - 1)))

    def produce_batch(self, topic, messages, partition):
        for number, message in enumerate(messages):
            if self.full:
                for left in messages[number:]:
                    left["_error"] = "full"
                self.full = 0
                return number
            self.produce(topic, message["value"], message["key"], partition, None)
        return len(messages)

    def poll(self, _timeout):
        reports, self._reports = self._reports, []
        for on_delivery, error, message in reports:
            on_delivery(error, message)


def entries(*values: str, headers: Any = None) -> list[Any]:
    return [(f"key-{value}", value.encode(), headers) for value in values]


def written(kafka: Kafka) -> list[bytes]:
    return [record[1] for record in kafka.log if record not in ("before", "foreign")]


def wait(writer: Writer, ticket: Ticket) -> None:
    asyncio.run(writer.wait(ticket))


def test_an_only_writer_sees_no_foreign_records():
    """Batches one after the other, acknowledged late and together, with and without headers."""
    kafka = Kafka(end=7)
    writer, first, second = Writer(kafka), Ticket(), Ticket()
    writer.begin(PLACE, 7)
    writer.changelog(PLACE, entries("a", "b", "c"), first)
    writer.changelog(PLACE, [*entries("d"), *entries("e", headers=[("outbox", b"x")])], second)
    writer.changelog(PLACE, entries("f", headers=[("outbox", b"x")]), second)
    wait(writer, first)
    wait(writer, second)
    assert first.foreign == second.foreign == []
    assert sorted(written(kafka)) == [b"a", b"b", b"c", b"d", b"e", b"f"]
    assert writer.end(PLACE) == 13


def test_foreign_records_are_reported_once_and_later_batches_are_right_again():
    """The range holds them; the end counts them."""
    kafka = Kafka(end=2)
    writer, first, second = Writer(kafka), Ticket(), Ticket()
    writer.begin(PLACE, 2)
    kafka.foreign = 2
    writer.changelog(PLACE, entries("a", "b"), first)
    wait(writer, first)
    assert first.foreign == [(PLACE, 2, 6)]
    assert writer.end(PLACE) == 6
    writer.changelog(PLACE, entries("c"), second)
    wait(writer, second)
    assert second.foreign == []
    assert writer.end(PLACE) == len(kafka.log)


def test_a_refused_record_is_not_durable():
    """Whether it is the one with the callback or one before it."""
    for refused in (b"a", b"b"):
        kafka = Kafka()
        kafka.refuse = {refused}
        writer, ticket = Writer(kafka), Ticket()
        writer.begin(PLACE, 0)
        writer.changelog(PLACE, entries("a", "b"), ticket)
        with pytest.raises(NotDurable, match=r"too old|missing"):
            wait(writer, ticket)


def test_a_full_queue_is_waited_for_and_nothing_is_left_out():
    """Of a batch that fits in half, the rest goes out one by one."""
    kafka = Kafka()
    writer, ticket = Writer(kafka), Ticket()
    writer.begin(PLACE, 0)
    kafka.full = 1
    writer.changelog(PLACE, entries("a", "b", "c"), ticket)
    kafka.full = 2
    writer.send("changes", 3, ("k", b"d", None), ticket)
    wait(writer, ticket)
    assert sorted(written(kafka)) == [b"a", b"b", b"c", b"d"]


class Room(Kafka):
    """Takes nothing until there is `room`, which is waited for in `poll`, as a real one does."""

    def __init__(self) -> None:
        super().__init__()
        self.room = threading.Event()
        self.threads: set[int] = set()
        self.on_poll: Any = lambda: None

    def produce(self, *args: Any, **kwargs: Any) -> None:
        if not self.room.is_set():
            raise BufferError
        super().produce(*args, **kwargs)

    def produce_batch(self, topic, messages, partition):
        if not self.room.is_set():
            self.full = 1
        return super().produce_batch(topic, messages, partition)

    def poll(self, timeout):
        self.threads.add(threading.get_ident())
        self.on_poll()
        self.room.wait(timeout)
        super().poll(timeout)


def test_the_event_loop_goes_on_while_the_queue_is_full():
    """Somebody else in it makes the room that is waited for; and all come in their order."""
    kafka = Room()
    writer, first, second = Writer(kafka), Ticket(), Ticket()
    writer.begin(PLACE, 0)

    async def make_room(polled):
        await polled.wait()
        kafka.room.set()

    async def write():
        polled, loop = asyncio.Event(), asyncio.get_running_loop()
        kafka.on_poll = lambda: loop.call_soon_threadsafe(polled.set)
        writer.changelog(PLACE, entries("a", "b", "c"), first)
        writer.changelog(PLACE, [*entries("d"), *entries("e", headers=[("h", b"x")])], second)
        assert kafka.log == []
        async with asyncio.timeout(30):
            await asyncio.gather(writer.wait(second), writer.wait(first), make_room(polled))

    asyncio.run(write())
    assert threading.get_ident() not in kafka.threads
    assert written(kafka) == [b"a", b"b", b"c", b"e", b"d"]
    assert first.foreign == second.foreign == []


def test_what_comes_later_does_not_overtake_what_waits_for_room():
    """Though there is room by then: a changelog's callback is its last record's."""
    kafka = Room()
    writer, ticket = Writer(kafka), Ticket()
    writer.begin(PLACE, 0)
    writer.changelog(PLACE, entries("a", "b"), ticket)
    kafka.room.set()
    writer.changelog(PLACE, entries("c", "d"), ticket)
    writer.send("changes", 3, ("k", b"e", None), ticket)
    wait(writer, ticket)
    assert written(kafka) == [b"a", b"b", b"c", b"d", b"e"]
    assert ticket.foreign == []


def test_a_queue_that_stays_full_is_given_up(monkeypatch):
    """The process must end uncommitted."""
    monkeypatch.setattr(delivery, "TIMEOUT_S", 0.0)
    writer, ticket = Writer(Room()), Ticket()
    writer.begin(PLACE, 0)
    writer.changelog(PLACE, entries("a"), ticket)
    with pytest.raises(NotDurable, match="1 writes are not acknowledged"):
        wait(writer, ticket)


@pytest.mark.parametrize(
    "queue", [{"queue.buffering.max.messages": 3}, {"queue.buffering.max.kbytes": 1}]
)
def test_much_more_than_a_tiny_queue_holds_is_written_without_a_gap(queue):
    """By the real client, to the broker that librdkafka has in itself."""
    producer = Producer(
        {
            "bootstrap.servers": "none:1",
            "test.mock.num.brokers": 1,
            "enable.idempotence": True,
            "linger.ms": 0.5,
            **queue,
        }
    )
    writer, tickets = Writer(producer), [Ticket() for _ in range(3)]
    writer.begin(PLACE, 0)
    for number, ticket in enumerate(tickets):
        batch = entries(*(f"{number}-{n}" + "x" * 100 for n in range(50)))
        writer.changelog(PLACE, [*batch, *entries("h", headers=[("outbox", b"x")])], ticket)
        for n in range(20):
            writer.send("changes", 3, ("k", b"%d" % n, None), ticket)

    async def wait_for_all():
        async with asyncio.timeout(60):
            await asyncio.gather(*(writer.wait(ticket) for ticket in tickets))

    asyncio.run(wait_for_all())
    assert [(ticket.left, ticket.fault, ticket.foreign) for ticket in tickets] == [
        (0, None, [])
    ] * 3
    assert writer.end(PLACE) == 3 * 51
    assert len(producer) == 0


def test_the_queue_has_room_for_the_largest_records():
    """One that it never has room for would never be written."""
    assert QUEUE["queue.buffering.max.kbytes"] * 1024 >= 2 * topics.TWINS_MAX_BYTES


def test_acknowledgements_are_heard_by_one_thread_at_a_time():
    """Two would hear them in any order, and take a foreign record for the wrong batch's."""

    class Slow(Kafka):
        polling = most = 0

        def poll(self, _timeout):
            self.polling += 1
            self.most = max(self.most, self.polling)
            time.sleep(0.01)
            if self._reports:
                on_delivery, error, message = self._reports.pop(0)
                on_delivery(error, message)
            self.polling -= 1

    async def wait_for_both(writer, *tickets):
        await asyncio.gather(*(writer.wait(ticket) for ticket in tickets))

    kafka = Slow()
    writer, tickets = Writer(kafka), (Ticket(), Ticket())
    writer.begin(PLACE, 0)
    for number in range(4):
        writer.changelog(PLACE, entries(str(number)), tickets[number % 2])
    asyncio.run(wait_for_both(writer, *tickets))
    assert kafka.most == 1
    assert [ticket.left for ticket in tickets] == [0, 0]
