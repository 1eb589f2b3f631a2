"""What Kafka and Redis hold about the cars of a load, and telemetry folded by the definition of law 1.

Of the worker it has the names of its inputs and of its group, and nothing else.
"""

import struct
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import redis
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from twin.app import GROUP, INPUTS
from twin.wire import keys, topics
from twin.wire.telemetry import Telemetry

SILENCE_S = 30.0
NOT_YET = (KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE)
"""The broker has only just begun, or the group."""

Place = tuple[str, int, int]
"""Topic, partition, offset."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the log."""

    topic: str
    partition: int
    offset: int
    key: str
    value: bytes | None
    timestamp: int = 0
    headers: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def place(self) -> Place:
        return self.topic, self.partition, self.offset

    @property
    def source(self) -> str:
        """As `rejected` names it."""
        return f"kafka:{self.topic}/{self.partition}/{self.offset}"

    @property
    def fields(self) -> Any:
        assert self.value is not None
        return orjson.loads(self.value)

    @property
    def arrived(self) -> int:
        """When it entered the system, ms: what the uplink says, else Kafka."""
        return int(self.headers.get("ingested-at", self.timestamp))

    @property
    def epoch(self) -> int:
        """Of a record of a changelog: its owner's."""
        told = self.headers["epoch"] if self.value is None else self.fields["epoch"]
        return int(told)


@dataclass(slots=True)
class Car:
    """What was sent about a car, in the order of each topic, and what was written and told of it."""

    vehicle_id: str
    inputs: defaultdict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    twins: list[Record] = field(default_factory=list)
    """Documents and tombstones, without those that came behind one of a higher epoch."""
    changes: list[Record] = field(default_factory=list)
    downlinks: list[Record] = field(default_factory=list)
    rejected: list[Record] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return self.vehicle_id.split("-")[1]

    def asked(self) -> dict[str, Record]:
        """The first record of each request, deadlines apart."""
        first: dict[str, Record] = {}
        for record in self.inputs[topics.REQUESTS]:
            if record.fields["kind"] != "deadline":
                first.setdefault(record.fields["request_id"], record)
        return first


class Log:
    """Everything that Kafka and Redis hold about the cars of one load."""

    def __init__(self, bootstrap: str, redis_url: str, prefix: str) -> None:
        self.cars: dict[str, Car] = {}
        self.twins: dict[str, Record] = {}
        """The newest record of each car, as compaction keeps it."""
        self.ledger: dict[str, Record] = {}
        self.late_writes = 0
        self._epochs: dict[int, int] = {}
        names = (*INPUTS, "changes", "downlink", "twins", "ledger", "rejected")
        for record in read(bootstrap, names):
            late = record.topic == topics.TWINS and self._is_late(record)
            if record.key.startswith(f"{prefix}-"):
                self._sort(record, late)
        store = redis.from_url(redis_url)
        self.replies = {name: orjson.loads(raw) for name, raw in self._replies(store)}
        self.documents = {car: _document(store.get(keys.twin(car))) for car in self.cars}
        self.commands = {key: _json(store.get(_command_key(key))) for key in self.ledger}
        store.close()

    def _is_late(self, record: Record) -> bool:
        """Law 5: behind a record of a higher epoch it does not count."""
        known = self._epochs.get(record.partition, 0)
        self._epochs[record.partition] = max(known, record.epoch)
        return record.epoch < known

    def _sort(self, record: Record, late: bool) -> None:
        vehicle_id = record.key.partition("/")[0]
        car = self.cars.setdefault(vehicle_id, Car(vehicle_id))
        if record.topic == topics.TWINS:
            self.twins[record.key] = record
            self.late_writes += late
            if not late:
                car.twins.append(record)
        elif record.topic == topics.LEDGER:
            self.ledger[record.key] = record
        elif record.topic == topics.CHANGES:
            car.changes.append(record)
        elif record.topic == topics.DOWNLINK:
            car.downlinks.append(record)
        elif record.topic == topics.REJECTED:
            car.rejected.append(record)
        else:
            car.inputs[record.topic].append(record)

    def _replies(self, store: Any) -> list[tuple[str, bytes]]:
        asked = [request_id for car in self.cars.values() for request_id in car.asked()]
        found = store.mget([keys.reply(request_id) for request_id in asked]) if asked else []
        return [(name, raw) for name, raw in zip(asked, found, strict=True) if raw]

    def shown_otherwise(self) -> list[str]:
        """What Redis shows otherwise than the log has it, a line each."""
        found = []
        for car, shown in self.documents.items():
            newest = self.twins.get(car)
            twin = None if newest is None or newest.value is None else newest.fields
            if plain(shown) != plain(twin):
                found.append(f"{car}: Redis has {brief(shown)}, the log {brief(twin)}")
        for key, shown in self.commands.items():
            record = self.ledger[key]
            entry = None if record.value is None else record.fields
            if plain(entry) != plain(shown):
                found.append(f"ledger {key}: Redis has {shown}, the log {entry}")
        return found


