"""The telemetry of an ordinary car, from its JSON to framed Avro in one pass."""

from collections.abc import Sequence

class Intake:
    """Reads messages for one schema: each signal's name, is it a float (else an int), low, high.

    `head` stands before each record; an event_time more than `ahead_ms` after its arrival is not
    ordinary.
    """

    def __init__(
        self, head: bytes, signals: Sequence[tuple[str, bool, float, float]], ahead_ms: int
    ) -> None: ...
    def take(self, payload: bytes, vehicle_id: bytes, at: int, counter: int) -> bytes | None:
        """The record of a payload that arrived at `at` (ms) from `vehicle_id` (a checked id).

        `counter` becomes the sequence of a message without. None when the message is not ordinary.
        """
