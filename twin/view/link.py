"""The one connection to Redis that writes for an owner, and only while it is the owner (law 5).

    WATCH owner:{p}.., MGET owner:{p}..   all as claimed?  -> MULTI .. EXEC -> the next WATCH, MGET

Every transaction is under a WATCH of what this worker claimed: when another one has claimed a partition
in between, or Redis was emptied, EXEC does nothing. The WATCH of the next transaction goes out with
this one, so fencing costs no round trip. After a broken connection nobody knows whether the last
transaction will still be carried out, late and over something newer: so the keys are set once more
first, to what they are, and that ends it.

Redis may also come back with less than it had (a restart, a replica that took over). Its run id tells,
as the missing keys do when it was emptied; both are `ViewLost`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError

from twin.kit import logs
from twin.view import scripts
from twin.view.resp import EXEC, MULTI, packed
from twin.wire import keys
from twin.wire.errors import CartwinError

log = logs.get(__name__)

_TIMEOUT_S: Final = 5.0
_DELAY_S: Final = 0.05
_MOST_DELAY_S: Final = 2.0
LOADED: Final = (scripts.PUT, scripts.DROP, scripts.DIFFERS, scripts.TRIM)

Answer = TypeVar("Answer")


class FormerOwner(CartwinError):
    """Another worker owns a partition that this one wants to write about."""


class ViewLost(Exception):
    """Redis has not what this worker had put there."""


class Link:
    """Fenced transactions; waits while Redis is away, never gives up a write. One caller at a time."""

    def __init__(self, url: str) -> None:
        pool: ConnectionPool = ConnectionPool.from_url(
            url,
            # A time-out for each line that is read or written costs more than reading it, and in
            # Python 3.11 one for writing may swallow a cancellation: `_insist` has one for all.
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
        )
        self._connection = pool.make_connection()  # type: ignore[no-untyped-call]
        self._epochs: dict[int, int] = {}
        self._watching = False
        self._server = b""
        """Run id of the Redis that we are connected to."""
        self._known = b""
        """Run id of the Redis that has what we put there."""
        self.fault: str | None = None
        """Why nothing can be written right now; None when it can."""

    def owns(self, partition: int, epoch: int) -> bool:
        """Whether the partition is claimed under this epoch, as far as is known here."""
        return self._epochs.get(partition) == epoch

    async def claim(self, epochs: Mapping[int, int]) -> None:
        """Become the owner of partitions. Raises `FormerOwner` when one has a newer owner."""
        if not self._epochs:
            self._known = b""
        self._epochs.update(epochs)
        self._watching = False

        async def step() -> list[int | None]:
            await self._connect()
            await self._own("claim", epochs)
            return await self._owners(epochs)

        while True:
            found = await self._insist(step)
            self._known = self._known or self._server
            try:
                self._judge(epochs, found)
            except ViewLost:
                continue  # emptied in between
            return

    async def claim_again(self) -> None:
        """After `ViewLost`: claim what is claimed in the Redis that there is now."""
        self._known = b""
        await self.claim(dict(self._epochs))

    def release(self, partitions: Iterable[int]) -> None:
        """Own them no more."""
        for partition in partitions:
            self._epochs.pop(partition, None)
        self._watching = False

    async def transact(
        self, commands: Sequence[bytes], count: int, epochs: Mapping[int, int]
    ) -> list[Any]:
        """Carry out `count` packed commands, in any pieces, at once, as the owner under `epochs`.

        Raises `FormerOwner`, also when a partition of them was released: what is watched is only what
        is owned. Raises `ViewLost`.
        """

        async def step() -> list[Any]:
            done: list[Any] | None = None
            while done is None:
                await self._ready()
                released = [p for p, epoch in epochs.items() if not self.owns(p, epoch)]
                if released:
                    raise FormerOwner(f"partitions {released} are not this worker's any more")
                done = await self._transact(commands, count)
            return done

        return await self._insist(step)

    async def ask(self, *arguments: bytes | str | float) -> Any:
        """The answer to one command that changes nothing."""

        async def step() -> Any:
            await self._connect()
            return await self._call(*arguments)

        return await self._insist(step)

    async def check(self) -> None:
        """Raises `FormerOwner` or `ViewLost` when a transaction would."""
        self._watching = False
        await self._insist(self._ready)

    async def close(self) -> None:
        """End the connection."""
        await self._connection.disconnect()

    async def _insist(self, step: Callable[[], Awaitable[Answer]]) -> Answer:
        delay = _DELAY_S
        while True:
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    answer = await step()
            except (RedisError, OSError) as error:
                # Answers may be left over that the next command must not take for its own.
                await self._connection.disconnect(nowait=True)
                if self.fault is None:
                    log.warning("redis does not take writes; waiting", error=str(error))
                self.fault = str(error) or type(error).__name__
                await asyncio.sleep(delay)
                delay = min(delay * 2, _MOST_DELAY_S)
            else:
                self.fault = None
                return answer

    async def _ready(self) -> None:
        await self._connect()
        if self._epochs and self._server != self._known:
            raise ViewLost("redis was restarted")
        if self._epochs and not self._watching:
            epochs = dict(self._epochs)
            await self._connection.send_packed_command(_watch(epochs), check_health=False)
            await self._connection.read_response()
            self._judge(epochs, _epochs_in(await self._connection.read_response()))
            self._watching = epochs == self._epochs

    async def _connect(self) -> None:
        if self._connection.is_connected:
            return
        self._watching = False
        await self._connection.connect()
        for script in LOADED:
            await self._call("SCRIPT", "LOAD", script)
        try:
            about: bytes = await self._call("INFO", "server")
        except NoPermissionError:
            about = b""
        self._server = about.partition(b"run_id:")[2].partition(b"\r\n")[0]
        await self._own("renew", self._epochs)

    async def _transact(self, commands: Sequence[bytes], count: int) -> list[Any] | None:
        read = self._connection.read_response
        epochs = dict(self._epochs)
        watch = _watch(epochs)
        self._watching = False
        await self._connection.send_packed_command(
            [MULTI, *commands, EXEC, watch], check_health=False
        )
        for _ in range(1 + count):
            await read()
        done: list[Any] | None = await read()
        if watch:
            await read()
            found = _epochs_in(await read())
            self._watching = epochs == self._epochs and found == list(epochs.values())
        for answer in done or ():
            if isinstance(answer, RedisError):
                raise answer
        return done

    async def _own(self, how: str, epochs: Mapping[int, int]) -> None:
        if epochs:
            pairs = [number for pair in epochs.items() for number in pair]
            await self._call("EVAL", scripts.CLAIM, 0, how, *pairs)

    async def _owners(self, epochs: Mapping[int, int]) -> list[int | None]:
        if not epochs:
            return []
        return _epochs_in(await self._call("MGET", *map(keys.owner, epochs)))

    async def _call(self, *arguments: bytes | str | float) -> Any:
        await self._connection.send_packed_command(packed(*arguments), check_health=False)
        return await self._connection.read_response()

    def _judge(self, epochs: Mapping[int, int], found: Iterable[int | None]) -> None:
        pairs = list(zip(epochs.items(), found, strict=True))
        former = [p for (p, epoch), there in pairs if there is not None and there > epoch]
        if former:
            self.release(former)
            raise FormerOwner(f"another worker owns partitions {former} by now")
        if any(there != epoch for (_, epoch), there in pairs):
            raise ViewLost("redis was emptied")


def _epochs_in(found: Iterable[bytes | None]) -> list[int | None]:
    return [int(raw) if raw is not None and raw.isdigit() else None for raw in found]


def _watch(epochs: Mapping[int, int]) -> bytes:
    if not epochs:
        return b""
    names = [keys.owner(partition) for partition in epochs]
    return packed("WATCH", *names) + packed("MGET", *names)
