"""`python -m models.fleet`: the fleet's models on simulated cars, beside plain detectors."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import orjson

from models.progress import FORMS
from twin.wire.errors import CartwinError


def main(arguments: list[str] | None = None) -> int:
    """Run it; 0 when every figure that is wanted was reached, else 1."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from models.fleet.evaluation import Plan, evaluate  # noqa: PLC0415
    from models.fleet.report import plot, shortcomings, text  # noqa: PLC0415

    plan = Plan(
        seeds=options.seeds,
        train_cars=options.cars,
        failing_cars=options.failing,
        healthy_cars=options.healthy,
        days=options.days,
        acceleration=options.acceleration,
        severities=options.severities,
        epochs=options.epochs,
    )
    try:
        result = evaluate(plan, options.progress)
    except CartwinError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    missed = shortcomings(result["summary"])
    told: dict[str, Any] = {"evaluation": "fleet", "ok": not missed, "missed": missed, **result}
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "fleet.json").write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2))
        plot(result["summary"], options.out / "fleet.png")
    sys.stdout.write(orjson.dumps(told).decode() if options.json else text(result["summary"]))
    sys.stdout.write("\n" if options.json else "\n" + "".join(f"missed: {why}\n" for why in missed))
    return 1 if missed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m models.fleet",
        description=(
            "Train on a simulated fleet and judge what the scorer would raise on cars with other"
            " seeds and other parameters, beside a rule, PCA and gradient boosting."
        ),
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23])
    parser.add_argument("--cars", type=int, default=600, help="cars to train on, a seed (600)")
    parser.add_argument("--failing", type=int, default=160, help="failing cars a severity (160)")
    parser.add_argument("--healthy", type=int, default=300, help="healthy cars judged (300)")
    parser.add_argument("--days", type=float, default=6.0, help="component days of each car (6)")
    parser.add_argument(
        "--acceleration",
        type=float,
        default=360.0,
        help="component seconds a second of the clock: at 360 a row stands for 6 minutes (360)",
    )
    parser.add_argument(
        "--severities",
        type=float,
        nargs="+",
        default=[1.0, 0.5, 0.3],
        help="strength of a fault's signs at failure (1.0 0.5 0.3)",
    )
    parser.add_argument("--epochs", type=int, default=12, help="at most, of each network (12)")
    parser.add_argument("--out", type=Path, help="folder for fleet.json and fleet.png")
    parser.add_argument("--json", action="store_true", help="one JSON line")
    parser.add_argument("--progress", choices=FORMS, default="auto")
    return parser


if __name__ == "__main__":
    sys.exit(main())
