"""Logits to probabilities, and the plain baseline."""

from pathlib import Path

import numpy as np
import pytest

from models.baseline import Pca
from models.calibration import platt
from models.features import FEATURES

RNG = np.random.default_rng(5)


def test_platt_finds_the_line_behind_the_labels() -> None:
    """Labels drawn from sigmoid(2 x - 1) give slope 2 and offset -1 back."""
    logits = RNG.normal(0, 2, 50_000)
    labels = RNG.random(50_000) < 1 / (1 + np.exp(-(2 * logits - 1)))
    assert platt(logits, labels) == pytest.approx((2.0, -1.0), abs=0.06)


def test_platt_never_turns_the_order_round() -> None:
    """Logits that are worse than chance keep a positive slope."""
    logits = RNG.normal(0, 1, 1000)
    assert platt(logits, logits < 0)[0] > 0


def test_platt_survives_perfectly_separated_logits() -> None:
    """No infinite slope where a threshold divides the classes."""
    logits = np.concatenate([np.full(50, -3.0), np.full(50, 3.0)])
    slope, offset = platt(logits, logits > 0)
    assert np.isfinite([slope, offset]).all()
    assert 1 / (1 + np.exp(-(slope * 3 + offset))) > 0.9


def test_the_baseline_scores_what_leaves_the_plane_of_healthy_rows(tmp_path: Path) -> None:
    """One is the 99 % quantile of healthy rows; a broken relation scores far above; it is kept."""
    width = len(FEATURES)
    hidden = RNG.normal(size=(4000, 2)) @ RNG.normal(size=(2, width))
    rows = (hidden + 0.05 * RNG.normal(size=(4000, width))).astype(np.float32)
    pca = Pca.fit(rows[:2000], rows[2000:])
    assert np.mean(pca.scores(rows[2000:]) > 1) == pytest.approx(0.02, abs=0.01)
    broken = rows[:50].copy()
    broken[:, 0] += 3 * rows[:, 0].std()
    assert (pca.scores(broken) > 5).mean() > 0.9
    pca.save(tmp_path, 2.5)
    again, threshold = Pca.load(tmp_path)
    assert threshold == 2.5
    assert again.scores(broken).tolist() == pca.scores(broken).tolist()
