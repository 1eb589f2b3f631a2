"""The accounts of a load that twin workers have decided: what must be there, from the log alone.

    input topics -> what each record must have brought about -> twins, ledger, changes, downlink, Redis

Imports nothing of the worker: the fold of telemetry, merge and counting are made here once more, for
the cars of `tests/worker_load.py`. `faults` names what is not as it must be; nothing is found when
nothing was lost, doubled, overwritten by an older state or told wrongly.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import redis
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from twin.wire import codec, keys, topics

GROUP = "cartwin-twin"
INPUTS = (
    topics.TELEMETRY,
    topics.PRESENCE,
    topics.REPORTED,
    topics.OUTCOMES,
    topics.REQUESTS,
    topics.SCORES,
    topics.DELIVERIES,
)
FINAL = ("succeeded", "failed", "rejected", "expired", "cancelled", "undeliverable")
LIVES = {
    "cmd": ["queued", "delivered", "accepted", "running", "succeeded"],
    "sent": ["queued", "sent"],
    "due": ["queued", "expired"],
}
"""States of each command of a kind of car, in order."""
SILENCE_S = 30.0

Signals = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the log."""

    topic: str
    partition: int
    offset: int
    key: str
    value: bytes | None

    @property
    def place(self) -> tuple[str, int, int]:
        return self.topic, self.partition, self.offset

    @property
    def fields(self) -> Any:
        assert self.value is not None
        return orjson.loads(self.value)


@dataclass(slots=True)
class Car:
    """What was sent about a car, in the order of each topic, and what was told of it."""

    vehicle_id: str
    inputs: defaultdict[str, list[Record]] = field(default_factory=lambda: defaultdict(list))
    changes: list[Record] = field(default_factory=list)
    downlinks: list[Record] = field(default_factory=list)

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


