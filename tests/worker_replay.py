"""The pure fold of a log against all that workers made of it, for cars of which anything was sent.

    inputs of a car, in order per topic -> some order of the topics -> fold -> each record of `twins` in
            turn, with its outbox -> ledger, changes, downlinks, replies, rejected, Redis

Kafka keeps no order between topics: in which they were read is the worker's choice, but it is one choice,
which must explain everything. So between a record of `twins` and the next the orders are searched for one
that ends in this document, to the last field, and tells what is in its outbox. Nothing is found when a
record was lost, applied twice, forgotten after a kill, or decided on a state that was not the last one.

The fold is the pure core's (`twin.apply`), whose laws tests/property has; of telemetry it is made once
more by its definition.
"""

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from tests.twin_builders import MemoryLedger
from tests.worker_records import Car, Fold, Log, Record, brief, plain
from twin import document, inputs
from twin.apply import Context, apply, deadlines_of, deadlines_of_commands
from twin.effects import Effects
from twin.wire import codec, rejected, topics
from twin.wire.records import Command, Position, Twin

SOON_MS = 10_000
"""A deadline that is due within this time is waited for."""
MOST_STATES = 50_000
"""Looked at between two documents; a few are enough when there is an order."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output of a record, as an outbox has it; without the epoch of who wrote it."""

    kind: str
    key: str
    revision: int
    value: Any


@dataclass(frozen=True, slots=True)
class State:
    """A car after some of its records."""

    twin: bytes | None
    entries: Mapping[str, Command]
    grave: Mapping[str, list[int]]
    """What the last twin had applied when it was deleted."""
    inherited: frozenset[str]
    """Topics of `applied` that this twin has from a grave."""
    taken: tuple[int, ...]
    """How many records of each topic were read."""
    causes: int = 0
    """How many records told something, since the last document."""


@dataclass(frozen=True, slots=True)
class Next:
    """A record that may be applied next, by the numbers of its topic and in it."""

    topic: int
    position: int
    record: Record


@dataclass(frozen=True, slots=True)
class Target:
    """A record of `twins`: its document, and its outbox as (topic, offset, outputs) of each cause."""

    document: Any
    applied: Mapping[str, list[int]]
    outbox: list[tuple[str, int, list[Output]]]


class Replay(Log):
    """The accounts of any load, for a worker with the settings of `context`."""

    def __init__(self, bootstrap: str, redis_url: str, prefix: str, context: Context) -> None:
        super().__init__(bootstrap, redis_url, prefix)
        self._context = context

    def faults(self) -> list[str]:
        """All that is wrong, a line each."""
        found = [f"{car}: {fault}" for car in self.cars for fault in self._of(self.cars[car])]
        return found + self.shown_otherwise()

    def _of(self, car: Car) -> Iterator[str]:
        history = History(car, self._context)
        yield from history.faults()
        yield from _outputs(car, history.told)
        yield from _rejections(car, history.told)
        yield from self._replies_of(car, history.told)
        yield from self._ledger_of(car, history)
        yield from self._telemetry_of(car)
        newest = self.twins.get(car.vehicle_id)
        twin = None if newest is None or newest.value is None else newest.fields
        if plain(twin) != history.document():
            yield f"the newest record is {brief(twin)}, the fold {history.document()}"

    def _replies_of(self, car: Car, told: Iterable[Output]) -> Iterator[str]:
        expected: dict[str, Any] = {}
        for output in told:
            if output.kind == "replies" and (
                output.value["status"] < 400 or output.key not in expected
            ):
                expected[output.key] = output.value
        for request_id in car.asked():
            reply = self.replies.get(request_id)
            if reply is None or _reply(reply) != expected.get(request_id):
                yield f"{request_id} is answered {reply}, by the fold {expected.get(request_id)}"

    def _ledger_of(self, car: Car, history: "History") -> Iterator[str]:
        there = {
            key.partition("/")[2]: plain(record.fields)
            for key, record in self.ledger.items()
            if key.startswith(f"{car.vehicle_id}/") and record.value is not None
        }
        expected = {ident: plain(entry) for ident, entry in history.state.entries.items()}
        for ident in there.keys() | expected.keys():
            if there.get(ident) != expected.get(ident):
                yield f"the ledger has {there.get(ident)}, the fold {expected.get(ident)}"

    def _telemetry_of(self, car: Car) -> Iterator[str]:
        """Law 1 without the pure core; of a car that had one twin only."""
        if not car.twins or any(change.fields["kind"] == "deleted" for change in car.changes):
            return
        fold, twin = Fold(), car.twins[-1].fields
        for record in car.inputs[topics.TELEMETRY]:
            fold.add(codec.decode_telemetry(record.value), record.offset)
        if (twin["reported"], twin.get("counts")) != (fold.reported, fold.counts):
            yield f"{twin['reported']} {twin.get('counts')}, law 1: {fold.reported} {fold.counts}"


