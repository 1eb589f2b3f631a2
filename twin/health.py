"""Health: what the newest score says of a car, and the alert that an alarm opens.

Scores are taken by (event_time, session, sequence, id), so that order of arrival and repeats do not
matter, as with telemetry. An alert stays open while the state is alarm or cannot be told; only a
judgement (normal, warning) closes it. A score that the document has no room for belongs on `rejected`.
"""

from typing import Final, Literal, get_args

from twin.effects import Refusal
from twin.step import Step
from twin.wire.errors import TooLarge
from twin.wire.explain import cause_of
from twin.wire.records import Alert, Health, ModelScore, Score

MODELS: Final = 8
SIGNALS: Final = 8
"""Most models, and signals per model, that a twin keeps of a score."""

_Seconds = Literal["horizon_s", "remaining_s", "remaining_low_s", "remaining_high_s"]
_SECONDS: Final[tuple[_Seconds, ...]] = get_args(_Seconds)


def on_score(step: Step, score: Score) -> bool:
    """Take a score; False when it is not newer than the twin's."""
    twin, before = step.twin, step.twin["health"]
    if _order(score) <= _known(before):
        step.effects.outdated = True
        return False
    state = score["state"]
    after = Health(
        state=state,
        since=before["since"] if state == before["state"] else step.at,
        models=_models(score),
        score_id=score["id"],
        event_time=score["event_time"],
        session=score["session"],
        sequence=score["sequence"],
    )
    alert = before.get("alert")
    if alert is None and state == "alarm":
        alert = Alert(score_id=score["id"], since=step.at)
    closed = alert if state in ("normal", "warning") else None
    if alert is not None and closed is None:
        after["alert"] = alert
    try:
        step.fit({"health": after})
    except Refusal as refusal:
        step.effects.rejected = TooLarge(refusal.detail)
        return False
    twin["health"] = after
    _because(step, before)
    step.effects.changed = True
    if state != before["state"]:
        step.change(
            "health",
            {
                "from": before["state"],
                "state": state,
                "score_id": score["id"],
                "event_time": score["event_time"],
                "models": after["models"],
            },
        )
    if alert is not None and alert is not before.get("alert"):
        step.change("alert", {"state": "opened", **alert, "models": after["models"]})
    if closed is not None:
        step.change("alert", {"state": "closed", **closed, "closed_by": score["id"]})
    return True


def _because(step: Step, before: Health) -> None:
    """All is of this score, but since when the state and the alert last is of an earlier one."""
    after, known = step.twin["health"], step.twin.get("causes", {})
    step.because("/health")
    for path, stays in (
        ("/health/since", after["state"] == before["state"]),
        ("/health/alert", "alert" in after and "alert" in before),
    ):
        cause = cause_of(known, path)
        if stays and cause is not None:
            step.twin["causes"][path] = cause


def _order(score: Score) -> tuple[int, int, int, str]:
    return score["event_time"], score["session"], score["sequence"], score["id"]


def _known(health: Health) -> tuple[int, int, int, str]:
    return (
        health.get("event_time", -1),
        health.get("session", -1),
        health.get("sequence", -1),
        health.get("score_id", ""),
    )


def _models(score: Score) -> dict[str, ModelScore]:
    return {name: _rounded(model) for name, model in list(score["models"].items())[:MODELS]}


def _rounded(model: ModelScore) -> ModelScore:
    """Six significant digits are more than a score means; shares are shown as percent."""
    kept = ModelScore(version=model["version"])
    if "score" in model:
        kept["score"] = _digits(model["score"])
    if "threshold" in model:
        kept["threshold"] = _digits(model["threshold"])
    if "failure_probability" in model:
        kept["failure_probability"] = _digits(model["failure_probability"])
    for name in _SECONDS:
        if name in model:
            kept[name] = model[name]
    if "signals" in model:
        kept["signals"] = [
            {"signal": share["signal"], "share": round(share["share"], 3)}
            for share in model["signals"][:SIGNALS]
        ]
    return kept


def _digits(value: float) -> float:
    return float(f"{value:.6g}")
