"""Does the static check notice? Every file is changed in many small ways, one at a time, in a copy.

    python -m k8s.checks.mutation              a table by kind of file, and the survivors
    python -m k8s.checks.mutation --sample 50  so many of each kind of file, for a look

A change is one that a person makes by mistake: a word with a letter more, a number ten times as large, a switch turned,
a line or a list's entry gone. What is only said (comments, descriptions, legends, titles, units) is left
alone. Caught is what a check says a fault of that it did not say before, or that cannot be rendered. The
changes are the same each time.
"""

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from k8s.checks import static
from k8s.checks.tools import BUILD, ROOT, SHARED

_WANTED: Final = 0.9
_SAID: Final = {
    "description", "summary", "title", "legendFormat", "unit", "about", "display_name", "error_message",
    "exp_annotations", "refresh", "tags", "schedule",
}  # fmt: skip
"""Keys whose values only people read."""


@dataclass(frozen=True)
class Change:
    """One mutation: a file, what was done, and its text afterwards."""

    path: Path
    what: str
    text: str


def _yaml_changes(path: Path) -> Iterator[Change]:
    documents = list(yaml.safe_load_all(path.read_text()))
    for number, document in enumerate(documents):
        for place, value in _leaves(document):
            for what, other in _others(value):
                changed = json.loads(json.dumps(documents))
                _set(changed[number], place, other)
                yield Change(
                    path,
                    f"{number} {'.'.join(map(str, place))}: {what}",
                    yaml.safe_dump_all(changed),
                )
        for place in _parts(document):
            changed = json.loads(json.dumps(documents))
            _remove(changed[number], place)
            yield Change(
                path, f"{number} {'.'.join(map(str, place))}: gone", yaml.safe_dump_all(changed)
            )


