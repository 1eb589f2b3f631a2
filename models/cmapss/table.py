"""The evaluation's summary as a table for people."""

from typing import Any


def text(found: dict[str, Any]) -> str:
    """Lines of `evaluation.summary`."""
    title = f"truth capped at {found['cap']:g}"
    lines = [
        f"{found['data']}: {found['engines']} test engines, {len(found['seeds'])} seeds"
        " (mean, lowest to highest); cycles",
        f"{'':10}{title:>34}{'truth as it is':>26}",
        f"{'':10}{'RMSE':>22}{'score':>12}{'RMSE':>16}{'score':>10}",
    ]
    for name, of in found["models"].items():
        rmse = of["rmse"]
        span = f"{rmse['mean']:.2f} ({rmse['lowest']:.2f}-{rmse['highest']:.2f})"
        lines.append(
            f"{name:10}{span:>22}{of['score']['mean']:>12.0f}"
            f"{of['rmse_uncapped']['mean']:>16.2f}{of['score_uncapped']['mean']:>10.0f}"
        )
    interval, chance, told = found["interval"], found["chance"], found["alpha_lambda"]
    apart = found["against_boosting"]
    lines += [
        f"lstm less boosting: RMSE {apart['rmse']:+.2f} ({apart['low']:+.2f} to {apart['high']:+.2f},"
        " 95 % by engine)",
        f"interval of {interval['promised']['mean']:.0%}: holds {interval['coverage']['mean']:.1%}"
        f" ({_shown(interval['coverage_worn'], '.1%')} of those below the cap), half-width"
        f" {interval['half_width']['mean']:.1f} ({_shown(interval['half_width_worn'], '.1f')})",
        f"chance of failure within {chance['horizon']['mean']:g}: calibration error"
        f" {chance['ece']['mean']:.4f} ({_shown(chance['ece_worn'], '.4f')} below the cap), Brier"
        f" {chance['brier']['mean']:.4f} (base rate {chance['brier_base_rate']['mean']:.4f})",
        f"within {told['alpha']:.0%} of the truth, calibration engines: "
        + ", ".join(
            f"{share['mean']:.0%} at {float(at):.0%} of life"
            for at, share in told["lambda"].items()
        ),
        *(f"missed: {promise}" for promise in found["missed"]),
    ]
    return "\n".join(lines)


def _shown(figure: dict[str, float | None], form: str) -> str:
    return "none" if figure["mean"] is None else format(figure["mean"], form)
