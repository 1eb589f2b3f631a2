"""Dashboards as pictures: the panels' own queries, from a real Prometheus, drawn by matplotlib (not Grafana)."""

import math
import time
from pathlib import Path
from typing import Any, Final

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from k8s.checks.live import ask
from k8s.observability.panels import BOARDS, Board, Panel

_SPAN_S: Final = 240
_COLUMNS: Final = 2
_MOST: Final = 8


def draw(url: str, folder: Path) -> None:
    """A PNG for each dashboard, of the last minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        _board(url, board, folder / f"dashboard-{board.uid}.png")


def _board(url: str, board: Board, path: Path) -> None:
    rows = math.ceil(len(board.panels) / _COLUMNS)
    figure, axes = pyplot.subplots(
        rows, _COLUMNS, figsize=(11, 2.3 * rows + 0.5), layout="constrained", squeeze=False
    )
    figure.suptitle(f"cartwin / {board.title}: rendered from the dashboard's queries")
    for axis in axes.flat[len(board.panels) :]:
        axis.axis("off")
    for axis, panel in zip(axes.flat, board.panels, strict=False):
        _panel(url, axis, panel)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def _panel(url: str, axis: Any, panel: Panel) -> None:
    now = time.time()
    axis.set_title(f"{panel.title} [{panel.unit}]", fontsize=9, loc="left")
    axis.tick_params(labelsize=7)
    drawn = 0
    for query, legend in panel.queries:
        found = ask(
            url,
            query.replace("$__rate_interval", "30s"),
            "query_range",
            start=f"{now - _SPAN_S:.0f}",
            end=f"{now:.0f}",
            step="2",
        )
        for series in () if isinstance(found, str) else found:
            if drawn == _MOST:
                break
            points = [(float(at) - now, float(value)) for at, value in series["values"]]
            name = legend
            for label, value in series["metric"].items():
                name = name.replace(f"{{{{{label}}}}}", value)
            axis.plot(*zip(*points, strict=True), label=name[:34], lw=1)
            drawn += 1
    axis.grid(alpha=0.3)
    axis.set_ylim(bottom=0)
    if drawn:
        axis.legend(fontsize=6, loc="upper left")
