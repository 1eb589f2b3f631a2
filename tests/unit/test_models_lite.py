"""The LiteRT files compute what the SavedModels do, without TensorFlow."""

import os
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

from models import artefact, lite, serving
from models.errors import ArtefactRefused
from tests.models_artefacts import publish_small

NOW = 1_790_000_000_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> artefact.Artefact:
    """A stored model with its LiteRT files."""
    return publish_small(tmp_path_factory.mktemp("store"), 1, now_ms=NOW)


@pytest.fixture(scope="module")
def golden(made: artefact.Artefact) -> dict[str, np.ndarray]:
    """Inputs, and what the SavedModels made of them."""
    with np.load(made.folder / artefact.GOLDEN) as file:
        return dict(file)


def test_a_car_computes_the_same_scores(
    made: artefact.Artefact, golden: dict[str, np.ndarray]
) -> None:
    """Score and residuals of each row within 1e-3 of the served model's; prints the time a row."""
    model = lite.Lite((made.folder / lite.AUTOENCODER).read_bytes())
    began = time.perf_counter()
    scores, residuals = model.rows(golden["rows"])
    spent = time.perf_counter() - began
    print(f"LiteRT autoencoder: {1e6 * spent / len(scores):.0f} us a row")  # noqa: T201
    assert scores == pytest.approx(golden["scores"], rel=1e-3, abs=1e-3)
    assert residuals == pytest.approx(golden["residuals"], rel=1e-3, abs=1e-3)


def test_a_car_computes_the_same_forecasts(
    made: artefact.Artefact, golden: dict[str, np.ndarray]
) -> None:
    """Chance and lives of each window within 1e-3 of the served model's; prints the time a window."""
    model = lite.LiteLstm((made.folder / lite.LSTM).read_bytes())
    began = time.perf_counter()
    said = model.windows(golden["windows"], golden["deviations"])
    spent = time.perf_counter() - began
    print(f"LiteRT LSTM: {1e6 * spent / len(said):.0f} us a window")  # noqa: T201
    told = golden["forecasts"] / [1, 60, 60, 60]  # seconds, of a horizon of 60
    told[np.isinf(told)] = 3.0
    assert said == pytest.approx(told, abs=1e-3)
    assert (np.ptp(said, axis=0) > 1e-3)[:2].all()


def test_the_files_are_part_of_the_artefact(made: artefact.Artefact) -> None:
    """Their hashes are in the manifest, so the registry pins them, and a scorer loads it as before."""
    files = made.manifest["files"]
    assert {lite.AUTOENCODER, lite.LSTM} <= set(files)
    assert serving.load(artefact.verify(made.folder.parent, made.version)).version == made.version


@pytest.mark.parametrize("data", [b"", b"no model", None])
def test_bytes_that_are_no_model_are_refused(made: artefact.Artefact, data: bytes | None) -> None:
    """A cut, empty or other file is a sentence; so is the other model's."""
    if data is None:
        data = (made.folder / lite.LSTM).read_bytes()
    with pytest.raises(ArtefactRefused):
        lite.Lite(data)


def test_running_it_needs_no_tensorflow(made: artefact.Artefact) -> None:
    """A car has LiteRT and numpy, and nothing more."""
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "from pathlib import Path; import numpy as np; from models.lite import Lite, LiteLstm\n"
        f"folder = Path({str(made.folder)!r}); golden = np.load(folder / 'golden.npz')\n"
        "Lite((folder / 'autoencoder.tflite').read_bytes()).rows(golden['rows'])\n"
        "inputs = [golden[name][:2] for name in ('windows', 'deviations')]\n"
        "LiteLstm((folder / 'lstm.tflite').read_bytes()).windows(*inputs)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)
