"""The member of the consumer group: aiokafka's client, which does everything but fetch.

Membership (static, heartbeats from its own thread), rebalances and commits stay with Faust and
aiokafka; the records come by `twin.stream.fetch`. Its fetcher is there and plans nothing: no fetch, no
offset to be reset. So it cannot see whether records are taken, and is told when they are not.
"""

import time
from typing import Any

from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as driver
from faust.types import TP


class Member(driver.AIOKafkaConsumerThread):
    """aiokafka's client in its thread: membership of the group, and commits."""

    async def on_start(self) -> None:
        """Start the client; before it has partitions, it forgets how to fetch."""
        await super().on_start()
        self._ensure_consumer()._fetcher._get_actions_per_node = _no_actions
        self.agent_has_room()

    def agent_is_full(self) -> None:
        """From now on it counts how long the agent takes: too long, and the client leaves the group."""
        polling = self._ensure_consumer()._subscription
        polling._fetch_count, polling._last_fetch_ended = 0, time.monotonic()

    def agent_has_room(self) -> None:
        """Whatever else takes long, as a restore, is no reason to leave."""
        self._ensure_consumer()._subscription._fetch_count = 1

    async def committed(self) -> dict[TP, int | None]:
        """Committed offset of each assigned partition, None where there is none; one request."""
        found: dict[TP, int | None] = await self.call_thread(self._committed)
        return found

    async def _committed(self) -> dict[TP, int | None]:
        client = self._ensure_consumer()
        assigned = client.assignment()
        found = await client._coordinator.fetch_committed_offsets(list(assigned))
        return {ensure_TP(tp): found[tp].offset if tp in found else None for tp in assigned}


def _no_actions(_assignment: Any) -> Any:
    """What to fetch, whose offset to reset, how long to wait, whether to ask for metadata, resumed."""
    return [], {}, None, False, []
