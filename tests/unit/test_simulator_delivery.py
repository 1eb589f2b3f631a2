"""Rows that come late or twice."""

import pytest

from models.simulator import Delivery
from models.simulator.delivery import LATEST

STEPS, CARS = 400, 10
Row = tuple[int, int]


def run(late: float, repeated: float, seed: int = 1) -> tuple[list[tuple[int, Row]], Delivery[Row]]:
    """(arrival step, (sent step, car)) of every row."""
    delivery: Delivery[Row] = Delivery(late=late, repeated=repeated, seed=seed)
    came = []
    for step in range(STEPS):
        came += [(step, row) for row in delivery.step([(step, car) for car in range(CARS)])]
    return came + [(STEPS, row) for row in delivery.rest()], delivery


def test_without_disorder_rows_pass_as_they_are() -> None:
    """Shares of 0 change nothing and count nothing."""
    came, delivery = run(0.0, 0.0)
    assert came == [(step, (step, car)) for step in range(STEPS) for car in range(CARS)]
    assert (delivery.late, delivery.repeated) == (0, 0)


def test_late_rows_are_overtaken_and_none_is_lost() -> None:
    """The asked share comes 1 to LATEST steps later, every row exactly once."""
    came, delivery = run(0.1, 0.0)
    assert sorted(row for _, row in came) == [(s, c) for s in range(STEPS) for c in range(CARS)]
    delays = [arrived - sent for arrived, (sent, _) in came if sent < STEPS - LATEST]
    assert set(delays) == set(range(LATEST + 1))
    assert delivery.late / (STEPS * CARS) == pytest.approx(0.1, rel=0.2)
    assert sum(delay > 0 for delay in delays) <= delivery.late


def test_repeated_rows_come_twice_and_are_counted() -> None:
    """So many rows arrive more than were sent as `repeated` says, each at most twice."""
    came, delivery = run(0.05, 0.05)
    rows = [row for _, row in came]
    assert len(rows) - len(set(rows)) == delivery.repeated
    assert delivery.repeated / (STEPS * CARS) == pytest.approx(0.05, rel=0.25)
    assert max(rows.count(row) for row in set(rows[:200])) <= 2
    assert len(set(rows)) == STEPS * CARS


def test_disorder_is_seeded() -> None:
    """The same seed gives the same order, another seed another."""
    assert run(0.1, 0.1)[0] == run(0.1, 0.1)[0]
    assert run(0.1, 0.1)[0] != run(0.1, 0.1, seed=2)[0]


def test_nothing_is_on_its_way_after_the_rest() -> None:
    """What `rest` gave does not come again."""
    _, delivery = run(0.5, 0.5)
    assert delivery.rest() == []


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_an_impossible_share_is_refused(share: float) -> None:
    """Shares lie from 0 to below 1."""
    with pytest.raises(ValueError, match="late"):
        Delivery(late=share, repeated=0.0, seed=1)
    with pytest.raises(ValueError, match="repeated"):
        Delivery(late=0.0, repeated=share, seed=1)
