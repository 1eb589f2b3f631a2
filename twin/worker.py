"""`python -m twin worker`: the process around the owner. Starts Faust, timers, health; stops cleanly."""

import gc
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from confluent_kafka import Producer
from faust.worker import Worker

from twin.agents import Owner
from twin.app import INPUTS, Declarations, declare
from twin.apply import Context
from twin.changelog import Reader
from twin.copy import Copy
from twin.delivery import QUEUE, Ticket, Writer
from twin.kit import kafka, logs, registry
from twin.kit.clock import SystemClock
from twin.kit.health import HealthServer
from twin.policy import Policy, load_policy
from twin.settings import WorkerSettings
from twin.state import Limits
from twin.stream import Poll
from twin.takeover import Takeover
from twin.view import View
from twin.wire import topics
from twin.wire.errors import CartwinError

log = logs.get(__name__)


def main() -> int:
    """Run until stopped; 0 after a clean stop, 1 when Kafka, Redis or a decision failed for good."""
    settings = WorkerSettings.load()
    logs.configure("worker", settings.log_level, settings.log_format)
    return run(settings, lambda partitions: View(settings.redis_url, partitions))


def run(settings: WorkerSettings, make_view: Callable[[int], View]) -> int:
    """Run with a read model, which is made for the number of partitions; what `main` does."""
    producer = kafka.producer(
        settings.kafka_bootstrap,
        "cartwin-worker",
        **{"linger.ms": 0.5, "message.max.bytes": topics.TWINS_MAX_BYTES, **QUEUE},
    )
    try:
        policy = load_policy(settings.policy_file, limits(settings))
        partitions = _partitions(producer)
        registry.use_ids(settings)
        declared = declare(settings, partitions)
        view = make_view(partitions)
        context = decided_by(settings, policy, partitions)
        copy = Copy(settings.store_dir) if settings.store == "rocksdb" else None
        running = Running(settings, declared, Writer(producer), view, copy, context, partitions)
        health = HealthServer(settings.health_host, settings.health_port, running.not_ready)
    except CartwinError as error:
        log.error("cannot start", error=str(error))
        return 1
    # Millions of objects live long and none of them is in a cycle: look for cycles rarely.
    gc.set_threshold(50_000, 20, 50)
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
        if copy is not None:
            copy.close()
    return 0


def limits(settings: WorkerSettings) -> Limits:
    """What one twin may hold (law 9), as set."""
    return Limits(
        document_bytes=settings.document_max_bytes,
        depth=settings.depth_max,
        key_bytes=settings.key_max_bytes,
        attributes=settings.attributes_max,
        attribute_bytes=settings.attribute_max_bytes,
        open_commands=settings.open_commands_max,
        day_commands=settings.day_commands_max,
        command_bytes=settings.command_args_max_bytes,
        ttl_default_ms=settings.command_ttl_s * 1000,
        ttl_max_ms=settings.command_ttl_max_s * 1000,
    )


def decided_by(settings: WorkerSettings, policy: Policy, partitions: int) -> Context:
    """What the pure core decides by: all of it comes from the settings, once."""
    return Context(
        policy=policy,
        limits=limits(settings),
        stale_after_ms=settings.stale_after_s * 1000,
        debounce_ms=round(settings.debounce_s * 1000),
        overdue_after_ms=settings.overdue_after_s * 1000,
        desired_ttl_ms=settings.desired_ttl_s * 1000,
        auto_create=settings.auto_create,
        partitions=partitions,
    )


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
    """Hooks the owner into Faust: the one agent, the restorer, the timers."""

    def __init__(
        self,
        settings: WorkerSettings,
        declared: Declarations,
        writer: Writer,
        view: View,
        copy: Copy | None,
        context: Context,
        partitions: int,
    ) -> None:
        self._view = view
        self._serving = False
        self._paused_at = time.monotonic()
        self._owner = Owner(writer, view, copy, context, partitions, self._on_foreign, _end)
        self._takeover = Takeover(
            self._owner, Reader(settings.kafka_bootstrap), writer, view, copy, context, _end
        )
        self._app = app = declared.app
        app.restorer = self._takeover
        app.on_fault = _end
        app.agent(declared.inputs, name="twin")(self._decide)
        app.task(self._show)
        app.timer(0.2)(self._tick)
        app.timer(10.0)(self._watch)
        app.on_partitions_revoked.connect(self._on_revoked)
        app.on_rebalance_complete.connect(self._on_served)

    def not_ready(self) -> dict[str, str]:
        """Why this worker does not serve its partitions now; empty when it does."""
        faults = {}
        if not self._serving:
            faults["tables"] = "not yet restored from Kafka"
        if self._view.fault:
            faults["redis"] = self._view.fault
        return faults

    async def _on_revoked(self, *_: Any, **__: Any) -> None:
        if self._serving:
            self._paused_at = time.monotonic()
        self._serving = False
        log.info("revoked", partitions=sorted(self._owner.parts))

    async def _on_served(self, *_: Any, **__: Any) -> None:
        self._serving = True
        # Our part of the pause; what waited meanwhile says how long it was (`TWIN_PAUSE_SECONDS`).
        seconds = round(time.monotonic() - self._paused_at, 3)
        log.info("resumed", partitions=sorted(self._owner.parts), seconds=seconds)

    async def _on_foreign(self, ticket: Ticket) -> None:
        await self._takeover.examine(ticket)

    async def _decide(self, stream: Any) -> None:
        async for event in stream.events():
            poll: Poll = event.value
            poll.begin()
            try:
                await self._owner.take(poll.records, poll.done)
            except Exception as error:
                _end(error)

    async def _show(self) -> None:
        try:
            await self._view.run(self._owner.durable)
        except Exception as error:
            _end(error)

    async def _tick(self) -> None:
        if self._serving:
            try:
                now_ms = SystemClock().now_ms()
                await self._owner.due(now_ms, self._app.horizons(now_ms))
            except Exception as error:
                _end(error)

    async def _watch(self) -> None:
        if self._serving:
            try:
                await self._takeover.watch(lambda: self._serving)
                await self._owner.keep()
            except Exception as error:
                _end(error)


def _end(error: Exception) -> NoReturn:
    """End at once and uncommitted: whoever takes over takes the records in hand again."""
    known = isinstance(error, CartwinError)
    log.error("cannot go on", error=str(error), exc_info=None if known else error)
    sys.stderr.flush()
    os._exit(1)
