"""Whether this process can serve: Redis answers, and Kafka knows the topic of requests.

Checked in the background, so that probes cost nothing and cannot be used to load Redis or Kafka;
an old result counts as not ready, because then the event loop itself is stuck.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from twin.api.reader import Reader, StoreUnavailable
from twin.kit import logs

log = logs.get(__name__)

EVERY_S: Final = 1.0
_OLD_S: Final = 15.0


class Readiness:
    """Faults by part; empty means ready. `log_fault` says why Kafka takes no request, or None."""

    def __init__(self) -> None:
        self._faults: dict[str, str] = {"api": "not checked yet"}
        self._checked = time.monotonic()

    def faults(self) -> dict[str, str]:
        """What is not ready and why."""
        age = time.monotonic() - self._checked
        if age > _OLD_S:
            return {"api": f"not checked for {age:.0f} s"}
        return self._faults

    async def run(self, reader: Reader, log_fault: Callable[[], str | None]) -> None:
        """Check for ever."""
        while True:
            await self.check(reader, log_fault)
            await asyncio.sleep(EVERY_S)

    async def check(self, reader: Reader, log_fault: Callable[[], str | None]) -> None:
        """Check now."""
        faults: dict[str, str] = {}
        try:
            await reader.ping()
        except StoreUnavailable as error:
            faults["redis"] = str(error)
        kafka = await asyncio.to_thread(log_fault)
        if kafka is not None:
            faults["kafka"] = kafka
        # The words of a fault change while it lasts (refused, timed out); its part does not.
        if faults.keys() != self._faults.keys():
            if faults:
                log.warning("not ready", **faults)
            else:
                log.info("ready")
        self._faults, self._checked = faults, time.monotonic()
