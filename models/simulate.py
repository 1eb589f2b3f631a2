"""`python -m models simulate`: a seeded past of cars that wear and fail, written into Kafka.

Telemetry goes through the uplink's codec, the truth as JSON to its own topic. The same arguments
with the same `--start` give the same records. A signal that dropped out is absent, a parked car is
silent, and rows may come late or twice, in counted shares (`simulator.delivery`). Every delivery is
counted; one that fails, fails the command. No TensorFlow here.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, Producer

from models import progress
from models.errors import NotDelivered
from models.simulator import DROPOUT, Block, Delivery, history, history_steps
from twin.kit import kafka
from twin.wire import codec, topics
from twin.wire.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class Plan:
    """What to simulate. `days` are component days; `start_ms` is the moment before the first row.

    `parking`: cars switch off between trips and are silent meanwhile. Shares from 0 to below 1:
    `dropout` of single signals, `late` and `repeated` of rows.
    """

    vehicles: int
    days: float
    seed: int
    start_ms: int
    interval_s: float
    acceleration: float
    topic: str
    parking: bool = False
    dropout: float = DROPOUT
    late: float = 0.0
    repeated: float = 0.0

    @property
    def rows(self) -> int:
        """Rows that are simulated, parked cars included. Raises ValueError for arguments out of range."""
        return self.vehicles * history_steps(
            self.days, interval_s=self.interval_s, acceleration=self.acceleration
        )

    def blocks(self) -> Iterator[Block]:
        """The cars, step by step. Raises ValueError for arguments out of range."""
        return history(
            self.vehicles,
            self.days,
            seed=self.seed,
            start_ms=self.start_ms,
            interval_s=self.interval_s,
            acceleration=self.acceleration,
            parking=self.parking,
            dropout=self.dropout,
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
    """Write the history; rows written, of them late and repeated, vehicles, failures, topic, seconds.

    Raises `KafkaUnavailable`, `NotDelivered`, or ValueError for a plan out of range.
    """
    began = time.monotonic()
    planned, rows, truths = plan.rows, 0, 0
    delivery: Delivery[Telemetry] = Delivery(late=plan.late, repeated=plan.repeated, seed=plan.seed)
    producer = kafka.producer(
        bootstrap, "models-simulate", **{"linger.ms": 50, "compression.type": "lz4"}
    )
    kafka.wait_for_topics(producer, [plan.topic, topics.TRUTH], 20)
    deliveries = _Deliveries()
    with progress.steps(f"simulating into {plan.topic}", planned, form) as advance:
        last: dict[int, float] = {}
        for sequence, block in enumerate(plan.blocks()):
            sent = delivery.step(list(_telemetry(plan, sequence, block)))
            rows += _write(producer, plan.topic, block.event_time, sent, deliveries)
            for truth in block.truth:
                record = truth.record(vehicle_id(truth.vehicle), plan.start_ms)
                # The session tells this car from one of the same name in another history.
                record["session"] = plan.start_ms
                key = record["vehicle_id"]
                _produce(producer, topics.TRUTH, codec.dump(record), key, deliveries, _json())
                last[truth.vehicle] = truth.health
                truths += 1
            advance(plan.vehicles)
        rows += _write(producer, plan.topic, block.event_time, delivery.rest(), deliveries)
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
        "late": delivery.late,
        "repeated": delivery.repeated,
        "vehicles": plan.vehicles,
        "failures": failed_cars,
        "topic": plan.topic,
        "seconds": round(time.monotonic() - began, 3),
    }


def _telemetry(plan: Plan, sequence: int, block: Block) -> Iterator[Telemetry]:
    names = list(block.rows)
    values = zip(*(block.rows[name].tolist() for name in names), strict=True)
    for car, (row, reports) in enumerate(zip(values, block.reporting.tolist(), strict=True)):
        if reports:
            signals = {
                name: value for name, value in zip(names, row, strict=True) if not math.isnan(value)
            }
            yield Telemetry(vehicle_id(car), block.event_time, plan.start_ms, sequence, signals)


def _write(
    producer: Producer,
    topic: str,
    now_ms: int,
    rows: Iterable[Telemetry],
    deliveries: _Deliveries,
) -> int:
    headers = [
        ("ingested-at", str(now_ms).encode()),
        ("content-type", codec.AVRO_BINARY.encode()),
    ]
    written = 0
    for telemetry in rows:
        value = codec.encode_telemetry(telemetry)
        _produce(producer, topic, value, telemetry.vehicle_id, deliveries, headers)
        written += 1
    producer.poll(0)
    return written


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
