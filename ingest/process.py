"""How uplink and downlink live: signals, health, an end that is clean or explained."""

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Protocol

from confluent_kafka import Consumer, Producer

from ingest.door import Door
from ingest.outbox import Outbox
from ingest.settings import IngestSettings
from twin.kit import kafka, logs, registry
from twin.kit.health import HealthServer
from twin.kit.registry_settings import SchemaRegistry
from twin.wire.errors import CartwinError

log = logs.get(__name__)

DRAIN_S = 10.0
"""After SIGTERM, the time for what is under way; what remains is delivered again later."""

KAFKA_SILENT_S = 10.0
"""Records under way that Kafka acknowledges nothing of for so long: it is away, or as good as."""

_AGAIN_S = 2.0
"""From one question to a schema registry that has no answer to the next."""


class Faulty(Protocol):
    """Something that knows why it is not ready."""

    def faults(self) -> dict[str, str]:
        """What is not ready and why."""


class Readiness:
    """What is not ready and why; read by the health server's thread."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self.kafka = "not reached yet"
        self.schemas = ""
        self.brokers: tuple[Faulty, ...] = ()
        self.outbox: Outbox | None = None
        self.door: Door | None = None

    def faults(self) -> dict[str, str]:
        """Empty when Kafka knows our topics and takes what we send, the ids of schemas are known, every
        broker is connected and subscribed, and not everything is rejected."""
        faults = {name: why for broker in self.brokers for name, why in broker.faults().items()}
        if why := self.kafka or self._silence():
            faults["kafka"] = why
        if self.schemas:
            faults["schemas"] = self.schemas
        if self.door is not None and self.door.fault:
            faults["messages"] = self.door.fault
        return faults

    def _silence(self) -> str:
        if self.outbox is None:
            return ""
        silent_s = self.outbox.silent_s(self._clock())
        if silent_s < KAFKA_SILENT_S:
            return ""
        return f"nothing acknowledged for {silent_s:.0f} s, {len(self.outbox)} under way"


Serve = Callable[[Readiness, asyncio.Event], Awaitable[None]]


def run(name: str, settings: IngestSettings, serve: Serve) -> int:
    """Run `serve` until SIGTERM or SIGINT; the exit code: 0 stopped, 1 ended by an error."""
    logs.configure(name, settings.log_level, settings.log_format)
    readiness = Readiness()
    try:
        health = HealthServer(settings.health_host, settings.health_port, readiness.faults)
    except CartwinError as error:
        log.error("ended", why=str(error), error=type(error).__name__)
        return 1
    # What is under way is thousands of objects and none of them is in a cycle: looking for cycles as
    # often as Python does by itself was a quarter of the uplink's time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        asyncio.run(_until_stopped(serve, readiness))
    except CartwinError as error:
        log.error("ended", why=str(error), error=type(error).__name__)
        return 1
    finally:
        health.close()
    log.info("stopped")
    return 0


async def _until_stopped(serve: Serve, readiness: Readiness) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    broken: asyncio.Future[None] = loop.create_future()

    def unhandled(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # An exception in a callback is a fault of ours: end loudly instead of living on half dead.
        error = context.get("exception")
        log.error("unhandled in the event loop", what=context["message"], error=repr(error))
        if isinstance(error, Exception) and not broken.done():
            broken.set_exception(error)

    loop.set_exception_handler(unhandled)
    await first(asyncio.ensure_future(serve(readiness, stop)), broken)


async def first(*things: "asyncio.Future[Any]") -> None:
    """Return when the first is done, raise what it raised; cancel and await the others."""
    try:
        done, _ = await asyncio.wait(things, return_when=asyncio.FIRST_COMPLETED)
        for thing in done:
            thing.result()
    finally:
        for thing in things:
            if not thing.done():
                thing.cancel()
        await asyncio.wait(things)


async def await_topics(
    client: Producer | Consumer, names: list[str], readiness: Readiness, stop: asyncio.Event
) -> bool:
    """Wait until Kafka knows the topics, however long; False when stopped meanwhile."""
    while not stop.is_set():
        try:
            await asyncio.to_thread(kafka.wait_for_topics, client, names, 2)
        except kafka.KafkaUnavailable as fault:
            readiness.kafka = str(fault)
            log.warning("waiting for kafka", why=str(fault))
        else:
            readiness.kafka = ""
            return True
    return False


async def await_ids(settings: SchemaRegistry, readiness: Readiness, stop: asyncio.Event) -> bool:
    """Wait until the ids of Avro are known, however long; False when stopped meanwhile."""
    readiness.schemas = "their ids are not known yet"
    while not stop.is_set():
        try:
            await asyncio.to_thread(registry.use_ids, settings, 0)
        except registry.RegistryUnavailable as fault:
            readiness.schemas = str(fault)
            log.warning("waiting for the schema registry", why=str(fault))
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _AGAIN_S)
        else:
            readiness.schemas = ""
            return True
    return False
