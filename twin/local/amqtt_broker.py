"""amqtt in a process of its own: `python -m twin.local.amqtt_broker OPTIONS.json`.

Ours are the connection and the routing; amqtt's are listener, CONNECT, packets, subscriptions,
retained messages and the life of sessions. Stock amqtt 0.12.1 cannot keep what we promise:
* a QoS 1 message not acknowledged within 5 s, or in flight when the connection ends, is forgotten;
* an anonymous client has no persistent session, and what a session missed arrives marked retained;
* a client that connects gets the retained messages of every filter anybody subscribed to;
* keep alive is not enforced, so the will of a frozen car is never sent;
* each message is compared with each filter, and each car brings three.
"""

import asyncio
import contextlib
import json
import logging
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from amqtt.broker import Broker
from amqtt.session import Session

from twin.local.amqtt_connection import Connection, open_session
from twin.local.amqtt_outbox import Outbox
from twin.local.mqtt_frame import Message, matches

log = logging.getLogger("twin.local.amqtt")

_CONNECT_S: Final = 10.0
_DROPS_S: Final = 2.0
# As Mosquitto calls it.
_DROPS_TOPIC: Final = "$SYS/broker/publish/messages/dropped"
_OUTBOX: Final = "cartwin.outbox"


@dataclass(frozen=True, slots=True)
class Limits:
    """What is kept for clients: of each session, and of retained topics in all.

    `window`: messages on their way to a client: cars take a few, the uplink acknowledges after Kafka
    did. `outbox_bytes`: what waits for it, bookkeeping included.
    """

    window: int = 2_000
    outbox_bytes: int = 128 * 2**20
    session_expiry_s: int = 3_600
    max_retained: int = 100_000


class LoopbackBroker(Broker):
    """amqtt for local use: no users, QoS 0 and 1 to subscribers."""

    def __init__(self, host: str, port: int, limits: Limits = Limits()) -> None:
        super().__init__(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{host}:{port}"}},
                "session_expiry_interval": limits.session_expiry_s,
                "plugins": {},
            }
        )
        self._limits = limits
        self._connections: dict[str, Connection] = {}
        self._wildcards: set[str] = set()
        self.dropped = 0
        """Messages that did not reach a subscriber because it was too slow or away too long."""

    async def stream_connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, listener_name: str
    ) -> None:
        """Serve one client from CONNECT to the end."""
        try:
            async with asyncio.timeout(_CONNECT_S):
                handler, session = await open_session(reader, writer, self.plugins_manager)
        except Exception as error:
            # Whatever a stranger sends ends its own connection only.
            log.info("no CONNECT: %r", error)
            writer.transport.abort()
            return
        client_id = _client_id(session)
        # A second connection of the same client ends the first.
        while (former := self._connections.get(client_id)) is not None:
            former.abort()
            await former.ended.wait()
        connection = Connection(self, session, reader, writer)
        self._connections[client_id] = connection
        known = None if session.clean_session else self._sessions.get(client_id)
        present = known is not None and not known[0].clean_session
        if known is not None and present:
            connection.session = known[0]
        else:
            await self._delete_session(client_id)
            self._sessions[client_id] = (session, handler)
        try:
            await connection.serve(present=present)
        finally:
            del self._connections[client_id]
            if connection.session.clean_session:
                await self._delete_session(client_id)
            connection.ended.set()

    async def accept(self, message: Message) -> None:
        """Hand a message to every subscriber and retain it if it says so."""
        if message.retain:
            known = message.topic in self._retained_messages
            if (
                known
                or not message.data
                or len(self._retained_messages) < self._limits.max_retained
            ):
                await self.retain_message(None, message.topic, message.data, message.qos)
            else:
                self.dropped += 1
        for session, qos in self._subscribers(message.topic):
            self._deliver(session, Message(message.topic, message.data, min(qos, message.qos)))

    async def subscribe(self, session: Session, pattern: str, qos: int) -> int:
        """Subscribe and return the granted QoS, 0x80 if `pattern` is no topic filter."""
        granted = (
            0x80 if not pattern else await self.add_subscription((pattern, min(qos, 1)), session)
        )
        if granted != 0x80 and ("+" in pattern or "#" in pattern):
            self._wildcards.add(pattern)
        return granted

    def unsubscribe(self, session: Session, pattern: str) -> None:
        """Forget a subscription; nothing happens if there is none."""
        self._del_subscription(pattern, session)

    def send_retained(self, session: Session, pattern: str, qos: int) -> None:
        """Send what is retained under `pattern` to a new subscriber."""
        topics = [pattern] if pattern in self._retained_messages else []
        if pattern in self._wildcards:
            topics = [topic for topic in self._retained_messages if matches(topic, pattern)]
        for topic in topics:
            kept = self._retained_messages[topic]
            granted = min(qos, kept.qos or 0)
            self._deliver(session, Message(topic, bytes(kept.data), granted, retain=True))

    def outbox(self, session: Session) -> Outbox:
        """What is on its way to `session` at QoS 1."""
        outbox: Outbox | None = session.attributes.get(_OUTBOX)
        if outbox is None:
            outbox = Outbox(self._limits.window, self._limits.outbox_bytes)
            session.attributes[_OUTBOX] = outbox
        return outbox

    def _subscribers(self, topic: str) -> Iterator[tuple[Session, int]]:
        yield from self._subscriptions.get(topic, ())
        for pattern in tuple(self._wildcards):
            subscribers = self._subscriptions.get(pattern)
            if not subscribers:
                self._wildcards.discard(pattern)
            elif matches(topic, pattern):
                yield from subscribers

    def _deliver(self, session: Session, message: Message) -> None:
        connection = self._connections.get(_client_id(session))
        if message.qos == 0:
            if connection is not None and not connection.send_once(message):
                self.dropped += 1
        elif connection is not None or not session.clean_session:
            if not self.outbox(session).offer(message):
                self.dropped += 1
            elif connection is not None:
                connection.pump()

    async def report_drops(self) -> None:
        """Tell subscribers of $SYS how many messages were dropped, when it changes."""
        told = -1
        while True:
            if told != self.dropped:
                if self.dropped:
                    log.warning("%d messages were dropped so far", self.dropped)
                told = self.dropped
                await self.accept(Message(_DROPS_TOPIC, b"%d" % told, 0, retain=True))
            await asyncio.sleep(_DROPS_S)

    async def close(self) -> None:
        """Close the listener, then every connection without sending its will."""
        for server in self._servers.values():
            server.instance.close()
        for connection in list(self._connections.values()):
            connection.will = None
            connection.abort()
            await connection.ended.wait()
        await self.shutdown()


def _client_id(session: Session) -> str:
    client_id: str | None = session.client_id
    assert client_id is not None, "amqtt makes one up for a client without"
    return client_id


async def serve(host: str, port: int, limits: Limits) -> None:
    """Serve until SIGTERM or SIGINT."""
    broker = LoopbackBroker(host, port, limits)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await broker.start()
    reporter = asyncio.create_task(broker.report_drops())
    await stop.wait()
    reporter.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reporter
    await broker.close()


if __name__ == "__main__":
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    options = json.loads(Path(sys.argv[1]).read_text())
    address = options.pop("host"), options.pop("port")
    asyncio.run(serve(*address, Limits(**options)))
