"""What a batch decides about a twin fits into one record of `twins`, whatever was accepted.

A record that does not fit would end every owner of its partition. So cars here have all that they may
have: commands by the fifty with arguments, keys and histories as long as they get, documents at their
limit, originals as large as a message may be, in texts that JSON makes six times as long.
"""

import itertools
from types import SimpleNamespace

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worker_fakes import PARTITIONS, T0, Kafka, Redis, Worker, run
from twin.changelog import tombstone
from twin.wire import codec, ids, topics
from twin.wire.partition import partition_of
from twin.wire.telemetry import Telemetry

CAR = next(
    car
    for car in (f"{number:064}" for number in itertools.count())
    if partition_of(car.encode(), PARTITIONS) == 0
)
MOST_RECORD = codec.MAX_MESSAGE_BYTES
FRAME = 200
"""Bytes of a Kafka batch and of its one record beside key, value and headers, and some more."""
ARGS = 32 * 1024 - 10
BLOCKS = st.sampled_from(["x", "\x01", '"', "\u00e4", "\U0001f697"])
PADS = st.sampled_from([0, 0, 0, 50_000, MOST_RECORD])


class Car:
    """A car and its owner; `most` is the largest record of `twins` so far."""

    def __init__(self):
        self.worker = Worker(Kafka(), Redis())
        run(self.worker.restore)
        self.owned = self.worker.owner.parts[0]
        self.numbers = itertools.count()
        self.now = T0
        self.session = 0
        self.most = 0

    @property
    def opened(self):
        """Its commands that are not final."""
        packed = self.owned.twins.get(CAR)
        return [] if packed is None else orjson.loads(packed.dump(CAR))["commands"]["open"]

    def take(self, records):
        """Decide records, in as many batches as it takes, and look at what each would write."""
        position = 0
        while position < len(records):
            batch, position = self.worker.owner.decide(records, position)
            assert not batch.unfit, batch.unfit[0][1]
            for car, outbox in batch.outboxes.items():
                twin = self.owned.twins.get(car)
                value = b"" if twin is None else twin.dump(car)
                headers = tombstone(1, batch.deleted[car]) if twin is None else []
                size = FRAME + len(car) + len(value) + len("outbox") + len(outbox.dump())
                size += sum(len(name) + len(content) for name, content in headers)
                assert size <= topics.TWINS_MAX_BYTES
                self.most = max(self.most, size)

    def record(self, topic, fields, pad=0, headers=()):
        """A record of an input, at most as long as accepted; `pad`: bytes of a field nobody knows."""
        self.now += 1
        value = orjson.dumps({"vehicle_id": CAR, **fields})
        pad = min(pad, MOST_RECORD - len(value) - 10)
        if pad > 0:
            value = orjson.dumps({"vehicle_id": CAR, **fields, "pad": "x" * pad})
        return self.raw(topic, value, headers)

    def raw(self, topic, value, headers=()):
        return SimpleNamespace(
            topic=topic, partition=0, offset=next(self.numbers), timestamp=self.now,
            key=CAR.encode(), value=value, headers=headers,
        )  # fmt: skip

    def request(self, kind, body, block="x", pad=0):
        """Of somebody with a long name, under a long key."""
        number = f"{next(self.numbers):010}"
        keyed = {"idempotency_key": number + block * 246, "body_hash": block * 256}
        told = {"request_id": number + block * 246, "by": block * 256, "at": T0, **keyed}
        return self.record(topics.REQUESTS, {**told, "kind": kind, "body": body}, pad)

    def telemetry(self):
        said = Telemetry(CAR, self.now, 1, next(self.numbers), {"speed": 1.5})
        return self.raw(topics.TELEMETRY, codec.encode_telemetry(said))

    def order(self, block, size, lane, pad=0):
        ident = ids.command_id(CAR, self.now, str(next(self.numbers)))
        args = {"a": fitting(block, size)}
        body = {"id": ident, "name": "n" * 64, "args": args, "lane": lane, "ttl_s": 600_000}
        return self.request("command", body, block, pad)

    def birth(self, block, pad=0, headers=()):
        """Of a new session, with attributes that are short enough one by one."""
        self.session += 1
        attributes = {f"{n}{block}": fitting(block, 250) for n in range(32)}
        status = {"state": "online", "session": self.session, "at": T0, "shard": 0}
        more = {"attributes": attributes, "reason": block * 1000}
        return self.record(topics.PRESENCE, {**status, **more}, pad, headers)

    def outcomes(self, state, block, pad=0):
        return [
            self.record(
                topics.OUTCOMES,
                {"command_id": ident, "state": state, "at": T0, "reason": block * 600},
                pad if number < 3 else 0,
            )
            for number, ident in enumerate(self.opened)
        ]

    def overdue(self):
        self.now += 100_000
        due = {"of": "command", "due": self.now}
        return [self.request("deadline", {**due, "ref": ident}) for ident in self.opened]

    def deliveries(self, state, block):
        told = {"id": "d", "kind": "command", "session": self.session, "state": state, "at": T0}
        more = {"reason": block * 600}
        return [
            self.record(topics.DELIVERIES, {**told, **more, "ref": ident}) for ident in self.opened
        ]

    def score(self, block, size, state):
        shares = [{"signal": fitting(block, 200), "share": 0.5}] * (size // 400)
        model = {"version": block * 40, "score": 4.2, "threshold": 3.0, "signals": shares}
        fields = {
            "id": block * 40, "event_time": self.now, "session": self.session, "scored_at": T0,
            "sequence": next(self.numbers), "partition": 0, "offset": 0, "state": state,
            "models": {"m": model}, "why": "state",
        }  # fmt: skip
        return self.record(topics.SCORES, fields)

    def reported(self, block, size):
        fields = {"event_time": self.now, "session": self.session, "sequence": next(self.numbers)}
        properties = {"a": fitting(block, size)}
        return self.record(topics.REPORTED, {**fields, "properties": properties})


def fitting(block, size):
    """A text whose JSON has at most so many bytes."""
    return block * (size // len(orjson.dumps(block)[1:-1]))


def do(car, step):
    """The records of a step."""
    verb, block, size, pad, many = step
    pick = {
        "birth": lambda: [car.birth(block, pad)],
        "order": lambda: [car.order(block, min(size, ARGS), "default", pad) for _ in range(many)],
        "queue": lambda: [car.order(block, min(size, ARGS), "a") for _ in range(many)],
        "received": lambda: car.outcomes("received", block),
        "running": lambda: car.outcomes("running", block, pad),
        "failed": lambda: car.outcomes("failed", block),
        "overdue": car.overdue,
        "sent": lambda: car.deliveries("sent", block),
        "refused": lambda: car.deliveries("refused", block),
        "cancel": lambda: [car.request("cancel", {"command_id": i}, block) for i in car.opened],
        "desired": lambda: [
            car.request("desired", {"op": "patch", "value": {f"k{n}": fitting(block, size)}}, block)
            for n in range(many)
        ],
        "reported": lambda: [car.reported(block, size) for _ in range(many)],
        "alarm": lambda: [car.score(block, size, "alarm")],
        "normal": lambda: [car.score(block, size, "normal")],
        "attributes": lambda: [
            car.request("attributes", {"value": {"n": fitting(block, 250)}}, block, pad)
            for _ in range(many)
        ],
        "telemetry": lambda: [car.telemetry() for _ in range(many)],
        "delete": lambda: [car.request("delete", {}, block)],
    }
    return pick[verb]()


VERBS = (
    "birth order order order queue received running running failed overdue overdue sent refused cancel"
    " desired reported alarm normal attributes telemetry delete"
)
STEPS = st.tuples(
    st.sampled_from([*VERBS.split()]),
    BLOCKS,
    st.sampled_from([0, 500, 10_000, ARGS, 60_000]),
    PADS,
    st.sampled_from([1, 3, 50]),
)


@settings(max_examples=60)
@given(st.lists(STEPS, max_size=25))
def test_what_a_batch_decides_about_a_twin_fits_into_one_record(steps):
    """Steps of a life with everything that is accepted at its largest."""
    car = Car()
    car.take([car.telemetry(), car.birth("x")])
    for step in steps:
        car.take(do(car, step))


def test_the_largest_record_of_a_twin_fits():
    """Fifty commands said again, a full document, a full outbox, and a birth that is rejected."""
    car = Car()
    block = "\x01"
    car.take([car.telemetry(), car.birth("x")])
    car.take([car.order(block, ARGS, "default") for _ in range(50)])
    assert len(car.opened) == 50
    for state in ("received", "accepted", *["running"] * 12):
        car.take(car.outcomes(state, block))
        if state == "running":
            car.take(car.overdue())
    full = [
        car.request("desired", {"op": "patch", "value": {"k": fitting(block, 40_000)}}, block)
        for _ in range(2)
    ]
    car.take(full)
    before = car.most
    fields = {"command_id": ids.command_id(CAR, 1, "x"), "state": "received", "at": T0}
    # Just not enough to end the batch.
    unknown = car.record(topics.OUTCOMES, fields, pad=370_000)
    header = [(block * 60_000, b"")]
    car.take([unknown, car.birth(block, MOST_RECORD, header)])
    assert car.most > before
    assert car.most > topics.TWINS_MAX_BYTES / 2
