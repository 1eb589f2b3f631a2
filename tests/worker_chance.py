"""Load of which anything may come, by chance: what a fleet, brokers, scorers and people may send.

Each car's records are made in an order that makes sense, wait on their way, and come in any order: late,
twice, of old sessions and of the future, outcomes before their commands, answers to nothing. A record
that comes again does so to the last byte. Nothing waits for a decision, so the same seed sends the same
about each car, and what must come of it is said by the log alone (`tests/worker_replay.py`).
"""

import random
import time
from collections import deque
from typing import Any

import orjson

from tests.worker_load import T0, Load, Story
from twin.apply import Context
from twin.policy import parse_policy
from twin.wire import codec, ids, topics
from twin.wire.telemetry import Telemetry

POLICY = """
[[rule]]
name = "limit-power-on-alarm"
health = "alarm"
command = "limit_power"
lane = "a"
ttl_s = 1
cool_down_s = 0
[[rule]]
name = "ask"
health = "warning"
command = "flash_lights"
ttl_s = 1
cool_down_s = 0
approval = true
approval_ttl_s = 1
"""
SETTINGS = {"STALE_AFTER_S": "1", "DEBOUNCE_S": "0.3", "OVERDUE_AFTER_S": "1"}
"""Of the worker: time takes part."""
SIGNALS = ("speed", "coolant_temp", "throttle_pos", "engine_vibration_amplitude")
STATES = ("received", "accepted", "running", "succeeded", "failed", "rejected")
MAKES_NO_TWIN = (topics.OUTCOMES, topics.DELIVERIES, topics.SCORES)

Sent = tuple[str, bytes]
"""Topic, value."""


def context(partitions: int) -> Context:
    """What a worker with `SETTINGS` and `POLICY` decides by."""
    return Context(
        policy=parse_policy(POLICY, "the policy"),
        stale_after_ms=1000,
        debounce_ms=300,
        overdue_after_ms=1000,
        partitions=partitions,
    )


class Chance(Load):
    """Produces from `start` to `stop`; vehicle ids are `{prefix}-any-{number}`."""

    def __init__(
        self, bootstrap: str, redis_url: str, prefix: str, seed: int, cars: int = 8
    ) -> None:
        super().__init__(bootstrap, redis_url, prefix)
        self._seed = seed
        self._cars = cars

    def _long_stories(self) -> list[Story]:
        return [self._living(f"{self.prefix}-any-{number}") for number in range(self._cars)]

    def _short_stories(self) -> list[Story]:
        return []

    def _living(self, car: str) -> Story:
        chance = random.Random(f"{self._seed} {car.rpartition('-')[2]}")
        speaker = Speaker(car, chance)
        waiting: list[Sent] = []
        sent: deque[Sent] = deque(maxlen=30)
        while not self._enough.is_set():
            for _ in range(chance.choice((0, 1, 1, 2))):
                waiting += speaker.speak()
            for _ in range(min(len(waiting), chance.choice((0, 1, 2, 3, 6)))):
                sent.append(waiting.pop(chance.randrange(len(waiting))))
                self._send(car, sent[-1], speaker)
            if sent and chance.random() < 0.08:
                self._send(car, chance.choice(sent), speaker)
            yield
        for one in waiting:
            self._send(car, one, speaker)

    def _send(self, car: str, one: Sent, speaker: "Speaker") -> None:
        topic, value = one
        self._produce(topic, car, value, speaker.arrival(topic))