def _leaves(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(node, dict):
        for key, below in node.items():
            if key not in _SAID:
                yield from _leaves(below, (*place, key))
    elif isinstance(node, list):
        for i, below in enumerate(node):
            yield from _leaves(below, (*place, i))
    elif node is not None:
        yield place, node


def _parts(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key and entry that could be forgotten."""
    if isinstance(node, dict):
        for key, below in node.items():
            if key in _SAID:
                continue
            if place:
                yield (*place, key)
            yield from _parts(below, (*place, key))
    elif isinstance(node, list):
        for i, below in enumerate(node):
            yield (*place, i)
            yield from _parts(below, (*place, i))


def _others(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, bool):
        yield f"{value} -> {not value}", not value
    elif isinstance(value, int):
        other = 10 * value if value else 7
        yield f"{value} -> {other}", other
    elif isinstance(value, str) and value:
        yield f"{value[:60]} -> {value[:60]}x", f"{value}x"


def _set(node: Any, place: tuple[Any, ...], value: Any) -> None:
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value


def _remove(node: Any, place: tuple[Any, ...]) -> None:
    for key in place[:-1]:
        node = node[key]
    del node[place[-1]]


def _line_changes(path: Path) -> Iterator[Change]:
    """Of HCL, Dockerfiles and the queries of the dashboards: a word, a number, a switch, a line."""
    lines = path.read_text().splitlines(keepends=True)
    for i, line in enumerate(lines):
        code = line.split("#")[0]
        if not code.strip() or any(f"{word} " in code.split("=")[0] for word in _SAID):
            continue
        for found in re.finditer(
            r'"([a-z][\w./:-]*)"|\b(true|false)\b|(?<![\w.])(\d+)(?![\w.])|\b((?:cartwin|kafka|process)_\w+)\b',
            code,
        ):
            word = found[0]
            if word in ("true", "false"):
                other = "false" if word == "true" else "true"
            elif word.isdigit():
                other = str(int(word) + 1)
            else:
                other = f'{word[:-1]}x"' if word.startswith('"') else f"{word}x"
            text = line[: found.start()] + other + line[found.end() :]
            yield Change(
                path,
                f"line {i + 1}: {word} -> {other}",
                "".join([*lines[:i], text, *lines[i + 1 :]]),
            )


def changes(root: Path) -> dict[str, list[Change]]:
    """By kind of file."""
    k8s = root / "k8s"
    manifests = [
        path
        for folder in ("base", "platform", "components", "overlays")
        for path in sorted((k8s / folder).rglob("*.yaml"))
        if "mirror" not in path.parts
        and "metrics" not in path.parts
        and path.name != "kustomization.yaml"
    ]
    return {
        "manifests": [one for path in manifests for one in _yaml_changes(path)],
        "kustomizations": [
            one
            for path in sorted(k8s.rglob("kustomization.yaml"))
            if "mirror" not in path.parts
            for one in _yaml_changes(path)
        ],
        "monitors": list(_yaml_changes(k8s / "components" / "metrics" / "monitors.yaml")),
        "rules": list(_yaml_changes(k8s / "observability" / "rules.yml")),
        "dashboards": [
            one
            for one in _line_changes(k8s / "observability" / "panels.py")
            if "cartwin_" in one.what or "kafka_" in one.what or "process_" in one.what
        ],
        "terraform": [
            one
            for path in sorted((root / "terraform" / "modules").glob("*/main.tf"))
            for one in _line_changes(path)
        ],
    }


_STATIC: Final = """
import json, sys
from pathlib import Path
from k8s.checks import static
print(json.dumps(static.faults(Path.cwd())))
"""


def caught(change: Change, root: Path) -> bool:
    """Whether the check says a fault of the copy at `root` with this one change."""
    place = root / change.path.relative_to(root)
    before = place.read_text()
    place.write_text(change.text)
    try:
        if "terraform" in change.path.parts:
            return _terraform(place)
        if change.path.name == "rules.yml" and _promtool(root):
            return True
        if change.path.suffix == ".yaml" and change.path.name != "monitors.yaml":
            return bool(static.faults(root, observed=False))
        if change.path.suffix == ".py" or change.path.name == "rules.yml":
            # What is written from it is written again: else being stale would be all that is noticed.
            subprocess.run(
                [sys.executable, "-m", "k8s.observability.build"],
                cwd=root,
                capture_output=True,
                check=False,
            )
        done = subprocess.run(
            [sys.executable, "-c", _STATIC],
            cwd=root,
            env={**os.environ, "CARTWIN_SHARED": str(SHARED)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode != 0 or json.loads(done.stdout) != []
    finally:
        place.write_text(before)
        if change.path.suffix == ".py" or change.path.name == "rules.yml":
            subprocess.run(
                [sys.executable, "-m", "k8s.observability.build"],
                cwd=root,
                capture_output=True,
                check=False,
            )


def _promtool(root: Path) -> bool:
    at = root / "k8s" / "observability"
    done = subprocess.run(
        ["promtool", "test", "rules", "rules_test.yml"], cwd=at, capture_output=True, check=False
    )
    return done.returncode != 0


def _terraform(place: Path) -> bool:
    for command in (("validate",), ("test",)):
        done = subprocess.run(
            ["terraform", *command], cwd=place.parent, capture_output=True, check=False
        )
        if done.returncode:
            return True
    return False


def _copy(scratch: Path) -> Path:
    root = scratch / "copy"
    ignored = shutil.ignore_patterns(
        ".venv", ".git", "build", ".cartwin*", "__pycache__", ".hypothesis", "*_cache"
    )
    shutil.copytree(ROOT, root, ignore=ignored)
    return root


def main(arguments: list[str] | None = None) -> int:
    """Mutate, count, tell; exit code 1 when a kind of file is caught in less than 90 %."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=0, help="so many of each kind (0 = all)")
    parser.add_argument("--kinds", nargs="*", help="which kinds of file (all)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--out", type=Path, help="write the report there, as Markdown")
    options = parser.parse_args(arguments)
    report = ["| files | changes | caught | share |", "|---|---|---|---|"]
    survivors: list[str] = []
    worst = 1.0
    with tempfile.TemporaryDirectory(prefix="cartwin-mutation-") as scratch:
        root = _copy(Path(scratch))
        for kind, every in changes(root).items():
            if options.kinds and kind not in options.kinds:
                continue
            some = every
            if options.sample and len(every) > options.sample:
                some = random.Random(options.seed).sample(every, options.sample)
            if kind == "terraform":
                _prepare(root)
            count, began = 0, time.monotonic()
            for i, change in enumerate(some, 1):
                if caught(change, root):
                    count += 1
                else:
                    survivors.append(f"{change.path.relative_to(root)} {change.what}")
                if sys.stderr.isatty() or i % 50 == 0 or i == len(some):
                    each = (time.monotonic() - began) / i
                    sys.stderr.write(
                        f"\r{kind}: {i} of {len(some)}, {count} caught, {each:.2f} s each"
                    )
            sys.stderr.write("\n")
            share = count / max(len(some), 1)
            worst = min(worst, share)
            report.append(f"| {kind} | {len(some)} of {len(every)} | {count} | {share:.1%} |")
    text = "\n".join([*report, "", "Survivors:", "", *(f"- `{one}`" for one in survivors)]) + "\n"
    sys.stdout.write(text)
    if options.out is not None:
        options.out.write_text(text)
    return 0 if worst >= _WANTED else 1


def _prepare(root: Path) -> None:
    kit = SHARED / "tools" / "terraform-offline" / "mirror.sh"
    made = subprocess.run(
        ["sh", str(kit), str(BUILD / "mirror")], capture_output=True, text=True, check=True
    )
    for path in (root / "terraform" / "modules").iterdir():
        subprocess.run(
            ["terraform", "init", "-backend=false", f"-plugin-dir={made.stdout.split()[-1]}"],
            cwd=path, capture_output=True, check=True,
        )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
