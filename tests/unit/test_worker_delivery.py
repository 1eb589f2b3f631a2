"""Acknowledgements per batch, and what the offsets of an only writer tell."""

import asyncio
import time
from typing import Any

import pytest

from twin.delivery import NotDurable, Ticket, Writer

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
