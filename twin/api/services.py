"""What a request needs, opened once with its cleanup: reader, requests, readiness, settings.

`open_services` is the process's composition; tests give `create_app` another opener.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from twin.api.reader import Reader
from twin.api.readiness import Readiness
from twin.api.rejected_log import RejectedLog
from twin.api.request_log import RequestLog
from twin.api.requests import Requests
from twin.api.settings import ApiSettings
from twin.kit import logs
from twin.kit.clock import Clock, SystemClock

log = logs.get(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """Handed to every route."""

    reader: Reader
    requests: Requests
    readiness: Readiness
    clock: Clock
    wait_s: float
    message_max_bytes: int
    """Of a request's body."""
    rejected: RejectedLog
    tasks: tuple[asyncio.Task[None], ...] = ()

    def ended(self) -> list[str]:
        """Names of eternal tasks that have ended: then the process is of no use any more."""
        return [task.get_name() for task in self.tasks if task.done()]


@asynccontextmanager
async def open_services(settings: ApiSettings, readiness: Readiness) -> AsyncIterator[Services]:
    """Connect (lazily: neither Redis nor Kafka has to be there yet), and close in reverse order.

    `readiness` is kept up to date meanwhile.
    """
    reader = Reader(settings.redis_url)
    requests_log = RequestLog(settings.kafka_bootstrap, settings.api_wait_s)
    clock = SystemClock()
    rejected = RejectedLog(settings.kafka_bootstrap, settings.api_wait_s)
    requests = Requests(reader, requests_log, clock, settings.api_wait_s)
    tasks = (
        asyncio.create_task(requests.poll(), name="replies-poll"),
        asyncio.create_task(requests.listen(), name="replies-hints"),
        asyncio.create_task(readiness.run(reader, requests_log.fault), name="readiness"),
    )
    try:
        most = settings.message_max_bytes
        yield Services(
            reader, requests, readiness, clock, settings.api_wait_s, most, rejected, tasks
        )
    finally:
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                log.error("background task had failed", error=repr(result))
        await asyncio.to_thread(requests_log.close)
        await asyncio.to_thread(rejected.close)
        await reader.close()


async def _of_request(request: Request) -> Services:
    # A coroutine, or the framework would ask another thread for it.
    return cast(Services, request.app.state.services)


Needs = Annotated[Services, Depends(_of_request)]
