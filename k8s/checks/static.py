"""The part that needs nothing but the files and two programs from PyPI: what `make test` runs."""

import importlib.util
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import kubernetes_validate

from k8s.checks import brokers, kafka, network, scaling, workloads
from k8s.checks import observed as shown
from k8s.checks.rendered import HIVEMQ, OVERLAYS, NotRendered, Rendered
from k8s.checks.tools import ROOT, SHARED

Check = Callable[[Rendered], Iterator[str]]
CROSS: Final[tuple[Check, ...]] = (
    *workloads.CHECKS,
    *kafka.CHECKS,
    *network.CHECKS,
    *scaling.CHECKS,
    *brokers.CHECKS,
)
"""Of each overlay."""
OTHERS: Final[tuple[Check, ...]] = (
    workloads.selectors,
    workloads.own_selector,
    workloads.services,
    workloads.files,
    workloads.own_identity,
    workloads.confined,
    brokers.mounted,
    brokers.shards,
    brokers.certificates,
    brokers.doors,
)
"""Of what no overlay has: these say nothing of what is in an overlay."""
ONCE: Final[tuple[Check, ...]] = shown.CHECKS
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
    except (LookupError, TypeError, AttributeError, ValueError, AssertionError) as error:
        # Objects that lack what every such object has; their schema says it better.
        yield f"an object is not as it should be: {error!r:.160}"


def schemas(rendered: Rendered) -> Iterator[str]:
    """Core objects by Kubernetes' own schemas, custom ones by the CRDs of their operators, if at hand."""
    for one in rendered.objects:
        text = json.dumps(one, sort_keys=True, default=str)
        for fault in _judged(text):
            name = one.get("metadata", {}).get("name")
            yield f"{rendered.name}: {one.get('kind')} {name}: {fault}"


@lru_cache(maxsize=4096)
def _judged(text: str) -> tuple[str, ...]:
    one = json.loads(text)
    group = str(one.get("apiVersion", "")).rpartition("/")[0]
    if group in _CORE:
        try:
            kubernetes_validate.validate(one, KUBERNETES, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            return ("Kubernetes has no such kind",)
        except (kubernetes_validate.ValidationError, TypeError, KeyError) as error:
            return (f"{error!s:.300}",)
        return ()
    known = _custom()
    if known is None:
        return ()
    check, crds = known
    faults = check(one, crds)
    return ("no operator has such a kind",) if faults is None else tuple(faults)


_CORE: Final = {"", "apps", "batch", "policy", "networking.k8s.io", "autoscaling"}


@cache
def _custom() -> tuple[Any, Any] | None:
    """crdcheck's judgement and the CRDs; None where they are not at hand, which is said once."""
    tool = SHARED / "tools" / "crdcheck.py"
    if not tool.exists():
        sys.stderr.write(
            f"SKIPPED: custom resources, whose CRDs are not in {SHARED} (CARTWIN_SHARED)\n"
        )
        return None
    spec = importlib.util.spec_from_file_location("crdcheck", tool)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves closing its files to Python
        return module.problems, module.load(str(SHARED / "crds"))


def faults(root: Path = ROOT, *, observed: bool = True) -> list[str]:
    """All of them; `observed`: of rules and dashboards, too."""
    found: list[str] = []
    for name in OVERLAYS:
        try:
            rendered = Rendered.of(name, root)
        except NotRendered as error:
            found.append(str(error))
            continue
        found += cross(rendered)
        found += schemas(rendered)
        if name == "production" and observed:
            found += once(rendered)
    try:
        others = Rendered.of(HIVEMQ, root)
    except NotRendered as error:
        return [*found, str(error)]
    for check in OTHERS:
        found += (f"{HIVEMQ}: {check.__name__}: {fault}" for fault in _guarded(check, others))
    return [*found, *schemas(others)]
