"""The real car's evaluation as a table and a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

Summary = Mapping[str, Any]


def text(summary: Summary) -> str:
    """A table in Markdown: a line for each detector, a column for each fault."""
    names = list(next(iter(summary.values()))["faults"])
    lines = [
        f"| detector | {' | '.join(names)} | false alarms an hour |",
        "|" + "---|" * (len(names) + 2),
    ]
    for detector, row in summary.items():
        cells = [_cell(row["faults"][name]) for name in names]
        lines.append(f"| {detector} | {' | '.join(cells)} | {row['false_per_hour']['mean']:.2f} |")
    return "\n".join(lines)


def _cell(found: Mapping[str, Any]) -> str:
    share, delay = found["found"], found["delay_rows"]
    spread = (
        "" if share["least"] == share["most"] else f" ({share['least']:.0%}-{share['most']:.0%})"
    )
    return f"{share['mean']:.0%}{spread}" + ("" if delay is None else f", {delay:.0f} rows")


def plot(summary: Summary, path: Path) -> None:
    """Found share of each fault by each detector, as PNG. Imports matplotlib."""
    import matplotlib  # noqa: PLC0415

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    names = list(next(iter(summary.values()))["faults"])
    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    width = 0.8 / len(summary)
    for number, (detector, row) in enumerate(summary.items()):
        shares = [row["faults"][name]["found"]["mean"] for name in names]
        places = [place + width * (number - len(summary) / 2 + 0.5) for place in range(len(names))]
        axes.bar(places, shares, width, label=detector)
    axes.set_xticks(range(len(names)), [name.replace(", ", "\n") for name in names], fontsize=8)
    axes.set(ylabel="trips in which the fault was found", ylim=(0, 1.05))
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
