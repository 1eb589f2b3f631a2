"""`python -m models simulate`: a seeded past of cars that wear and fail, written into Kafka.

Telemetry goes through the uplink's codec, the truth as JSON to its own topic. The same arguments
with the same `--start` give the same records. Every delivery is counted; one that fails, fails the
command. No TensorFlow here.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, Producer

from models import progress
from models.errors import NotDelivered
from models.simulator import Rows, history, history_steps
from twin.kit import kafka
from twin.wire import codec, topics
from twin.wire.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Plan:
    """What to simulate. `days` are component days; `start_ms` is the moment before the first row."""

    vehicles: int
    days: float
    seed: int
    start_ms: int
    interval_s: float
    acceleration: float
    topic: str

    @property
    def rows(self) -> int:
        """Telemetry records that will be written. Raises ValueError for arguments out of range."""
        return self.vehicles * history_steps(
            self.days, interval_s=self.interval_s, acceleration=self.acceleration
        )


@dataclass(slots=True)
class _Deliveries:
    done: int = 0
    failed: int = 0
    first: str = ""
    told: Callable[[int], None] = field(default=lambda _: None)

    def __call__(self, error: KafkaError | None, _message: object) -> None:
        if error is None:
            self.done += 1
        else:
            self.failed += 1
            self.first = self.first or error.str()


def vehicle_id(number: int) -> str:
    """`hist-000001` and on: no live car has such a name."""
    return f"hist-{number + 1:06d}"


def simulate(bootstrap: str, plan: Plan, form: progress.Form = "auto") -> dict[str, object]:
    """Write the history; rows, vehicles, failures, topic, seconds.

    Raises `KafkaUnavailable`, `NotDelivered`, or ValueError for a plan out of range.
    """
    began = time.monotonic()
    rows, failed_cars, truths = plan.rows, 0, 0
    producer = kafka.producer(
        bootstrap, "models-simulate", **{"linger.ms": 50, "compression.type": "lz4"}
    )
    kafka.wait_for_topics(producer, [plan.topic, topics.TRUTH], 20)
    deliveries = _Deliveries()
    with progress.steps(f"simulating into {plan.topic}", rows, form) as advance:
        blocks = history(
            plan.vehicles,
            plan.days,
            seed=plan.seed,
            start_ms=plan.start_ms,
            interval_s=plan.interval_s,
            acceleration=plan.acceleration,
        )
        last: dict[int, float] = {}
        for sequence, block in enumerate(blocks):
            _write(producer, plan, sequence, block.event_time, block.rows, deliveries)
            for truth in block.truth:
                record = truth.record(vehicle_id(truth.vehicle), plan.start_ms)
                # The session tells this car from one of the same name in another history.
                record["session"] = plan.start_ms
                key = record["vehicle_id"]
                _produce(producer, topics.TRUTH, codec.dump(record), key, deliveries, _json())
                last[truth.vehicle] = truth.health
                truths += 1
            advance(plan.vehicles)
        left = producer.flush(60)
    failed_cars = sum(health <= 0 for health in last.values())
    missing = rows + truths - deliveries.done
    if missing or left:
        raise NotDelivered(
            f"{missing} of {rows + truths} records were not confirmed by Kafka"
            f" ({deliveries.first or 'no answer within 60 s'}); the history on {plan.topic} has holes"
        )
    return {
        "rows": rows,
        "vehicles": plan.vehicles,
        "failures": failed_cars,
        "topic": plan.topic,
        "seconds": round(time.monotonic() - began, 3),
    }


def _write(
    producer: Producer,
    plan: Plan,
    sequence: int,
    event_time: int,
    rows: Rows,
    deliveries: _Deliveries,
) -> None:
    names = list(rows)
    headers = [
        ("ingested-at", str(event_time).encode()),
        ("content-type", codec.AVRO_BINARY.encode()),
    ]
    for car, values in enumerate(zip(*(rows[name].tolist() for name in names), strict=True)):
        telemetry = Telemetry(
            vehicle_id(car),
            event_time,
            plan.start_ms,
            sequence,
            dict(zip(names, values, strict=True)),
        )
        value = codec.encode_telemetry(telemetry)
        _produce(producer, plan.topic, value, telemetry.vehicle_id, deliveries, headers)
    producer.poll(0)


def _produce(
    producer: Producer,
    topic: str,
    value: bytes,
    key: str,
    deliveries: _Deliveries,
    headers: list[tuple[str, bytes]],
) -> None:
    while True:
        try:
            producer.produce(topic, value, key, on_delivery=deliveries, headers=list(headers))
            return
        except BufferError:  # the queue is full: wait until Kafka has taken some
            producer.poll(0.1)


def _json() -> list[tuple[str, bytes]]:
    return [("content-type", codec.JSON.encode())]
