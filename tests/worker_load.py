"""Load for a twin worker that is killed: every record of it has exactly one right consequence.

Cars are named by their kind, which says what is sent about them and what must have come of it in the
end (`tests/worker_accounts.py`). What depends on an earlier record waits until that one was decided,
since Kafka keeps no order between topics; so the outcome of all does not depend on who applies it when.

| kind | what happens to it |
|---|---|
| plain | telemetry, some of it twice and some late; births of new sessions; desired; attributes |
| match | pairs of conditional patches of the same version: one is accepted |
| cmd | online; commands, each asked for twice under one key, carried out by the car |
| sent | online; commands that the broker took, and of which the car says nothing |
| due | commands of a car that was never there, which expire |
| gone | telemetry, a command, then deleted for good |
| again | telemetry, deleted, telemetry of a new session |
| made | made by its attributes, then telemetry |
| ghost | a command for a car that does not exist |
| late | the same, and then its telemetry |
| stray | telemetry, and outcomes of commands that nobody knows |
| alien | such outcomes of a car that does not exist |
"""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import redis

from twin.kit import kafka
from twin.wire import codec, ids, keys, topics
from twin.wire.telemetry import Telemetry

T0 = 1_790_000_000_000
ROUND_S = 0.05
Story = Iterator[None]


