"""Rules and dashboards against the metrics that there are, and against each other. Nothing is run here."""

import importlib
import re
from collections.abc import Iterator
from typing import Any, Final

import promql_parser
import yaml
from prometheus_client import REGISTRY

from k8s.checks.rendered import Rendered
from k8s.checks.tools import ROOT
from k8s.observability.build import files
from k8s.observability.panels import BOARDS

RULES: Final = ROOT / "k8s" / "observability" / "rules.yml"
JMX: Final = ROOT / "k8s" / "observability" / "kafka-jmx.yaml"
GUIDE: Final = ROOT / "docs" / "operations.md"
_ALWAYS: Final = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}
_SUFFIXES: Final = ("_bucket", "_count", "_sum", "_total", "")
JOBS: Final = {"uplink", "downlink", "worker", "scorer", "api", "kafka"}


def metrics() -> dict[str, set[str]]:
    """Every series that our processes and Kafka show, with its labels beside job and instance."""
    module = importlib.import_module("twin.kit.metrics")
    found: dict[str, set[str]] = {name: set() for name in _ALWAYS}
    for one in vars(module).values():
        if hasattr(one, "_labelnames"):
            names, kind = set(one._labelnames), one._type
            base = one._name
            if kind == "histogram":
                found |= {
                    f"{base}_bucket": names | {"le"},
                    f"{base}_count": names,
                    f"{base}_sum": names,
                }
            else:
                found[f"{base}_total" if kind == "counter" else base] = names
    for family in REGISTRY.collect():
        labels = {name for sample in family.samples for name in sample.labels}
        if family.name.startswith("cartwin_uplink_") and family.type == "counter":
            found.setdefault(f"{family.name}_total", {"kind"})
        elif family.name.startswith("cartwin_") and family.type == "histogram":
            for suffix, more in (("_bucket", {"le"}), ("_count", set()), ("_sum", set())):
                found.setdefault(f"{family.name}{suffix}", labels - {"le"} | more)
        elif (
            family.name.startswith("cartwin_")
            and family.name not in found
            and f"{family.name}_total" not in found
        ):
            found[family.name] = labels
    found["cartwin_uplink_rejected_total"] = {"reason"}
    found["cartwin_consumer_lag_records"] = {"group", "topic", "partition"}
    for rule in yaml.safe_load(JMX.read_text())["rules"]:
        choices = re.findall(r"\(((?:\w+\|)*\w+)\)", rule["pattern"])
        first = choices[0].split("|") if "$1" in rule["name"] else [""]
        for word in first:
            found[rule["name"].replace("$1", word).lower()] = set(rule.get("labels", {}))
    return found


def queries() -> Iterator[tuple[str, str]]:
    """Where each query stands, and its text with Grafana's variables replaced."""
    for board in BOARDS:
        for panel in board.panels:
            for query, _ in panel.queries:
                yield (
                    f"dashboard {board.uid}, {panel.title}",
                    query.replace("$__rate_interval", "1m"),
                )
    for rule in rules():
        yield f"rule {rule.get('alert') or rule.get('record')}", rule["expr"]


