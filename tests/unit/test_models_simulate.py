"""What a simulated history says on the wire, without Kafka."""

import dataclasses
from typing import Any

import pytest

from models import simulate
from models.simulate import Plan
from models.simulator import SIGNALS
from twin.wire import codec, topics
from twin.wire.catalogue import BY_NAME

PLAN = Plan(
    vehicles=6,
    days=1.0,
    seed=3,
    start_ms=1_700_000_000_000,
    interval_s=1.0,
    acceleration=1440.0,
    topic=topics.HISTORY,
)


class Log:
    """A producer that keeps what it is given and confirms it, but for the first `fails` records."""

    def __init__(self, fails: int = 0) -> None:
        self.records: list[tuple[str, bytes, str]] = []
        self._fails = fails

    def produce(self, topic: str, value: bytes, key: str, **more: Any) -> None:
        self.records.append((topic, value, key))
        error = _Refused() if len(self.records) <= self._fails else None
        more["on_delivery"](error, None)

    def poll(self, _seconds: float) -> None:
        """Everything is confirmed already."""

    def flush(self, _seconds: float) -> int:
        return 0


class _Refused:
    def str(self) -> str:
        return "disk full"


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """What `simulate` writes."""
    written = Log()
    monkeypatch.setattr(simulate.kafka, "producer", lambda *_, **__: written)
    monkeypatch.setattr(simulate.kafka, "wait_for_topics", lambda *_: None)
    return written


def rows(log: Log) -> list[Any]:
    return [codec.decode_telemetry(v) for topic, v, _ in log.records if topic == topics.HISTORY]


def test_every_row_is_written_and_valid(log: Log) -> None:
    """Each car has a record per step with all its signals in range, less what dropped out."""
    told = simulate.simulate("none", PLAN, "none")
    telemetry = rows(log)
    assert told["rows"] == PLAN.rows == len(telemetry) == 360
    assert (told["late"], told["repeated"]) == (0, 0)
    assert {len(row.signals) for row in telemetry} >= {len(SIGNALS), len(SIGNALS) - 1}
    missing = sum(len(SIGNALS) - len(row.signals) for row in telemetry)
    assert 0 < missing < 0.01 * len(telemetry) * len(SIGNALS)
    for row in telemetry:
        for name, value in row.signals.items():
            assert BY_NAME[name].low <= value <= BY_NAME[name].high, name


def test_the_same_plan_gives_the_same_records(log: Log) -> None:
    """Byte for byte, with everything that may go wrong on the way."""
    plan = dataclasses.replace(PLAN, parking=True, dropout=0.05, late=0.1, repeated=0.1)
    simulate.simulate("none", plan, "none")
    first, log.records = log.records, []
    simulate.simulate("none", plan, "none")
    assert log.records == first


def test_late_and_repeated_rows_are_counted(log: Log) -> None:
    """Rows overtaken by later ones and second copies are as many as the result says."""
    plan = dataclasses.replace(PLAN, vehicles=20, late=0.05, repeated=0.05)
    told = simulate.simulate("none", plan, "none")
    telemetry = [(row.vehicle_id, row.sequence) for row in rows(log)]
    assert told["rows"] == len(telemetry) == plan.rows + told["repeated"]  # type: ignore[operator]
    assert len(set(telemetry)) == plan.rows
    seen: dict[str, int] = {}
    overtaken = set()
    for car, sequence in telemetry:
        if sequence < seen.get(car, -1):
            overtaken.add((car, sequence))
        seen[car] = max(sequence, seen.get(car, -1))
    assert 0 < told["late"] <= len(overtaken) + 5  # type: ignore[operator]


def test_a_record_that_is_not_confirmed_fails_the_command(log: Log) -> None:
    """A history with holes is told, with the reason."""
    log._fails = 2
    with pytest.raises(simulate.NotDelivered, match=r"2 of .*disk full"):
        simulate.simulate("none", PLAN, "none")


@pytest.mark.parametrize("share", ["dropout", "late", "repeated"])
def test_an_impossible_share_writes_nothing(log: Log, share: str) -> None:
    """The share is named and no record is written."""
    with pytest.raises(ValueError, match=share):
        simulate.simulate("none", dataclasses.replace(PLAN, **{share: 1.0}), "none")
    assert log.records == []
