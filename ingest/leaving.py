"""The end of a session at a broker: all that it holds is taken, then the broker forgets it.

    take_the_rest    subscribe to nothing any more; what the session still holds is given to us
    (Kafka has it)   the caller's business
    forget           only now: what is not acknowledged would be lost with the session

Both a worker that is stopped for good (`ingest.mqtt`) and worker 0, for one that did not come to it
(`ingest.orphans`), end a session so.
"""

import asyncio
from typing import Final

from ingest.connection import GOODBYE_S, Connection
from ingest.connector import Connector, unexpected
from ingest.errors import ConnectionLost
from ingest.probe import Echo

SESSION_EXPIRY_S: Final = 86_400
"""What every CONNECT under the name of a session says, so that no broken connection ends it."""
KEEP_ALIVE_S: Final = 30


async def take_the_rest(connection: Connection, filters: tuple[str, ...], echo: Echo) -> None:
    """Return when all messages of the session have been given to the connection's callback.

    `echo`: at the side of the connection already. Raises `ConnectionLost`, `ConnectionRefused`; the
    session then stays as it is.
    """
    if filters:
        await connection.unsubscribe(filters)
    await echo.returned(connection)


async def forget(connector: Connector, connection: Connection, client_id: str) -> None:
    """Disconnect, and let the broker forget the session of that name.

    Raises `ConnectionLost`, `ConnectionRefused`, when the broker may not have understood. One whose
    connection has ended already is let alone: somebody else may be using it.
    """
    if connection.closed.done():
        raise ConnectionLost("the connection ended before its session was given up")
    await goodbye(connection, end_session=True)
    if connection.level == 4:
        # 3.1.1 has no other word for it than a clean start.
        clean = await connector.open(4, 1, unexpected)
        try:
            await clean.connect(
                client_id, clean_start=True, session_expiry_s=0, keep_alive_s=KEEP_ALIVE_S
            )
        finally:
            await goodbye(clean)


async def goodbye(connection: Connection, *, end_session: bool = False) -> None:
    """Disconnect, and return when the broker has closed, or does not."""
    connection.disconnect(end_session=end_session)
    await asyncio.wait((connection.closed,), timeout=GOODBYE_S + 1)
