"""An MQTT client that keeps one session at one broker alive: connect, subscribe, connect again.

An async context manager; a background task owns the connection. Each connect asks for MQTT 5 and
falls back to 3.1.1: a bare CONNECT under another client id finds out which, because 3.1.1 brokers
misread MQTT 5 properties (amqtt waits for bytes that never come instead of refusing). The answer is
kept until a handshake fails.

With filters the session is persistent (stable client id, no clean start, an hour and more), so the
broker keeps what arrives while we are away. Without filters there is nothing to keep.
"""

import asyncio
import random
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from ingest import packets
from ingest.connection import GOODBYE_S, Connection, OnMessage, Receipt
from ingest.errors import ConnectionLost, ConnectionRefused, ProtocolError, SessionTakenOver
from ingest.packets import Level, Publish
from ingest.settings import Broker
from twin.kit import logs
from twin.wire.errors import CartwinError

log = logs.get(__name__)

SESSION_EXPIRY_S: Final = 86_400
KEEP_ALIVE_S: Final = 30
CONNECT_S: Final = 10.0
BACKOFF_FIRST_S: Final = 0.2
BACKOFF_LAST_S: Final = 10.0
STEADY_S: Final = 10.0
"""A connection that lived so long was a good one: the back-off begins anew."""


def backoff_s(attempt: int, chance: float) -> float:
    """Seconds before try number `attempt` (0 = first again): exponential, capped, with jitter.

    `chance` in 0..1 spreads it over the upper half, so that many clients do not come at once.
    """
    whole = min(BACKOFF_LAST_S, BACKOFF_FIRST_S * 2.0 ** min(attempt, 16))
    return whole * (0.5 + chance / 2)


class Client:
    """A client of one broker. `window`: unacknowledged messages before reading pauses."""

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        *,
        filters: tuple[str, ...] = (),
        on_message: OnMessage | None = None,
        on_reconnect: Callable[[], object] | None = None,
        window: int = 1000,
    ) -> None:
        self.broker = broker
        self.fault = "not connected yet"
        """Why it is not connected; empty while it is."""
        self._client_id = client_id
        self._filters = filters
        self._on_message = on_message or _unexpected
        self._on_reconnect = on_reconnect
        self._window = window
        self._level: Level | None = None
        self._subscribed = False
        self._connection: Connection | None = None
        self._up = asyncio.Event()
        self._held = False
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"mqtt {self.broker}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        connection = self._connection
        if connection is not None:
            connection.disconnect()
            await asyncio.wait((connection.closed,), timeout=GOODBYE_S + 1)
        self._task.cancel()
        await asyncio.wait((self._task,))

    @property
    def ended(self) -> asyncio.Task[None]:
        """Done only when the client gave up: `SessionTakenOver`, or what a callback raised."""
        return self._task

    async def connected(self) -> None:
        """Return when connected and subscribed."""
        await self._up.wait()

    async def publish(self, topic: str, payload: bytes, *, expiry_s: int | None = None) -> int:
        """Publish at QoS 1, not retained; the PUBACK's reason code (0 = taken, from 0x80 refused).

        `expiry_s` is for the broker's queue and said in MQTT 5 only. Raises `ConnectionLost` when
        not connected or when the connection ends before the PUBACK: then send it again.
        """
        connection = self._connection
        if connection is None:
            raise ConnectionLost(f"{self.broker}: {self.fault}")
        try:
            return await connection.publish(Publish(topic, payload, qos=1, expiry_s=expiry_s))
        except ConnectionLost:
            # Whoever tries again must wait for the next connection, not find this one still named.
            if connection is self._connection:
                self._up.clear()
            raise

    def hold(self) -> None:
        """Take no more messages, now and after a reconnect; receipts still go out."""
        self._held = True
        if self._connection is not None:
            self._connection.hold()

    # --- The task ---------------------------------------------------------------------------------

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            since = loop.time()
            fault = await self._one_connection()
            self.fault = str(fault)
            attempt = 0 if loop.time() - since > STEADY_S else attempt + 1
            log.warning("mqtt connection ended", broker=str(self.broker), why=self.fault)
            await asyncio.sleep(backoff_s(attempt, random.random()))
            if self._on_reconnect is not None:
                self._on_reconnect()

    async def _one_connection(self) -> CartwinError:
        """Connect, serve until the connection ends, and say why it ended."""
        try:
            self._connection = await self._open()
        except (ConnectionLost, ConnectionRefused, ProtocolError) as fault:
            self._level = None
            return fault
        try:
            if self._held:
                self._connection.hold()
            self.fault = ""
            self._up.set()
            log.info("mqtt connected", broker=str(self.broker), level=self._connection.level)
            await asyncio.wait((self._connection.closed,))
            ended = self._connection.closed.result()
            if isinstance(ended, SessionTakenOver):
                raise ended
            return ended
        finally:
            self._up.clear()
            self._connection = None

    async def _open(self) -> Connection:
        """A connection that is ready for use."""
        if self._level is None:
            self._level = await self._probe()
        connection = await self._transport(self._level)
        try:
            answer = await connection.connect(
                self._client_id,
                clean_start=not self._filters,
                session_expiry_s=SESSION_EXPIRY_S if self._filters else 0,
                keep_alive_s=KEEP_ALIVE_S,
            )
            # A new process always subscribes: the filters may have changed since the last one.
            if self._filters and not (answer.session_present and self._subscribed):
                await connection.subscribe(self._filters)
                self._subscribed = True
        except BaseException:
            connection.close(ConnectionLost("the handshake failed"))
            raise
        return connection

    async def _probe(self) -> Level:
        """The highest protocol level that the broker speaks."""
        connection = await self._transport(5)
        try:
            answer = await connection.probe(f"{self._client_id}-probe")
        except (ConnectionLost, ProtocolError):
            return 4
        finally:
            connection.disconnect()
        if answer.code == packets.SUCCESS:
            return 5
        # Below 0x80 are the refusals of MQTT 3.1.1.
        return (
            4 if answer.code < packets.FAILURE or answer.code == packets.UNSUPPORTED_VERSION else 5
        )

    async def _transport(self, level: Level) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                _, connection = await loop.create_connection(
                    lambda: Connection(level, self._window, self._on_message), *self.broker
                )
        except TimeoutError:
            raise ConnectionLost(f"no TCP connection after {CONNECT_S:.0f} s") from None
        except OSError as error:
            raise ConnectionLost(f"no TCP connection: {error}") from error
        return connection


def _unexpected(message: Publish, _receipt: Receipt) -> None:
    raise ProtocolError(f"a message on {message.topic!r} came without a subscription")
