"""Sets of twins that the index has: it can count them, name them, and tell them from others. Pure."""

from typing import Any, NamedTuple


class Having(NamedTuple):
    """Twins whose text field has this value."""

    field: str
    value: str

    def fits(self, member: Any) -> bool:
        """Whether Redis said that a twin is in it."""
        return bool(member)


class Between(NamedTuple):
    """Twins whose number is in this closed range, as the index has it: see `keys.LAG`."""

    field: str
    low: float
    high: float

    def fits(self, score: float | None) -> bool:
        """Whether a twin with this score, if it has any, is in it."""
        return score is not None and self.low <= score <= self.high


Selector = Having | Between
