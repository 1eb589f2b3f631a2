"""5,000 messages a second, and workers are killed, added and frozen meanwhile: nothing lost or doubled.

The load is open: what is due is sent, whatever the workers do. Faults follow progress, not the clock.
Every message is accounted for, by the log alone: the revision of a twin is the number of its records that
were news, so each document of the changelog says by itself whether one was lost or applied twice.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator

import orjson
import pytest
import redis

from bench_pace import Pacer
from bench_records import Plan, records, rounds
from tests.worker_records import Fold, plain, read
from tests.workers import Scene, share
from twin.wire import codec, keys, topics

pytestmark = [pytest.mark.deep, pytest.mark.timeout(420)]

RATE = 5000
"""Messages a second."""
CARS = 5000
AT_MOST_S = 200
"""There are messages for so long."""
PARTITIONS = 12


class Flow:
    """Telemetry at a rate from entering to leaving; all of it is in Kafka then."""

    def __init__(self, scene: Scene) -> None:
        plan = Plan(CARS, RATE * AT_MOST_S, 1_790_000_000_000)
        all_records = (record for one in rounds(plan) for record in records(plan, one))
        self._scene = scene
        self._pacer = Pacer(scene.endpoints.kafka, all_records, RATE)

    @property
    def written(self) -> int:
        return self._pacer.written

    def __enter__(self) -> "Flow":
        self._pacer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._pacer.stop()
        assert self.check()

    def check(self) -> bool:
        assert self._pacer.failed is None, self._pacer.failed
        return True

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait while it flows."""
        self._scene.until(condition, self)

    def go_on(self, seconds: int = 2) -> None:
        """As many messages as are due in so many seconds."""
        least = self.written + seconds * RATE
        self.until(lambda: self.written > least)


class Car:
    """What the log says of one car, behind each of its records."""

    def __init__(self) -> None:
        self.fold = Fold()
        self.at: dict[int, tuple[int, dict[str, int] | None]] = {}
        """Offset -> revision and counts."""

    def add(self, value: bytes, offset: int) -> None:
        self.fold.add(codec.decode_telemetry(value), offset)
        self.at[offset] = self.fold.newer, self.fold.counts


def faults(scene: Scene, sent: int) -> Iterator[str]:
    """All that is wrong, a line each."""
    cars: defaultdict[str, Car] = defaultdict(Car)
    found = 0
    for record in read(scene.endpoints.kafka, (topics.TELEMETRY,)):
        cars[record.key].add(record.value, record.offset)
        found += 1
    if found != sent:
        yield f"{sent} messages were sent, Kafka has {found}"
    last: dict[str, bytes] = {}
    epochs: dict[int, int] = {}
    for record in read(scene.endpoints.kafka, (topics.TWINS,)):
        epoch = record.epoch
        late = epoch < epochs.setdefault(record.partition, epoch)
        epochs[record.partition] = max(epoch, epochs[record.partition])
        if record.value is None:
            continue  # an owner's fence
        last[record.key] = record.value
        if late:
            continue  # a former owner's, which does not count
        twin = record.fields
        _, offset = twin["applied"]["telemetry"]
        told = twin["revision"], twin.get("counts")
        if cars[record.key].at.get(offset) != told:
            yield f"{record.place} says {told}, the log {cars[record.key].at.get(offset)}"
    with redis.from_url(scene.endpoints.redis) as store:
        shown = store.mget([keys.twin(car) for car in cars])
    for (vehicle_id, car), value in zip(cars.items(), shown, strict=True):
        twin = plain(orjson.loads(last.get(vehicle_id, b"null")))
        if twin is None or value is None:
            yield f"{vehicle_id} is not there"
            continue
        told = twin["reported"], twin["revision"], twin.get("counts")
        if told != (car.fold.reported, car.fold.newer, car.fold.counts):
            yield f"{vehicle_id} is {told}, the fold {car.fold.reported} {car.fold.newer}"
        if plain(orjson.loads(keys.document_of(value))) != twin:
            yield f"{vehicle_id} is shown as {value!r}, in the log {twin}"


@pytest.mark.parametrize("store", ["memory", "rocksdb"])
def test_at_5000_messages_a_second_workers_are_killed_added_and_frozen(
    make_stack, tmp_path, record_property, store
):
    """Partitions move, nothing is lost or applied twice, and each partition's pause is published."""
    _, endpoints = make_stack(partitions=PARTITIONS, mqtt="amqtt")
    scene, all_parts = Scene(endpoints, tmp_path, "car"), list(range(PARTITIONS))
    told = {"STORE": store, "BATCH_RECORDS": "2000"}
    first, second, third = (scene.worker(name, **told) for name in "abc")
    try:
        first.start()
        second.start()
        with Flow(scene) as flow:
            flow.until(lambda: share(all_parts, first, second))
            flow.go_on()
            first.kill()
            flow.until(lambda: second.serves() == all_parts)
            flow.go_on()
            third.start()
            flow.until(lambda: share(all_parts, second, third))
            flow.go_on()
            served = len(second.events("resumed"))
            second.freeze()
            flow.until(lambda: third.serves() == all_parts)
            flow.go_on()
            second.wake()
            flow.until(lambda: second.found_out(served))
            flow.go_on()
        scene.settle()
        found = list(faults(scene, flow.written))
        assert not found, "\n".join([f"{len(found)} faults", *found[:12]])
        pauses = third.labelled("cartwin_twin_pause_seconds", "partition")
        assert pauses.keys() >= {str(partition) for partition in third.serves()}
        assert all(pause > 0 for pause in pauses.values())
        paused = [event["seconds"] for w in scene.workers for event in w.events("resumed")]
        record_property(
            "figures",
            f"{store}: {flow.written} messages of {CARS} cars; pauses in s, workers' starts and"
            f" rebalances: {', '.join(f'{seconds:.1f}' for seconds in sorted(paused))}",
        )
    finally:
        scene.close()