class Fold:
    """Telemetry of one car, added in the order of its offsets; law 1 by its definition."""

    def __init__(self) -> None:
        self.reported: dict[str, dict[str, Any]] = {}
        self.newer = 0
        """Records that had at least one newer value."""
        self.late = 0
        self.duplicates = 0

    def add(self, said: Telemetry, offset: int) -> None:
        """The next record."""
        order = (said.event_time, said.session, said.sequence)
        newer = 0
        again = True
        for name, value in said.signals.items():
            entry = {"v": value, "t": order[0], "n": order[1], "s": order[2], "o": offset}
            if name in said.suspect:
                entry["q"] = "suspect"
            last = self.reported.get(name)
            again = again and last is not None and (last["t"], last["n"], last["s"]) == order
            if last is None or _rank(entry) > _rank(last):
                self.reported[name] = entry
                newer += 1
        self.newer += newer > 0
        if newer < len(said.signals):
            duplicate = not newer and again
            self.duplicates += duplicate
            self.late += not duplicate

    @property
    def counts(self) -> dict[str, int] | None:
        """As in the document; None when there is nothing to count."""
        counts = {"late": self.late, "duplicates": self.duplicates}
        return counts if any(counts.values()) else None


def _rank(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    value = struct.pack(">d", entry["v"])
    return entry["t"], entry["n"], entry["s"], value, "q" not in entry


class Progress:
    """How far the worker's group is in its inputs."""

    def __init__(self, bootstrap: str) -> None:
        self._admin = AdminClient({"bootstrap.servers": bootstrap})

    def left(self) -> dict[tuple[str, int], int]:
        """Records of each input partition that are not committed; empty when all are."""
        ends = self.ends(INPUTS)
        group = ConsumerGroupTopicPartitions(GROUP, [TopicPartition(*place) for place in ends])
        (done,) = self._admin.list_consumer_group_offsets([group]).values()
        try:
            places = done.result(SILENCE_S).topic_partitions
        except KafkaException as error:
            if error.args[0].code() not in NOT_YET:
                raise
            return ends
        committed = {(place.topic, place.partition): max(place.offset, 0) for place in places}
        return {p: end - committed[p] for p, end in ends.items() if end > committed[p]}

    def committed(self) -> int:
        """How many records of the inputs are committed, at least."""
        ends = sum(self.ends(INPUTS).values())
        return ends - sum(self.left().values())

    def ends(self, names: Iterable[str]) -> dict[tuple[str, int], int]:
        """Offset behind the last record of each partition of topics."""
        known = self._admin.list_topics(timeout=SILENCE_S).topics
        wanted: Any = {
            TopicPartition(name, number): OffsetSpec.latest()
            for name in names
            for number in known[name].partitions
        }
        return {
            (place.topic, place.partition): done.result(SILENCE_S).offset
            for place, done in self._admin.list_offsets(wanted).items()
        }


def read(bootstrap: str, names: Iterable[str]) -> Iterable[Record]:
    """All records of topics from the oldest to the end as it is now, in order per partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "accounts",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    try:
        known = consumer.list_topics(timeout=SILENCE_S).topics
        left = {(name, number) for name in names for number in known[name].partitions}
        consumer.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in left])
        silent = time.monotonic() + SILENCE_S
        while left:
            assert time.monotonic() < silent, f"Kafka gives no more of {left}"
            # It waits for as many as that, even at the end of everything.
            for message in consumer.consume(1000, 0.05):
                silent = time.monotonic() + SILENCE_S
                place = (message.topic(), message.partition())
                if message.error() is not None:
                    left.discard(place)
                    continue
                yield Record(
                    *place,
                    message.offset(),
                    (message.key() or b"").decode(),
                    message.value(),
                    message.timestamp()[1],
                    dict(message.headers() or ()),
                )
    finally:
        consumer.close()


def plain(document: Any) -> Any:
    """Without the epoch: a document is written again under a newer one, and shown as it was."""
    return None if document is None else {k: v for k, v in document.items() if k != "epoch"}


def brief(document: Any) -> str:
    """A document for a person."""
    if document is None:
        return "nothing"
    return f"revision {document['revision']} of epoch {document.get('epoch')}: {document}"


def _command_key(key: str) -> str:
    return keys.command(key.partition("/")[2])


def _json(value: bytes | None) -> Any:
    return None if value is None else orjson.loads(value)


def _document(value: bytes | None) -> Any:
    return None if value is None else orjson.loads(keys.document_of(value))
