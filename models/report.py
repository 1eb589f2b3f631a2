"""Metrics as a table for people."""

from typing import Any


def text(metrics: dict[str, Any]) -> str:
    """One line for each detector, then one for each fault mode of the scorer."""
    lines = [f"measured on {metrics['vehicles']} cars, {metrics['rows']} rows"]
    lines.append(f"{'':14}{'AUC':>7} {'failures found':>15} {'lead':>8} {'false alarms':>13}")
    for name, found in metrics["detectors"].items():
        area = found.get("auc")
        lines.append(
            f"{name:14}{'' if area is None else format(area, '.3f'):>7} {_share(found):>15}"
            f" {_lead(found):>8} {found['false_alarms']:>6} of {found['healthy']}"
        )
    for mode, found in metrics["detectors"]["scorer"]["by_mode"].items():
        lines.append(f"  {mode:19} {_share(found):>15} {_lead(found):>8}")
    return "\n".join(lines)


def _share(found: dict[str, Any]) -> str:
    return f"{found['detected']} of {found['failures']}"


def _lead(found: dict[str, Any]) -> str:
    return "" if found["lead_s"] is None else f"{found['lead_s']:.0f} s"
