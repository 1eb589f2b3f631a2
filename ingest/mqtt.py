"""An MQTT client that keeps one session at one broker alive: connect, subscribe, connect again.

An async context manager; a background task owns the connection. What level the broker speaks and
whether it has shared subscriptions is found out once and kept until a handshake fails; a level that
is only a guess is asked for again with the next connection.

With a topology the session is persistent (stable client id, no clean start, an hour and more), so
the broker keeps what arrives while we are away. Without one there is nothing to keep.
"""

import asyncio
import random
import secrets
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self

from ingest import leaving, probe, terms
from ingest.access import Access
from ingest.connection import Connection, OnMessage, OnSide
from ingest.connector import Connector, unexpected
from ingest.errors import (
    AccessUnusable,
    ConnectionLost,
    ConnectionRefused,
    ProtocolError,
    SessionTakenOver,
)
from ingest.lag import EVERY_S, Lag
from ingest.packets import FAILURE, Connack, Level, Publish
from ingest.topology import Subscriptions, Topology
from twin.kit import logs
from twin.kit.mqtt_address import Broker
from twin.wire.errors import CartwinError

log = logs.get(__name__)

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
    """A client of one broker. `window`: unacknowledged messages before reading pauses.

    `side`: what the broker says of itself, by topic; it goes to its own callbacks, is no message of a
    car, and a broker that does not grant it is none the worse. `marks`: find out how long messages may
    have waited (`ingest.lag`); without, `behind` says that they may.
    """

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        *,
        access: Access = Access(),  # noqa: B008 (a tuple)
        topology: Topology | None = None,
        on_message: OnMessage | None = None,
        on_reconnect: Callable[[], object] | None = None,
        side: Mapping[str, OnSide] | None = None,
        window: int = 1000,
        marks: bool = False,
    ) -> None:
        self.broker = broker
        self.client_id = client_id
        self.connector = Connector(broker, access)
        self.fault = "not connected yet"
        """Why it is not connected; empty while it is."""
        self.shortfalls: tuple[str, ...] = ()
        """What the broker that it is connected to does not grant, a sentence each."""
        self.level: Level | None = None
        self.fresh = asyncio.Event()
        """Set when the broker had no session for us: it is new, or has forgotten. Clear it yourself."""
        self._topology = topology
        self._on_message = on_message or unexpected
        self._on_reconnect = on_reconnect
        self._news = tuple(side or ())
        # What a probe that was killed left in the session is nobody's message.
        self._mark_topic = probe.mark_topic(client_id)
        self._side = {**probe.leftovers(client_id), self._mark_topic: self._heard, **(side or {})}
        self._marks = marks
        self._lag = Lag(b"")
        self._window = window
        self._level_is_sure = False
        self._can_share: bool | None = None
        self._retains = True
        self._subscribed: Subscriptions | None = None
        self._connection: Connection | None = None
        self._former: Connection | None = None
        self._emptied: Connection | None = None
        """What `leave` emptied, which alone `end_session` may end."""
        self._away_since = 0.0
        self._up = asyncio.Event()
        self._held = False
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._away_since = asyncio.get_running_loop().time()
        self._task = asyncio.create_task(self._run(), name=f"mqtt {self.broker}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._connection is not None:
            await leaving.goodbye(self._connection)
        self._task.cancel()
        await asyncio.wait((self._task,))

    @property
    def ended(self) -> asyncio.Task[None]:
        """Done only when the client gave up: `SessionTakenOver`, or what a callback raised."""
        return self._task

    def faults(self) -> dict[str, str]:
        """Why it is not connected, or what the broker does not grant; empty while all is well."""
        why = self.fault or "; ".join(self.shortfalls)
        return {str(self.broker): why} if why else {}

    @property
    def sharers(self) -> int:
        """Processes that the broker deals out telemetry to; 1 when one reads it all."""
        if self._topology is None or self._subscribed is None:
            return 1
        return self._topology.workers if self._subscribed.role == "shares telemetry" else 1

    def behind(self, now: float) -> bool:
        """Whether what comes at `now` (the loop's time) may have waited at the broker."""
        return self._lag.behind(now)

    @property
    def away_s(self) -> float:
        """For how long it has not been connected; 0 while it is."""
        now = asyncio.get_running_loop().time()
        return 0.0 if self._up.is_set() else now - self._away_since

    async def connected(self) -> None:
        """Return when connected and subscribed."""
        await self._up.wait()

    async def publish(
        self, topic: str, payload: bytes, *, expiry_s: int | None = None, retain: bool = False
    ) -> int:
        """Publish at QoS 1; the PUBACK's reason code (0 = taken, from 0x80 refused).

        `expiry_s` is for the broker's queue and said in MQTT 5 only. `retain` is not asked of a broker
        that says it retains nothing: it would cut the connection. Raises `ConnectionLost` when not
        connected or when the connection ends before the PUBACK: then send it again.
        """
        connection = self._connection
        if connection is None:
            raise ConnectionLost(f"{self.broker}: {self.fault}")
        try:
            retain = retain and self._retains
            return await connection.publish(
                Publish(topic, payload, qos=1, retain=retain, expiry_s=expiry_s)
            )
        except ConnectionLost:
            # Whoever tries again must wait for the next connection, not find this one still named.
            if connection is self._connection:
                self._up.clear()
            raise

    def publish_once(self, topic: str, payload: bytes) -> bool:
        """Publish at QoS 0; False when it is dropped: not connected, or the broker is too slow."""
        connection = self._connection
        return connection is not None and connection.publish_once(Publish(topic, payload))

    def hold(self) -> None:
        """Take no more messages, now and after a reconnect; receipts still go out."""
        self._held = True
        if self._connection is not None:
            self._connection.hold()

    async def leave(self) -> None:
        """Subscribe to nothing any more, and take what the session still holds.

        Afterwards all messages of the session have been given to the callback. Raises
        `ConnectionLost`, `ConnectionRefused`; the session then stays as it is.
        """
        connection, subscribed = self._connection, self._subscribed
        if connection is None or subscribed is None:
            raise ConnectionLost(self.fault or "not subscribed yet")
        echo = probe.Echo(probe.topic(self.client_id))
        self._side[echo.topic] = echo.heard
        await leaving.take_the_rest(connection, subscribed.wanted, echo)
        self._emptied = connection

    async def end_session(self) -> None:
        """Disconnect and let the broker forget the session; the client is of no use any more.

        Raises `ConnectionLost`, `ConnectionRefused`, when the broker may not have understood.
        """
        connection = self._connection
        self._task.cancel()
        await asyncio.wait((self._task,))
        if connection is None or connection is not self._emptied:
            raise ConnectionLost(self.fault or "it connected again since its session was emptied")
        await leaving.forget(self.connector, connection, self.client_id)

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
            if self._former is not None:
                # The broker gives it all again: with what is still on its way that would be two windows,
                # and one more with each connection that ends while Kafka is away.
                await self._former.emptied()
            if self._on_reconnect is not None:
                self._on_reconnect()

    async def _one_connection(self) -> CartwinError:
        """Connect, serve until the connection ends, and say why it ended."""
        try:
            self._connection = await self._open()
        except (ConnectionLost, ConnectionRefused, ProtocolError, AccessUnusable) as fault:
            self.level, self._can_share = None, None
            return fault
        try:
            if self._held:
                self._connection.hold()
            self.fault = ""
            self._up.set()
            await self._until_closed(self._connection)
            ended = self._connection.closed.result()
            if isinstance(ended, SessionTakenOver):
                raise ended
            return ended
        finally:
            self._up.clear()
            self._connection = None
            self._away_since = asyncio.get_running_loop().time()

    async def _until_closed(self, connection: Connection) -> None:
        marking = asyncio.create_task(self._mark(connection)) if self._marks else None
        try:
            await asyncio.wait((connection.closed,))
        finally:
            if marking is not None:
                marking.cancel()
                await asyncio.wait((marking,))

    async def _mark(self, connection: Connection) -> None:
        """Send ourselves marks until the connection ends, or the broker refuses one."""
        loop = asyncio.get_running_loop()
        try:
            await connection.subscribe((self._mark_topic,))
            while True:
                mark = self._lag.due(loop.time())
                if mark is not None:
                    await probe.say(connection, self._mark_topic, mark)
                await asyncio.sleep(EVERY_S)
        except ConnectionRefused as refused:
            why = f"{refused}; without it no car is held to its rate (UPLINK_VEHICLE_RATE=0 does without)"
            self._falls_short((*self.shortfalls, why))
        except ConnectionLost as lost:
            # Of an answer that did not come; the connection itself may still seem to be there.
            connection.close(lost)

    def _heard(self, mark: bytes) -> None:
        now = asyncio.get_running_loop().time()
        was_behind = self._lag.behind(now)
        self._lag.heard(mark)
        if was_behind and not self._lag.behind(now):
            log.info("what waited at the broker is taken", broker=str(self.broker))

    async def _open(self) -> Connection:
        """A connection that is ready for use."""
        if self.level is None or not self._level_is_sure:
            self.level, self._level_is_sure = await self.connector.level(self.client_id)
        if self.level == 4 and self._asks_to_share and self._can_share is None:
            self._can_share = await probe.shares(self.connector, self.client_id)
        self._lag = Lag(secrets.token_hex(8).encode())
        connection = await self.connector.open(
            self.level, self._window, self._on_message, self._side
        )
        self._former = connection
        try:
            answer = await connection.connect(
                self.client_id,
                clean_start=self._topology is None,
                session_expiry_s=leaving.SESSION_EXPIRY_S if self._topology else 0,
                keep_alive_s=leaving.KEEP_ALIVE_S,
            )
            self._judge(answer)
            log.info("mqtt connected", broker=str(self.broker), level=connection.level)
            if self._topology is not None:
                await self._subscribe(connection, answer, self._topology)
            for topic in self._news:
                (code,) = await connection.ask((topic,), qos=0)
                if code >= FAILURE:
                    log.info("the broker does not say", topic=topic, broker=str(self.broker))
        except BaseException:
            connection.close(ConnectionLost("the handshake failed"))
            raise
        return connection

    @property
    def _asks_to_share(self) -> bool:
        return self._topology is not None and self._topology.workers > 1

    def _judge(self, answer: Connack) -> None:
        self._retains = answer.retains
        self._falls_short(terms.shortfalls(answer, subscribes=self._topology is not None))
        if not answer.session_present:
            self.fresh.set()

    def _falls_short(self, shortfalls: tuple[str, ...]) -> None:
        for each in shortfalls:
            if each not in self.shortfalls:
                log.warning(
                    "the broker does not grant what we promise", broker=str(self.broker), why=each
                )
        self.shortfalls = shortfalls

    async def _subscribe(self, connection: Connection, answer: Connack, topology: Topology) -> None:
        can_share = answer.shares if connection.level == 5 else bool(self._can_share)
        subscriptions = topology.subscriptions(can_share=can_share)
        # A new process always subscribes: the arrangement may have changed since the last one. So do
        # workers above 0, whose session worker 0 may have emptied meanwhile (`ingest.orphans`); theirs
        # bring nothing retained.
        if answer.session_present and topology.worker == 0 and self._subscribed == subscriptions:
            return
        if subscriptions.wanted:
            await connection.subscribe(subscriptions.wanted)
        if answer.session_present:
            await connection.unsubscribe((*subscriptions.unwanted, probe.topic(self.client_id)))
        self._subscribed = subscriptions
        log.info(
            "mqtt subscribed",
            broker=str(self.broker),
            role=subscriptions.role,
            worker=topology.worker,
            workers=topology.workers,
        )
        if topology.workers > 1 and not can_share:
            log.warning(
                "the broker has no shared subscriptions: worker 0 reads everything, others stand by",
                broker=str(self.broker),
            )
