"""The part that needs nothing but the files and two programs from PyPI: what `make test` runs."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from k8s.checks import brokers, kafka, network, observed, scaling, workloads
from k8s.checks.rendered import OVERLAYS, NotRendered, Rendered
from k8s.checks.tools import KUBERNETES_VALIDATE, ROOT, SHARED

Check = Callable[[Rendered], Iterator[str]]
CROSS: Final[tuple[Check, ...]] = (
    *workloads.CHECKS,
    *kafka.CHECKS,
    *network.CHECKS,
    *scaling.CHECKS,
    *brokers.CHECKS,
)
"""Of each overlay."""
ONCE: Final[tuple[Check, ...]] = observed.CHECKS
"""Of the repository, whatever overlay is looked at."""
KUBERNETES: Final = "1.37"


def cross(rendered: Rendered) -> Iterator[str]:
    """Every fault that our cross-checks find in an overlay."""
    for check in CROSS:
        for fault in _guarded(check, rendered):
            yield f"{rendered.name}: {check.__name__}: {fault}"


def once(rendered: Rendered) -> Iterator[str]:
    """Every fault of what is no overlay's; `rendered`: one with monitors."""
    for check in ONCE:
        for fault in _guarded(check, rendered):
            yield f"{check.__name__}: {fault}"


def _guarded(check: Check, rendered: Rendered) -> Iterator[str]:
    try:
        yield from check(rendered)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        # Objects that lack what every such object has; their schema says it better.
        yield f"an object is not as it should be: {error!r:.160}"


def schemas(rendered: Rendered) -> Iterator[str]:
    """Core objects by Kubernetes' own schemas, custom ones by the CRDs of their operators, if at hand."""
    import yaml  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="cartwin-schemas-") as folder:
        path = Path(folder) / "rendered.yaml"
        path.write_text(yaml.safe_dump_all(rendered.objects))
        core = _run(KUBERNETES_VALIDATE, "--strict", "-k", KUBERNETES, "--quiet", str(path))
        yield from (f"{rendered.name}: {line}" for line in core if "ERROR" in line or "INVALID" in line)
        if (tool := SHARED / "tools" / "crdcheck.py").exists():
            for line in _run(sys.executable, str(tool), str(SHARED / "crds"), str(path)):
                if " BAD" in line or line.startswith("not checked") and _custom(line):
                    yield f"{rendered.name}: {line.removeprefix(str(path)).strip()}"


def _custom(line: str) -> bool:
    known = ("apps/v1", "batch/v1", "v1", "policy/v1", "networking.k8s.io/v1", "autoscaling/v2")
    return any(one.split()[0] not in known for one in line.partition(": ")[2].split(", "))


def _run(*command: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return (done.stdout + done.stderr).splitlines()


def faults(root: Path = ROOT, *, with_schemas: bool = True) -> list[str]:
    """All of them."""
    found: list[str] = []
    for name in OVERLAYS:
        try:
            rendered = Rendered.of(name, root)
        except NotRendered as error:
            found.append(str(error))
            continue
        found += cross(rendered)
        if with_schemas:
            found += schemas(rendered)
        if name == "production":
            found += once(rendered)
    return found
