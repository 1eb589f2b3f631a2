"""The gate in front of the registry: is a measured model good enough to score real cars?"""

from typing import Any, Final

MIN_AUC: Final = 0.8
MIN_DETECTED: Final = 0.5
MAX_FALSE_ALARMS: Final = 0.02


def shortcomings(summary: dict[str, Any]) -> list[str]:
    """Why a model with these figures is not made champion; empty when it is good enough."""
    why = []
    if summary["auc"] is None or summary["auc"] < MIN_AUC:
        why.append(f"AUC of the LSTM is {summary['auc']}; at least {MIN_AUC} is wanted")
    if summary["detected"] < MIN_DETECTED * summary["failures"] or not summary["failures"]:
        why.append(
            f"{summary['detected']} of {summary['failures']} failures were detected;"
            f" at least {MIN_DETECTED:.0%} are wanted"
        )
    # One car of a small test set proves nothing.
    if summary["false_alarms"] > max(1, MAX_FALSE_ALARMS * summary["healthy"]):
        why.append(
            f"{summary['false_alarms']} of {summary['healthy']} healthy cars raised an alarm;"
            f" one, or {MAX_FALSE_ALARMS:.0%} of them, may"
        )
    return why