class Load:
    """Produces from `start` to `stop`; vehicle ids are `{prefix}-{kind}-{number}`."""

    def __init__(self, bootstrap: str, redis_url: str, prefix: str, plain: int = 6) -> None:
        self.prefix = prefix
        self.records = 0
        self._producer = kafka.producer(bootstrap, "load", **{"linger.ms": 0})
        self._redis = redis.from_url(redis_url)
        self._numbers = itertools.count()
        self._plain = plain
        self._enough = threading.Event()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load")

    def start(self) -> "Load":
        """Begin."""
        self._thread.start()
        return self

    def stop(self, seconds: float = 90) -> None:
        """Begin nothing new and wait until what was begun has ended; somebody must be deciding."""
        self._enough.set()
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the load waits for decisions that do not come"
        self._redis.close()
        self.check()

    def check(self) -> bool:
        """True while all is well; raises what went wrong."""
        if self._fault is not None:
            raise self._fault
        return True

    def __enter__(self) -> "Load":
        return self.start()

    def __exit__(self, failed: object, *_: object) -> None:
        if failed is None:
            self.stop()
            return
        self._fault = RuntimeError("the test failed")
        self._enough.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            stories = self._long_stories()
            for number in itertools.count():
                if not self._enough.is_set() and number % 15 == 3:
                    stories += self._short_stories()
                stories = [story for story in stories if next(story, story) is None]
                self.flush()
                if (self._enough.is_set() and not stories) or self._fault is not None:
                    return
                time.sleep(ROUND_S)
        except BaseException as error:
            self._fault = error

    def _long_stories(self) -> list[Story]:
        stories = [self._telling(self._car("plain")) for _ in range(self._plain)]
        stories.append(self._matching(self._car("match")))
        stories += [self._obeying(self._car("cmd")) for _ in range(3)]
        stories += [self._silent(self._car("sent")) for _ in range(2)]
        stories.append(self._absent(self._car("due")))
        stories.append(self._straying(self._car("stray")))
        return stories

    def _short_stories(self) -> list[Story]:
        return [
            self._going(self._car("gone")),
            self._coming_again(self._car("again")),
            self._made(self._car("made")),
            self._ghost(self._car("ghost")),
            self._late(self._car("late")),
            self._alien(self._car("alien")),
        ]

    def _car(self, kind: str) -> str:
        return f"{self.prefix}-{kind}-{next(self._numbers)}"

    # --- what happens to a car; each `yield` is the end of a round ----------------------------------

    def _telling(self, car: str) -> Story:
        self.telemetry(car, 0)
        yield from self._revision(car, 1)
        for number in itertools.count(1):
            self.telemetry(car, number)
            if number % 4 == 0:
                self.telemetry(car, number)
            if number % 5 == 0:
                self.telemetry(car, number - 4)
            if number % 8 == 1:
                self.online(car, number)
            if number % 3 == 1:
                value = {"telemetry_interval_s": number, f"p{number % 7}": number}
                self.ask(car, "desired", {"op": "patch", "value": value})
            if number % 6 == 1:
                self.ask(car, "attributes", {"value": {"fleet": "berlin", "n": str(number)}})
            yield
            if self._enough.is_set():
                # The last that is heard of it is late, or a duplicate.
                self.telemetry(car, number - int(car.rpartition("-")[2]) % 2)
                return

    def _matching(self, car: str) -> Story:
        self.telemetry(car, 1)
        yield from self._revision(car, 1)
        for version in itertools.count():
            both = [
                self.ask(
                    car, "desired", {"op": "patch", "value": {name: version}}, if_match=version
                )
                for name in ("a", "b")
            ]
            for request in both:
                yield from self._reply(request)
            if self._enough.is_set():
                return

    def _obeying(self, car: str) -> Story:
        yield from self._begin_online(car)
        for number in range(45):
            command = self._command(car, number)
            more = {"idempotency_key": f"k{number}", "body_hash": f"h{number}"}
            request = self.ask(car, "command", command, **more)
            yield
            self.ask(car, "command", command, request_id=request, **more)
            reply = yield from self._reply(request)
            assert reply["status"] == 201, reply
            for state in ("received", "accepted", "running", "succeeded"):
                self.outcome(car, command["id"], state)
            yield from self._state(command["id"], "succeeded")
            if self._enough.is_set():
                return

    def _silent(self, car: str) -> Story:
        yield from self._begin_online(car)
        for number in range(45):
            command = self._command(car, number)
            reply = yield from self._reply(self.ask(car, "command", command))
            assert reply["status"] == 201, reply
            delivery = {
                "id": "d", "kind": "command", "ref": command["id"], "session": 1, "state": "sent"
            }  # fmt: skip
            self.send(topics.DELIVERIES, car, {**delivery, "at": T0})
            yield from self._state(command["id"], "sent")
            if self._enough.is_set():
                return

    def _absent(self, car: str) -> Story:
        self.telemetry(car, 1)
        yield from self._revision(car, 1)
        for number in range(40):
            command = self._command(car, number, ttl_s=1)
            reply = yield from self._reply(self.ask(car, "command", command))
            assert reply["status"] == 201, reply
            yield from self._state(command["id"], "expired")
            if self._enough.is_set():
                return

    def _going(self, car: str) -> Story:
        for sequence in range(1, 4):
            self.telemetry(car, sequence)
        yield from self._revision(car, 3)
        reply = yield from self._reply(self.ask(car, "command", self._command(car, 0)))
        assert reply["status"] == 201, reply
        reply = yield from self._reply(self.ask(car, "delete", {}))
        assert reply["status"] == 204, reply

    def _coming_again(self, car: str) -> Story:
        for sequence in range(1, 4):
            self.telemetry(car, sequence)
        yield from self._revision(car, 3)
        reply = yield from self._reply(self.ask(car, "delete", {}))
        assert reply["status"] == 204, reply
        for sequence in range(1, 3):
            self.telemetry(car, sequence, session=2)
        yield

    def _made(self, car: str) -> Story:
        reply = yield from self._reply(self.ask(car, "attributes", {"value": {"fleet": "x"}}))
        assert reply["status"] == 201, reply
        self.telemetry(car, 1)
        self.telemetry(car, 2)
        yield

    def _ghost(self, car: str) -> Story:
        reply = yield from self._reply(self.ask(car, "command", self._command(car, 0)))
        assert reply["status"] == 404, reply

    def _late(self, car: str) -> Story:
        yield from self._ghost(car)
        self.telemetry(car, 1)
        self.telemetry(car, 2)
        yield

    def _straying(self, car: str) -> Story:
        self.telemetry(car, 0)
        yield from self._revision(car, 1)
        for number in itertools.count(1):
            if number % 3 == 1:
                self.strange(car, number)
            if number % 4 == 1:
                self.telemetry(car, number)
            yield
            if self._enough.is_set():
                return

    def _alien(self, car: str) -> Story:
        self.strange(car, 1)
        yield
        # The same once more is another record.
        for number in (1, 2):
            self.strange(car, number)
        yield

    def _begin_online(self, car: str) -> Story:
        self.telemetry(car, 1)
        yield from self._revision(car, 1)
        self.online(car, 1)
        yield from self._revision(car, 2)

    # --- records ------------------------------------------------------------------------------------

    def telemetry(self, car: str, number: int, session: int = 1) -> None:
        """The record of this number; asked for again it is the same to the last byte."""
        signals = {"speed": number % 50 + 0.25, "coolant_temp": 60.0 + number % 40}
        if number % 2:
            signals["throttle_pos"] = number % 10 / 10
        record = Telemetry(car, T0 + 100 * number, session, number, signals)
        self._produce(topics.TELEMETRY, car, codec.encode_telemetry(record))

    def flush(self) -> None:
        """Kafka has all that was sent."""
        assert self._producer.flush(30) == 0

    def online(self, car: str, session: int) -> None:
        """A birth."""
        birth = {"state": "online", "session": session, "at": T0, "shard": 0}
        self.send(topics.PRESENCE, car, birth)

    def outcome(self, car: str, command_id: str, state: str) -> None:
        """The car's word."""
        self.send(topics.OUTCOMES, car, {"command_id": command_id, "state": state, "at": T0})

    def strange(self, car: str, number: int) -> None:
        """The car's word on a command that nobody knows."""
        ident = ids.command_id(car, T0, f"stranger {number}")
        said = {"vehicle_id": car, "command_id": ident, "state": "received", "at": T0}
        headers = [("ingested-at", str(T0 + number).encode()), ("traceparent", b"00-a-b-01")]
        self._produce(topics.OUTCOMES, car, orjson.dumps(said), headers)

    def ask(
        self, car: str, kind: str, body: Any, request_id: str | None = None, **more: Any
    ) -> str:
        """A request; its id."""
        request_id = request_id or f"{car}/{kind}/{next(self._numbers)}"
        fields = {"request_id": request_id, "kind": kind, "at": T0, "by": "test", "body": body}
        self.send(topics.REQUESTS, car, {**fields, **more})
        return request_id

    def send(self, topic: str, car: str, fields: dict[str, Any]) -> None:
        """A JSON record about a car."""
        self._produce(topic, car, orjson.dumps({"vehicle_id": car, **fields}))

    def _produce(self, topic: str, car: str, value: bytes, headers: Any = ()) -> None:
        self._producer.produce(topic, value, car, headers=list(headers))
        self.records += 1

    def _command(self, car: str, number: int, ttl_s: int = 3600) -> dict[str, Any]:
        ident = ids.command_id(car, time.time_ns() // 1_000_000, str(number))
        return {"id": ident, "name": "ping", "args": {}, "ttl_s": ttl_s, "lane": "default"}

    # --- waiting, round by round ----------------------------------------------------------------------

    def _until(self, condition: Callable[[], Any]) -> Iterator[Any]:
        while not (found := condition()):
            yield
        return found

    def _reply(self, request_id: str) -> Iterator[Any]:
        reply = yield from self._until(lambda: self._redis.get(keys.reply(request_id)))
        return orjson.loads(reply)

    def _revision(self, car: str, least: int) -> Iterator[Any]:
        def reached() -> bool:
            value = self._redis.get(keys.twin(car))
            return value is not None and keys.head_of(value).revision >= least

        yield from self._until(reached)

    def _state(self, command_id: str, state: str) -> Iterator[Any]:
        def reached() -> bool:
            entry = self._redis.get(keys.command(command_id))
            return entry is not None and orjson.loads(entry)["state"] == state

        yield from self._until(reached)
