"""What the lists of the view have of a twin, and what of it has moved since it was told last."""

from twin.native.rest import Row
from twin.packed import Standing

class Last:
    """How a twin was told last."""

    standing: Standing
    ending: bytes
    def newer_than(self, row: Row) -> bool:
        """Whether it is a newer version than the row."""

class Index:
    """The signals that lists are ordered by, then `last_seen`; `lags`: how far an order may be off."""

    def __init__(self, names: tuple[str, ...], lags: tuple[float, ...]) -> None: ...
    def numbers(self, row: Row) -> list[float | None]:
        """The indexed signals of a row, then `last_seen`; None = it has none."""

    def last(self, row: Row, ending: bytes) -> Last:
        """A row as it is told in full; `ending` is the end of its head."""

    def moved(self, row: Row, last: Last) -> list[tuple[int, float]]:
        """Place and number of each that is farther off than its lag; `last` is of the row from now on."""

def before(key: bytes, row: Row, ending: bytes) -> bytes:
    """What MSET's arguments are in front of a row's text: the key, and the head of the value."""
