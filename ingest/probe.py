"""Finding out by trying what a broker does not say: shared subscriptions, and how much it keeps.

    topic `cartwin/probe/{client id}`: nobody else's, and its messages are no car's

A message of ours that comes back tells that all before it in our session have been given to us: that
is the `Echo`, and how every question here ends without waiting for silence.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from ingest import topology
from ingest.connection import Connection, OnMessage, OnSide, Receipt
from ingest.connector import Connector
from ingest.errors import ConnectionLost, ConnectionRefused
from ingest.packets import FAILURE, QUOTA_EXCEEDED, Level, Publish

ECHO_AGAIN_S: Final = 0.5
"""A full queue drops our message, too: it is sent again, and there will be room for one."""
PROBE_S: Final = 30.0
_KEEP_ALIVE_S: Final = 60
_EXPIRY_S: Final = 120
"""What a probe leaves behind when it is killed is forgotten after so long (MQTT 5)."""


def topic(name: str) -> str:
    """Where the client of that name hears itself. All topics of our own are like it."""
    return f"cartwin/probe/{name}"


def mark_topic(client_id: str) -> str:
    """Where a client hears its own marks (`ingest.lag`)."""
    return topic(f"{client_id}-mark")


def leftovers(client_id: str) -> dict[str, OnSide]:
    """What questions of ours that were cut off may have left in a session, for the side of its
    connection: it is nobody's message."""
    return {topic(client_id): _nothing, mark_topic(client_id): _nothing}


def _nothing(_payload: bytes) -> None:
    """Heard and forgotten."""


class Echo:
    """Messages on `topic` to ourselves; give what comes there to `heard`."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self._heard = asyncio.Event()

    def heard(self, _payload: bytes) -> None:
        """A message on the topic came."""
        self._heard.set()

    async def returned(self, connection: Connection) -> None:
        """Return when a message that we send now has come back. Raises `ConnectionLost`,
        `ConnectionRefused`."""
        await connection.subscribe((self.topic,))
        try:
            await say_until(connection, self.topic, self._heard)
        finally:
            if not connection.closed.done():
                await connection.unsubscribe((self.topic,))


async def say(connection: Connection, topic: str, payload: bytes = b"") -> None:
    """Publish a message of ours, which a full queue may drop.

    Raises `ConnectionLost`, and `ConnectionRefused` when the broker does not let us.
    """
    code = await connection.publish(Publish(topic, payload, qos=1))
    if code >= FAILURE and code != QUOTA_EXCEEDED:
        raise ConnectionRefused(f"the broker refuses a message on {topic!r}: 0x{code:02x}", code)


async def say_until(connection: Connection, topic: str, heard: asyncio.Event) -> None:
    """Publish an empty message on `topic`, again from time to time, until `heard` is set."""
    while not heard.is_set():
        await say(connection, topic)
        try:
            async with asyncio.timeout(ECHO_AGAIN_S):
                await heard.wait()
        except TimeoutError:
            if connection.closed.done():
                raise ConnectionLost(str(connection.closed.result())) from None


@asynccontextmanager
async def _session(
    connector: Connector,
    level: Level,
    name: str,
    take: OnMessage,
    *,
    clean_start: bool = True,
    expiry_s: int = 0,
    ends: bool = False,
) -> AsyncIterator[Connection]:
    """A connection for a while; afterwards the broker has closed it. `ends`: and forgets it (MQTT 5)."""
    connection = await connector.open(level, 1000, take)
    try:
        await connection.connect(
            name, clean_start=clean_start, session_expiry_s=expiry_s, keep_alive_s=_KEEP_ALIVE_S
        )
        yield connection
    finally:
        connection.disconnect(end_session=ends)
        await asyncio.wait((connection.closed,))


async def shares(connector: Connector, client_id: str) -> bool:
    """Whether a broker of MQTT 3.1.1 has shared subscriptions.

    Raises `ConnectionLost`, `ConnectionRefused`, `ProtocolError`, `AccessUnusable`.
    """
    echo, between = Echo(topic(f"{client_id}-probe")), topic(f"{client_id}-shared")
    came = False

    def take(message: Publish, receipt: Receipt) -> None:
        nonlocal came
        receipt.ack()
        if message.topic == between:
            came = True
        elif message.topic == echo.topic:
            echo.heard(message.payload)

    try:
        async with (
            asyncio.timeout(PROBE_S),
            _session(connector, 4, f"{client_id}-probe", take) as connection,
        ):
            (code,) = await connection.ask((topology.shared(between),), qos=1)
            if code >= FAILURE:
                return False
            await connection.publish(Publish(between, b"", qos=1))
            await echo.returned(connection)
            return came
    except TimeoutError:
        raise ConnectionLost(_unheard(echo.topic)) from None


async def keeps(connector: Connector, level: Level, client_id: str, count: int) -> int:
    """How many of `count` small messages a broker keeps for a session that is away.

    Raises `ConnectionLost`, `ConnectionRefused`, `ProtocolError`, `AccessUnusable`.
    """
    said = topic(client_id)
    numbers: set[bytes] = set()
    ended = asyncio.Event()

    def take(message: Publish, receipt: Receipt) -> None:
        receipt.ack()
        if message.payload:
            numbers.add(message.payload)
        if not message.payload or len(numbers) == count:
            ended.set()

    session = partial(_session, connector, level, f"{client_id}-probe", take)
    try:
        async with asyncio.timeout(PROBE_S):
            # What a probe that was killed may have left is dropped by a clean start.
            if level == 4:
                async with session():
                    pass
            async with session(clean_start=level == 5, expiry_s=_EXPIRY_S) as absent:
                await absent.subscribe((said,))
            async with _session(connector, level, f"{client_id}-speaker", take) as speaker:
                await asyncio.gather(
                    *(speaker.publish(Publish(said, b"%d" % each, qos=1)) for each in range(count))
                )
                async with session(clean_start=False, expiry_s=_EXPIRY_S, ends=True):
                    await say_until(speaker, said, ended)
            if level == 4:
                async with session():
                    pass
    except TimeoutError:
        raise ConnectionLost(_unheard(said)) from None
    return len(numbers)


def _unheard(topic: str) -> str:
    return (
        f"it took more than {PROBE_S:.0f} s; a broker that is slow, or that does not let us read and"
        f" write {topic!r}"
    )