class Accounts:
    """Everything that Kafka and Redis hold about the cars of one load."""

    def __init__(self, bootstrap: str, redis_url: str, prefix: str) -> None:
        self.cars: dict[str, Car] = {}
        self.twins: dict[str, Record] = {}
        self.ledger: dict[str, Record] = {}
        self.rejected: list[Record] = []
        self._store = redis.from_url(redis_url)
        names = (*INPUTS, "changes", "downlink", "twins", "ledger", "rejected")
        for record in read(bootstrap, names):
            if record.key.startswith(f"{prefix}-"):
                self._sort(record)
        self.replies = self._replies()
        self.documents = {car: self._document(car) for car in self.cars}
        self.commands = {key: self._command(key) for key in self.ledger}
        self._store.close()

    def _sort(self, record: Record) -> None:
        vehicle_id = record.key.partition("/")[0]
        car = self.cars.setdefault(vehicle_id, Car(vehicle_id))
        if record.topic == topics.TWINS:
            self.twins[record.key] = record
        elif record.topic == topics.LEDGER:
            self.ledger[record.key] = record
        elif record.topic == topics.CHANGES:
            car.changes.append(record)
        elif record.topic == topics.DOWNLINK:
            car.downlinks.append(record)
        elif record.topic == topics.REJECTED:
            self.rejected.append(record)
        else:
            car.inputs[record.topic].append(record)

    def _replies(self) -> dict[str, Any]:
        asked = [request_id for car in self.cars.values() for request_id in car.asked()]
        found = self._store.mget([keys.reply(request_id) for request_id in asked]) if asked else []
        return {name: orjson.loads(raw) for name, raw in zip(asked, found, strict=True) if raw}

    def _document(self, vehicle_id: str) -> Any:
        value = self._store.get(keys.twin(vehicle_id))
        return None if value is None else orjson.loads(keys.document_of(value))

    def _command(self, key: str) -> Any:
        value = self._store.get(keys.command(key.partition("/")[2]))
        return None if value is None else orjson.loads(value)

    def faults(self) -> list[str]:
        """All that is wrong, a line each."""
        found = [f"rejected: {record}" for record in self.rejected]
        for car in self.cars.values():
            found += [f"{car.vehicle_id}: {fault}" for fault in self._of(car)]
        found += [f"ledger {key}: {fault}" for key in self.ledger for fault in self._entry(key)]
        return found

    def _of(self, car: Car) -> Iterator[str]:
        newest = self.twins.get(car.vehicle_id)
        twin = newest.fields if newest is not None and newest.value is not None else None
        yield from _contents("changes", car.changes)
        yield from _contents("downlink", car.downlinks)
        yield from self._answers(car, twin)
        shown = self.documents[car.vehicle_id]
        if _plain(shown) != _plain(twin):
            yield f"Redis has {_brief(shown)}, the log {_brief(twin)}"
        if car.kind in ("gone", "ghost"):
            if twin is not None:
                yield f"it is there: {_brief(twin)}"
            return
        if twin is None:
            yield "it is not there"
            return
        yield from self._document_of(car, twin)
        yield from self._commands_of(car, twin)

    def _document_of(self, car: Car, twin: Any) -> Iterator[str]:
        life = 2 if car.kind == "again" else 1
        values, newer = fold(car.inputs[topics.TELEMETRY], life)
        if twin["reported"] != values:
            yield f"reported is {twin['reported']}, the fold {values}"
        told = self._consequences(car)
        revision = newer + len(told)
        if twin["revision"] != revision:
            yield f"revision {twin['revision']}, but {newer} telemetry and {len(told)} other records"
        if car.kind in ("again", "gone"):
            return
        changed = {_why(change): change.fields["kind"] for change in car.changes}
        for place, kind in told.items():
            if kind is not None and changed.get(place) != kind:
                yield f"{place} told {changed.get(place)}, not {kind}"
        others = {place for place, kind in changed.items() if kind != "created"} - told.keys()
        if car.kind != "due" and others:
            yield f"changes of {others} were told"
        ids = Counter(change.fields["id"] for change in car.changes)
        whys = {change.fields["id"]: _why(change) for change in car.changes}
        again = [why for why, count in Counter(whys.values()).items() if count > 1]
        if again and car.kind != "made":
            yield f"told under several ids: {again} of {ids}"

    def _consequences(self, car: Car) -> dict[tuple[str, int, int], str | None]:
        """Records beside telemetry that must have changed the twin, and the kind of change told."""
        told: dict[tuple[str, int, int], str | None] = {}
        session = 0
        for record in car.inputs[topics.PRESENCE]:
            if record.fields["session"] > session:
                # A new session of a car that is online is not told.
                told[record.place] = None if session else "presence"
                session = record.fields["session"]
        for request_id, record in car.asked().items():
            reply = self.replies.get(request_id)
            kind = record.fields["kind"]
            if reply is not None and reply["status"] < 300 and kind != "delete":
                # The request that makes the twin tells that, too.
                told[record.place] = kind
        for topic in (topics.OUTCOMES, topics.DELIVERIES):
            told.update({record.place: "command" for record in car.inputs[topic]})
        if car.kind == "due":
            # One of its deadline records each: which one came in time is not said.
            expired = sum(f.fields["state"] == "expired" for f in self._entries(car))
            told.update({("expired", 0, number): None for number in range(expired)})
        if car.kind == "again":
            told = {}
        return told

    def _answers(self, car: Car, twin: Any) -> Iterator[str]:
        asked = car.asked()
        versions, properties = [], {}
        accepted_attributes = None
        for request_id, record in asked.items():
            request, reply = record.fields, self.replies.get(request_id)
            if reply is None:
                yield f"no reply to {request_id}"
                continue
            kind, status = request["kind"], reply["status"]
            if kind == "desired" and status == 200:
                versions.append(reply["body"]["version"])
                properties.update(request["body"]["value"])
                if reply["body"]["properties"] != properties:
                    yield f"{request_id} says {reply['body']['properties']}, not {properties}"
            elif kind == "attributes" and status in (200, 201):
                accepted_attributes = request["body"]["value"]
            elif kind == "command":
                yield from self._command_answer(car, request, reply)
            expected = {
                "desired": (200, 412) if car.kind == "match" else (200,),
                "attributes": (201,) if car.kind == "made" else (200,),
                "command": (404,) if car.kind in ("ghost", "late") else (201,),
                "delete": (204,),
            }[kind]
            if status not in expected:
                yield f"{request_id} got {status}: {reply}"
            if status < 300 and car.kind not in ("again", "gone", "cmd"):
                said = {c.fields["revision"] for c in car.changes if _why(c) == record.place}
                if said != {reply["revision"]}:
                    yield f"{request_id} says revision {reply['revision']}, its changes {said}"
        if versions != list(range(1, len(versions) + 1)):
            yield f"versions in the order of the requests are {versions}"
        if twin is None:
            return
        if car.kind == "match" and 2 * len(versions) != len(asked):
            yield f"{len(versions)} of {len(asked)} conditional patches accepted"
        desired = twin["desired"]
        if (desired["version"], desired["properties"]) != (len(versions), properties):
            yield f"desired {desired['version']} {desired['properties']}: {versions} {properties}"
        if accepted_attributes is not None and twin["attributes"] != accepted_attributes:
            yield f"attributes {twin['attributes']}, accepted last {accepted_attributes}"

    def _command_answer(self, car: Car, request: Any, reply: Any) -> Iterator[str]:
        command_id = request["body"]["id"]
        entry = self.ledger.get(f"{car.vehicle_id}/{command_id}")
        there = entry is not None and entry.value is not None
        if reply["status"] == 201 and reply["body"]["id"] != command_id:
            yield f"{request['request_id']} was asked {command_id}, says {reply['body']['id']}"
        if there != (reply["status"] == 201 and car.kind != "gone"):
            yield f"{request['request_id']} got {reply['status']}; in the ledger: {there}"

    def _entries(self, car: Car) -> list[Record]:
        prefix = f"{car.vehicle_id}/"
        return [r for key, r in self.ledger.items() if key.startswith(prefix) and r.value]

    def _commands_of(self, car: Car, twin: Any) -> Iterator[str]:
        entries = {entry.fields["id"]: entry.fields for entry in self._entries(car)}
        unfinished = {name for name, entry in entries.items() if entry["state"] not in FINAL}
        if set(twin["commands"]["open"]) != unfinished:
            yield f"open are {twin['commands']['open']}, in the ledger {unfinished}"
        sent = {
            record.fields["ref"] for record in car.downlinks if record.fields["kind"] == "command"
        }
        for command_id, entry in entries.items():
            states = [step["state"] for step in entry["history"]]
            if states != LIVES[car.kind]:
                yield f"{command_id} went {states}"
            if car.kind in ("cmd", "sent") and command_id not in sent:
                yield f"{command_id} was not handed to the downlink"

    def _entry(self, key: str) -> Iterator[str]:
        record, shown = self.ledger[key], self.commands[key]
        entry = None if record.value is None else record.fields
        if _plain(entry) != _plain(shown):
            yield f"Redis has {shown}, the log {entry}"


