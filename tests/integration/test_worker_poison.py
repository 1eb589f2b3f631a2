"""Any record in any input of the real worker: set aside or applied, and its partition goes on.

One worker for all examples. An example is a batch of records about cars that nothing is known of, and
behind it a good record in each partition of each input, of which a twin says that it was applied.
Accounts are by position: what Kafka took is on `rejected` exactly once, or the worker counted it as
applied or repeated. An example that ends the worker is buried (the group's offsets are set behind it),
and a new worker begins: so the record that does it can be found among those of the example.
"""

import asyncio
import itertools
import time
from collections import Counter
from dataclasses import replace

import orjson
import pytest
import redis
from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from confluent_kafka import KafkaException, TopicPartition
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from tests.poison import MAX_RECORD, Poison, poisons
from tests.processes import Process, until
from tests.stacks import make_module_stack
from tests.worker_records import Progress
from twin import inputs
from twin.app import GROUP, INPUTS
from twin.kit import kafka
from twin.local.process import tail
from twin.wire import codec, keys, topics
from twin.wire.errors import WireError
from twin.wire.partition import partition_of
from twin.wire.rejected import attempts
from twin.wire.telemetry import Telemetry

__all__ = ["make_module_stack"]

pytestmark = pytest.mark.integration

PARTITIONS = 4
T0 = 1_790_000_000_000
ULID = "01JB0000000000000000000000"
COUNTED = {"cartwin_twin_applied_total": "applied", "cartwin_twin_repeated_total": "repeated"}
REJECTIONS = "cartwin_twin_rejected_total{"
HELD = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=False,
    database=None,
    # Each worker that ends costs seconds; `take` makes a failing example small by itself.
    phases=[Phase.explicit, Phase.generate],
)


class Raw(bytes):
    """A header's name for aiokafka, which takes what `encode` gives."""

    def encode(self, _encoding):
        return self


class RawProducer:
    """Sends records with headers whose names are any bytes: clients of today do not."""

    def __init__(self, bootstrap):
        self._runner = asyncio.Runner()
        self._runner.run(self._start(bootstrap))

    async def _start(self, bootstrap):
        self._client = AIOKafkaProducer(bootstrap_servers=bootstrap)
        await self._client.start()

    def send(self, record, partition):
        """Its offset."""
        return self._runner.run(self._send(record, partition))

    async def _send(self, record, partition):
        batch = BatchBuilder(MAX_RECORD, 0)
        batch._builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, 0, MAX_RECORD)
        headers = [
            (name if isinstance(name, str) else Raw(name), content)
            for name, content in record.headers
        ]
        batch.append(timestamp=None, key=record.key, value=record.value, headers=headers)
        batch.close()
        sent = await self._client.send_batch(batch, record.topic, partition=partition)
        return (await sent).offset

    def close(self):
        self._runner.run(self._client.stop())
        self._runner.close()


