"""Kafka and the read model in memory, for the worker's shell without servers.

`Kafka` is an append-only log per partition. A `Producer` of it keeps what it was given until it is
polled, as a real one does while its process is frozen: a test says when a write arrives, and behind
which.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import orjson
from faust.types import TP

from twin import changelog
from twin.agents import Owner
from twin.app import INPUTS
from twin.apply import Context
from twin.changelog import Place, Tail
from twin.copy import Copy
from twin.delivery import Ticket, Writer
from twin.kit.clock import SystemClock
from twin.takeover import Takeover
from twin.view import FormerOwner
from twin.wire import codec, ids, topics
from twin.wire.partition import partition_of
from twin.wire.telemetry import Telemetry

T0 = 1_790_000_000_000
PARTITIONS = 4


class Message:
    """A record of the log, as confluent-kafka and aiokafka give it."""

    def __init__(
        self, place: Place, offset: int, key: Any, value: Any, headers: Any, at: int = T0
    ) -> None:
        self._place = place
        self._at = at
        self._offset = offset
        self._key = key.encode() if isinstance(key, str) else key
        self._value = value
        self._headers = list(headers or ())

    def topic(self) -> str:
        return self._place[0]

    def partition(self) -> int:
        return self._place[1]

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def headers(self) -> list[tuple[str, bytes]]:
        return self._headers

    def timestamp(self) -> tuple[int, int]:
        return 1, self._at

    def error(self) -> None:
        return None


class Kafka:
    """Logs by topic and partition."""

    def __init__(self, name: str = "kafka") -> None:
        self.name = name
        self.logs: defaultdict[Place, list[Message]] = defaultdict(list)
        self.now_ms: Callable[[], int] = SystemClock().now_ms

    def append(
        self, place: Place, key: Any, value: Any, headers: Any = (), at: int | None = None
    ) -> Message:
        """Write a record at once; `at`: Kafka's time of it, ms; now unless given."""
        log = self.logs[place]
        at = self.now_ms() if at is None else at
        log.append(Message(place, len(log), key, value, headers, at))
        return log[-1]

    def newest(self, topic: str, key: str) -> Any:
        """The newest record of a key, as JSON; None when it is a tombstone or there is none."""
        found = [
            message
            for place, log in self.logs.items()
            for message in log
            if place[0] == topic and message.key() == key.encode()
        ]
        value = found[-1].value() if found else None
        return None if value is None else orjson.loads(value)

    def values(self, topic: str) -> list[Any]:
        """All records of a topic as JSON, partition by partition."""
        logs = [log for place, log in sorted(self.logs.items()) if place[0] == topic]
        return [orjson.loads(message.value()) for log in logs for message in log]


class Producer:
    """Sends what it holds when it is polled, in order."""

    def __init__(self, kafka: Kafka) -> None:
        self.kafka = kafka
        self.held: list[tuple[Any, ...]] = []
        self.frozen = False
        """While its process is frozen nothing is sent, and nobody is told of what was."""

    def produce(
        self, topic: str, value: Any, key: Any, partition: int, on_delivery: Any, headers: Any = ()
    ) -> None:
        self.held.append(((topic, partition), key, value, headers, on_delivery))

    def produce_batch(self, topic: str, messages: Sequence[Any], partition: int) -> int:
        for message in messages:
            self.produce(topic, message["value"], message["key"], partition, None)
        return len(messages)

    def poll(self, _timeout: float) -> None:
        if self.frozen:
            return
        held, self.held = self.held, []
        sent = [(report, self.kafka.append(*record)) for *record, report in held]
        for report, message in sent:
            if report is not None:
                report(None, message)


