"""What a broker says it dropped (`$SYS`), for the accounts. Pure but for metric and log.

Mosquitto and our amqtt count every message that a subscriber did not get because its queue was full;
HiveMQ CE says nothing. Our own queue probe may be the one to fill a queue: that is no car's loss and
is taken off.
"""

from typing import Final

from twin.kit import logs, metrics

log = logs.get(__name__)

TOPIC: Final = "$SYS/broker/publish/messages/dropped"


class Drops:
    """The counter of the broker number `shard`."""

    def __init__(self, shard: int) -> None:
        self._shard = str(shard)
        self._gauge = metrics.BROKER_DROPPED.labels(self._shard)
        self._said = 0
        self._ours = 0

    def told(self, payload: bytes) -> None:
        """The broker tells its counter, which begins anew when it restarts."""
        if not payload.isdigit():
            log.warning("the broker's drop counter is no number", shard=self._shard)
            return
        said = int(payload)
        if said < self._said:
            self._ours = 0
        grown = said - (self._said if said >= self._said else 0)
        self._said = said
        self._gauge.set(self._lost)
        if grown and self._lost:
            log.warning(
                "the broker drops messages: a queue is full", shard=self._shard, dropped=self._lost
            )

    def caused(self, count: int) -> None:
        """We made the broker drop `count` messages."""
        self._ours += count
        self._gauge.set(self._lost)

    @property
    def _lost(self) -> int:
        return max(0, self._said - self._ours)
