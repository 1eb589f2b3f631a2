"""One car's world for tests of the pure core: records through `inputs.read` into `apply`.

`World` plays the shell: it keeps the twin and the ledger, numbers the records per topic, and feeds
every record as bytes, so the door and the decision are tested together.
"""

import copy
from collections import Counter
from typing import Any

import orjson

from twin import inputs
from twin.apply import Context, apply, deadlines_of, deadlines_of_commands
from twin.effects import Deadline, Effects
from twin.wire import codec, topics
from twin.wire.ids import command_id
from twin.wire.records import Command, Position, Twin
from twin.wire.telemetry import Sample, Telemetry

CAR = "car-1"
T0 = 1_790_000_000_000
"""When a world begins (ms)."""


class MemoryLedger:
    """The shell's table of commands, in memory; entries are copied, so sharing would show."""

    def __init__(self) -> None:
        self.entries: dict[str, Command] = {}

    def get(self, command_id: str) -> Command | None:
        return copy.deepcopy(self.entries.get(command_id))

    def by_key(self, vehicle_id: str, idempotency_key: str) -> Command | None:
        for entry in self.entries.values():
            if (entry["vehicle_id"], entry.get("idempotency_key")) == (vehicle_id, idempotency_key):
                return copy.deepcopy(entry)
        return None

    def of(self, vehicle_id: str) -> list[Command]:
        return [entry for entry in self.entries.values() if entry["vehicle_id"] == vehicle_id]

    def count(self, vehicle_id: str) -> int:
        return len(self.of(vehicle_id))

    def recent(self, rule: str, fleet: str, since: int) -> int:
        return sum(
            (entry["by"], entry.get("fleet")) == (f"rule:{rule}", fleet)
            and entry["issued_at"] > since
            for entry in self.entries.values()
        )

    def take(self, effects: Effects) -> None:
        for command in effects.ledger:
            self.entries[command["id"]] = copy.deepcopy(command)
        for removed in effects.removed:
            del self.entries[removed]


