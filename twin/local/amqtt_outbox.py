"""QoS 1 messages on their way to one session, in order, kept until the client acknowledges them.

Pure: what may be sent comes out of `due`, who sends it is somebody else's matter. The session may
be offline: messages wait, and those sent but not acknowledged go out again first.
"""

from collections import deque
from collections.abc import Iterator
from typing import Final

from twin.local.mqtt_frame import Message

# What an object of ours costs beside topic and data, roughly.
_OVERHEAD_BYTES: Final = 250


class Outbox:
    """At most `window` messages unacknowledged and `limit_bytes` in all."""

    def __init__(self, window: int, limit_bytes: int) -> None:
        self._window = window
        self._limit = limit_bytes
        self._bytes = 0
        self._waiting: deque[Message] = deque()
        self._again: deque[int] = deque()
        self._unacknowledged: dict[int, Message] = {}
        self._last_id = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._unacknowledged)

    def offer(self, message: Message) -> bool:
        """Take `message`; False when the outbox is full and it is dropped."""
        size = _size(message)
        if self._bytes + size > self._limit:
            return False
        self._bytes += size
        self._waiting.append(message)
        return True

    def resume(self) -> None:
        """A new connection: what is unacknowledged has to be sent again."""
        self._again = deque(self._unacknowledged)

    def due(self) -> Iterator[tuple[int, Message, bool]]:
        """Packet id, message and whether it is sent again, of each one that may be sent now."""
        while self._again:
            packet_id = self._again.popleft()
            message = self._unacknowledged.get(packet_id)
            if message is not None:
                yield packet_id, message, True
        while self._waiting and len(self._unacknowledged) < self._window:
            packet_id = self._next_id()
            message = self._waiting.popleft()
            self._unacknowledged[packet_id] = message
            yield packet_id, message, False

    def acknowledge(self, packet_id: int) -> None:
        """The client has it; unknown ids are ignored, as a second acknowledgement is."""
        message = self._unacknowledged.pop(packet_id, None)
        if message is not None:
            self._bytes -= _size(message)

    def _next_id(self) -> int:
        while True:
            self._last_id = self._last_id % 65_535 + 1
            if self._last_id not in self._unacknowledged:
                return self._last_id


def _size(message: Message) -> int:
    return len(message.data) + len(message.topic) + _OVERHEAD_BYTES
