"""The part of requirements.lock that one image installs, hashes and all, on standard output.

    python scripts/image-packages.py worker

An image is named after extras of pyproject.toml. What its packages need is read from the lock's own
`# via` lines, so every image has the very versions that were tested, and nothing is resolved anew.
"""

import re
import sys
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
EXTRAS: Final = {
    "ingest": ("ingest",),
    "worker": ("worker",),
    "api": ("api",),
    "models": ("models", "stores"),
    "fleet": ("fleet", "cli"),
    "hivemq": ("local",),
}
"""Image -> extras of pyproject.toml that it has beside what every process needs."""
_BUILD: Final = ("cython", "setuptools")


def packages(image: str) -> list[str]:
    """The blocks of the lock for an image, or for `build`, what compiles the hot path."""
    blocks = _blocks((ROOT / "requirements.lock").read_text())
    wanted = set(_BUILD) if image == "build" else _direct(image)
    missing = wanted - blocks.keys()
    if missing:
        raise SystemExit(f"requirements.lock does not pin {', '.join(sorted(missing))}: make lock")
    while True:
        more = {name for name, (_, via) in blocks.items() if via & wanted} - wanted
        if not more:
            return [blocks[name][0] for name in sorted(wanted)]
        wanted |= more


def _direct(image: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = list(project["dependencies"])
    for extra in EXTRAS[image]:
        lines += project["optional-dependencies"][extra]
    return {_name(line) for line in lines}


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def _blocks(lock: str) -> dict[str, tuple[str, set[str]]]:
    """Package -> its lines with hashes, and the packages that need it."""
    found = {}
    for block in re.split(r"(?m)^(?=[a-z0-9])", lock):
        if "==" not in block:
            continue
        lines = block.splitlines()
        pinned = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
        via = {_name(word) for line in lines if "#" in line for word in _via(line)}
        found[_name(block)] = (pinned, via)
    return found


def _via(line: str) -> list[str]:
    said = line.partition("#")[2].replace("via", "", 1).strip()
    return [said] if re.fullmatch(r"[A-Za-z0-9._-]+", said) else []


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in (*EXTRAS, "build"):
        raise SystemExit(f"usage: image-packages.py {'|'.join([*EXTRAS, 'build'])}")
    sys.stdout.write("\n".join(packages(sys.argv[1])) + "\n")