class History:
    """One car: its records, folded along what was written of it."""

    def __init__(self, car: Car, context: Context) -> None:
        self._car = car
        self._context = context
        self._topics = sorted(car.inputs)
        self.state = State(None, {}, {}, frozenset(), (0,) * len(self._topics))
        self.told: list[Output] = []

    def faults(self) -> Iterator[str]:
        """What no order of the topics explains; `told` and `state` are those of the last that it does."""
        for record in self._car.twins:
            target = _target(record)
            found, lacks = self._search(target)
            if found is None:
                yield f"no order gives {record.place} {brief(target.document)}: {lacks}"
                return
            self.told += [output for _, _, outputs in target.outbox for output in outputs]
            self.state = self._as_written(found, target)
        for record in self._left():
            yield f"{record.place} was never applied: {record}"
        yield from self._waiting()

    def document(self) -> Any:
        """The last one, without the epoch."""
        return None if self.state.twin is None else plain(orjson.loads(self.state.twin))

    def _search(self, target: Target) -> tuple[State | None, list[str]]:
        """The car as `target` says; else how far the search came, and what it lacks there."""
        ends = [target.applied.get(topic, (0, -1))[1] for topic in self._topics]
        stack, seen, furthest, lacks = [self.state], set(), -1, [""]
        while stack and len(seen) < MOST_STATES:
            state = stack.pop()
            # What is in the ledger follows from what was told.
            mark = (state.taken, state.causes, state.twin, state.inherited, str(state.grave))
            if mark in seen:
                continue
            seen.add(mark)
            if state.causes == len(target.outbox):
                lacks = self._differences(state, target)
                if not lacks:
                    return state, []
            elif state.causes > furthest:
                furthest, lacks = state.causes, [f"next is told {target.outbox[state.causes]}"]
            steps = [step for step in self._next(state) if step.record.offset <= ends[step.topic]]
            # What arrived first is tried first: it is on top then.
            for step in sorted(steps, key=lambda step: step.record.arrived, reverse=True):
                stack += self._take(state, step, target)
        return None, [f"{len(seen)} states", *lacks]

    def _next(self, state: State) -> Iterator[Next]:
        """What may be applied next: of each topic a record, and all behind those that may be passed."""
        applied = self._applied(state)
        for index, topic in enumerate(self._topics):
            records = self._car.inputs[topic]
            for position in range(state.taken[index], len(records)):
                yield Next(index, position, records[position])
                if topic in applied or not self._says_nothing(records[position]):
                    break

    def _applied(self, state: State) -> Collection[str]:
        """Topics of which this twin has applied a record."""
        if state.twin is None:
            return ()
        return orjson.loads(state.twin)["applied"].keys() - state.inherited

    def _says_nothing(self, record: Record) -> bool:
        """Whether nothing comes of it, and nothing is kept of it, when there is no twin."""
        if record.topic == topics.REQUESTS:
            return bool(record.fields["kind"] == "deadline")
        return record.topic in (topics.DELIVERIES, topics.SCORES)

    def _take(self, state: State, step: Next, target: Target) -> Iterator[State]:
        record = step.record
        taken = tuple(
            step.position + 1 if index == step.topic else n for index, n in enumerate(state.taken)
        )
        read = inputs.read(record.topic, record.key.encode(), record.value)
        twin = None if state.twin is None else document.load(state.twin)
        ledger = MemoryLedger()
        ledger.entries = dict(state.entries)
        place = Position(topic=record.topic, partition=record.partition, offset=record.offset)
        after, effects = apply(twin, ledger, read, place, record.arrived, self._context)
        assert not effects.repeated
        about = after or twin
        revision = 0 if about is None else about["revision"]
        for command in effects.ledger:
            command["revision"] = revision
        outputs = _outputs_of(record, effects, revision)
        causes = state.causes + bool(outputs)
        if outputs:
            cause = (record.topic, record.offset, outputs)
            if causes > len(target.outbox) or target.outbox[state.causes] != cause:
                return
        if twin is None and after is None and not effects.replies and effects.rejected is None:
            return
        ledger.take(effects)
        yield self._after(state, twin, after, place, ledger.entries, taken, causes)

    def _after(
        self, state: State, twin: Twin | None, after: Twin | None, place: Position,
        entries: Mapping[str, Command], taken: tuple[int, ...], causes: int,
    ) -> State:  # fmt: skip
        topic, here = place["topic"], [place["partition"], place["offset"]]
        grave, inherited = state.grave, state.inherited - {topic}
        if after is None:
            grave = {**grave, topic: here} if twin is None else dict(twin["applied"])
            return State(None, entries, grave, frozenset(), taken, causes)
        if twin is None:
            inherited = frozenset(grave.keys() - after["applied"].keys())
            after["applied"] = {**grave, **after["applied"]}
        return State(document.dump(after), entries, {}, inherited, taken, causes)

    def _differences(self, state: State, target: Target) -> list[str]:
        applied = target.applied
        if target.document is None or state.twin is None:
            if (target.document is None) != (state.twin is None):
                return ["there is a twin, or there is none"]
            other = {topic: at for topic, at in applied.items() if state.grave.get(topic) != at}
            return [f"applied at deletion: {other}"] if other else []
        ours = plain(orjson.loads(state.twin))
        known = ours.pop("applied")
        found = [topic for topic, at in applied.items() if known.get(topic) != at]
        # A grave is forgotten when no record before it can come again.
        found += [topic for topic in known if topic not in applied and topic not in state.inherited]
        theirs = {name: part for name, part in target.document.items() if name != "applied"}
        names = sorted(ours.keys() | theirs.keys())
        return found + [
            f"{name}: {theirs.get(name)}, folded {ours.get(name)}"
            for name in names
            if ours.get(name) != theirs.get(name)
        ]

    def _as_written(self, state: State, target: Target) -> State:
        """The next document begins with this one, which may have forgotten a grave."""
        if target.document is None or state.twin is None:
            return replace(state, causes=0)
        twin = document.load(state.twin)
        twin["applied"] = dict(target.applied)
        inherited = frozenset(state.inherited & target.applied.keys())
        return replace(state, twin=document.dump(twin), inherited=inherited, causes=0)

    def _left(self) -> list[Record]:
        """Records that must be in a document and are in none."""
        applied = self._applied(self.state)
        return [
            record
            for index, topic in enumerate(self._topics)
            for record in self._car.inputs[topic][self.state.taken[index] :]
            if topic in applied or not self._says_nothing(record)
        ]

    def _waiting(self) -> Iterator[str]:
        """Deadlines that come soon: until they have, not all is decided (law 6)."""
        if self.state.twin is None:
            return
        twin = document.load(self.state.twin)
        commands = deadlines_of_commands(self.state.entries.values(), self._context)
        soon = time.time() * 1000 + SOON_MS
        for deadline in [*deadlines_of(twin, self._context), *commands]:
            if deadline.due < soon:
                yield f"waits for {deadline}"