class Bench:
    """Kafka, Redis and a worker that must not mind."""

    def __init__(self, endpoints, folder):
        self._endpoints = endpoints
        self._folder = folder
        self._numbers = itertools.count(1)
        self._redis = redis.from_url(endpoints.redis)
        self._producer = kafka.producer(endpoints.kafka, "test", **{"linger.ms": 1})
        self._raw = RawProducer(endpoints.kafka)
        self._progress = Progress(endpoints.kafka)
        self._consumer = kafka.consumer(endpoints.kafka, "poison", "test")
        self._consumer.assign([TopicPartition("rejected", n, 0) for n in range(PARTITIONS)])
        self._counted = Counter()
        self._base = dict.fromkeys(itertools.product(INPUTS, range(PARTITIONS)), 0)
        self.cars = {}
        self.worker = None

    def start(self):
        self.worker = Process(
            "worker",
            self._endpoints,
            self._folder,
            WORKER_ID="poisoned",
            SESSION_TIMEOUT_S="2",
            STALE_AFTER_S="36000",
            OVERDUE_AFTER_S="36000",
        )
        assert self._producer.flush(60) == 0
        self._counted.clear()
        self._heard = 0
        self.worker.start().ready()
        self._make_good_cars()

    def write(self, topic, key, value, partition):
        self._producer.produce(topic, value, key, partition)
        self._producer.poll(0)

    def write_raw(self, record, partition):
        return self._raw.send(record, partition)

    def revisions(self):
        """Of the good cars, as they are shown."""
        documents = {car: self._redis.get(keys.twin(car)) for car in self.cars.values()}
        return {
            car: orjson.loads(keys.document_of(value))["revision"]
            for car, value in documents.items()
        }

    def lines(self, level):
        """Of the worker's log."""
        text = self.worker.child.log.read_bytes()
        found = [orjson.loads(line) for line in text.splitlines() if line.startswith(b"{")]
        return [line for line in found if line["level"] == level]

    def close(self):
        self._consumer.close()
        self._raw.close()
        if self.worker is not None and self.worker.child.exit_code() is None:
            self.worker.stop()

    def bury(self):
        """Let the next worker begin behind what ended this one."""
        self.worker.kill()
        self._base = self._progress.ends(INPUTS)
        ends = [TopicPartition(*place, end) for place, end in self._base.items()]
        client = kafka.consumer(self._endpoints.kafka, GROUP, "test")

        def done():
            try:
                client.commit(offsets=ends, asynchronous=False)
            except KafkaException:  # the dead worker is still a member
                return False
            return True

        until(done, "the group of the dead worker takes no offsets")
        client.close()
        self._new_rejected()
        self.start()

    def example(self, batch, headers=()):
        """Send a batch and, with headers, what proves that it was taken, and settle the accounts."""
        number = next(self._numbers)
        sent = {}
        cars = tuple(f"bad-{number}-{place}" for place in range(2))
        for poison in batch:
            self._send(poison.about(cars), sent)
        good = list(self._good(number))
        told = {}
        for record in good:
            self._send(replace(record, headers=headers), told)
        assert self._producer.flush(60) == 0
        assert len(told) == len(good)
        self._until(lambda: not self._missing(told), lambda: f"not applied: {self._missing(told)}")
        rejected = self._all_rejected()
        self._check_rejected(rejected, {**sent, **told})
        unknown = {place for place in told if place[0] == topics.OUTCOMES}
        assert unknown <= {_source(message) for message in rejected}
        self._check_counts(rejected, {**sent, **told})

    def _send(self, record, sent):
        if record.odd:
            partition = record.partition
            if partition is None:
                partition = partition_of(record.key or b"", PARTITIONS)
            sent[record.topic, partition, self.write_raw(record, partition)] = record
            return

        def taken(error, message):
            if error is None:
                sent[message.topic(), message.partition(), message.offset()] = record

        place = {} if record.partition is None else {"partition": record.partition}
        self._producer.produce(
            record.topic,
            record.value,
            record.key,
            headers=list(record.headers),
            on_delivery=taken,
            **place,
        )
        self._producer.poll(0)

    def _make_good_cars(self):
        """One for each partition, so that each input has something to say about it."""
        names = (f"good-{number}" for number in itertools.count())
        while len(self.cars) < PARTITIONS:
            car = next(names)
            self.cars.setdefault(partition_of(car.encode(), PARTITIONS), car)
        told = {}
        for car in self.cars.values():
            self._send(Poison(topics.TELEMETRY, car.encode(), self._telemetry(car, 0)), told)
        assert self._producer.flush(60) == 0
        self._until(lambda: not self._missing(told), lambda: f"not applied: {self._missing(told)}")
        self._check_counts([], told)

    @staticmethod
    def _telemetry(car, number):
        said = Telemetry(car, T0 + number, 1, number, {"speed": 1.5})
        return codec.encode_telemetry(said)

    def _good(self, number):
        """A record of each input for a car of each partition; all but `outcomes` are accepted."""
        for car in self.cars.values():
            say = {
                topics.PRESENCE: {"state": "online", "session": number, "at": T0, "shard": 0},
                topics.REPORTED: {
                    "event_time": T0, "session": 1, "sequence": number, "properties": {"a": 1},
                },
                topics.OUTCOMES: {"command_id": f"{car}.{ULID}", "state": "received", "at": T0},
                topics.DELIVERIES: {
                    "id": "d", "kind": "desired", "ref": "1", "session": 1, "state": "sent", "at": T0,
                },
                topics.SCORES: {
                    "id": "s", "event_time": T0, "session": 1, "sequence": number, "partition": 0,
                    "offset": 0, "scored_at": T0, "state": "normal", "models": {}, "why": "state",
                },
                topics.REQUESTS: {
                    "request_id": f"{car}/a", "kind": "attributes", "at": T0, "by": "test",
                    "body": {"value": {"fleet": "f"}},
                },
            }  # fmt: skip
            yield Poison(topics.TELEMETRY, car.encode(), self._telemetry(car, number))
            for topic, fields in say.items():
                value = orjson.dumps({"vehicle_id": car, **fields})
                yield Poison(topic, car.encode(), value)

    def _missing(self, told):
        """Of the good records those that their twins do not have as applied."""
        cars = {record.key.decode() for record in told.values()}
        documents = {car: self._redis.get(keys.twin(car)) for car in cars}
        applied = {
            car: {} if value is None else orjson.loads(keys.document_of(value))["applied"]
            for car, value in documents.items()
        }
        return [
            (topic, partition, offset)
            for (topic, partition, offset), record in told.items()
            if applied[record.key.decode()].get(topic) != [partition, offset]
        ]

    def _all_rejected(self):
        """What is on `rejected` since the last time, as much as the worker has decided to reject."""
        found = []

        def told():
            found.extend(self._new_rejected())
            return self._heard + len(found) >= self._rejections()

        self._until(told, lambda: f"{len(found)} of {self._rejections() - self._heard} rejections")
        self._heard += len(found)
        assert self._heard == self._rejections()
        return found

    def _rejections(self):
        _, text = self.worker.get("/metrics")
        lines = [line for line in text.splitlines() if line.startswith(REJECTIONS)]
        return sum(int(float(line.rpartition(" ")[2])) for line in lines)

    def _new_rejected(self):
        """What is on `rejected` since the last time."""
        ends = {place[1]: end for place, end in self._progress.ends((topics.REJECTED,)).items()}
        found = []
        end = time.monotonic() + 30

        def behind():
            at = self._consumer.position([TopicPartition("rejected", n) for n in ends])
            return any(max(place.offset, 0) < ends[place.partition] for place in at)

        while behind():
            assert time.monotonic() < end, "Kafka does not give what is on rejected"
            for message in self._consumer.consume(500, 0.05):
                assert message.error() is None
                found.append(message)
        return found

    def _check_rejected(self, rejected, sent):
        """Each once, with its place, a reason, and what it was."""
        seen = set()
        for message in rejected:
            headers = dict(message.headers())
            place = _source(message)
            assert place in sent, (place, headers)
            assert place not in seen, (place, headers)
            seen.add(place)
            record = sent[place]
            assert message.value() == record.value
            assert headers["reason"]
            assert headers["detail"].decode()
            kept = [
                (name, content)
                for name, content in message.headers()
                if name.startswith("original-")
            ]
            # With a name that is no text all headers count as none.
            told = () if record.odd else record.headers
            before = attempts(dict(told).get("attempts"))
            assert headers["attempts"] == b"%d" % (before + 1)
            originals = [
                (f"original-{name}", content or b"")
                for name, content in told
                if name not in ("attempts", "redriven-by")
            ]
            assert kept == originals or int(headers["headers-truncated"]) == len(originals) - len(
                kept
            )

    def _check_counts(self, rejected, sent):
        """All that Kafka has of the inputs is applied, repeated or set aside; deadlines, too."""
        aside = Counter()
        for message in rejected:
            headers = dict(message.headers())
            record = sent[_source(message)]
            # What the door lets through is applied, even if a part of it is set aside.
            if headers["reason"] == b"wrong_partition" or not _readable(record):
                aside[_source(message)[0]] += 1

        left = Counter()

        def settled():
            came, counts = self._progress.ends(INPUTS), self._counts()
            left.clear()
            for place, end in came.items():
                left[place[0]] += end - self._base[place]
            left.subtract(counts)
            left.update(self._counted)
            left.subtract(aside)
            if any(left.values()):
                return False
            self._base, self._counted = came, counts
            return True

        self._until(settled, lambda: f"not accounted for: {left}")

    def _counts(self):
        """Applied and repeated records by topic, as the worker counts them."""
        _, text = self.worker.get("/metrics")
        counts = Counter()
        for line in text.splitlines():
            name, _, rest = line.partition('{topic="')
            if name in COUNTED and rest:
                topic, _, value = rest.partition('"} ')
                counts[topic] += int(float(value))
        return counts

    def _until(self, condition, what):
        def alive():
            assert self.worker.check()
            return condition()

        until(alive, lambda: f"{what()}\n{tail(self.worker.child.log, lines=20)}", 30)


