"""`python -m twin worker`: the process around the owner. Starts Faust, timers, health; stops cleanly."""

import asyncio
import os
import sys
from typing import Any

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
    outputs = (topics.TWINS, topics.LEDGER, topics.CHANGES, topics.DOWNLINK, topics.REJECTED)
    try:
        policy = load_policy(settings.policy_file)
        kafka.wait_for_topics(producer, [*INPUTS, *outputs])
    except CartwinError as error:
        log.error("cannot start", error=str(error))
        return 1
    partitions = len(
        producer.list_topics(topics.TELEMETRY, timeout=10).topics["telemetry"].partitions
    )
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
    )
    running = Running(declared, owner, view, partitions)
    try:
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


class Running:
    """Hooks the owner into Faust: the one agent, the recovery callback, the deadline timer."""

    def __init__(
        self,
        declared: Declarations,
        owner: Owner,
        view: View,
        partitions: int,
    ) -> None:
        self._app = declared.app
        self._owner = owner
        self._view = view
        self._partitions = partitions
        self._recovered = asyncio.Event()
        declared.app.agent(declared.inputs, name="twin")(self._decide)
        declared.app.timer(0.2)(self._tick)
        # Tables recover together; the last callback sees both.
        declared.twins.on_recover(self._on_recovered)
        declared.ledger.on_recover(self._on_recovered)

    def not_ready(self) -> dict[str, str]:
        """Why this worker does not serve its partitions now; empty when it does."""
        faults = {}
        if not self._recovered.is_set():
            faults["tables"] = "not yet restored from Kafka"
        if self._view.fault:
            faults["redis"] = self._view.fault
        return faults

    async def _on_recovered(self) -> None:
        owned = {tp.partition for tp in self._app.consumer.assignment() if tp.topic in INPUTS}
        await self._owner.recovered(owned, self._partitions)
        self._recovered.set()

    async def _decide(self, stream: Any) -> None:
        async for event in stream.events():
            poll: Poll = event.value
            poll.begin()
            try:
                await self._owner.take(poll.records)
            except Exception as error:
                # Nothing was acknowledged for this poll: whoever takes over takes it again.
                log.error("cannot go on; ending uncommitted", exc_info=error)
                sys.stderr.flush()
                os._exit(1)
            poll.done()

    async def _tick(self) -> None:
        if self._recovered.is_set():
            await self._owner.due(SystemClock().now_ms())
