"""Restoring after a rebalance, in place of Faust's recovery: one restore of whole partitions.

    partitions revoked -> flow stops, polls in hand are finished, offsets committed
    partitions assigned -> seek to the committed offsets -> app.restore(places) -> flow resumes

Faust's own recovery reads changelogs one event at a time through the consumer of the inputs, and its
end is a signal that is lost when it comes before somebody waits for it: then the worker stands still
for ever. Here a rebalance only says what is wanted, the newest wish counts, and one task works until
it is fulfilled; nothing is waited for that has not been asked for. Changelogs are not subscribed to:
all topics of a vehicle have the same partitions, so whoever has an input has its changelog.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from aiokafka.errors import IllegalStateError, KafkaError
from faust.tables import TableManager
from faust.types import TP
from mode import Service

from twin.kit import logs
from twin.stream.fetch import InputsUnreadable

log = logs.get(__name__)

_RETRY_S: Final = 0.5


class Restorer(Protocol):
    """What the application does when partitions come and go."""

    async def restore(
        self, places: Mapping[TP, int], generation: int, wanted: Callable[[], bool]
    ) -> None:
        """Make ready to be handed the records from `places` on; may end early when not `wanted`."""
        ...

    def mark(self) -> Any:
        """What is finished now; asked for right before a commit."""
        ...

    def committed(self, mark: Any, offsets: Mapping[TP, int]) -> None:
        """The inputs up to a mark are committed."""
        ...


class Recovery(Service):
    """The part of Faust's recovery that its table manager and app call."""

    def __init__(self, app: Any, tables: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.app = app
        self.tables = tables
        self.completed = asyncio.Event()
        self._asked = asyncio.Event()
        self._wish: tuple[int, set[TP]] | None = None

    def on_partitions_revoked(self, _revoked: set[TP]) -> None:
        """A rebalance begins: whatever was being restored is not wanted any more."""
        self._wish = None

    async def on_rebalance(
        self,
        assigned: set[TP],
        _revoked: set[TP],
        _newly_assigned: set[TP],
        generation_id: int = 0,
    ) -> None:
        """A rebalance has ended: these are the partitions of this worker."""
        self._wish = (generation_id, set(assigned))
        self._asked.set()

    @Service.task
    async def _work(self) -> None:
        while not self.should_stop:
            await self.wait_first(self._asked.wait())
            self._asked.clear()
            wish = self._wish
            if wish is not None and not self.should_stop:
                await self._fulfil(wish)

    async def _fulfil(self, wish: tuple[int, set[TP]]) -> None:
        generation, assigned = wish
        consumer = self.app.consumer

        def wanted() -> bool:
            return (
                self._wish is wish
                and generation == self.app.consumer_generation_id
                and not self.should_stop
            )

        while wanted():
            try:
                await consumer.perform_seek()
                if wanted():
                    await self.app.restorer.restore(consumer.places(), generation, wanted)
            except IllegalStateError:
                return  # a rebalance came between; it asks again
            except InputsUnreadable as error:
                self.app.on_fault(error)
                return
            except KafkaError as error:
                log.warning("cannot restore yet", error=str(error))
                await self.sleep(_RETRY_S)
            else:
                break
        if wanted():
            await self._resume(assigned)

    async def _resume(self, assigned: set[TP]) -> None:
        app = self.app
        app.consumer.resume_partitions(assigned)
        app.flow_control.resume()
        app.consumer.resume_flow()
        await app._fetcher.maybe_start()
        self.completed.set()
        self.tables.on_actives_ready()
        self.tables.on_standbys_ready()
        await app.on_rebalance_complete.send()
        app.on_rebalance_end()


class Tables(TableManager):
    """Faust's table manager without channels of changelogs."""

    _recovery: Any

    async def on_start(self) -> None:
        """Declare the tables; without Faust's second of waiting."""
        await self._update_channels()
        await self.recovery.start()

    async def _update_channels(self) -> None:
        self._tables_finalized.set()
        for table in self.values():
            await table.maybe_start()
        self._tables_registered.set()

    @property
    def recovery(self) -> Any:
        """Ours."""
        if self._recovery is None:
            self._recovery = Recovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery
