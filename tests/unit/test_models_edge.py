"""A car judges itself as the scorer would judge it, from a package that proves what it is."""

import base64
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import orjson
import pytest

from models import artefact, edge, lite, serving
from models.errors import ArtefactRefused
from models.features import INPUTS
from models.scoring import Batch, Vehicles, assess
from models.simulator import Cars, Fault
from tests.models_artefacts import publish_small

NOW = 1_790_000_000_000
ROWS = 150


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> artefact.Artefact:
    """A stored model whose alarms begin where its scores are."""
    return publish_small(tmp_path_factory.mktemp("store"), 1, now_ms=NOW, threshold=1.0)


@pytest.fixture(scope="module")
def data(made: artefact.Artefact) -> bytes:
    """Its package."""
    return edge.package(made)


def _driven() -> list[Batch]:
    """A car whose engine overheats, row by row."""
    cars = Cars(1, seed=4, acceleration=1440.0, faults=[Fault(0, "cooling", 40.0, 1.0)])
    batches = []
    for second in range(ROWS):
        row = cars.step()
        signals = np.array([[row[name][0] for name in INPUTS]])
        times = np.array([NOW + 1000 * second])
        batches.append(Batch(["car-1"], times, signals, np.array([True])))
    return batches


def test_a_car_says_of_each_row_what_the_scorer_says(made: artefact.Artefact, data: bytes) -> None:
    """State, score, chance and life within 1e-3, over baselines, alarms and all; prints the time."""
    batches = _driven()
    there = Vehicles(1)
    told = assess(serving.load(made), [(there, batch) for batch in batches], NOW)
    own, model = Vehicles(1), edge.opened(data)
    began = time.perf_counter()
    here = assess(model, [(own, batch) for batch in batches], NOW)
    spent = time.perf_counter() - began
    print(f"a car's row: {1e6 * spent / ROWS:.0f} us")  # noqa: T201
    states = set()
    for (ours,), (theirs,) in zip(here, told, strict=True):
        assert ours.state == theirs.state
        states.add(ours.state)
        assert (ours.score is None) == (theirs.score is None)
        if ours.score is not None and theirs.score is not None:
            assert ours.score == pytest.approx(theirs.score, rel=1e-3, abs=1e-3)
        if ours.probability is None:
            assert theirs.probability is None
            continue
        assert ours.probability == pytest.approx(theirs.probability, abs=1e-3)
        # Lives in seconds, of a horizon of 60.
        assert ours.remaining == pytest.approx(theirs.remaining, abs=60e-3)
    assert {"insufficient_data", "alarm"} <= states


def test_the_package_names_the_model(made: artefact.Artefact, data: bytes) -> None:
    """Its version and the manifest's hash, so that a car's score can be traced."""
    record = orjson.loads(data)
    assert (record["version"], record["sha256"]) == (made.version, made.sha256)
    assert edge.opened(data).version == made.version
    assert len(data) < edge.MOST_BYTES


def _cut(record: dict[str, Any]) -> None:
    file = record["files"][lite.LSTM]
    record["files"][lite.LSTM] = file[: len(file) // 8 * 4]


def _bomb(record: dict[str, Any]) -> None:
    bomb = zlib.compress(b"\0" * (64 << 20), 9)
    record["files"][lite.LSTM] = base64.b64encode(bomb).decode()


def _swapped(record: dict[str, Any]) -> None:
    files = record["files"]
    files[lite.LSTM], files[lite.AUTOENCODER] = files[lite.AUTOENCODER], files[lite.LSTM]


@pytest.mark.parametrize(
    ("hurt", "why"),
    [
        (_cut, "no LiteRT model"),
        (_bomb, "no LiteRT model"),
        (_swapped, "are accepted"),
        (lambda record: record.update(format=1), "format 1; 2 is accepted"),
        (lambda record: record.update(feature_hash="0" * 16), "for features 0000"),
        (lambda record: record["autoencoder"].pop("norms"), "no package.*norms"),
        (lambda record: record["files"].clear(), "no package"),
        (lambda record: record["golden"]["rows"][0].__setitem__(0, 30.0), "computes .* here"),
        (lambda record: record["golden"]["chances"].__setitem__(0, 0.77), "computes .* here"),
        (lambda record: record["golden"].clear(), "no package"),
    ],
)
def test_a_package_that_is_not_as_it_says_is_refused(
    data: bytes, hurt: Callable[[dict[str, Any]], None], why: str
) -> None:
    """Whole or not at all, also when somebody has made its digest anew."""
    record = orjson.loads(data)
    hurt(record)
    del record["digest"]
    with pytest.raises(ArtefactRefused, match=why):
        edge.opened(orjson.dumps({"digest": edge._digest(record), **record}))


@pytest.mark.parametrize(
    "hurt",
    [
        lambda record: record["autoencoder"].update(threshold=1e9),
        lambda record: record["lstm"].update(cap=9.0),
        lambda record: record["lstm"]["debounce"].update(k=9),
        lambda record: record["autoencoder"]["norms"]["scale"][0].__setitem__(0, 9.0),
        lambda record: record.update(horizon_s=1),
        _bomb,
    ],
)
def test_a_package_that_was_altered_in_any_part_is_refused(
    data: bytes, hurt: Callable[[dict[str, Any]], None]
) -> None:
    """Thresholds are as much of a model as its weights."""
    record = orjson.loads(data)
    hurt(record)
    with pytest.raises(ArtefactRefused, match="was altered on its way"):
        edge.opened(orjson.dumps(record))


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b" " * (edge.MOST_BYTES + 1)])
def test_bytes_that_are_no_package_are_refused(data: bytes) -> None:
    """Also more of them than a package may have."""
    with pytest.raises(ArtefactRefused):
        edge.opened(data)


def test_a_model_without_files_for_cars_is_named(made: artefact.Artefact) -> None:
    """An artefact of an older trainer cannot be promoted past it."""
    with pytest.raises(ArtefactRefused, match=r"has no autoencoder\.tflite for cars"):
        edge.package(artefact.Artefact(made.folder.parent, made.manifest, made.sha256))


def test_a_car_needs_no_tensorflow(data: bytes) -> None:
    """Nor keras, nor Kafka, nor what opens stores."""
    code = (
        "import sys\n"
        "for name in ('tensorflow', 'keras', 'confluent_kafka', 'fsspec', 'sklearn', 'pyarrow'):\n"
        "    sys.modules[name] = None\n"
        "from models.edge import opened; print(opened(sys.stdin.buffer.read()).version)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=data, check=False, timeout=60, capture_output=True
    )
    assert done.stdout.decode().strip() == orjson.loads(data)["version"], done.stderr.decode()
