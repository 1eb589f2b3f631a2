"""An owner that froze and wakes up: what it decided meanwhile nobody hears of (law 5)."""

import asyncio
from types import SimpleNamespace

from tests.worker_fakes import CAR, Kafka, Redis, Worker, record, request, run, telemetry
from twin.delivery import Ticket
from twin.kit import kafka
from twin.view import FormerOwner
from twin.wire import ids, rejected, topics

COMMAND = {"id": ids.command_id(CAR, 1, "x"), "name": "ping", "args": {}, "ttl_s": 60}
OUTCOME = record(topics.OUTCOMES, {"command_id": COMMAND["id"], "state": "received", "at": 1}, 0)
ATTRIBUTES = request(0, "attributes", {"value": {"a": "b"}})


async def held(worker, most):
    """Until more than `most` writes of a frozen worker wait."""
    async with asyncio.timeout(10):
        while len(worker.producer.held) <= most:  # noqa: ASYNC110 - a fake says nothing
            await asyncio.sleep(0)


def test_a_former_owner_rejects_nothing_that_its_successor_knows():
    """The outcome of a command that was made behind its back is no unknown one."""

    async def test():
        kafka, store = Kafka(), Redis()
        former, owner = Worker(kafka, store), Worker(kafka, store)
        await former.restore()
        assert await former.take(telemetry(0))
        former.producer.frozen = True
        first = asyncio.create_task(former.take(ATTRIBUTES))
        await held(former, 0)
        await owner.restore({"telemetry": 1}, second=2)
        assert await owner.take(ATTRIBUTES, request(1, "command", {**COMMAND, "lane": "default"}))
        assert await owner.take(OUTCOME)
        second = asyncio.create_task(former.take(OUTCOME))
        await held(former, len(former.producer.held))
        former.producer.frozen = False
        former.producer.poll(0)
        await asyncio.wait([first, second])
        assert any(isinstance(fault, FormerOwner) for fault in former.faults)
        assert not [log for (topic, _), log in kafka.logs.items() if topic == topics.REJECTED]

    run(test)


def test_what_is_rejected_for_its_state_is_told_by_whoever_comes_next():
    """Durable with the twin's record, so a kill behind that loses no rejection."""

    async def test():
        kafka, store = Kafka(), Redis()
        former, owner = Worker(kafka, store), Worker(kafka, store)
        await former.restore()
        assert await former.take(telemetry(0))
        batch, _ = former.owner.decide([OUTCOME], 0)
        outbox = batch.outboxes[CAR].dump()
        assert b'"rejected"' in outbox
        former.writer.changelog(
            (topics.TWINS, 0),
            [(CAR, former.owner.parts[0].twins[CAR].dump(CAR), [("outbox", outbox)])],
            Ticket(),
        )
        former.producer.poll(0)
        assert not kafka.logs[topics.REJECTED, 0]
        await owner.restore({"telemetry": 1}, second=2)
        (told,) = kafka.logs[topics.REJECTED, 0]
        assert dict(told.headers())["reason"] == b"unknown_command"
        assert (told.key(), told.value()) == (CAR.encode(), OUTCOME.value)

    run(test)


def test_the_largest_rejection_fits_into_the_changelog():
    """An original of Kafka's default size with headers that JSON would make six times as long."""
    worker = Worker(Kafka(), Redis())

    async def test():
        await worker.restore()
        assert await worker.take(telemetry(0))
        body = {"command_id": COMMAND["id"], "state": "received", "at": 1, "reason": "x" * 900}
        made = record(topics.OUTCOMES, body, 0)
        padding = b" " * (100 * 1024)
        large = SimpleNamespace(
            **{**vars(made), "value": made.value + padding, "headers": [("\x01" * 900_000, b"")]}
        )
        batch, _ = worker.owner.decide([large], 0)
        assert len(batch.outboxes[CAR].dump()) < 256 * 1024
        (output,) = [o for _, _, outputs in batch.outboxes[CAR].causes for o in outputs]
        key, value, headers = rejected.load(output.value)
        assert (key, value) == (CAR, large.value)
        assert dict(headers)["headers-truncated"] == b"1"

    run(test)


def test_headers_whose_names_are_no_text_count_as_none(monkeypatch):
    """Kafka takes any bytes for a name; one such record stops nobody, and is asked once."""
    asked = []

    class Message:
        def __init__(self, name):
            self.name = name

        def headers(self):
            asked.append(self.name)
            try:
                return [(self.name.decode(), b"")]
            except UnicodeDecodeError as error:
                # So does confluent-kafka.
                raise SystemError("returned a result with an exception set") from error

    monkeypatch.setattr(kafka, "Message", Message)
    names = [b"na\xefve", b"a", b"\xff", b"\xfe", b"b", b"\xfd"]
    found = kafka.headers_of_all(map(Message, names))
    assert found == [None, [("a", b"")], None, None, [("b", b"")], None]
    assert asked == names
    assert [kafka.headers_of(Message(name)) for name in names] == found
