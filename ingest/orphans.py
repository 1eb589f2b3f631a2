"""Sessions of workers that are no more: worker 0 takes what they hold, and ends them.

A worker that is stopped in order ends its session. One that was killed, and whose number does not come
back since there are fewer workers now, leaves a session with a share of the telemetry: what the broker
has put there, and goes on putting there, would be forgotten with it. So worker 0 looks for sessions of
all numbers from UPLINK_WORKERS on, leaves their share, takes all that they hold, and ends them when
Kafka has it.

Whoever connects under the name of a session throws out who uses it. So a number is looked at only when
no worker runs under it: each tells twice a second that it does (`ingest.relay`), and counts as gone when
QUIET of worker 0's own tellings came back to worker 0 with none of its own in between. Worker 0's are
the clock because they take the same way: while worker 0 does not read, or the broker is slow, none comes.

Looked at is each silent number once a connection (while we were away anybody may have come and gone), and
again when it was heard and fell silent. One that could not be taken is tried again after AGAIN tellings;
when a worker came back under its number meanwhile, it has thrown us out, and is heard now.
"""

import asyncio
from typing import Final

from ingest import leaving, probe
from ingest.connection import OnMessage, Receipt
from ingest.connector import Connector
from ingest.errors import IngestError
from ingest.packets import Level, Publish
from ingest.topology import EVERY, MOST_WORKERS, Topology
from twin.kit import logs

log = logs.get(__name__)

QUIET: Final = 10
"""Tellings of worker 0 in which a worker is not heard that does not run: 5 s."""
AGAIN: Final = 1200
"""And from a look that failed to the next one: 10 min."""


class Roll:
    """Which numbers of workers are to be looked at, by what worker 0 hears. Pure."""

    def __init__(self, numbers: range) -> None:
        self._numbers = numbers
        self._clock = 0
        self._since: dict[int, int] = {}
        """The last time that a number was heard."""
        self._looked: set[int] = set()

    def anew(self) -> None:
        """A connection begins: what was said before it was not heard."""
        self._clock = 0
        self._since.clear()
        self._looked.clear()

    def heard(self, worker: int) -> None:
        """A worker says that it runs; 0 are we."""
        if worker == 0:
            self._clock += 1
        elif worker < MOST_WORKERS:
            self._since[worker] = self._clock
            self._looked.discard(worker)

    def due(self) -> int | None:
        """A number to look at now."""
        for number in self._numbers:
            if number not in self._looked and self._clock - self._since.get(number, 0) >= QUIET:
                return number
        return None

    def looked(self, number: int) -> None:
        """It is being looked at."""
        self._looked.add(number)

    def failed(self, number: int) -> None:
        """It could not be taken."""
        self._since[number] = self._clock + AGAIN
        self._looked.discard(number)


class Orphans:
    """Those at the broker number `shard`. `on_message` gets what they hold, `window` at a time."""

    def __init__(
        self,
        shard: int,
        topology: Topology,
        connector: Connector,
        on_message: OnMessage,
        window: int,
    ) -> None:
        self.roll = Roll(topology.no_longer)
        self._shard = shard
        self._topology = topology
        self._connector = connector
        self._on_message = on_message
        self._window = window

    async def look(self, level: Level) -> None:
        """Look at one number, if one is due, and take what its session holds."""
        worker = self.roll.due()
        if worker is None:
            return
        self.roll.looked(worker)
        name = self._topology._replace(worker=worker).client_id(self._shard)
        try:
            await self._end(level, name)
        except IngestError as error:
            self.roll.failed(worker)
            log.warning(
                "a session of a worker that is no more could not be ended",
                broker=str(self._connector.broker),
                session=name,
                why=str(error),
            )

    async def _end(self, level: Level, name: str) -> None:
        echo, under_way = probe.Echo(probe.topic(name)), UnderWay(self._on_message)
        side = {**probe.leftovers(name), echo.topic: echo.heard}
        connection = await self._connector.open(level, self._window, under_way.take, side)
        try:
            answer = await connection.connect(
                name,
                clean_start=False,
                session_expiry_s=leaving.SESSION_EXPIRY_S,
                keep_alive_s=leaving.KEEP_ALIVE_S,
            )
            if answer.session_present:
                broker = str(self._connector.broker)
                log.info("a session of a worker that is no more", broker=broker, session=name)
                await leaving.take_the_rest(connection, EVERY, echo)
                await under_way.drained()
            # One that was not there is there now, by our asking.
            await leaving.forget(self._connector, connection, name)
            if answer.session_present:
                log.info("taken and ended", broker=broker, session=name, messages=under_way.taken)
        finally:
            await leaving.goodbye(connection)


class UnderWay:
    """Messages of one session on their way to Kafka."""

    def __init__(self, on_message: OnMessage) -> None:
        self._on_message = on_message
        self._open = 0
        self._none = asyncio.Event()
        self._none.set()
        self.taken = 0

    def take(self, message: Publish, receipt: Receipt) -> None:
        """Callback of its connection."""
        self.taken += 1
        self._open += 1
        self._none.clear()
        self._on_message(message, _Counted(receipt, self))

    def safe(self) -> None:
        """Kafka has one."""
        self._open -= 1
        if not self._open:
            self._none.set()

    async def drained(self) -> None:
        """Return when Kafka has them all."""
        await self._none.wait()


class _Counted(Receipt):
    """A receipt that is counted when it is given."""

    __slots__ = ("_receipt", "_under_way")

    def __init__(self, receipt: Receipt, under_way: UnderWay) -> None:
        self._receipt = receipt
        self._under_way = under_way

    def ack(self) -> None:
        self._receipt.ack()
        self._under_way.safe()
