"""Three pictures of one seed: lives told against true ones, chances against what came, engines' ends."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from models.cmapss.evaluation import HORIZON, SHARE, Run
from models.cmapss.windows import CAP

_SHOWN: Final = 4
"""Engines whose last cycles are drawn."""


def draw(run: Run, folder: Path) -> list[str]:
    """Write the PNG files into `folder`, which exists; their names."""
    pictures = {
        "cmapss-lives.png": _lives(run),
        "cmapss-reliability.png": _reliability(run),
        "cmapss-trajectories.png": _trajectories(run),
    }
    for name, figure in pictures.items():
        figure.savefig(folder / name, dpi=120)
    return list(pictures)


def _lives(run: Run) -> Figure:
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    said, last = run.test, run.test.windows.last
    order = last[np.argsort(said.windows.left[last])]
    place = np.arange(order.size)
    axes.fill_between(
        place, said.low[order], said.high[order], alpha=0.25, label=f"interval of {SHARE:.0%}"
    )
    axes.plot(place, said.remaining[order], ".", label="told")
    axes.plot(place, said.windows.left[order], "k-", lw=1, label="truth")
    axes.axhline(CAP, color="grey", lw=0.8, ls=":")
    _label(axes, "test engine, by remaining life", "remaining life, cycles")
    return figure


def _reliability(run: Run) -> Figure:
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], "k:", lw=1, label="as told")
    told, came = ([getattr(one, name) for one in run.reliability] for name in ("told", "came"))
    axes.plot(told, came, "o-", label="test engines")
    _label(axes, f"chance of failure within {HORIZON:g} cycles", "share that failed")
    return figure


def _trajectories(run: Run) -> Figure:
    figure = Figure(figsize=(10, 5), layout="constrained")
    said = run.calibrated
    engines = np.unique(said.windows.engine)[:_SHOWN]
    for axes, engine in zip(figure.subplots(1, _SHOWN, sharey=True), engines, strict=False):
        rows = said.windows.engine == engine
        left = said.windows.left[rows]
        axes.fill_between(-left, said.low[rows], said.high[rows], alpha=0.25)
        axes.plot(-left, said.remaining[rows], label="told")
        axes.plot(-left, said.windows.capped[rows], "k-", lw=1, label="truth, capped")
        _label(axes, "cycles to failure", "remaining life, cycles")
    return figure


def _label(axes: Any, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.legend(loc="best", fontsize="small")
