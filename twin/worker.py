"""`python -m twin worker`: the process around the owner. Starts Faust, timers, health; stops cleanly."""

import os
import sys
from typing import Any, NoReturn

from confluent_kafka import Producer
from faust.worker import Worker

from twin.agents import Owner
from twin.app import INPUTS, Declarations, declare
from twin.apply import Context
from twin.book import Book
from twin.deadlines import Deadlines
from twin.kit import kafka, logs
from twin.kit.clock import SystemClock
from twin.kit.health import HealthServer
from twin.policy import load_policy
from twin.settings import WorkerSettings
from twin.stream import Poll
from twin.view import View
from twin.wire import topics
from twin.wire.errors import CartwinError

log = logs.get(__name__)


def main() -> int:
    """Run until stopped; 0 after a clean stop, 1 when Kafka, Redis or a decision failed for good."""
    settings = WorkerSettings.load()
    logs.configure("worker", settings.log_level, settings.log_format)
    producer = kafka.producer(settings.kafka_bootstrap, "cartwin-worker")
    try:
        policy = load_policy(settings.policy_file)
        partitions = _partitions(producer)
        declared = declare(settings, partitions)
        view = View(settings.redis_url)
        owner = Owner(
            declared.twins.data,
            Book(declared.ledger.data),
            Deadlines(),
            producer,
            view,
            Context(
                policy=policy,
                stale_after_ms=settings.stale_after_s * 1000,
                overdue_after_ms=settings.overdue_after_s * 1000,
            ),
            partitions,
        )
        running = Running(declared, owner, view)
        health = HealthServer(settings.health_host, settings.health_port, running.not_ready)
    except CartwinError as error:
        log.error("cannot start", error=str(error))
        return 1
    worker = Worker(
        declared.app, loglevel=settings.log_level, redirect_stdouts=False, override_logging=False
    )
    worker.spinner = None
    try:
        worker.execute_from_commandline()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        health.close()
    return 0


def _partitions(producer: Producer) -> int:
    """How many partitions the topics about a vehicle have; a twin's inputs and table must agree."""
    outputs = (topics.TWINS, topics.LEDGER, topics.CHANGES, topics.DOWNLINK, topics.REJECTED)
    names = [*INPUTS, *outputs]
    kafka.wait_for_topics(producer, names)
    known = producer.list_topics(timeout=10).topics
    counts = {name: len(known[name].partitions) for name in names}
    if len(set(counts.values())) > 1:
        raise CartwinError(f"topics about a vehicle must have equal partition counts: {counts}")
    return counts[topics.TELEMETRY]


class Running:
    """Hooks the owner into Faust: the one agent, the recovery callback, the deadline timer."""

    def __init__(self, declared: Declarations, owner: Owner, view: View) -> None:
        self._app = declared.app
        self._owner = owner
        self._view = view
        self._tables = (declared.twins, declared.ledger)
        self._restored = 0
        declared.app.agent(declared.inputs, name="twin")(self._decide)
        declared.app.timer(0.2)(self._tick)
        declared.app.on_partitions_revoked.connect(self._on_revoked)
        for table in self._tables:
            table.on_recover(self._on_restored)

    @property
    def _owns(self) -> bool:
        return self._restored == len(self._tables)

    def not_ready(self) -> dict[str, str]:
        """Why this worker does not serve its partitions now; empty when it does."""
        faults = {}
        if not self._owns:
            faults["tables"] = "not yet restored from Kafka"
        if self._view.fault:
            faults["redis"] = self._view.fault
        return faults

    async def _on_revoked(self, *_: Any, **__: Any) -> None:
        self._restored = 0

    async def _on_restored(self) -> None:
        """Each table calls this when it is restored; the last one finds both."""
        if self._restored + 1 == len(self._tables):
            assigned = self._app.consumer.assignment()
            await self._owner.recovered({tp.partition for tp in assigned if tp.topic in INPUTS})
        self._restored += 1

    async def _decide(self, stream: Any) -> None:
        async for event in stream.events():
            poll: Poll = event.value
            poll.begin()
            try:
                await self._owner.take(poll.records)
            except Exception as error:
                _end(error)
            poll.done()

    async def _tick(self) -> None:
        if not self._owns:
            return
        try:
            await self._owner.due(SystemClock().now_ms())
        except Exception as error:
            _end(error)


def _end(error: Exception) -> NoReturn:
    """End at once and uncommitted: whoever takes over takes the records in hand again."""
    known = isinstance(error, CartwinError)
    log.error("cannot go on", error=str(error), exc_info=None if known else error)
    sys.stderr.flush()
    os._exit(1)
