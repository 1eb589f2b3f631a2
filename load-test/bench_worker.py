"""Workers of the recovery and memory benches: `python -m twin worker`, started, watched and killed."""

import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from bench_broker import Broker
from bench_parts import Event, events
from twin.local.data import Endpoints
from twin.local.ports import HOST
from twin.local.process import Child, spawn, stop_all

ROOT = Path(__file__).resolve().parent.parent
GROUP = "cartwin-twin"


class WorkerFailed(Exception):
    """A worker ended by itself or did not come; the message is one sentence and its last words."""


class Worker:
    """One worker with a name of its own (static membership), a log a start, and a local store."""

    def __init__(
        self, name: str, endpoints: Endpoints, folder: Path, health_port: int, **told: str
    ) -> None:
        self.name = name
        self.store = folder / f"{name}-store"
        self._folder = folder
        self._url = f"http://{HOST}:{health_port}/readyz"
        self._starts = 0
        self._child: Child | None = None
        self.environment = {
            **os.environ,
            "KAFKA_BOOTSTRAP": endpoints.kafka,
            "REDIS_URL": endpoints.redis,
            "HEALTH_PORT": str(health_port),
            "LOG_FORMAT": "json",
            "LOG_LEVEL": "info",
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(ROOT),
            "STORE": "rocksdb",
            "STORE_DIR": str(self.store),
            "WORKER_ID": name,
            **told,
        }

    def start(self) -> None:
        """Start it, and return at once."""
        self._starts += 1
        log = self._folder / f"{self.name}-{self._starts}.log"
        argv = [sys.executable, "-m", "twin", "worker"]
        self._child = spawn(self.name, argv, self.environment, log)

    @property
    def child(self) -> Child:
        assert self._child is not None
        return self._child

    def ready(self) -> bool:
        """Whether it serves its partitions. Raises `WorkerFailed` when it has ended."""
        self.check()
        try:
            with urllib.request.urlopen(self._url, timeout=2) as answer:  # noqa: S310 - our own URL
                return bool(answer.status == 200)
        except (OSError, urllib.error.HTTPError):
            return False

    def check(self) -> None:
        """Raise `WorkerFailed` when it has ended."""
        if self.child.exit_code() is not None:
            raise WorkerFailed(self.child.obituary())

    def events(self) -> list[Event]:
        """What its log says of its partitions, since its last start."""
        with self.child.log.open("rb") as lines:
            return events(lines)

    def kill(self) -> float:
        """SIGKILL; when it was sent, seconds since 1970."""
        at = time.time()
        self.child.kill()
        return at


def stop(workers: list[Worker]) -> None:
    """End those that run."""
    stop_all([w.child for w in workers if w._child is not None], 20.0)


def until(condition: Callable[[], bool], what: Callable[[], str], deadline_s: float) -> None:
    """Poll until `condition`; raises `WorkerFailed` saying what did not come."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            raise WorkerFailed(f"after {deadline_s:.0f} s: {what()}")
        time.sleep(0.1)


def all_applied(broker: Broker, workers: list[Worker], deadline_s: float) -> None:
    """Wait until the group has committed all of `telemetry` and every worker is ready."""
    end = broker.end("telemetry")

    def done() -> bool:
        return all(worker.ready() for worker in workers) and broker.committed(GROUP) >= end

    until(done, lambda: f"{broker.committed(GROUP)} of {end} telemetry records applied", deadline_s)
