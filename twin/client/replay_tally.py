"""What came out: every row of the replay found again in Kafka, once, and every twin compared.

Pure: gets records, keeps one bit a row and a few numbers a vehicle. A record belongs to this replay
when vehicle, session and sequence say so; other traffic on the same topics is not counted.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from twin.client.replay_plan import Plan
from twin.wire import codec
from twin.wire.errors import WireError


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One value of a twin that is not what the recording ends with; None = absent.

    `found_time` is the event time (ms) of the twin's value: later than the recording's when another
    source has written since.
    """

    vehicle_id: str
    signal: str
    expected: float | None
    found: float | None
    found_time: int | None = None

    def __str__(self) -> str:
        at = "" if self.found_time is None else f" of event time {self.found_time}"
        return (
            f"{self.vehicle_id} {self.signal}: expected {_shown(self.expected)},"
            f" found {_shown(self.found)}{at}"
        )


class Tally:
    """Rows seen in `telemetry` and in `rejected`."""

    def __init__(self, plan: Plan) -> None:
        self._session = plan.session
        self._rows = {
            vehicle_id.encode(): (vehicle.rows, bytearray(vehicle.rows // 8 + 1))
            for vehicle_id, vehicle in plan.vehicles.items()
        }
        self.accepted = 0
        self.rejected = 0
        self.duplicates = 0
        self.suspect = 0
        self.by_reason: dict[str, int] = {}
        self.ends: dict[str, tuple[int, int]] = {}
        """Vehicle -> partition and offset of its last telemetry record."""

    @property
    def seen(self) -> int:
        """Distinct rows in Kafka, accepted or rejected."""
        return self.accepted + self.rejected

    def telemetry(
        self, key: bytes | None, value: bytes | None, partition: int, offset: int
    ) -> None:
        """Count a record of topic `telemetry`."""
        if key not in self._rows or value is None:
            return
        try:
            record = codec.decode_telemetry(value)
        except WireError:
            # Not ours: what we sent was readable, and a row that came out unreadable is missing.
            return
        if not self._is_ours(key, record.session, record.sequence):
            return
        self.ends[record.vehicle_id] = (partition, offset)
        if self._is_new(key, record.sequence):
            self.accepted += 1
            self.suspect += bool(record.suspect)

    def rejected_record(self, key: bytes | None, value: bytes | None, reason: str) -> None:
        """Count a record of topic `rejected`; its value is what we sent."""
        if key not in self._rows or value is None:
            return
        try:
            payload: Any = orjson.loads(value)
        except orjson.JSONDecodeError:
            return
        if not isinstance(payload, dict):
            return
        session, sequence = payload.get("session"), payload.get("sequence")
        if not isinstance(sequence, int) or not self._is_ours(key, session, sequence):
            return
        if self._is_new(key, sequence):
            self.rejected += 1
            self.by_reason[reason] = self.by_reason.get(reason, 0) + 1

    def _is_ours(self, key: bytes, session: object, sequence: int) -> bool:
        return session == self._session and 1 <= sequence <= self._rows[key][0]

    def _is_new(self, key: bytes, sequence: int) -> bool:
        place, bit = sequence >> 3, 1 << (sequence & 7)
        bits = self._rows[key][1]
        if bits[place] & bit:
            self.duplicates += 1
            return False
        bits[place] |= bit
        return True


def has_applied(twin: dict[str, Any], partition: int, offset: int) -> bool:
    """Has the worker applied the telemetry record at this place, or a later one?"""
    applied = twin.get("applied", {}).get("telemetry")
    return applied is not None and applied[0] == partition and applied[1] >= offset


def compare(vehicle_id: str, expected: dict[str, float], twin: dict[str, Any]) -> list[Mismatch]:
    """Every signal whose reported value differs; a signal that nobody sent must be absent."""
    reported = twin.get("reported", {})
    found = {name: entry.get("v") for name, entry in reported.items()}
    return [
        Mismatch(
            vehicle_id, name, expected.get(name), found.get(name), reported.get(name, {}).get("t")
        )
        for name in {**expected, **found}
        if expected.get(name) != found.get(name)
    ]


def _shown(value: float | None) -> str:
    return "nothing" if value is None else repr(value)