def _source(message):
    """Where the record was that is on `rejected`."""
    told = dict(message.headers())["source"].decode()
    topic, partition, offset = told.removeprefix("kafka:").split("/")
    return topic, int(partition), int(offset)


def _readable(record):
    try:
        inputs.read(record.topic, record.key, record.value)
    except WireError:
        return False
    return True


@pytest.fixture(scope="module")
def bench(make_module_stack, tmp_path_factory):
    made = Bench(
        make_module_stack(partitions=PARTITIONS, mqtt="amqtt")[1], tmp_path_factory.mktemp("logs")
    )
    made.start()
    yield made
    made.close()


CAR = b"@car-0@"
LARGEST = b"\0" * 1_048_000
"""As large as the broker takes from any client: with our headers it is larger still."""
KNOWN = [
    *(
        Poison(topic, key, value)
        for topic in INPUTS
        for key, value in (
            (CAR, b"\xff\xfe"),
            (CAR, b"{}"),
            (None, b"x"),
            (CAR, None),
            (None, None),
        )
    ),
    *(Poison(topic, b"k", LARGEST, partition=n) for topic in INPUTS for n in (0, 3)),
    *(
        Poison(topic, CAR, b"{}", (("ingested-at", None), ("traceparent", None)))
        for topic in INPUTS
    ),
    *(
        Poison(
            topic,
            b"#owner",
            None,
            (("epoch", b"9999999999"), ("outbox", b"[]"), ("applied", b"{}")),
        )
        for topic in INPUTS
    ),
]