def _target(record: Record) -> Target:
    outbox = [
        (*cause["at"], _sorted(_output(*output) for output in cause["out"]))
        for cause in orjson.loads(record.headers.get("outbox", b"[]"))
    ]
    if record.value is None:
        return Target(None, orjson.loads(record.headers["applied"]), outbox)
    fields = plain(record.fields)
    return Target(fields, fields["applied"], outbox)


def _outputs_of(record: Record, effects: Effects, revision: int) -> list[Output]:
    """What one record brings about, as in an outbox."""
    vehicle_id = record.key
    found = [("ledger", f"{vehicle_id}/{entry['id']}", entry) for entry in effects.ledger]
    found += [("ledger", f"{vehicle_id}/{ident}", None) for ident in effects.removed]
    found += [("changes", vehicle_id, change) for change in effects.changes]
    found += [("downlink", vehicle_id, downlink) for downlink in effects.downlinks]
    found += [("replies", reply["request_id"], reply) for reply in effects.replies]
    made = [
        _output(kind, key, revision, orjson.loads(orjson.dumps(value)))
        for kind, key, value in found
    ]
    if effects.rejected is not None:
        key, value, headers = rejected.record(
            error=effects.rejected,
            source=record.source,
            at_ms=record.arrived,
            key=vehicle_id.encode(),
            value=record.value,
            headers=record.headers.items(),
        )
        made.append(Output("rejected", vehicle_id, revision, (key, value, dict(headers))))
    return _sorted(made)


