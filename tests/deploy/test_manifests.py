"""The static part of `make deploy-check`: manifests against schemas, each other and the code.

And that the checks see something: for each of them a mistake that it has to notice.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from k8s.checks import images, static
from k8s.checks.rendered import HIVEMQ, OVERLAYS, NotRendered, Rendered, matches
from k8s.checks.tools import ROOT, SHARED
from k8s.checks.workloads import amount

Change = Callable[[dict[str, dict[str, Any]]], None]


@pytest.fixture(scope="module")
def overlays() -> dict[str, Rendered]:
    return {name: Rendered.of(name, ROOT) for name in OVERLAYS}


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_has_no_fault(overlays: dict[str, Rendered], name: str) -> None:
    """By our own cross-checks."""
    assert list(static.cross(overlays[name])) == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_is_what_kubernetes_and_its_operators_take(
    overlays: dict[str, Rendered], name: str
) -> None:
    """By their schemas; custom resources by the CRDs in CARTWIN_SHARED."""
    assert list(static.schemas(overlays[name])) == []
    if not (SHARED / "crds").is_dir():
        pytest.skip("the CRDs of the operators are not there: set CARTWIN_SHARED")


def test_rules_dashboards_and_guide_fit_the_metrics(overlays: dict[str, Rendered]) -> None:
    """And what Kubernetes takes was written from them."""
    assert list(static.once(overlays["production"])) == []


def test_dockerfile_and_compose_have_no_fault() -> None:
    """By what is written in them."""
    assert list(images.faults()) == []


def test_an_overlay_that_is_none_is_said() -> None:
    """In kustomize's words."""
    with pytest.raises(NotRendered, match="nowhere"):
        Rendered.of("nowhere", ROOT)


