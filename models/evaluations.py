"""`cartwin evaluate`: every evaluation that needs no running stack, one after the other.

Simulated cars need nothing; the two public data sets are looked for in a folder and never fetched. Each
evaluation is a process of its own, as `cartwin evaluate fleet|cmapss|carobd` starts it: TensorFlow's
memory and its seeds begin anew. One that cannot run is told, fails the whole, and stops no other.

Exit codes: 0 every promised figure was reached, 1 one was missed or could not be measured, 2 usage.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import orjson

from models.progress import FORMS

_SETS: Final[dict[str, tuple[str, str]]] = {
    "fleet": ("", "simulated cars, held-out seeds and parameter ranges"),
    "cmapss": (
        "cmapss-fd001",
        "C-MAPSS FD001: train_FD001.txt, test_FD001.txt, RUL_FD001.txt of NASA's Prognostics Data"
        " Repository",
    ),
    "carobd": (
        "carobd-etios",
        "carOBD: obdiidata/ of github.com/eron93br/carOBD, or its carOBD-obdiidata.tar.xz",
    ),
}
"""Evaluation -> folder of its data set ("": none is needed), and what that is."""

_DESCRIPTION: Final = f"""\
Train and judge the models from scratch, beside plain detectors, and print a table for each: on
simulated cars (fleet), on NASA's engines (cmapss) and on a real car with injected faults (carobd).
About 20 minutes on two cores. Pictures and figures go to --out.

  cartwin evaluate
  cartwin evaluate --data ~/data --out report --json
  cartwin evaluate fleet --seeds 1 --cars 200     one alone, with options of its own
  cartwin evaluate --topic history                a stored model on a topic whose truth is known

Data sets that are looked for in --data:
  cmapss-fd001/  {_SETS["cmapss"][1]}
  carobd-etios/  {_SETS["carobd"][1]}"""


def main(arguments: list[str] | None = None) -> int:
    """Run them all; the exit code."""
    options = _parser().parse_args(arguments)
    found = {name: _evaluated(name, options) for name in _SETS}
    missed = [f"{name}: {why}" for name, one in found.items() for why in one["missed"]]
    told = {"evaluation": "all", "ok": not missed, "missed": missed, "evaluations": found}
    if options.json:
        sys.stdout.write(orjson.dumps(told).decode() + "\n")
    else:
        sys.stdout.write("".join(f"missed: {why}\n" for why in missed))
    return 1 if missed else 0


def _evaluated(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Its figures; as text they are printed as soon as they are known."""
    data, what = _SETS[name]
    folder = options.data / data
    if data and not folder.is_dir():
        why = f"no folder {folder}; it should hold {what}"
        sys.stderr.write(f"not measured: {name}: {why}\n")
        return {"ok": False, "missed": [f"not measured, {why}"]}
    out = options.out / name
    (out / f"{name}.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", f"models.{name}", "--out", str(out)]
    command += ["--progress", options.progress, *(["--data", str(folder)] if data else [])]
    if not options.json:
        sys.stdout.write(f"\n{name}: {what.split(':')[0]}\n\n")
        sys.stdout.flush()
    # Its table goes where ours goes; its figures are read from the file that it leaves.
    quiet = subprocess.DEVNULL if options.json else None
    done = subprocess.run(command, check=False, stdout=quiet)  # noqa: S603 - our own command line
    try:
        found: dict[str, Any] = orjson.loads((out / f"{name}.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {"ok": False, "missed": [f"not measured, it ended with code {done.returncode}"]}
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "cartwin evaluate",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shared = Path(os.environ.get("CARTWIN_SHARED", "../shared")) / "data"
    parser.add_argument(
        "--data", type=Path, default=shared, help=f"folder of the data sets ({shared})"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("report"), help="folder for pictures and JSON (report)"
    )
    parser.add_argument(
        "--progress", choices=FORMS, default="auto", help="bar on a terminal, lines elsewhere"
    )
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")
    return parser


if __name__ == "__main__":
    sys.exit(main())