class Speaker:
    """All that is said about one car, in an order that makes sense."""

    def __init__(self, car: str, chance: random.Random) -> None:
        self._car = car
        self._chance = chance
        self._number = 0
        self._session = 1
        self._said = 0
        self._arrived = time.time_ns() // 1_000_000
        self._commands = [ids.command_id(car, T0, "never asked")]

    def speak(self) -> list[Sent]:
        """What is said next."""
        chance = self._chance
        (what,) = chance.choices(
            (
                self._telemetry, self._presence, self._reported, self._desired, self._command,
                self._cancel, self._outcome, self._delivery, self._score, self._answer,
                self._attributes, self._delete,
            ),
            (40, 8, 5, 7, 10, 3, 4, 5, 6, 4, 3, 1),
        )  # fmt: skip
        return what()

    def arrival(self, topic: str) -> list[tuple[str, bytes]]:
        """Headers that say when a record arrived, by several bridges with clocks of their own.

        Often the millisecond of the one before: a twin may be deleted and made again within one.
        """
        if topic in MAKES_NO_TWIN and self._chance.random() < 0.5:
            return []
        if self._chance.random() < 0.7:
            self._arrived = time.time_ns() // 1_000_000 - self._chance.randrange(200)
        return [("ingested-at", str(self._arrived).encode())]

    def _record(self, topic: str, **fields: Any) -> Sent:
        return topic, orjson.dumps({"vehicle_id": self._car, **fields})

    def _request(self, kind: str, body: Any, **more: Any) -> Sent:
        self._said += 1
        fields = {"request_id": f"{self._car}/{kind}/{self._said}", "at": T0, "by": "ann", **more}
        if self._chance.random() < 0.3:
            key = str(self._chance.randrange(12))
            keyed = {"idempotency_key": key, "body_hash": str(self._chance.randrange(2))}
            fields |= {"request_id": f"{self._car}/key/{key}", **keyed}
        return self._record(topics.REQUESTS, kind=kind, body=body, **fields)

    def _one(self, *choices: Any) -> Any:
        return self._chance.choice(choices)

    def _telemetry(self) -> list[Sent]:
        """New ones mostly; a number that was told may come with other values."""
        chance = self._chance
        back = self._one(0, 0, 0, 0, 0, 1, 2, chance.randrange(9))
        self._number += not back
        number = max(1, self._number - back)
        ahead = 300_000 if chance.random() < 0.003 else chance.randrange(2000)
        record = Telemetry(
            self._car,
            T0 + 100 * number + (ahead if chance.random() < 0.05 else 0),
            max(0, self._session + self._one(-1, 0, 0, 0, 0, 0, 1)) * (chance.random() > 0.1),
            number,
            {
                name: chance.randrange(8) / 4
                for name in chance.sample(SIGNALS, self._one(4, 4, 4, chance.randint(1, 4)))
            },
            suspect=("speed",) if chance.random() < 0.03 else (),
        )
        return [(topics.TELEMETRY, codec.encode_telemetry(record))]

    def _presence(self) -> list[Sent]:
        """Births and ends of this session, the next, and old ones."""
        session = max(1, self._session + self._one(0, 0, 0, 1, 1, 1, -1, -2))
        self._session = max(self._session, session)
        more: dict[str, Any] = {}
        if self._chance.random() < 0.3:
            more["attributes"] = {"fleet": self._one("berlin", "bonn")}
        state = self._one("online", "online", "offline")
        status = {"state": state, "session": session, "at": T0, "shard": self._one(0, 1)}
        return [self._record(topics.PRESENCE, **status, **more)]

    def _reported(self) -> list[Sent]:
        self._said += 1
        fields = {
            "event_time": T0 + self._said,
            "session": max(1, self._session + self._one(0, 0, 0, -1)),
            "sequence": self._said - self._one(0, 0, 0, 9),
            "properties": self._properties(),
        }
        if self._one(True, False):
            fields["desired_version"] = self._chance.randrange(12)
        fields["sequence"] = max(0, fields["sequence"])
        return [self._record(topics.REPORTED, **fields)]

    def _properties(self) -> dict[str, Any]:
        names = self._chance.sample(("a", "b", "c"), self._one(1, 1, 2))
        return {name: self._one(None, 1, 2, 2, {"d": self._one(1, 2)}) for name in names}

    def _desired(self) -> list[Sent]:
        body = {"op": self._one("patch", "patch", "put"), "value": self._properties()}
        more = {} if self._chance.random() < 0.7 else {"if_match": self._chance.randrange(6)}
        return [self._request("desired", body, **more)]

    def _command(self) -> list[Sent]:
        """With what the car will say of it, and what the broker."""
        self._said += 1
        ident = ids.command_id(self._car, T0 + self._said, str(self._said))
        self._commands = [*self._commands[-5:], ident]
        body = {
            "id": ident, "name": self._one("ping", "wash"), "args": {},
            "ttl_s": self._one(1, 1, 3600), "lane": self._one("default", "a", "b"),
        }  # fmt: skip
        asked = [self._request("command", body)]
        asked += [self._said_of(ident, state) for state in STATES[: self._one(0, 2, 4, 4)]]
        return asked + (self._delivery() if self._one(True, False) else [])

    def _said_of(self, ident: str, state: str) -> Sent:
        more = {"progress": self._chance.random()} if state == "running" else {}
        return self._record(topics.OUTCOMES, command_id=ident, state=state, at=T0, **more)

    def _outcome(self) -> list[Sent]:
        return [self._said_of(self._one(*self._commands), self._one(*STATES))]

    def _delivery(self) -> list[Sent]:
        kind = self._one("command", "command", "command", "cancel", "desired")
        ref = str(self._chance.randrange(12)) if kind == "desired" else self._commands[-1]
        fields = {
            "id": "d",
            "kind": kind,
            "ref": ref,
            "state": self._one("sent", "sent", "refused"),
        }
        return [self._record(topics.DELIVERIES, session=self._session, at=T0, **fields)]

    def _cancel(self) -> list[Sent]:
        return [self._request("cancel", {"command_id": self._one(*self._commands)})]

    def _score(self) -> list[Sent]:
        self._said += 1
        model = {"version": "v1", "score": 4.2, "threshold": 3.0, "signals": []}
        fields = {
            "id": f"{self._car}:{self._said}:v1",
            "event_time": T0 + self._said - self._one(0, 0, 0, 9),
            "session": self._session,
            "sequence": self._said,
            "partition": 0,
            "offset": self._said,
            "scored_at": T0,
            "state": self._one("normal", "warning", "alarm", "insufficient_data"),
            "models": {"autoencoder": model},
            "why": "state",
        }
        return [self._record(topics.SCORES, **fields)]

    def _answer(self) -> list[Sent]:
        return [
            self._request("approval", {"rule": "ask", "verdict": self._one("approve", "refuse")})
        ]

    def _attributes(self) -> list[Sent]:
        value = {"fleet": self._one("berlin", "bonn"), "model": self._one("x", "y")}
        return [self._request("attributes", {"value": value})]

    def _delete(self) -> list[Sent]:
        again = self._one([], self._attributes(), self._presence())
        return [self._request("delete", {}), *again]
