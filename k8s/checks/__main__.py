"""`python -m k8s.checks`: every check of a deployment that needs no cluster and no cloud.

Exit codes: 0 everything that could be checked is right, 1 a fault was found (or, in CI, a program is
missing), 2 usage.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from k8s.checks import images, live, programs, static
from k8s.checks.programs import Absent
from k8s.checks.rendered import OVERLAYS

_DESCRIPTION: Final = """\
Check k8s/, terraform/, compose.yaml, rules and dashboards without a cluster or a cloud.

  python -m k8s.checks              everything (about 10 minutes the first time)
  python -m k8s.checks static       manifests against schemas, each other and the code (make test has it)
  python -m k8s.checks live --pictures docs/images
                                    every query against a running stack; dashboards as pictures"""

_Step = tuple[str, Callable[[], Iterable[str]]]


def _steps(parts: list[str], pictures: str | None) -> list[_Step]:
    steps: list[_Step] = []
    if "static" in parts:
        steps += [("manifests", static.faults), ("Dockerfile and compose.yaml", images.faults)]
    if "programs" in parts:
        steps += [("promtool", programs.promtool), ("terraform fmt", programs.formatted)]
        steps += [
            (f"terraform {name}", partial(programs.terraform, name))
            for name in programs.CONFIGURATIONS
        ]
        steps += [
            (f"checkov {name}", partial(programs.checkov, name))
            for name in (*OVERLAYS, "terraform")
        ]
    if "images" in parts:
        steps += [(f"image {name}", partial(images.started, name)) for name in images.STARTED]
    if "live" in parts:
        steps.append(("queries on a running stack", partial(live.faults, pictures)))
    return steps


def main(arguments: list[str] | None = None) -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m k8s.checks",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    every = ["static", "programs", "images", "live"]
    parser.add_argument("parts", nargs="*", choices=[*every, []], default=every, help="which (all)")
    parser.add_argument("--pictures", metavar="FOLDER", help="write a PNG of each dashboard there")
    parser.add_argument("--json", action="store_true", help="one JSON line on stdout")
    options = parser.parse_args(arguments)
    found: dict[str, list[str]] = {}
    skipped: dict[str, str] = {}
    for name, step in _steps(options.parts or every, options.pictures):
        began = time.monotonic()
        try:
            found[name] = list(step())
            told = "ok" if not found[name] else f"{len(found[name])} faults"
        except Absent as absent:
            told = f"SKIPPED: {absent}"
            skipped[name] = str(absent)
            if os.environ.get("CI"):
                found[name] = [str(absent)]
        sys.stderr.write(f"{name:36} {time.monotonic() - began:6.1f} s  {told}\n")
        for fault in found.get(name, ()):
            sys.stderr.write(f"  {fault}\n")
    faults = [fault for several in found.values() for fault in several]
    if options.json:
        line = {"ok": not faults, "faults": faults, "skipped": skipped, "checked": list(found)}
        sys.stdout.write(json.dumps(line) + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
