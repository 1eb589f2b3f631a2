"""Kafka's objects against the catalogue of topics, and rights against what each process reads and writes."""

from collections.abc import Iterator
from typing import Any, Final

from ingest import downlink, redrive
from k8s.checks.rendered import Object, Rendered
from k8s.checks.workloads import amount, resources
from models.registry import SCORERS
from twin import app
from twin.local.jars import KAFKA_VERSION
from twin.settings import WorkerSettings
from twin.wire import topics
from twin.wire.topics import SPECS

_REPORTS: Final = (topics.TELEMETRY, topics.PRESENCE, topics.REPORTED, topics.OUTCOMES)

READS: Final[dict[str, tuple[str, ...]]] = {
    "uplink": (topics.REDRIVE,),
    "downlink": (topics.DOWNLINK, topics.MODELS),
    "worker": (*app.INPUTS, topics.TWINS, topics.LEDGER),
    "scorer": (topics.TELEMETRY, topics.MODELS, topics.BASELINES),
    "api": (topics.REJECTED,),
    "trainer": (topics.TELEMETRY, topics.HISTORY, topics.TRUTH, topics.MODELS),
    "evaluation": (topics.HISTORY, topics.TRUTH),
    "keda": (),
}
WRITES: Final[dict[str, tuple[str, ...]]] = {
    "uplink": (*_REPORTS, topics.REJECTED),
    "downlink": (topics.DELIVERIES, topics.REJECTED),
    "worker": (topics.TWINS, topics.LEDGER, topics.CHANGES, topics.DOWNLINK, topics.REJECTED),
    "scorer": (topics.SCORES, topics.MODEL_STATUS, topics.BASELINES),
    "api": (topics.REQUESTS, topics.REDRIVE),
    "trainer": (topics.MODELS,),
    "evaluation": (topics.HISTORY, topics.TRUTH),
    "keda": (),
}
GROUPS: Final[dict[str, set[tuple[str, str]]]] = {
    "uplink": {(redrive.GROUP, "literal")},
    "downlink": {(downlink.GROUP, "literal"), (f"{downlink.GROUP}-models", "literal")},
    "worker": {(app.GROUP, "literal"), ("cartwin-restore", "literal")},
    "scorer": {(SCORERS, "literal"), ("scorer-", "prefix")},
    "api": {("cartwin-api-rejected", "literal")},
    "trainer": {("cartwin-train-", "prefix"), ("models-", "prefix")},
    "evaluation": {("models-", "prefix")},
    "keda": {(app.GROUP, "literal"), (SCORERS, "literal")},
}
"""What each process does; a test runs them all on a real Kafka under these rights."""


def catalogue(r: Rendered) -> Iterator[str]:
    """Every topic is there as the code wants it, and no other."""
    known = r.named("KafkaTopic")
    for name in sorted(known.keys() ^ {spec.name for spec in SPECS}):
        yield f"topic {name} is {'not in the catalogue' if name in known else 'not there'}"
    brokers = _brokers(r)
    counts = set()
    for spec in SPECS:
        if spec.name not in known:
            continue
        topic = known[spec.name]["spec"]
        config = {name: str(value) for name, value in topic["config"].items()}
        if config != spec.config():
            yield f"topic {spec.name} is {config}, the code wants {spec.config()}"
        if spec.partitioned:
            counts.add(topic["partitions"])
        elif topic["partitions"] != 1:
            yield f"topic {spec.name} has {topic['partitions']} partitions, its order needs 1"
        label = known[spec.name]["metadata"]["labels"].get("cartwin.io/partitioned")
        if label != str(spec.partitioned).lower():
            yield f"topic {spec.name} is labelled partitioned={label}"
        if topic["replicas"] != min(3, brokers):
            yield f"topic {spec.name} has {topic['replicas']} replicas on {brokers} brokers"
    if len(counts) != 1:
        yield f"topics about a vehicle have different numbers of partitions: {sorted(counts)}"
    for one in r.kind("KafkaTopic", "KafkaUser", "KafkaNodePool"):
        if one["metadata"].get("labels", {}).get("strimzi.io/cluster") not in r.named("Kafka"):
            yield f"{one['kind']} {one['metadata']['name']} belongs to no Kafka"


