"""Connections of one broker: opened with TLS and what lets us in, and what the broker speaks.

Each service asks for MQTT 5 and falls back to 3.1.1: a bare CONNECT under another client id finds out
which, because 3.1.1 brokers misread MQTT 5 properties (amqtt waits for bytes that never come instead
of refusing). Such a silence may also be a slow broker or a lost connection, so it is no proof.
"""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from ingest import access as lets_in
from ingest import packets
from ingest.access import Access
from ingest.connection import Connection, OnMessage, OnSide, Receipt
from ingest.errors import ConnectionLost, ProtocolError
from ingest.packets import Level, Publish
from twin.kit.mqtt_address import Broker

CONNECT_S: Final = 10.0


class Spoken(NamedTuple):
    """The highest protocol level of a broker. `sure`: it said so; else it did not answer a higher one."""

    level: Level
    sure: bool


class Connector:
    """Opens connections of `broker`."""

    def __init__(self, broker: Broker, access: Access) -> None:
        self.broker = broker
        self._access = access

    async def open(
        self,
        level: Level,
        window: int,
        on_message: OnMessage,
        side: Mapping[str, OnSide] = MappingProxyType({}),
    ) -> Connection:
        """A connection before its CONNECT; arguments as for `Connection`.

        Raises `ConnectionLost`, `AccessUnusable`.
        """
        loop = asyncio.get_running_loop()
        user = self._access.user()
        context = self._access.context() if self.broker.tls else None
        try:
            async with asyncio.timeout(CONNECT_S):
                _, connection = await loop.create_connection(
                    lambda: Connection(level, window, on_message, user, side),
                    self.broker.host,
                    self.broker.port,
                    ssl=context,
                )
        except TimeoutError:
            what = "TLS" if context else "TCP"
            raise ConnectionLost(f"no {what} connection after {CONNECT_S:.0f} s") from None
        except OSError as error:
            why = (
                lets_in.why_refused(error, str(self.broker), self._access)
                if context
                else f"no TCP connection: {error}"
            )
            raise ConnectionLost(why) from error
        return connection

    async def level(self, client_id: str) -> Spoken:
        """What the broker speaks. Raises as `open`."""
        connection = await self.open(5, 1, unexpected)
        try:
            answer = await connection.probe(f"{client_id}-probe")
        except (ConnectionLost, ProtocolError):
            return Spoken(4, sure=False)
        finally:
            connection.disconnect()
        # Below 0x80 are the refusals of MQTT 3.1.1.
        refused = 0 < answer.code < packets.FAILURE or answer.code == packets.UNSUPPORTED_VERSION
        return Spoken(4 if refused else 5, sure=True)


def unexpected(message: Publish, _receipt: Receipt) -> None:
    """Callback of a connection that subscribes to nothing."""
    raise ProtocolError(f"a message on {message.topic!r} came without a subscription")
