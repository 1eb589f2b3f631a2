"""What the LSTM has to beat: the mean, the age, a line, and boosting, on the same engines.

Ridge and boosting see statistics of the windows that the LSTM sees (mean, spread, slope, last value,
mean of the last five, of every input), and every window of the engines where the LSTM is trained on
every third. Boosting is the best of five settings on held-out training engines (RMSE 9.96 cycles,
the mean over 4 folds; scikit-learn's own setting 10.78).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

from models.cmapss.windows import CAP, WINDOW, Floats, Windows

Lives = NDArray[np.float64]


def predictions(
    train: Windows, mean_life: float, test: Windows, cycles: NDArray[np.int64], seed: int
) -> Iterator[tuple[str, Lives]]:
    """Name and remaining cycles (n,) of each baseline for the `test` windows.

    `mean_life` is that of the training engines, `cycles` (n,) the age at the end of each test window.
    """
    yield "mean", np.full(len(test.left), float(train.capped.mean()))
    yield "age", np.clip(mean_life - cycles, 0, CAP)
    seen, asked = statistics(train.inputs), statistics(test.inputs)
    models: dict[str, Any] = {
        "ridge": Ridge(10.0),
        "boosting": HistGradientBoostingRegressor(
            max_iter=500,
            learning_rate=0.03,
            max_leaf_nodes=15,
            min_samples_leaf=100,
            max_features=0.3,
            early_stopping=False,
            random_state=seed,
        ),
    }
    for name, model in models.items():
        model.fit(seen, train.capped)
        yield name, np.clip(model.predict(asked), 0, CAP)


def statistics(windows: Floats) -> Floats:
    """(n, WINDOW, width) -> (n, 5 * width)."""
    time = np.arange(WINDOW, dtype=np.float32) - (WINDOW - 1) / 2
    slope = np.einsum("nwf,w->nf", windows, time) / np.square(time).sum()
    parts = [windows.mean(1), windows.std(1), slope, windows[:, -1], windows[:, -5:].mean(1)]
    joined: Floats = np.concatenate(parts, axis=1)
    return joined