def partitions(r: Rendered) -> int:
    """Of the topics about a vehicle."""
    return int(r.named("KafkaTopic").get(topics.TELEMETRY, {}).get("spec", {}).get("partitions", 0))


def _brokers(r: Rendered) -> int:
    return sum(
        one["spec"]["replicas"]
        for one in r.kind("KafkaNodePool")
        if "broker" in one["spec"]["roles"]
    )


def rights(r: Rendered) -> Iterator[str]:
    """Every process may do what it does and nothing else; truth is for those who learn and judge."""
    users = r.named("KafkaUser")
    for name in sorted(users.keys() ^ READS.keys()):
        yield f"user {name} is {'nobody' if name in users else 'not there'}"
    for name in sorted(users.keys() & READS.keys()):
        spec = users[name]["spec"]
        if spec["authentication"]["type"] != "tls" or spec["authorization"]["type"] != "simple":
            yield f"user {name} proves itself by {spec['authentication']['type']}"
        found = dict(_allowed(spec["authorization"]["acls"]))
        if found != (wanted := _wanted(name)):
            for resource in sorted(found.keys() | wanted.keys()):
                if found.get(resource) != wanted.get(resource):
                    yield (
                        f"user {name} may {sorted(found.get(resource, ()))} {resource}, it needs"
                        f" {sorted(wanted.get(resource, ()))}"
                    )


_Resource = tuple[str, str, str]


def _allowed(acls: list[Object]) -> Iterator[tuple[_Resource, frozenset[str]]]:
    for acl in acls:
        resource = acl["resource"]
        pattern = resource.get("patternType", "literal")
        operations = frozenset(acl["operations"])
        if acl.get("type", "allow") != "allow" or acl.get("host", "*") != "*":
            operations = frozenset({"not plainly allowed"})
        yield (resource["type"], resource.get("name", "*"), pattern), operations


def _wanted(name: str) -> dict[_Resource, frozenset[str]]:
    found: dict[_Resource, frozenset[str]] = {}
    for topic in {*READS[name], *WRITES[name]}:
        operations = {"Describe"}
        operations |= {"Read"} if topic in READS[name] else set()
        operations |= {"Write"} if topic in WRITES[name] else set()
        found["topic", topic, "literal"] = frozenset(operations)
    for group, pattern in GROUPS[name]:
        found["group", group, pattern] = frozenset({"Read", "Describe"})
    if name == "keda":
        found["topic", topics.TELEMETRY, "literal"] = frozenset({"Describe"})
        found |= {("group", group, "literal"): frozenset({"Describe"}) for group, _ in GROUPS[name]}
    if name == "trainer":  # it removes the groups of its readings
        for group, pattern in GROUPS[name]:
            found["group", group, pattern] |= {"Delete"}
    return found