class Reader:
    """Reads to the end, as `twin.changelog.Reader` does."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self.before_end: Callable[[], Any] = lambda: None
        """Called when a reading has come to the end."""

    def identity(self) -> dict[str, str]:
        return {topic: f"{topic} of {self._kafka.name}" for topic in changelog.CHANGELOGS}

    def bounds(self, place: Place) -> tuple[int, int]:
        return 0, len(self._kafka.logs[place])

    def read(self, tails: Mapping[Place, Tail], wanted: Callable[[], bool]) -> bool:
        if not wanted():
            return False
        for place, tail in tails.items():
            for message in self._kafka.logs[place][tail.end :]:
                changelog._take(tail, message)
        self.before_end()
        return True


class Redis:
    """What all views share."""

    def __init__(self) -> None:
        self.owners: dict[int, int] = {}
        self.twins: dict[str, Any] = {}
        self.commands: dict[str, Any] = {}
        self.replies: dict[str, Any] = {}


class View:
    """Writes for an owner, unless there is a newer one."""

    def __init__(self, store: Redis) -> None:
        self.store = store

    async def claim(self, partition: int, epoch: int, twins: Any, commands: Any) -> None:
        if self.store.owners.get(partition, 0) > epoch:
            raise FormerOwner("claimed")
        self.store.owners[partition] = epoch

    def release(self, partitions: Any) -> None:
        """Nothing is kept."""

    def _check(self, epochs: Mapping[int, int]) -> None:
        for partition, epoch in epochs.items():
            if self.store.owners.get(partition) != epoch:
                raise FormerOwner("written")

    async def write(self, shown: Any) -> None:
        self._check(shown.epochs)
        for vehicle_ids in shown.deleted.values():
            for vehicle_id in vehicle_ids:
                self.store.twins.pop(vehicle_id, None)
        for rows in shown.rows.values():
            for vehicle_id, row in rows.items():
                self.store.twins[vehicle_id] = orjson.loads(row.document)
        for command in shown.commands:
            self.store.commands[command["id"]] = command
        for reply in shown.replies:
            self.store.replies[reply["request_id"]] = reply


class Worker:
    """A worker's shell on a `Kafka` and a `Redis` in memory; it dies when it is not used any more."""

    def __init__(self, kafka: Kafka, store: Redis, copy: Copy | None = None) -> None:
        self.kafka = kafka
        self.producer = Producer(kafka)
        self.reader = Reader(kafka)
        self.faults: list[Exception] = []
        self.writer = Writer(self.producer)  # type: ignore[arg-type]
        view: Any = View(store)
        reader: Any = self.reader
        context = Context()
        self.owner = Owner(
            self.writer, view, copy, context, PARTITIONS, self._on_foreign, self.faults.append
        )
        self.takeover = Takeover(
            self.owner, reader, self.writer, view, copy, context, self._on_fault
        )

    @staticmethod
    def _on_fault(error: Exception) -> None:
        raise error

    async def _on_foreign(self, ticket: Ticket) -> None:
        await self.takeover.examine(ticket)

    async def restore(
        self, committed: Mapping[str, int] | None = None, second: int = 1, partition: int = 0
    ) -> None:
        """Take a partition over at a time. `committed`: input topic -> next offset, 0 unless named."""
        places = {TP(topic, partition): (committed or {}).get(topic, 0) for topic in INPUTS}
        clock: Any = SimpleNamespace(now_ms=lambda: 1000 * second)
        self.takeover._restoring._clock = clock
        await self.takeover.restore(places, 1, lambda: True)

    async def take(self, *records: Any) -> bool:
        """Take records and carry them out; whether all was told."""
        done: list[bool] = []
        await self.owner.take(records, lambda: done.append(True))
        await self.owner.durable()
        return bool(done)

    def commit(self, **offsets: int) -> None:
        """The inputs are committed up to these offsets."""
        partition = next(iter(self.owner.parts))
        told = {TP(topic, partition): offset for topic, offset in offsets.items()}
        self.owner.committed(self.owner.mark(), told)


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run an asynchronous test."""

    async def whole() -> None:
        await test()

    asyncio.run(whole())


def cars(count: int, partition: int = 0) -> list[str]:
    """Ids of cars of one partition."""
    found = (f"car-{number}" for number in range(10_000))
    mine = (car for car in found if partition_of(car.encode(), PARTITIONS) == partition)
    return [next(mine) for _ in range(count)]


CAR, OTHER = cars(2)


def record(
    topic: str, value: Any, offset: int, car: str = CAR, partition: int | None = None
) -> Any:
    """A record of an input topic, as aiokafka gives it."""
    if isinstance(value, dict):
        value = orjson.dumps({"vehicle_id": car, **value})
    return SimpleNamespace(
        topic=topic,
        partition=partition_of(car.encode(), PARTITIONS) if partition is None else partition,
        offset=offset,
        timestamp=T0 + offset,
        key=car.encode(),
        value=value,
        headers=(),
    )


def telemetry(offset: int, car: str = CAR, partition: int | None = None) -> Any:
    """Telemetry whose number is its offset."""
    said = Telemetry(car, T0 + offset, 1, offset, {"speed": offset + 0.5})
    return record(topics.TELEMETRY, codec.encode_telemetry(said), offset, car, partition)


def entry(car: str = CAR, seed: str = "a", **changed: Any) -> Any:
    """A whole entry of the ledger, of epoch 1."""
    return {
        "id": ids.command_id(car, T0, seed), "vehicle_id": car, "name": "ping", "args": {},
        "lane": "default", "state": "queued", "issued_at": T0, "expires_at": T0 + 60_000,
        "updated_at": T0, "by": "ann", "history": [{"state": "queued", "at": T0}], "attempts": [],
        "epoch": 1, "revision": 1, **changed,
    }  # fmt: skip


def request(offset: int, kind: str, body: Any, car: str = CAR, **more: Any) -> Any:
    """A request `r<offset>`."""
    asked = {"request_id": f"r{offset}", "kind": kind, "at": T0, "by": "ann", "body": body, **more}
    return record(topics.REQUESTS, asked, offset, car)