def fold(records: Iterable[Record], life: int) -> tuple[Signals, int]:
    """Law 1 over records in the order of their offsets: `reported`, and how many said anything new."""
    values: Signals = {}
    changed = 0
    for record in records:
        assert record.value is not None
        said = codec.decode_telemetry(record.value)
        if said.session != life:
            continue
        newer = False
        for name, value in said.signals.items():
            last = values.get(name)
            order = (said.event_time, said.session, said.sequence)
            # Records of one order are the same to the last byte here.
            if last is None or order > (last["t"], last["n"], last["s"]):
                entry = {"v": value, "t": order[0], "n": order[1], "s": order[2]}
                values[name] = {**entry, "o": record.offset}
                newer = True
        changed += newer
    return values, changed


def read(bootstrap: str, names: Iterable[str]) -> list[Record]:
    """All records of topics from the oldest to the end as it is now, in order per partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "accounts",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    found = []
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
                key = (message.key() or b"").decode()
                found.append(Record(*place, message.offset(), key, message.value()))
    finally:
        consumer.close()
    return found


class Progress:
    """How far the worker's group is in its inputs."""

    def __init__(self, bootstrap: str) -> None:
        self._admin = AdminClient({"bootstrap.servers": bootstrap})

    def left(self) -> dict[tuple[str, int], int]:
        """Records of each input partition that are not committed; empty when all are."""
        ends = self.ends(INPUTS)
        group = ConsumerGroupTopicPartitions(GROUP, [TopicPartition(*place) for place in ends])
        (done,) = self._admin.list_consumer_group_offsets([group]).values()
        committed = {
            (place.topic, place.partition): max(place.offset, 0)
            for place in done.result(SILENCE_S).topic_partitions
        }
        return {p: end - committed[p] for p, end in ends.items() if end > committed[p]}

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


def _contents(topic: str, records: Iterable[Record]) -> Iterator[str]:
    """Under one id there is one content, however often it was told."""
    said: dict[str, bytes | None] = {}
    for record in records:
        ident = record.fields["id"]
        if said.setdefault(ident, record.value) != record.value:
            yield f"{topic} {ident} says {record.value!r} and {said[ident]!r}"


def _why(change: Record) -> tuple[str, int, int]:
    why = change.fields["why"]
    return why["topic"], why["partition"], why["offset"]


def _plain(document: Any) -> Any:
    """Without the epoch: a document is written again under a newer one, and shown as it was."""
    return None if document is None else {k: v for k, v in document.items() if k != "epoch"}


def _brief(document: Any) -> str:
    if document is None:
        return "nothing"
    return f"revision {document['revision']} of epoch {document['epoch']}: {document}"
