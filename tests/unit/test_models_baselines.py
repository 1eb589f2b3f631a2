"""Records of topic `baselines`: what is written is read, and nothing else is believed."""

import numpy as np
import orjson
import pytest

from models.baselines import _known, _parsed, record
from models.features import FEATURES, REGIMES

KEY = b"car-1"
THERE = np.array([False, True, False, True])
BASE = np.random.default_rng(1).normal(0, 1, (len(REGIMES), len(FEATURES))).astype(np.float32)


def test_what_is_written_is_read() -> None:
    """Exactly; a regime without a baseline is not told."""
    parsed = _parsed(KEY, record("engine-1", "car-1", THERE, BASE))
    assert parsed is not None
    version, (there, base) = parsed
    assert (version, there) == ("engine-1", THERE.tolist())
    np.testing.assert_array_equal(base[THERE], BASE[THERE])
    assert not base[~THERE].any()


def _with(**what: object) -> bytes:
    return orjson.dumps({**orjson.loads(record("engine-1", "car-1", THERE, BASE)), **what})


@pytest.mark.parametrize(
    "value",
    [
        None, b"", b"null", b"[]", b"7", b"\xff\x00", b"{", _with(version=7), _with(regimes=[]),
        _with(vehicle_id="car-2"), _with(regimes={"flying": [0.0] * len(FEATURES)}),
        _with(regimes={"slow": [0.0]}), _with(regimes={"slow": [1e60] * len(FEATURES)}),
        _with(regimes={"slow": ["x"] * len(FEATURES)}), _with(regimes={"slow": None}),
    ],
)  # fmt: skip
def test_what_is_no_baseline_is_passed_over(value: bytes | None) -> None:
    """Any bytes may lie on a topic."""
    assert _parsed(KEY, value) is None
    assert _parsed(b"\xff", value) is None


def test_cars_become_arrays() -> None:
    """None of them is an empty one."""
    told = _known({"car-1": (THERE.tolist(), BASE), "car-2": None})
    assert told.ids == ["car-1"]
    assert told.there.tolist() == [THERE.tolist()]
    empty = _known({})
    assert (empty.ids, empty.there.shape, empty.base.shape) == (
        [], (0, len(REGIMES)), (0, len(REGIMES), len(FEATURES)),
    )  # fmt: skip