def rules() -> list[dict[str, Any]]:
    """All rules of all groups."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def known(_: Rendered) -> Iterator[str]:
    """Every query asks for metrics that exist, by labels that they have, of processes that there are."""
    there = metrics()
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for where, text in queries():
        try:
            tree = promql_parser.parse(text)
        except ValueError as error:
            yield f"{where}: {error}"
            continue
        for name, labels, jobs in _selectors(tree):
            if name in recorded:
                continue
            if name not in there:
                yield f"{where}: nobody shows {name}"
                continue
            if strange := labels - there[name] - {"job", "instance"}:
                yield f"{where}: {name} has no label {sorted(strange)}"
            if strange := jobs - JOBS:
                yield f"{where}: there is no job {sorted(strange)}"


def _selectors(tree: Any) -> Iterator[tuple[str, set[str], set[str]]]:
    """Name, labels that are asked by, and named jobs of every selector of a query."""
    if type(tree).__name__ == "VectorSelector":
        asked = list(tree.matchers.matchers)
        jobs = {job for one in asked if one.name == "job" for job in one.value.split("|")}
        yield str(tree.name), {one.name for one in asked}, jobs
        return
    for part in ("lhs", "rhs", "expr", "args", "vector_selector"):
        below = getattr(tree, part, None)
        for one in below if isinstance(below, list) else [below]:
            if one is not None:
                yield from _selectors(one)


def grouped(_: Rendered) -> Iterator[str]:
    """`by` and legends name labels that what is summed has."""
    there = metrics()
    for where, text in queries():
        names = [name for name, _, _ in _selectors(promql_parser.parse(text))]
        known_labels = {"job", "instance", "version", "le"}.union(
            *(there.get(name, set()) for name in names)
        )
        for group in re.findall(r"\b(?:by|on|group_left)\s*\(([^)]*)\)", text):
            wanted = {word.strip() for word in group.split(",") if word.strip()}
            if strange := wanted - known_labels:
                yield f"{where}: nothing there has a label {sorted(strange)}"
    for board in BOARDS:
        for panel in board.panels:
            for query, legend in panel.queries:
                for label in re.findall(r"\{\{(\w+)\}\}", legend):
                    if (
                        f"({label}" not in query
                        and f", {label}" not in query
                        and label != "instance"
                    ):
                        yield f"dashboard {board.uid}, {panel.title}: {label} is summed away"


def used(_: Rendered) -> Iterator[str]:
    """Every metric of ours is looked at by a dashboard or a rule."""
    asked = {name for _, text in queries() for name, _, _ in _selectors(promql_parser.parse(text))}
    unseen = {
        re.sub(r"_(bucket|count|sum|total)$", "", name)
        for name in metrics()
        if name.startswith("cartwin_")
    } - {re.sub(r"_(bucket|count|sum|total)$", "", name) for name in asked}
    for name in sorted(unseen - UNSEEN):
        yield f"nobody looks at {name}"


UNSEEN: Final = {
    "cartwin_broker_refused",  # of `cartwin broker refused`, a process that not everybody runs
    "cartwin_downlink_model_bytes",
    "cartwin_scorer_shadow_rows",  # of a challenger, by `cartwin models compare`
    "cartwin_twin_outdated",
    "cartwin_twin_written_again",
    "cartwin_uplink_cleared",
    "cartwin_uplink_outbox",
    "cartwin_uplink_reconnects",
}
"""Metrics for a person who looks for a cause."""


AT_ONCE: Final = {"BrokerDropsMessages", "StrangeChangelog"}
"""Alerts of what must not happen once; all others wait, so that a moment wakes nobody."""


def alerts(_: Rendered) -> Iterator[str]:
    """Every alert says how bad it is and what is the matter, and has its paragraph in the guide."""
    guide = GUIDE.read_text() if GUIDE.exists() else ""
    asked = " ".join(text for _, text in queries())
    for rule in rules():
        if "record" in rule and rule["record"] not in asked:
            yield f"nobody asks for {rule['record']}"
        if "alert" in rule and ("for" in rule) == (rule["alert"] in AT_ONCE):
            yield f"alert {rule['alert']} waits {rule.get('for', 'for nothing')}"
    names = [rule["alert"] for rule in rules() if "alert" in rule]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"alert {name} is there twice"
    for rule in rules():
        if "alert" not in rule:
            continue
        if rule.get("labels", {}).get("severity") not in ("page", "ticket"):
            yield f"alert {rule['alert']} has no severity"
        if not rule.get("annotations", {}).get("summary"):
            yield f"alert {rule['alert']} says nothing"
        if f"### {rule['alert']}\n" not in guide:
            yield f"alert {rule['alert']} is not in docs/operations.md"
    for name in re.findall(r"(?m)^### ([A-Z]\w+)$", guide):
        if name not in names:
            yield f"docs/operations.md tells of {name}, which is no alert"


def written(_: Rendered) -> Iterator[str]:
    """What Kubernetes takes was written from these."""
    for path, text in files().items():
        if not path.exists() or path.read_text() != text:
            yield f"{path.relative_to(ROOT)} is stale: python -m k8s.observability.build"


def scraped(r: Rendered) -> Iterator[str]:
    """compose's Prometheus and the monitors ask the same processes under the same names."""
    config = yaml.safe_load((ROOT / "k8s" / "observability" / "prometheus.yml").read_text())
    jobs = {one["job_name"] for one in config["scrape_configs"]}
    if jobs != JOBS:
        yield f"prometheus.yml asks {sorted(jobs)}"
    if not r.kind("PodMonitor"):
        return
    asked: set[str] = set()
    for one in r.kind("PodMonitor"):
        selector = one["spec"]["selector"]
        if not (selector.get("matchLabels") or selector.get("matchExpressions")):
            yield f"monitor {one['metadata']['name']} asks every pod"
        if any(end.get("interval") != "15s" for end in one["spec"]["podMetricsEndpoints"]):
            yield f"monitor {one['metadata']['name']} does not ask every 15 s, as compose does"
        relabel = [
            rule
            for end in one["spec"]["podMetricsEndpoints"]
            for rule in end.get("relabelings", ())
            if rule.get("targetLabel") == "job"
        ]
        if not relabel:
            yield f"monitor {one['metadata']['name']} gives no job"
            continue
        pods = [pod.name for pod in r.selected(one["spec"]["selector"])]
        label = "__meta_kubernetes_pod_label_app_kubernetes_io_name"
        if relabel[0].get("sourceLabels") == [label]:
            asked |= set(pods)
        elif "replacement" in relabel[0]:
            asked.add(relabel[0]["replacement"])
        if any(end.get("path") != "/metrics" for end in one["spec"]["podMetricsEndpoints"]):
            yield f"monitor {one['metadata']['name']} does not ask /metrics"
    if asked != JOBS:
        yield f"monitors ask {sorted(asked)}"


CHECKS: Final = (known, grouped, used, alerts, written, scraped)