MISTAKES: list[tuple[str, str, Change]] = [
    ("selectors", "Service api", lambda o: o["Service api"]["spec"]["selector"].update({"app.kubernetes.io/name": "apis"})),
    ("selectors", "Service redis", lambda o: o["Service redis"]["spec"]["ports"][0].update(targetPort="http")),
    ("own_selector", "worker", lambda o: o["StatefulSet worker"]["spec"]["selector"]["matchLabels"].update({"app.kubernetes.io/name": "api"})),
    ("services", "headless", lambda o: o["StatefulSet worker"]["spec"].update(serviceName="workers")),
    ("services", "Kafka has no listener at 9092", lambda o: o["ConfigMap access"]["data"].update(KAFKA_BOOTSTRAP="kafka-kafka-bootstrap:9092")),
    ("probes", "readinessProbe asks /ready", lambda o: _first(o["Deployment api"])["readinessProbe"]["httpGet"].update(path="/ready")),
    ("probes", "HEALTH_PORT", lambda o: o["ConfigMap access"]["data"].update(HEALTH_PORT="9101")),
    ("environment", "KAFKA_BOOTSTRAPS is no setting", lambda o: o["ConfigMap access"]["data"].update(KAFKA_BOOTSTRAPS="x")),
    ("environment", "is not accepted", lambda o: _first(o["StatefulSet worker"])["env"][3].update(value="disk")),
    ("environment", "STORE_DIR is not set", lambda o: _first(o["StatefulSet worker"])["env"].pop()),
    ("files", "is not among", lambda o: o["ConfigMap access"]["data"].update(KAFKA_SSL_KEY="/etc/cartwin/kafka/tls.key")),
    ("files", "mounted nowhere", lambda o: _first(o["StatefulSet worker"])["volumeMounts"].pop()),
    ("secrets", "nobody makes the secret", lambda o: o["KafkaUser api"]["metadata"].update(name="apis")),
    ("secrets", "is in git", lambda o: o.update({"Secret x": {"kind": "Secret", "metadata": {"name": "x"}}})),
    ("own_identity", "certificate of", lambda o: _volumes(o["Deployment api"])[0]["projected"]["sources"][0]["secret"].update(name="worker")),
    ("confined", "may run as root", lambda o: _pod(o["Deployment api"])["securityContext"].update(runAsNonRoot=False)),
    ("confined", "not confined", lambda o: _first(o["Deployment api"])["securityContext"].update(readOnlyRootFilesystem=False)),
    ("confined", "and may use", lambda o: _first(o["Deployment api"])["resources"]["limits"].update(memory="1Mi")),
    ("images", "this is version", lambda o: _first(o["Deployment api"]).update(image="ghcr.io/cartwin/api:latest")),
    ("images", "runs image", lambda o: _first(o["Deployment api"]).update(image="ghcr.io/cartwin/worker:0.1.0")),
    ("disrupted", "no budget", lambda o: o["PodDisruptionBudget api"]["spec"].update(maxUnavailable=2)),
    ("catalogue", "is not there", lambda o: o.pop("KafkaTopic scores") and None),
    ("catalogue", "the code wants", lambda o: o["KafkaTopic twins"]["spec"]["config"].update({"cleanup.policy": "delete"})),
    ("catalogue", "different numbers of partitions", lambda o: o["KafkaTopic scores"]["spec"].update(partitions=12)),
    ("rights", "user api may", lambda o: o["KafkaUser api"]["spec"]["authorization"]["acls"][0]["resource"].update(name="truth")),
    ("rights", "user worker may", lambda o: o["KafkaUser worker"]["spec"]["authorization"]["acls"][0]["operations"].append("Write")),
    ("cluster", "lets in anybody", lambda o: _kafka(o)["listeners"][0].update(tls=False)),
    ("cluster", "min.insync.replicas", lambda o: _kafka(o)["config"].update({"min.insync.replicas": 1})),
    ("flows", "worker cannot reach redis", lambda o: o.pop("NetworkPolicy to-redis") and None),
    ("flows", "may reach", lambda o: o["NetworkPolicy to-kafka"]["spec"]["podSelector"]["matchExpressions"][0]["values"].append("redis")),
    ("object_store", "may leave the cluster", lambda o: o["NetworkPolicy to-object-store"]["spec"]["podSelector"]["matchExpressions"][0]["values"].append("api")),
    ("scalers", "share 24 partitions", lambda o: o["ScaledObject worker"]["spec"].update(maxReplicaCount=25)),
    ("scalers", "set back to", lambda o: o["StatefulSet worker"]["spec"].update(replicas=3)),
    ("shards", "the shards are", lambda o: o["StatefulSet mosquitto"]["spec"].update(replicas=4)),
    ("certificates", "no Issuer", lambda o: o["Certificate uplink-mqtt"]["spec"]["issuerRef"].update(name="ca")),
    ("certificates", "uplink-mqtt is", lambda o: o["Certificate uplink-mqtt"]["spec"].update(commonName="downlink@cartwin")),
    ("doors", "cars cannot reach", lambda o: o["Service mqtt"]["spec"].update(type="ClusterIP")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "said", "mistake"), MISTAKES, ids=lambda x: x if isinstance(x, str) else ""
)
def test_a_check_sees_its_mistake(
    overlays: dict[str, Rendered], check: str, said: str, mistake: Change
) -> None:
    """In production, one change each."""
    objects = {
        f"{one['kind']} {one['metadata']['name']}": json.loads(json.dumps(one))
        for one in overlays["production"].objects
    }
    mistake(objects)
    changed = Rendered("production", "")
    changed.objects = list(objects.values())
    found = [fault for fault in static.cross(changed) if f" {check}: " in fault]
    assert any(said in fault for fault in found), found


def _pod(workload: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = workload["spec"]["template"]["spec"]
    return spec


def _first(workload: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = _pod(workload)["containers"][0]
    return container


def _volumes(workload: dict[str, Any]) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = _pod(workload)["volumes"]
    return volumes


def _kafka(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = objects["Kafka kafka"]["spec"]["kafka"]
    return spec


def test_selectors_match_as_kubernetes_does() -> None:
    """All that they say has to hold; an empty one matches everything."""
    labels = {"a": "1", "b": "2"}
    assert matches({}, labels)
    assert matches({"a": "1"}, labels)
    assert not matches({"matchLabels": {"a": "1", "b": "3"}}, labels)
    for operator, values, holds in (
        ("In", ["1"], True), ("In", ["2"], False), ("NotIn", ["2"], True), ("Exists", [], True),
        ("DoesNotExist", [], False),
    ):  # fmt: skip
        asked = {"matchExpressions": [{"key": "a", "operator": operator, "values": values}]}
        assert matches(asked, labels) is holds, operator


def test_amounts_are_cores_and_bytes() -> None:
    assert amount("250m") < amount("1") < amount(2)
    assert amount("512Mi") < amount("1Gi") == 2**30


def test_what_no_overlay_has_is_rendered_and_right() -> None:
    """HiveMQ instead of Mosquitto, and the mirror of a second region."""
    assert [fault for fault in static.faults(observed=False) if fault.startswith(HIVEMQ)] == []
