"""The fleet's evaluation as a table, a picture, and what it fell short of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

RULE_FINDS_BELOW: Final = 0.6
"""Severities at which the rule finds less than this are those that models are bought for."""
WANTED_FOUND: Final = 0.95
WANTED_LEAD_H: Final = 6.0
ALLOWED_FALSE: Final = 1.0
"""False alarms of a car in 100 component days."""
OURS: Final = "cartwin"
BASELINES: Final = ("limits", "pca", "boosting", "boosting_own")

Summary = Mapping[str, Any]


def hard(summary: Summary) -> list[str]:
    """The severities at which the rule finds too little."""
    rule = summary["limits"]["severity"]
    return [s for s, found in rule.items() if found["found"]["mean"] < RULE_FINDS_BELOW]


def shortcomings(summary: Summary) -> list[str]:
    """One sentence for every figure that was wanted and not reached; empty when all were."""
    ours = summary[OURS]
    missed = []
    if not (severities := hard(summary)):
        missed.append(f"the rule finds {RULE_FINDS_BELOW:.0%} at every severity; choose lower ones")
    for severity in severities:
        found = ours["severity"][severity]
        share = found["found"]["mean"]
        if share < WANTED_FOUND:
            missed.append(f"severity {severity}: {share:.1%} found, {WANTED_FOUND:.0%} is wanted")
        if found["lead_h"] is None or found["lead_h"] < WANTED_LEAD_H:
            missed.append(f"severity {severity}: lead {found['lead_h']} h, 6 h is wanted")
        for name in BASELINES:
            theirs = summary[name]["severity"][severity]["found"]["mean"]
            if theirs >= share and theirs > 0:
                missed.append(f"severity {severity}: {name} finds {theirs:.1%}, ours {share:.1%}")
    if (false := ours["false_per_100_days"]["mean"]) > ALLOWED_FALSE:
        missed.append(f"{false:.2f} false alarms a car in 100 days, {ALLOWED_FALSE:.0f} is allowed")
    return missed


def text(summary: Summary) -> str:
    """A table in Markdown: a line for each detector, a column for each severity."""
    severities = list(summary[OURS]["severity"])
    head = [f"severity {s}: found (least-most), lead" for s in severities]
    lines = [
        f"| detector | {' | '.join(head)} | false alarms a car in 100 days | in 100 h of rows at 1 Hz |",
        "|" + "---|" * (len(head) + 3),
    ]
    for name, row in summary.items():
        cells = []
        for severity in severities:
            cell = row["severity"][severity]
            found = cell["found"]
            lead = "-" if cell["lead_h"] is None else f"{cell['lead_h']:.0f} h"
            cells.append(f"{found['mean']:.0%} ({found['least']:.0%}-{found['most']:.0%}), {lead}")
        false = row["false_per_100_days"]
        hours = row["false_per_100_hours"]["mean"]
        lines.append(f"| {name} | {' | '.join(cells)} | {false['mean']:.2f} | {hours:.1f} |")
    modes = [
        f"severity {s}, found by mode: "
        + ", ".join(f"{m} {x:.0%}" for m, x in summary[OURS]["severity"][s]["modes"].items())
        for s in severities
    ]
    return "\n".join([*lines, "", *modes])


def plot(summary: Summary, path: Path) -> None:
    """Found share against severity for each detector, as PNG. Imports matplotlib."""
    import matplotlib  # noqa: PLC0415

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name, row in summary.items():
        points = sorted((float(s), cell["found"]) for s, cell in row["severity"].items())
        x = [severity for severity, _ in points]
        middle = [found["mean"] for _, found in points]
        spread = [
            [found["mean"] - found["least"] for _, found in points],
            [found["most"] - found["mean"] for _, found in points],
        ]
        axes.errorbar(
            x, middle, yerr=spread, marker="o", capsize=3, label=name, lw=3 if name == OURS else 1.2
        )
    axes.set(
        xlabel="severity: strength of a fault's signs at failure",
        ylabel="engine faults found before failure",
        ylim=(-0.02, 1.02),
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