def _output(kind: str, key: str, revision: int, value: Any) -> Output:
    if kind == "ledger":
        value = plain(value)
    elif kind == "replies":
        value = _reply(value)
    elif kind == "rejected":
        name, original, headers = rejected.load(orjson.dumps(value))
        value = name, original, dict(headers)
    return Output(kind, key, revision, value)


def _reply(reply: Any) -> Any:
    """Its body may be an entry of the ledger."""
    return {**reply, "body": plain(reply["body"])}


def _sorted(outputs: Iterable[Output]) -> list[Output]:
    """Entries that go with a twin go in no order."""
    found = list(outputs)
    gone = sorted((output for output in found if output.value is None), key=lambda o: o.key)
    return [output for output in found if output.value is not None] + gone


def _outputs(car: Car, told: Iterable[Output]) -> Iterator[str]:
    """On `changes` and `downlink` is what was decided, and nothing else."""
    expected: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for output in told:
        if output.kind in ("changes", "downlink"):
            expected[output.kind][output.value["id"]] = output.value
    for topic, records in (("changes", car.changes), ("downlink", car.downlinks)):
        there: dict[str, Any] = {}
        for record in records:
            said = there.setdefault(record.fields["id"], record.fields)
            if said != record.fields:
                yield f"{topic} says under one id {said} and {record.fields}"
        for ident in there.keys() | expected[topic].keys():
            if there.get(ident) != expected[topic].get(ident):
                yield f"{topic} has {there.get(ident)}, decided was {expected[topic].get(ident)}"


def _rejections(car: Car, told: Iterable[Output]) -> Iterator[str]:
    """On `rejected` is what was decided, whole, and nothing else."""
    expected = {o.value[2]["source"]: o.value for o in told if o.kind == "rejected"}
    there = set()
    for record in car.rejected:
        source = record.headers["source"]
        there.add(source)
        if (record.key, record.value, dict(record.headers)) != expected.get(source):
            yield f"rejected: {record}, by the fold {expected.get(source)}"
    for source in expected.keys() - there:
        yield f"rejected has nothing of {source!r}, by the fold {expected[source]}"