def cluster(r: Rendered) -> Iterator[str]:
    """Kafka lets in by certificate only, allows what is written only, and keeps what it acknowledged."""
    (kafka,) = (one["spec"]["kafka"] for one in r.kind("Kafka"))
    for listener in kafka["listeners"]:
        if not listener["tls"] or listener.get("authentication", {}).get("type") != "tls":
            yield f"listener {listener['name']} lets in anybody"
        if listener["type"] != "internal":
            yield f"listener {listener['name']} is reached from outside"
        if listener.get("networkPolicyPeers") != PEERS:
            yield f"listener {listener['name']} is open to {listener.get('networkPolicyPeers')}"
    if kafka.get("authorization", {}).get("type") != "simple":
        yield "Kafka allows everybody everything"
    if kafka.get("authorization", {}).get("superUsers"):
        yield "Kafka has super users"
    config: dict[str, Any] = kafka["config"]
    brokers = _brokers(r)
    copies = min(3, brokers)
    wanted = {
        "default.replication.factor": copies,
        "min.insync.replicas": max(1, copies - 1),
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": max(1, copies - 1),
        "auto.create.topics.enable": False,
        "group.min.session.timeout.ms": int(
            1000 * WorkerSettings.model_fields["session_timeout_s"].default
        ),
    }
    for name, value in wanted.items():
        if config.get(name) != value:
            yield f"Kafka's {name} is {config.get(name)}, with {brokers} brokers it has to be {value}"
    pools = {one["metadata"]["name"]: one["spec"] for one in r.kind("KafkaNodePool")}
    if [sorted(spec["roles"]) for _, spec in sorted(pools.items())] != [["broker"], ["controller"]]:
        yield f"node pools {sorted(pools)} are not brokers and controllers"
    for name, spec in pools.items():
        for volume in spec["storage"]["volumes"]:
            if volume["type"] != "persistent-claim" or volume.get("deleteClaim"):
                yield f"node pool {name} does not keep its disks"
        shared = [volume.get("kraftMetadata") for volume in spec["storage"]["volumes"]]
        if "controller" in spec["roles"] and shared != ["shared"]:
            yield f"node pool {name}: metadata lies on {shared}"
        if brokers > 1 and spec["replicas"] != 3:
            yield f"node pool {name} has {spec['replicas']} replicas"
        limits = spec["resources"]
        if limits["requests"]["memory"] != limits["limits"]["memory"]:
            yield f"node pool {name} requests less memory than Java takes"
    metrics = kafka.get("metricsConfig", {}).get("valueFrom", {}).get("configMapKeyRef", {})
    data = r.named("ConfigMap").get(metrics.get("name"), {}).get("data", {})
    if metrics.get("key") not in data:
        yield f"Kafka's metrics are not in ConfigMap {metrics.get('name')}"


PEERS: Final = [
    {"podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "cartwin"}}},
    {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}},
]
"""Who comes to Kafka: our pods, and who scales them."""


def brokers(r: Rendered) -> Iterator[str]:
    """Its version, where its pods may lie, and what they and its operators take."""
    (kafka,) = r.kind("Kafka")
    spec = kafka["spec"]
    version = spec["kafka"].get("version")
    if version != KAFKA_VERSION or spec["kafka"].get("metadataVersion") != "4.3-IV0":
        yield f"Kafka {version} with metadata {spec['kafka'].get('metadataVersion')}; tests run {KAFKA_VERSION}"
    if sorted(spec.get("entityOperator", {})) != ["topicOperator", "userOperator"]:
        yield "nobody makes topics and users"
    for name, one in spec.get("entityOperator", {}).items():
        yield from resources(name, one.get("resources", {}))
    for one in r.kind("KafkaNodePool"):
        name, pool = one["metadata"]["name"], one["spec"]
        yield from resources(name, pool.get("resources", {}))
        if len(pool["storage"]["volumes"]) != 1 or pool["storage"]["type"] != "jbod":
            yield f"node pool {name} has {len(pool['storage']['volumes'])} disks"
        for volume in pool["storage"]["volumes"]:
            if not 2**30 <= amount(volume["size"]) <= 2**42 or volume["id"] != 0:
                yield f"node pool {name} has a disk of {volume['size']}"
        if "broker" in pool["roles"]:
            heap = pool.get("jvmOptions", {})
            if (
                heap.get("-Xms") != heap.get("-Xmx")
                or amount(str(heap.get("-Xmx", "0")).upper() + "i")
                > amount(pool["resources"]["limits"]["memory"]) * 0.6
            ):
                yield f"brokers have a heap of {heap}: their files are kept in what is left"
            if r.name != "local":
                pod = pool.get("template", {}).get("pod", {})
                tolerated = [
                    (t.get("key"), t.get("operator"), t.get("effect"))
                    for t in pod.get("tolerations", ())
                ]
                if tolerated != [("cartwin.io/kafka", "Exists", "NoSchedule")]:
                    yield f"brokers do not get the nodes of theirs: {tolerated}"
                spread = [
                    (s["maxSkew"], s["topologyKey"], s["whenUnsatisfiable"], s["labelSelector"])
                    for s in pod.get("topologySpreadConstraints", ())
                ]
                own = {"matchLabels": {"strimzi.io/pool-name": name}}
                if spread != [(1, "topology.kubernetes.io/zone", "DoNotSchedule", own)]:
                    yield f"brokers are not one a zone: {spread}"


CHECKS: Final = (brokers, catalogue, rights, cluster)
