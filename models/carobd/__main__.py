"""`python -m models.carobd`: faults injected into a real car's trips, found by ours and by others.

Exit codes: 0 done, 1 it could not be done or a promised figure was missed, 2 usage.
"""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

import orjson

from models.carobd import reader
from models.progress import FORMS
from twin.kit import logs
from twin.wire.errors import CartwinError

_DESCRIPTION = """\
Learn from healthy trips of a real Toyota Etios and find faults injected into other trips of it: the
masked autoencoder with the sensors of that car, beside boosting, a plain autoencoder, PCA and fixed
limits, all at one budget of false alarms.

  python -m models.carobd --data ../shared/data/carobd-etios
  python -m models.carobd --data ../shared/data/carobd-etios --out report --json"""


def main(arguments: list[str] | None = None) -> int:
    """Run the evaluation; its exit code."""
    options = _parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logs.configure("evaluate")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        trips = reader.read(options.data)
        # Wrong data is told of before the seconds that TensorFlow takes to load.
        from models.carobd.evaluation import evaluate  # noqa: PLC0415
        from models.carobd.report import plot, text  # noqa: PLC0415

        found: dict[str, Any] = evaluate(trips, options.seeds, options.progress)
    except CartwinError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    told = {"evaluation": "carobd", "ok": not found["missed"], **found}
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "carobd.json").write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2))
        plot(found["summary"], options.out / "carobd.png")
    shown = [text(found["summary"]), *(f"missed: {why}" for why in found["missed"])]
    sys.stdout.write((orjson.dumps(told).decode() if options.json else "\n".join(shown)) + "\n")
    return 1 if found["missed"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m models.carobd",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the trips")
    parser.add_argument("--out", type=Path, help="folder for carobd.json and carobd.png")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--progress", choices=FORMS, default="auto", help="bar on a terminal, lines elsewhere"
    )
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")
    return parser


if __name__ == "__main__":
    sys.exit(main())
