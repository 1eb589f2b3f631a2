"""An overlay as `kubectl kustomize` renders it, and what stands in its objects."""

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import yaml

from k8s.checks.tools import KUBECTL

Object = dict[str, Any]
HIVEMQ: Final = "hivemq"
"""Rendered in this folder, with what no overlay has."""
OVERLAYS: Final = ("local", "staging", "production")
NAME: Final = "app.kubernetes.io/name"
KAFKA_PODS: Final = {
    "strimzi.io/name": "kafka-kafka",
    "strimzi.io/cluster": "kafka",
    "app.kubernetes.io/part-of": "cartwin",
}
"""Labels of the brokers' pods, which Strimzi makes."""
KAFKA_PORTS: Final = {"tcp-clientstls": 9093, "tcp-prometheus": 9404}

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class NotRendered(Exception):
    """kustomize refused the overlay; its words."""


@dataclass(frozen=True)
class Pod:
    """The pod template of a workload."""

    kind: str
    name: str
    replicas: int | None
    """None where somebody else decides."""
    labels: Mapping[str, str]
    spec: Object

    @property
    def containers(self) -> list[Object]:
        """Init containers, too."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    @property
    def ports(self) -> dict[str, int]:
        """Name -> number of every port of its containers."""
        return {
            port["name"]: port["containerPort"]
            for container in self.containers
            for port in container.get("ports", ())
        }


class Rendered:
    """Objects of one overlay."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.objects: list[Object] = [one for one in yaml.load_all(text, _LOADER) if one]

    @classmethod
    def of(cls, overlay: str, root: Path) -> "Rendered":
        """Render `root`/k8s/overlays/`overlay`, or what is rendered for the checks alone.

        Raises `NotRendered`.
        """
        folder = root / "k8s" / ("checks" if overlay == HIVEMQ else "overlays") / overlay
        done = subprocess.run(
            [KUBECTL, "kustomize", str(folder)],
            env={"KUBECONFIG": "/dev/null", "HOME": "/nonexistent", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NotRendered(f"{overlay}: {done.stderr.strip()[-400:]}")
        return cls(overlay, done.stdout)

    def kind(self, *kinds: str) -> list[Object]:
        """All objects of these kinds."""
        return [one for one in self.objects if one["kind"] in kinds]

    def named(self, kind: str) -> dict[str, Object]:
        """Objects of a kind by their name."""
        return {one["metadata"]["name"]: one for one in self.kind(kind)}

    @cached_property
    def pods(self) -> list[Pod]:
        """Of every workload."""
        found = []
        for one in self.kind("Deployment", "StatefulSet", "Job", "CronJob"):
            spec = one["spec"]
            body = spec["jobTemplate"]["spec"] if one["kind"] == "CronJob" else spec
            template = body["template"]
            found.append(
                Pod(
                    one["kind"],
                    one["metadata"]["name"],
                    spec.get(
                        "replicas", None if one["kind"] in ("Deployment", "StatefulSet") else 1
                    ),
                    template["metadata"].get("labels", {}),
                    template["spec"],
                )
            )
        return found

    def selected(self, selector: Mapping[str, Any]) -> list[Pod]:
        """Workloads whose pods a selector matches (matchLabels, matchExpressions, or plain labels)."""
        return [pod for pod in self.pods if matches(selector, pod.labels)]


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a selector picks what has these labels; an empty one picks everything."""
    plain = selector if not {"matchLabels", "matchExpressions"} & selector.keys() else None
    wanted = plain if plain is not None else selector.get("matchLabels", {})
    if any(labels.get(name) != value for name, value in wanted.items()):
        return False
    for one in () if plain is not None else selector.get("matchExpressions", ()):
        value, operator = labels.get(one["key"]), one["operator"]
        holds = {
            "In": value in one.get("values", ()),
            "NotIn": value not in one.get("values", ()),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[operator]
        if not holds:
            return False
    return True


def values(rendered: Rendered, pod: Pod, container: Object) -> Iterator[tuple[str, str | None]]:
    """Name and value of each variable of a container; None where it comes from elsewhere."""
    maps = rendered.named("ConfigMap")
    for source in container.get("envFrom", ()):
        name = source.get("configMapRef", {}).get("name")
        yield from maps.get(name, {}).get("data", {}).items()
    for one in container.get("env", ()):
        yield one["name"], one.get("value")
