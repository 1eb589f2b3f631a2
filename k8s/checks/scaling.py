"""Who scales what: one scaler for each workload, never beyond what there is to share."""

from collections.abc import Iterator
from typing import Final

from k8s.checks.kafka import GROUPS, partitions
from k8s.checks.rendered import Rendered
from twin.wire import topics

READERS: Final = {"worker": "cartwin-twin", "scorer": "cartwin-scorer"}
LEAST: Final = {"worker": 3, "scorer": 2, "api": 2}
"""Replicas outside of one machine: a zone may be lost."""


def scalers(r: Rendered) -> Iterator[str]:
    """Targets exist, are scaled once, and have no number of their own; least <= most <= partitions."""
    kinds = {(pod.kind, pod.name): pod for pod in r.pods}
    seen: set[str] = set()
    for one in r.kind("ScaledObject", "HorizontalPodAutoscaler"):
        name, spec = one["metadata"]["name"], one["spec"]
        target = spec["scaleTargetRef"]
        pod = kinds.get((target["kind"], target["name"]))
        if pod is None or target["name"] in seen:
            yield f"{one['kind']} {name} scales {target['name']}: {'twice' if pod else 'not there'}"
            continue
        seen.add(target["name"])
        if pod.replicas is not None:
            yield f"{pod.name} is set back to {pod.replicas} replicas by every deployment"
        keda = one["kind"] == "ScaledObject"
        least = spec.get("minReplicaCount" if keda else "minReplicas", 0)
        most = spec["maxReplicaCount" if keda else "maxReplicas"]
        if not LEAST.get(pod.name, 1) <= least <= most <= 2 * max(partitions(r), 12) or least > 4:
            yield f"{pod.name} is scaled from {least} to {most}"
        if pod.name in READERS:
            if not keda or most > partitions(r):
                yield f"{pod.name}: {most} replicas share {partitions(r)} partitions"
            yield from _triggers(r, pod.name, spec)
            down = (
                spec.get("advanced", {})
                .get("horizontalPodAutoscalerConfig", {})
                .get("behavior", {})
                .get("scaleDown", {})
            )
            steps = [(p["type"], p["value"]) for p in down.get("policies", ())]
            calm = (
                down.get("stabilizationWindowSeconds", 300),
                *(p["periodSeconds"] for p in down.get("policies", ())),
            )
            if steps != [("Pods", 1)] or not all(300 <= seconds <= 1800 for seconds in calm):
                yield f"{pod.name} is taken away {steps} after {calm} s: each costs its partitions a pause"
            asked = (spec.get("pollingInterval", 30), spec.get("cooldownPeriod", 300))
            if not (5 <= asked[0] <= 30 and 300 <= asked[1] <= 1800):
                yield f"{pod.name}: its lag is asked every {asked} s"
        elif not keda and [m["resource"]["name"] for m in spec["metrics"]] != ["cpu"]:
            yield f"{pod.name} is scaled by {spec['metrics']}"
        elif (
            not keda
            and not 50
            <= spec["metrics"][0]["resource"]["target"].get("averageUtilization", 0)
            <= 90
        ):
            yield f"{pod.name} is scaled at {spec['metrics'][0]['resource']['target']}"
    for pod in r.pods:
        if (
            pod.kind in ("Deployment", "StatefulSet")
            and pod.replicas is None
            and pod.name not in seen
        ):
            yield f"nobody says how many {pod.name} there are"
        if r.name != "local" and (pod.replicas or 99) < LEAST.get(pod.name, 0):
            yield f"{pod.name} has {pod.replicas} replicas"
        if pod.name in READERS and pod.replicas is not None and pod.replicas > partitions(r):
            yield f"{pod.name}: {pod.replicas} replicas share {partitions(r)} partitions"
    if r.name != "local" and seen != {*READERS, "api"}:
        yield f"scaled are {sorted(seen)}"


def _triggers(r: Rendered, name: str, spec: dict) -> Iterator[str]:  # type: ignore[type-arg]
    known = r.named("TriggerAuthentication")
    for trigger in spec["triggers"]:
        said = trigger["metadata"]
        if trigger["type"] != "kafka" or said["consumerGroup"] != READERS[name]:
            yield f"{name} is scaled by the lag of {said.get('consumerGroup')}"
        if (said["consumerGroup"], "literal") not in GROUPS["keda"]:
            yield f"{name}: user keda may not look at {said['consumerGroup']}"
        if said["topic"] != topics.TELEMETRY:
            yield f"{name} is scaled by topic {said['topic']}"
        if (
            not said["bootstrapServers"].startswith("kafka-kafka-bootstrap:")
            or said.get("tls") != "enable"
        ):
            yield f"{name}: its scaler asks {said['bootstrapServers']}, tls {said.get('tls')}"
        else:
            port = int(said["bootstrapServers"].rpartition(":")[2])
            listeners = r.named("Kafka")["kafka"]["spec"]["kafka"]["listeners"]
            if port not in [one["port"] for one in listeners]:
                yield f"{name}: its scaler asks Kafka at {port}"
        if (
            not 1_000 <= int(said["lagThreshold"]) <= 100_000
            or said.get("offsetResetPolicy") != "earliest"
        ):
            yield f"{name} is scaled by a lag of {said['lagThreshold']}"
        reference = trigger.get("authenticationRef", {}).get("name")
        parts = known.get(reference, {}).get("spec", {}).get("secretTargetRef", [])
        told = {one["parameter"]: (one["name"], one["key"]) for one in parts}
        wanted = {
            "ca": ("kafka-cluster-ca-cert", "ca.crt"),
            "cert": ("keda", "user.crt"),
            "key": ("keda", "user.key"),
        }
        if told != wanted:
            yield f"{name}: its scaler proves itself by {told}"


CHECKS: Final = (scalers,)