class World:
    """One car and its twin; `now` (ms) is when the next record arrives."""

    def __init__(self, context: Context | None = None) -> None:
        self.context = context or Context()
        self.ledger = MemoryLedger()
        self.state: Twin | None = None
        self.now = T0
        self.offsets: Counter[str] = Counter()
        self.log: list[tuple[str, bytes, Position, int]] = []
        self.requests = 0

    @property
    def twin(self) -> Twin:
        assert self.state is not None
        return self.state

    @property
    def deadlines(self) -> list[Deadline]:
        """All of the twin and its ledger, in order."""
        of_commands = deadlines_of_commands(self.ledger.of(CAR), self.context)
        return sorted(
            [*deadlines_of(self.twin, self.context), *of_commands],
            key=lambda deadline: (deadline.due, deadline.of, deadline.ref),
        )

    def feed(self, topic: str, value: bytes, position: Position, at: int) -> Effects:
        """Apply one record at its place in the log."""
        record = inputs.read(topic, CAR.encode(), value)
        self.state, effects = apply(self.state, self.ledger, record, position, at, self.context)
        self.ledger.take(effects)
        return effects

    def put(self, topic: str, fields: dict[str, Any] | Telemetry) -> Effects:
        """Append a record to its topic and apply it."""
        if isinstance(fields, Telemetry):
            value = codec.encode_telemetry(fields)
        else:
            value = orjson.dumps({"vehicle_id": CAR, **fields})
        position = Position(topic=topic, partition=3, offset=self.offsets[topic])
        self.offsets[topic] += 1
        self.log.append((topic, value, position, self.now))
        return self.feed(topic, value, position, self.now)

    # --- what the car, the broker, the scorer and people say --------------------------------------

    def telemetry(self, session: int = 0, **signals: float) -> Effects:
        return self.put(topics.TELEMETRY, telemetry(self.now, session, **signals))

    def online(self, session: int = 1, **more: Any) -> Effects:
        return self.put(topics.PRESENCE, status("online", session, at=self.now, **more))

    def offline(self, session: int = 1, **more: Any) -> Effects:
        return self.put(topics.PRESENCE, status("offline", session, at=self.now, **more))

    def reported(self, session: int, sequence: int, properties: Any, **more: Any) -> Effects:
        record = {"event_time": self.now, "session": session, "sequence": sequence}
        return self.put(topics.REPORTED, {**record, "properties": properties, **more})

    def outcome(self, command: str, state: str, **more: Any) -> Effects:
        record = {"command_id": command, "state": state, "at": self.now}
        return self.put(topics.OUTCOMES, {**record, **more})

    def delivery(self, ref: str, state: str = "sent", session: int = 1, **more: Any) -> Effects:
        record = {"id": "d", "kind": "command", "ref": ref, "session": session, "state": state}
        return self.put(topics.DELIVERIES, {**record, "at": self.now, **more})

    def score(self, state: str, number: int, **more: Any) -> Effects:
        return self.put(topics.SCORES, {**score(state, number, self.now), **more})

    def request(self, kind: str, body: dict[str, Any], **more: Any) -> Effects:
        self.requests += 1
        record = {"request_id": f"r{self.requests}", "kind": kind, "at": self.now, "by": "ann"}
        return self.put(topics.REQUESTS, {**record, "body": body, **more})

    def desire(self, value: Any, op: str = "patch", **more: Any) -> Effects:
        return self.request("desired", {"op": op, "value": value}, **more)

    def order(self, name: str = "ping", **more: Any) -> tuple[str, Effects]:
        """Ask for a command; its id and what came of it."""
        ident = command_id(CAR, self.now, f"seed-{self.requests}")
        envelope = {
            field: more.pop(field) for field in ("idempotency_key", "body_hash") if field in more
        }
        effects = self.request("command", {"id": ident, "name": name, **more}, **envelope)
        return ident, effects

    def cancel(self, command: str, **more: Any) -> Effects:
        return self.request("cancel", {"command_id": command}, **more)

    def answer(self, verdict: str, rule: str, **more: Any) -> Effects:
        """Approve or refuse what a rule asks."""
        return self.request("approval", {"rule": rule, "verdict": verdict}, **more)

    def due(self, of: str, ref: str, due: int) -> Effects:
        """A deadline record, as the shell makes it when `due` has come."""
        self.now = max(self.now, due)
        return self.request("deadline", {"of": of, "ref": ref, "due": due})

    def state_of(self, command: str) -> str:
        return self.ledger.entries[command]["state"]


def telemetry(
    event_time: int, session: int = 0, sequence: int = 1, suspect=(), **signals: float
) -> Telemetry:
    return Telemetry(
        CAR, event_time, session, sequence, signals or {"speed": 1.0}, False, tuple(suspect)
    )


def sample(record: Telemetry) -> Sample:
    """The record as the twin reads it from Kafka."""
    return codec.decode_sample(codec.encode_telemetry(record), record.vehicle_id)


def status(state: str, session: int, at: int = T0, shard: int = 0, **more: Any) -> dict[str, Any]:
    return {"state": state, "session": session, "at": at, "shard": shard, **more}


def score(state: str, number: int, event_time: int = T0) -> dict[str, Any]:
    """A score of telemetry record `number`."""
    return {
        "id": f"{CAR}:3-{number}:v1",
        "event_time": event_time,
        "session": 1,
        "sequence": number,
        "partition": 3,
        "offset": number,
        "scored_at": event_time,
        "state": state,
        "models": {
            "autoencoder": {
                "version": "v1",
                "score": 4.2,
                "threshold": 3.0,
                "signals": [{"signal": "coolant_temp", "share": 0.61}],
            },
            "lstm": {
                "version": "v1",
                "failure_probability": 0.2,
                "threshold": 0.5,
                "horizon_s": 86400,
            },
        },
        "why": "state",
    }


def reply(effects: Effects) -> dict[str, Any]:
    """The one reply of a request."""
    (answer,) = effects.replies
    return dict(answer)


def kinds(effects: Effects) -> list[str]:
    return [change["kind"] for change in effects.changes]
