"""What the cars of one Locust process share: ids, physics, log, broker shards.

A worker with index w has the cars w * N + 1 to (w + 1) * N, N being `--cars`, so no two processes
drive the same car.
"""

import heapq
import ssl
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import fleet_options
from car_log import CarLog
from drive import Drive
from models.simulator import Truth
from twin.client.car import Car
from twin.client.store import Store
from twin.kit.mqtt_address import Broker

MODELS = ("m1", "m2", "m3")
FIRMWARE = "2000"


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Fleet:
    """The cars of one process, from now until `close`. Raises ValueError naming a bad option."""

    def __init__(self, options: Namespace, host: str | None, worker_index: int) -> None:
        self._plan = fleet_options.plan(options, worker_index)
        self._brokers = fleet_options.brokers(host)
        self._fleets = [name.strip() for name in options.fleet.split(",")]
        self._first = worker_index * self._plan.cars + 1
        self._certificates = fleet_options.certificates(
            options, self._brokers, map(self._id, range(self._plan.cars))
        )
        self.mqtt_version: int = fleet_options.VERSIONS[options.mqtt]
        self._free = list(range(self._plan.cars))
        self._driven: set[int] = set()
        self.linger_s: float = options.linger_s
        self.store: int = options.store
        self._silence_ms = max(1, round(options.store_silence_s * 1000))
        self.interval_s = self._plan.interval_s
        start = now_ms()
        self.drive = Drive(self._plan, start)
        self.log = CarLog(Path(options.cars_log) / f"cars-{worker_index}-{start}.jsonl")

    def take(self) -> int | None:
        """The lowest index of a car that nobody drives; None when all are driven."""
        if not self._free:
            return None
        index = heapq.heappop(self._free)
        self._driven.add(index)
        return index

    def give_back(self, index: int) -> None:
        """Nobody drives this car any more."""
        heapq.heappush(self._free, index)

    def car(self, index: int) -> Car:
        """A car with its id and attributes."""
        number = self._first + index
        attributes = {
            "fleet": self._fleets[number % len(self._fleets)],
            "model": MODELS[number % len(MODELS)],
            "firmware": FIRMWARE,
            "vin": f"CARTWIN{number:010d}",
        }
        vehicle_id = self._id(index)

        def note(what: str, session: int, number: int) -> None:
            self.log.write(what, vehicle_id, session=session, number=number)

        store = Store(self.store, silence_ms=self._silence_ms, note=note) if self.store else None
        return Car(vehicle_id, attributes, interval_s=self.interval_s, store=store)

    def broker(self, index: int) -> Broker:
        """The MQTT shard of a car."""
        return self._brokers[index % len(self._brokers)]

    def tls(self, index: int) -> ssl.SSLContext | None:
        """What a car's connection is made with; None without TLS. Raises ValueError."""
        return self._certificates.context(self._id(index)) if self.broker(index).tls else None

    def phase_s(self, index: int) -> float:
        """How far into the interval a car sends, so that the fleet sends evenly."""
        return self.interval_s * index / self._plan.cars

    def run(self, sleep: Callable[[float], None]) -> None:
        """Drive all cars and keep their log, for ever."""
        while True:
            for truth in self.drive.advance(now_ms()):
                self._tell(truth)
            self.log.flush()
            sleep(max(self.drive.next_ms - now_ms(), 0) / 1000)

    def close(self) -> None:
        """Write the truth about every car that was driven, and close the log."""
        for truth in self.drive.truth():
            self._tell(truth)
        self.log.close()

    def _tell(self, truth: Truth) -> None:
        if truth.vehicle in self._driven:
            vehicle_id = self._id(truth.vehicle)
            record = truth.record(vehicle_id, self.drive.start_ms)
            self.log.write(
                "truth",
                vehicle_id,
                mode=record["mode"],
                onset=record["onset"],
                failure=record["failure_time"],
            )

    def _id(self, index: int) -> str:
        return f"car-{self._first + index:06d}"
