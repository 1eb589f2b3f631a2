"""From rows to verdicts."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.features import INPUTS, MAX_GAP_MS, WINDOW
from models.scoring import Batch, Vehicles, Verdict, assess
from models.trend import MEMORY, WARM_UP
from tests.models_builders import T0, SpeedModel, batch

MODEL = SpeedModel(threshold=10.0, chance=0.5)
NaN = math.nan


def _run(
    vehicles: Vehicles, rows: list[tuple[str, int, float]], **more: list[bool]
) -> list[Verdict]:
    return assess(MODEL, [(vehicles, batch(rows, **more))], 0)[0]


def _states(verdicts: list[Verdict]) -> list[str]:
    return [verdict.state for verdict in verdicts]


def _plain(verdict: Verdict) -> tuple[str, float | None, float | None]:
    return verdict.state, verdict.score, verdict.probability


def test_a_car_is_judged_when_its_window_is_full() -> None:
    """The first WINDOW - 1 rows are insufficient data, from then on both models speak."""
    verdicts = _run(Vehicles(10), [("car-1", i, 1.0) for i in range(WINDOW + 2)])
    assert _states(verdicts) == ["insufficient_data"] * (WINDOW - 1) + ["normal"] * 3
    assert verdicts[WINDOW - 2].probability is None
    assert [verdict.score for verdict in verdicts[WARM_UP - 2 : WARM_UP]] == [None, 1.0]
    assert verdicts[WINDOW].probability == pytest.approx(0.01)


def test_an_alarm_does_not_wait_for_the_window() -> None:
    """Once there is a baseline, the autoencoder alone may open an alarm: k of n rows."""
    verdicts = _run(Vehicles(10), [("car-1", i, 50.0) for i in range(WARM_UP + 2)])
    assert _states(verdicts) == ["insufficient_data"] * WARM_UP + ["alarm"] * 2


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["car-1", "car-2"]),
            st.integers(0, 200),
            st.sampled_from([0.0, 5.0, 60.0, NaN]),
        ),
        min_size=1,
        max_size=300,
    ),
    st.data(),
)
def test_verdicts_do_not_depend_on_how_rows_are_batched(
    rows: list[tuple[str, int, float]], data: st.DataObject
) -> None:
    """Cut anywhere, the same rows give the same verdicts."""
    # Real streams are nearly in order; so windows fill and every state occurs.
    rows = sorted(rows, key=lambda row: row[1] + len(row[0]))
    whole = [_plain(v) for v in _run(Vehicles(10), rows)]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=5)))
    vehicles = Vehicles(10)
    parts = [
        _plain(verdict)
        for begin, end in zip([0, *cuts], [*cuts, len(rows)], strict=True)
        for verdict in _run(vehicles, rows[begin:end])
    ]
    assert parts == whole


def test_partitions_are_scored_together_and_judged_apart() -> None:
    """One call for two partitions gives each car what it gets alone."""
    first, second = [("car-1", i, 2.0) for i in range(40)], [("car-2", i, 70.0) for i in range(40)]
    together = assess(MODEL, [(Vehicles(5), batch(first)), (Vehicles(5), batch(second))], 0)
    assert [_plain(v) for v in together[0]] == [_plain(v) for v in _run(Vehicles(5), first)]
    assert [_plain(v) for v in together[1]] == [_plain(v) for v in _run(Vehicles(5), second)]


def test_what_cannot_be_scored_is_counted() -> None:
    """Late, incomplete and suspect rows have no score, and each has its count."""
    vehicles = Vehicles(10)
    _run(vehicles, [("car-1", i - WARM_UP, 1.0) for i in range(WARM_UP)])
    vehicles.counts.clear()
    rows = [("car-1", 5, 1.0), ("car-1", 5, 1.0), ("car-1", 6, NaN), ("car-1", 7, 1.0)]
    verdicts = _run(vehicles, rows, usable=[True, True, True, False])
    one = dict.fromkeys(("scored", "late", "incomplete", "suspect"), 1)
    assert vehicles.counts == {**one, "no_room": 0, "stuck": 0}
    assert [(v.row, v.score) for v in verdicts] == [(0, 1.0), (2, None), (3, None)]


def test_a_car_that_never_sends_a_good_row_is_insufficient_data() -> None:
    """A real car without our inputs is not called normal."""
    assert (
        _states(_run(Vehicles(10), [("etios-1", i, NaN) for i in range(3)]))
        == ["insufficient_data"] * 3
    )


def test_bad_rows_for_longer_than_the_gap_end_a_normal_state() -> None:
    """One bad row changes nothing; half a minute of them says that nothing is known any more."""
    vehicles = Vehicles(10)
    _run(vehicles, [("car-1", i, 1.0) for i in range(WINDOW)])
    verdicts = _run(vehicles, [("car-1", WINDOW + i, NaN) for i in range(40)])
    assert _states(verdicts)[0] == "normal"
    assert _states(verdicts)[-1] == "insufficient_data"


def test_an_alarm_of_the_lstm_stays_while_the_window_refills() -> None:
    """A hole in the data closes no alarm."""
    model = SpeedModel(threshold=1000.0, chance=0.5)
    vehicles = Vehicles(10)
    assess(model, [(vehicles, batch([("car-1", i, 90.0) for i in range(WINDOW + 3)]))], 0)
    after = assess(model, [(vehicles, batch([("car-1", 500, 0.0)]))], 0)[0]
    assert _states(after) == ["alarm"]


def test_another_model_keeps_alarms_open() -> None:
    """Swapping the champion closes no alarm by itself."""
    vehicles = Vehicles(10)
    _run(vehicles, [("car-1", i, 50.0) for i in range(WINDOW)])
    calm = SpeedModel(threshold=1000.0)
    verdicts = assess(calm, [(vehicles, batch([("car-1", WINDOW, 50.0)]))], 0)[0]
    assert _states(verdicts) == ["alarm"]


def test_another_model_does_not_make_the_fleet_unknown() -> None:
    """While it learns each car's baseline anew, the cars' states stay as they were."""
    vehicles = Vehicles(10)
    _run(vehicles, [("car-1", i, 1.0) for i in range(WINDOW)])
    vehicles.adopt("champion", MODEL)
    verdicts = _run(vehicles, [("car-1", WINDOW + i, 1.0) for i in range(WARM_UP)])
    assert _states(verdicts) == ["normal"] * WARM_UP
    assert [verdict.score for verdict in verdicts[-2:]] == [None, 1.0]


def test_a_slot_that_changes_hands_brings_no_baseline() -> None:
    """A car that takes the place of a silent one is learnt from its first row."""
    vehicles = Vehicles(1)
    _run(vehicles, [("car-1", i, 50.0) for i in range(WARM_UP)])
    later = batch([("car-2", 1000 + i, 1.0) for i in range(WARM_UP)])
    verdicts = assess(MODEL, [(vehicles, later)], 10 * MAX_GAP_MS)[0]
    assert [verdict.score for verdict in verdicts[-2:]] == [None, 1.0]


def test_cars_are_bounded() -> None:
    """A stream of ever new ids does not grow the memory."""
    vehicles = Vehicles(5)
    _run(vehicles, [(f"car-{i}", 0, 1.0) for i in range(50)])
    assert len(vehicles.store) == 5
    assert vehicles.counts["no_room"] == 45


def test_a_partition_that_goes_takes_its_cars_along() -> None:
    """The cars of the others keep windows and baselines; one that comes back begins anew."""
    vehicles = Vehicles(10)
    vehicles.adopt("champion", MODEL)

    def send(first: int, rows: int) -> dict[str, float]:
        made = batch([(f"car-{i % 2}", first + i // 2, 1.0) for i in range(2 * rows)])
        cars = replace(made, partitions=np.array([0, 1] * rows))
        verdicts = list(vehicles.judges["champion"].judge(vehicles.prepare(cars, 0)))
        return {made.ids[v.row]: math.nan if v.score is None else v.score for v in verdicts}

    assert send(0, WINDOW) == {"car-0": 1.0, "car-1": 1.0}
    assert vehicles.homes(["car-0", "car-1", "car-2"]).tolist() == [0, 1, -1]
    vehicles.release(0)
    assert vehicles.homes(["car-0", "car-1"]).tolist() == [-1, 1]
    assert len(vehicles.store) == 1
    after = send(WINDOW, 1)
    assert math.isnan(after["car-0"])
    assert after["car-1"] == 1.0


def test_two_models_judge_the_same_windows_apart() -> None:
    """The challenger's alarm is not the champion's, and neither changes what the other says."""
    vehicles, calm = Vehicles(10), SpeedModel(threshold=1000.0, chance=0.99)
    vehicles.adopt("champion", calm)
    vehicles.adopt("challenger", MODEL)
    prepared = vehicles.prepare(batch([("car-1", i, 60.0) for i in range(WINDOW + 3)]), 0)
    said = {role: list(judge.judge(prepared)) for role, judge in vehicles.judges.items()}
    assert _states(said["champion"])[-1] == "normal"
    assert _states(said["challenger"])[-1] == "alarm"
    alone = assess(MODEL, [(Vehicles(10), batch([("car-1", i, 60.0) for i in range(35)]))], 0)[0]
    assert [_plain(v) for v in said["challenger"]] == [_plain(v) for v in alone]


def test_a_promoted_challenger_keeps_what_it_has_learnt() -> None:
    """Its baselines are those of the shadow, so it scores from its first row as champion."""
    vehicles, shadow = Vehicles(10), SpeedModel()
    vehicles.adopt("champion", MODEL)
    vehicles.adopt("challenger", shadow)
    prepared = vehicles.prepare(batch([("car-1", i, 1.0) for i in range(WINDOW)]), 0)
    for judge in vehicles.judges.values():
        judge.judge(prepared)
    vehicles.adopt("champion", shadow)
    assert list(vehicles.judges) == ["champion"]
    (verdict,) = assess(shadow, [(vehicles, batch([("car-1", WINDOW, 1.0)]))], 0)[0]
    assert verdict.score == 1.0


def test_an_alarm_is_counted_once_where_it_opens() -> None:
    """`opened` is true for the row whose state became alarm, not for those that stay."""
    vehicles = Vehicles(10)
    vehicles.adopt("champion", MODEL)
    prepared = vehicles.prepare(batch([("car-1", i, 50.0) for i in range(WARM_UP + 9)]), 0)
    verdicts = vehicles.judges["champion"].judge(prepared)
    assert verdicts.opened.sum() == 1
    assert [v.state for v in verdicts].index("alarm") == verdicts.opened.argmax()


def test_an_empty_batch_is_nothing() -> None:
    """No rows, no verdicts, no call with an odd shape."""
    empty: Batch = batch([])
    assert assess(MODEL, [(Vehicles(5), empty)], 0) == [[]]


def _at(vehicles: Vehicles, rows: list[tuple[str, int, float]], came: list[int]) -> list[str]:
    """What is said of rows that came at their times, in s after T0."""
    made = replace(batch(rows), arrivals=np.array([T0 + 1000 * at for at in came]))
    return [f"{v.row} {v.state}" for v in assess(MODEL, [(vehicles, made)], 0)[0]]


def test_a_clock_that_is_set_back_ends_a_normal_state() -> None:
    """Half a minute of late rows alone say that nothing is known; the first newer row ends that."""
    vehicles = Vehicles(10)
    _run(vehicles, [("car-1", i, 1.0) for i in range(60)])
    back = list(range(60, 140))
    told = _at(vehicles, [("car-1", at - 3600, 1.0) for at in back], back)
    after = MAX_GAP_MS // 1000
    assert told == [f"{i} insufficient_data" for i in range(after + 1, len(back))]
    assert vehicles.counts["late"] == len(back)
    newer = _at(vehicles, [("car-1", 140 + i, 1.0) for i in range(2)], [140, 141])
    assert newer == ["0 insufficient_data", "1 insufficient_data"]
    again = _run(vehicles, [("car-1", 142 + i, 1.0) for i in range(WINDOW)])
    assert again[-1].state == "normal"


def test_rows_that_a_car_had_kept_leave_its_state_alone() -> None:
    """Many minutes of them may come late, within seconds; a newer one among them proves the clock."""
    vehicles = Vehicles(10)
    _run(vehicles, [("car-1", i, 1.0) for i in range(900, 960)])
    burst = [("car-1", 100 + i, 1.0) for i in range(600)]
    assert _at(vehicles, burst, [960 + i // 300 for i in range(600)]) == []
    mixed = [("car-1", 700 + i if i % 2 else 960 + i, 1.0) for i in range(100)]
    told = _at(vehicles, mixed, [960 + i for i in range(100)])
    assert told == [f"{i} normal" for i in range(0, 100, 2)]


def test_an_open_alarm_outlives_a_clock_that_is_set_back() -> None:
    """Nothing that is not known heals a car."""
    vehicles = Vehicles(10)
    _run(vehicles, [("car-1", i, 1.0) for i in range(60)])
    assert _run(vehicles, [("car-1", 60 + i, 90.0) for i in range(40)])[-1].state == "alarm"
    late = [("car-1", i, 1.0) for i in range(80)]
    assert set(_at(vehicles, late, list(range(100, 180)))) == {
        f"{i} alarm" for i in range(MAX_GAP_MS // 1000 + 1, 80)
    }


def test_a_stuck_sensor_is_not_scored_and_ends_a_normal_state() -> None:
    """It is counted, and after the gap nothing is known of the car."""
    vehicles = Vehicles(10)
    rows = batch([("car-1", i, 10.0) for i in range(120)])
    rows.signals[40:, INPUTS.index("engine_speed")] = 1800.0
    said = assess(MODEL, [(vehicles, rows)], 0)[0]
    assert vehicles.counts["stuck"] == 120 - 40 - (WINDOW - 1)
    first = 40 + WINDOW - 1
    assert said[first - 1].state == "normal"
    assert all(v.score is None for v in said[first:])
    assert said[-1].state == "insufficient_data"


def test_a_car_that_gets_its_baseline_back_is_where_it_was() -> None:
    """In a slot of its partition, and judged after a few rows; gone with the partition."""
    first, kept = Vehicles(10), Vehicles(10)
    calm = [("car-1", i, 5.0) for i in range(60)]
    _run(first, calm)
    cars, there, base = first.judges["champion"].trends.fresh(np.array([0, 0]))
    assert first.store.ids(cars) == ["car-1"]
    assert first.judges["champion"].trends.fresh(np.array([0]))[0].size == 0, "told twice"
    kept.adopt("champion", MODEL)
    assert kept.restore(["car-1"], 3, there, base, 0) == 1
    assert kept.homes(["car-1"]).tolist() == [3]
    said = _run(kept, [("car-1", 60 + i, 5.0) for i in range(MEMORY)])
    assert [v.score for v in said] == [None] * (MEMORY - 1) + [5.0]
    kept.release(3)
    assert _run(kept, [("car-1", 100 + i, 5.0) for i in range(MEMORY)])[-1].score is None
