"""Engines of C-MAPSS, from whole, missing and damaged files; and what the networks see of them."""

from pathlib import Path

import numpy as np
import pytest

from models.cmapss import reader
from models.cmapss.reader import BadDataSet, Engine
from models.cmapss.windows import CAP, WINDOW, Fleet

RNG = np.random.default_rng(2)


def _row(unit: int, cycle: int) -> str:
    return " ".join([str(unit), str(cycle), *["0.5"] * 24]) + "  "


def _written(folder: Path, **changed: str) -> Path:
    texts = {
        "train": "\n".join(_row(unit, cycle) for unit in (1, 2) for cycle in (1, 2, 3)),
        "test": "\n".join([_row(1, 1), _row(1, 2), _row(2, 1)]),
        "left": "7 \n9 \n",
        **changed,
    }
    for name, file in (("train", reader.TRAIN), ("test", reader.TEST), ("left", reader.LEFT)):
        (folder / file).write_text(texts[name])
    return folder


def _engine(cycles: int, unit: int = 1, left: int = 0) -> Engine:
    return Engine(unit, RNG.normal(size=(cycles, reader.SENSORS)), left)


def test_engines_and_what_was_left_of_them_are_read(tmp_path: Path) -> None:
    """Training engines end at 0 cycles left, test engines at what the third file says."""
    train, test = reader.read(_written(tmp_path))
    assert [engine.life().tolist() for engine in train] == [[2, 1, 0], [2, 1, 0]]
    assert [engine.life().tolist() for engine in test] == [[8, 7], [9]]
    assert test[0].sensors.shape == (2, reader.SENSORS)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"train": ""}, "train_FD001.txt: no row found"),
        ({"train": _row(1, 1)[:-9]}, "train_FD001.txt, line 1: 26 finite numbers"),
        ({"train": _row(1, 1).replace("0.5", "nan", 1)}, "line 1: 26 finite numbers"),
        ({"train": _row(1, 1).replace("0.5", "x", 1)}, "line 1: 26 finite numbers"),
        ({"train": _row(1, 1) + "\n" + _row(1, 3)}, "line 2: unit 1, cycle 3"),
        ({"train": _row(2, 1)}, "line 1: unit 2, cycle 1"),
        ({"test": _row(1, 1) + "\n" + _row(3, 1)}, "line 2: unit 3, cycle 1"),
        ({"left": "7\n"}, "RUL_FD001.txt: 1 lines; 2 are expected"),
        ({"left": "7\n-1\n"}, "line 2: -1; whole cycles"),
        ({"left": "7\n1.5\n"}, "line 2: 1.5; whole cycles"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, changed: dict[str, str], said: str) -> None:
    """File and line, and what is expected there."""
    with pytest.raises(BadDataSet, match=said):
        reader.read(_written(tmp_path, **changed))


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    """Before anything is trained."""
    with pytest.raises(BadDataSet, match=r"no file train_FD001.txt; a folder with"):
        reader.read(tmp_path)
    (_written(tmp_path) / reader.TEST).write_bytes(b"\xff\xfe")
    with pytest.raises(BadDataSet, match=r"test_FD001.txt: cannot be read"):
        reader.read(tmp_path)


def test_a_row_never_knows_what_came_after_it() -> None:
    """Inputs of an engine that is cut off are the first rows of the whole engine's."""
    engine = _engine(80)
    fleet = Fleet.fit([engine, _engine(60)])
    whole = fleet.inputs(engine)
    for cut in (5, 20, 47):
        part = fleet.inputs(Engine(1, engine.sensors[:cut], 80 - cut))
        assert part.tolist() == whole[:cut].tolist()


def test_where_an_engine_began_is_taken_out() -> None:
    """A constant offset of a sensor moves its value, and not its deviation."""
    engine = _engine(60)
    fleet = Fleet.fit([engine])
    moved = Engine(1, engine.sensors + 3.0, 0)
    there, here = fleet.inputs(moved), fleet.inputs(engine)
    assert np.abs(there[:, :14] - here[:, :14]).min() > 1
    assert there[:, 14:] == pytest.approx(here[:, 14:], abs=1e-5)


def test_windows_end_where_lives_are_told() -> None:
    """Every window ends at its row; the last of each engine is always there; lives are capped."""
    engines = [_engine(50, 1, 7), _engine(WINDOW, 2, 300)]
    fleet = Fleet.fit(engines)
    found = fleet.windows(engines, stride=4)
    assert found.left.tolist() == [27, 23, 19, 15, 11, 7, 300]
    assert found.capped.max() == CAP
    assert found.last.tolist() == [5, 6]
    assert found.weight.sum() == pytest.approx(2)
    assert found.age.tolist() == [0, *(pytest.approx(k / 5) for k in range(1, 5)), 1, 0]
    assert found.inputs[5].tolist() == fleet.inputs(engines[0])[-WINDOW:].tolist()


def test_an_engine_that_is_too_short_is_named() -> None:
    """No window is made of less than its cycles."""
    with pytest.raises(BadDataSet, match="engine 4 has 29 cycles; at least 30"):
        Fleet.fit([_engine(40)]).windows([_engine(29, 4)])
