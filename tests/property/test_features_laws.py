"""Laws of features and windows: training and serving see the same, and nothing is made up."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.features import FEATURES, INPUTS, WINDOW, WindowStore, compute, windows
from twin.wire.catalogue import BY_NAME

POSSIBLE = st.tuples(
    *(st.floats(BY_NAME[name].low, BY_NAME[name].high, width=32) for name in INPUTS)
)


@given(st.lists(POSSIBLE, min_size=1, max_size=5))
def test_every_possible_row_has_finite_features(rows: list[tuple[float, ...]]) -> None:
    """Any values inside the catalogue's ranges are valid and give finite features."""
    values, valid = compute(np.array(rows))
    assert valid.all()
    assert np.isfinite(values).all()


@given(POSSIBLE, st.sampled_from(range(len(INPUTS))), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_a_row_without_an_input_is_never_valid(
    row: tuple[float, ...], column: int, absent: float
) -> None:
    """Whatever the rest says, a missing or infinite input makes the row invalid, and only it."""
    signals = np.array([row, row])
    signals[0, column] = absent
    values, valid = compute(signals)
    assert valid.tolist() == [False, True]
    assert np.isfinite(values).all()


@st.composite
def logs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A log in order of arrival: runs of 1-second rows of a few vehicles with holes, repeats, late
    rows and vehicles mixed, and the positions at which it is cut into batches.
    """
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    vehicles = draw(st.integers(1, 4))
    rows = draw(st.sampled_from([0, 1, WINDOW * vehicles, 100 * vehicles]))
    vehicle = rng.integers(0, vehicles, rows)
    steps = rng.choice([1000, 0, -2500, 30_000, 30_001], rows, p=[0.93, 0.02, 0.02, 0.02, 0.01])
    time = np.zeros(rows, dtype=np.int64)
    clock = rng.integers(10**12, 10**12 + 10**6, vehicles)
    for i in range(rows):
        clock[vehicle[i]] += steps[i]
        time[i] = clock[vehicle[i]]
    cuts = draw(st.lists(st.integers(0, rows), max_size=12).map(sorted))
    return vehicle, time, np.array(cuts, dtype=np.int64)


@settings(deadline=None, max_examples=200)
@given(logs())
def test_serving_sees_the_windows_of_training(log: tuple[np.ndarray, ...]) -> None:
    """Row by row, in any batches, the store gives exactly the windows of the whole log."""
    vehicle, time, cuts = log
    features = np.arange(vehicle.size * len(FEATURES), dtype=np.float32).reshape(-1, len(FEATURES))
    ends, expected = windows(features, vehicle, time)
    store = WindowStore(max_vehicles=4)
    found: dict[int, np.ndarray] = {}
    late = 0
    for low, high in zip([0, *cuts], [*cuts, vehicle.size], strict=True):
        slots = store.index([f"car-{v}" for v in vehicle[low:high]], now_ms=0)
        pushed = store.push(slots, features[low:high], time[low:high])
        assert (np.diff(pushed.ends) > 0).all()
        late += int(pushed.late.sum())
        found.update(zip((pushed.ends + low).tolist(), pushed.windows, strict=True))
    assert sorted(found) == sorted(ends.tolist())
    for end, window in zip(ends.tolist(), expected, strict=True):
        assert np.array_equal(found[end], window)
    assert store.late == late
    newest: dict[int, int] = {}
    stale = 0
    for v, t in zip(vehicle.tolist(), time.tolist(), strict=True):
        stale += v in newest and t <= newest[v]
        newest[v] = max(t, newest.get(v, t))
    assert late == stale


@given(st.integers(1, 9), st.integers(0, 120))
def test_strided_windows_are_a_regular_part_of_all(stride: int, rows: int) -> None:
    """A stride keeps the first window of an unbroken run and then every stride-th."""
    features = np.arange(rows * len(FEATURES), dtype=np.float32).reshape(rows, len(FEATURES))
    vehicle = np.zeros(rows, dtype=np.int64)
    time = np.arange(rows, dtype=np.int64) * 1000
    ends, taken = windows(features, vehicle, time, stride=stride)
    assert ends.tolist() == list(range(WINDOW - 1, rows, stride))
    assert taken.shape == (ends.size, WINDOW, len(FEATURES))
    for end, window in zip(ends.tolist(), taken, strict=True):
        assert np.array_equal(window, features[end - WINDOW + 1 : end + 1])
