"""Things taken in order, finished in any order, released in order. Pure.

Two users: packet ids of an MQTT connection (PUBACKs go out in the order of receipt, as MQTT
demands) and offsets of a Kafka partition (a commit covers only what is finished without a gap).
"""

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Entry(Generic[T]):
    """One thing in a window."""

    __slots__ = ("done", "item")

    def __init__(self, item: T) -> None:
        self.item = item
        self.done = False


class Window(Generic[T]):
    """The unfinished things, oldest first, and those that are finished behind an unfinished one."""

    def __init__(self) -> None:
        self._entries: deque[Entry[T]] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, item: T) -> Entry[T]:
        """Put `item` behind all others. Set `done` of the entry when it is finished."""
        entry = Entry(item)
        self._entries.append(entry)
        return entry

    def release(self) -> list[T]:
        """Remove and return all items up to the first unfinished one, in order."""
        entries = self._entries
        items = []
        while entries and entries[0].done:
            items.append(entries.popleft().item)
        return items
