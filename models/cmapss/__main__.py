"""`python -m models.cmapss`: the LSTM and plain baselines on NASA's turbofan engines.

Exit codes: 0 done, 1 it could not be done or a promised figure was missed, 2 usage.
"""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any, Final

import orjson

from models.cmapss import reader
from models.cmapss.table import text
from models.errors import ModelsError
from models.progress import FORMS, steps
from twin.kit import logs
from twin.wire.errors import CartwinError

_DESCRIPTION: Final = """\
Train the LSTM of remaining life on NASA's C-MAPSS FD001, once for each seed, and measure it on the
test engines beside the mean, the age, ridge and boosting: RMSE, NASA's score, the interval, the
calibration of its chances.

  python -m models.cmapss --data ../shared/data/cmapss-fd001
  python -m models.cmapss --data ../shared/data/cmapss-fd001 --out report --json"""


def main(arguments: list[str] | None = None) -> int:
    """Run the evaluation; its exit code."""
    options = _parser().parse_args(arguments)
    # TensorFlow talks on stderr before anyone can stop it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logs.configure("evaluate")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        found = _evaluate(options)
    except CartwinError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    sys.stdout.write((orjson.dumps(found).decode() if options.json else text(found)) + "\n")
    return 1 if found["missed"] else 0


def _evaluate(options: argparse.Namespace) -> dict[str, Any]:
    train, test = reader.read(options.data)
    if options.out is not None:
        _made(options.out)
    # Wrong data is told of before the seconds that TensorFlow takes to load.
    from models.cmapss import evaluation  # noqa: PLC0415

    runs = []
    for seed in range(1, options.seeds + 1):
        with steps(
            f"seed {seed} of {options.seeds}", evaluation.RECIPE.epochs + 1, options.progress
        ) as advance:
            runs.append(evaluation.run(train, test, seed, advance))
    found = evaluation.summary(runs)
    if options.out is not None:
        from models.cmapss import plots  # noqa: PLC0415

        found["plots"] = plots.draw(runs[0], options.out)
        (options.out / "cmapss.json").write_bytes(
            orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n"
        )
    return found


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelsError(
            f"--out {folder}: no folder can be made there ({error.strerror})"
        ) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m models.cmapss",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the files of FD001")
    parser.add_argument("--out", type=Path, help="folder for cmapss.json and the plots")
    parser.add_argument("--seeds", type=_seeds, default=5, help="how many, from 1 (default: 5)")
    parser.add_argument(
        "--progress", choices=FORMS, default="auto", help="bar on a terminal, lines elsewhere"
    )
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")
    return parser


def _seeds(given: str) -> int:
    value = int(given) if given.isdecimal() else 0
    if not 1 <= value <= 20:
        raise argparse.ArgumentTypeError(f"{given!r}; a whole number from 1 to 20 is accepted")
    return value


if __name__ == "__main__":
    sys.exit(main())