def take(bench, batch):
    """Settle an example; when it cannot be, say which record alone does it, if one does."""
    try:
        bench.example(batch)
    except AssertionError:
        bench.bury()
        for poison in batch[:20]:
            try:
                bench.example([poison])
            except AssertionError as error:
                bench.bury()
                raise AssertionError(f"this record alone does it: {poison!r}") from error
        raise


@settings(HELD, max_examples=40)
@given(st.lists(poisons(), max_size=12))
@example(KNOWN)
def test_any_record_is_set_aside_or_applied_and_its_partition_goes_on(bench, batch):
    """Nothing is lost, nothing stops the worker, and everything is accounted for."""
    take(bench, batch)


NO_TEXT = ((b"na\xefve", b"x"), ("ingested-at", b"1"), (b"\xff\xfe", None))


def test_a_record_with_a_header_name_that_is_no_text_is_judged_by_its_content(bench):
    """In any input: good ones are applied, others set aside, and those behind are processed."""
    bad = [Poison(topic, CAR, value, NO_TEXT) for topic in INPUTS for value in (b"{}", b"x", None)]
    bench.example(bad, NO_TEXT)
    bench.example(bad, ())
    bench.example([])


# Kafka itself refuses records without a key in a compacted topic.
GARBAGE = [b"\xff", b"{}", b"[]", b'{"epoch":"x"}', b"x" * 500_000, None]


def test_garbage_in_the_changelogs_is_said_and_a_new_worker_serves(bench):
    """Of a producer that may write there: no twin is lost or changed by it."""
    assert bench.worker.stop() == 0
    before = bench.revisions()
    for car in bench.cars.values():
        place = partition_of(car.encode(), PARTITIONS)
        for topic, key in ((topics.TWINS, car), (topics.LEDGER, f"{car}/{car}.{ULID}")):
            for value in GARBAGE:
                for name in (key, b"\xff", b"#owner", "sensor/x"):
                    bench.write(topic, name, value, place)
            bench.write_raw(Poison(topic, key.encode(), b"{}", NO_TEXT), place)
    bench.start()
    said = {tuple(line["place"]): line["records"] for line in bench.lines("error")}
    assert said == {
        (topic, n): 4 * len(GARBAGE) + 1
        for topic in (topics.TWINS, topics.LEDGER)
        for n in range(PARTITIONS)
    }
    assert bench.revisions() == before
    bench.example([])
    assert bench.worker.stop() == 0
    bench.start()
    assert all(line["records"] for line in bench.lines("error"))
    bench.example([])


@pytest.mark.deep
@pytest.mark.timeout(1200)
@settings(HELD, max_examples=1500)
@given(st.lists(poisons(), max_size=40))
def test_any_record_at_length(bench, batch):
    """The same, more often and in larger batches."""
    take(bench, batch)
