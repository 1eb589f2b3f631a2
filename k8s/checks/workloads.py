"""Pods: what is written in one place of an overlay against what it means in another, and against the code."""

import re
import tomllib
from collections.abc import Iterator
from typing import Annotated, Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic_settings import BaseSettings

from ingest.settings import DownlinkSettings, UplinkSettings
from k8s.checks.rendered import (
    KAFKA_PODS,
    KAFKA_PORTS,
    NAME,
    Object,
    Pod,
    Rendered,
    matches,
    values,
)
from k8s.checks.tools import ROOT
from k8s.observability.panels import BOARDS
from models.settings import ScorerSettings, TrainerSettings
from twin.api.settings import ApiSettings
from twin.settings import WorkerSettings

SETTINGS: Final[dict[str, type[BaseSettings]]] = {
    "uplink": UplinkSettings,
    "downlink": DownlinkSettings,
    "worker": WorkerSettings,
    "scorer": ScorerSettings,
    "api": ApiSettings,
    "trainer": TrainerSettings,
}
BY_HAND: Final = {"redis": {"password"}, "mqtt-cars-ca": {"ca.crt"}}
"""Secrets that a person makes (docs/operations.md), with their keys."""
PROBES: Final = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
SERVING: Final = ("uplink", "downlink", "worker", "scorer", "api")
GRACE_S: Final = {
    "uplink": 30,
    "downlink": 30,
    "worker": 60,
    "scorer": 60,
    "api": 30,
    "mosquitto": 60,
}
"""What a process may take to end in order, at least."""
_PATHS: Final = re.compile(r"_(FILE|CA|CERT|KEY|DIR|CACHE)$")
_FLEET: Final = {"MQTT_URLS", "MQTT_CA_FILE", "MQTT_CERT_DIR"}


def selectors(r: Rendered) -> Iterator[str]:
    """Whatever selects pods selects some, and its ports are theirs."""
    for one in r.kind("Service", "PodDisruptionBudget", "PodMonitor"):
        what, spec = f"{one['kind']} {one['metadata']['name']}", one["spec"]
        selector = spec["selector"]
        if one["kind"] == "PodMonitor" and matches(selector, KAFKA_PODS):
            known = [KAFKA_PORTS]
        elif pods := r.selected(selector):
            known = [pod.ports for pod in pods]
        else:
            yield f"{what} selects no pod"
            continue
        wanted = [port["targetPort"] for port in spec.get("ports", ())]
        wanted += [port["port"] for port in spec.get("podMetricsEndpoints", ())]
        for port in wanted:
            if not all(port in ports for ports in known):
                yield f"{what}: not every pod that it selects has a port {port!r}"
    for pod in r.pods:
        for spread in pod.spec.get("topologySpreadConstraints", ()):
            if not matches(spread["labelSelector"], pod.labels):
                yield f"{pod.name} is spread by labels that it does not have"


def own_selector(r: Rendered) -> Iterator[str]:
    """A workload selects its own pods and no other's."""
    for one in r.kind("Deployment", "StatefulSet"):
        name = one["metadata"]["name"]
        picked = [pod.name for pod in r.selected(one["spec"]["selector"])]
        if picked != [name]:
            yield f"{name} selects the pods of {picked}"
    for pod in r.pods:
        if pod.labels.get(NAME) != pod.name:
            yield f"the pods of {pod.name} are named {pod.labels.get(NAME)}"


def services(r: Rendered) -> Iterator[str]:
    """A StatefulSet has its headless service; names that processes use are services; ports lead there."""
    known = r.named("Service")
    for one in r.kind("StatefulSet"):
        name = one["spec"]["serviceName"]
        if known.get(name, {}).get("spec", {}).get("clusterIP") != "None":
            yield f"StatefulSet {one['metadata']['name']}: there is no headless service {name}"
    for pod in r.pods:
        for container in pod.containers:
            for variable, value in values(r, pod, container):
                for host, number in re.findall(
                    r"(?:@|://|^|,)([a-z][a-z0-9.-]*):(\d+)", value or ""
                ):
                    yield from _address(r, f"{pod.name} {variable}", host, int(number))


def _address(r: Rendered, what: str, host: str, port: int) -> Iterator[str]:
    service = host.rpartition(".")[2]
    if service == "kafka-kafka-bootstrap":
        listeners = r.named("Kafka")["kafka"]["spec"]["kafka"]["listeners"]
        if port not in [one["port"] for one in listeners]:
            yield f"{what}: Kafka has no listener at {port}"
        return
    known = r.named("Service").get(service)
    if known is None:
        yield f"{what}: there is no service {service}"
    elif port not in [one["port"] for one in known["spec"]["ports"]]:
        yield f"{what}: service {service} has no port {port}"


def probes(r: Rendered) -> Iterator[str]:
    """Each of our processes is asked at its own endpoints, at the port that its settings say."""
    for pod in r.pods:
        if pod.name not in SERVING:
            continue
        (container,) = pod.spec["containers"]
        known = dict(values(r, pod, container))
        setting, port = ("API_PORT", "http") if pod.name == "api" else ("HEALTH_PORT", "health")
        if str(pod.ports.get(port)) != known.get(setting):
            yield f"{pod.name}: port {port} is {pod.ports.get(port)}, {setting} is {known.get(setting)}"
        host = "API_HOST" if pod.name == "api" else "HEALTH_HOST"
        if known.get(host) != "0.0.0.0":
            yield f"{pod.name}: probes do not reach {host} {known.get(host)}"
        for probe, path in PROBES.items():
            asked = container.get(probe, {}).get("httpGet", {})
            if (asked.get("path"), asked.get("port")) != (path, port):
                yield f"{pod.name}: {probe} asks {asked.get('path')} at {asked.get('port')}"
        start = container.get("startupProbe", {})
        if not 60 <= start.get("periodSeconds", 10) * start.get("failureThreshold", 3) <= 600:
            yield f"{pod.name}: it may not take a minute to start, or may take more than ten"
        alive, ready = container.get("livenessProbe", {}), container.get("readinessProbe", {})
        if not 20 <= alive.get("periodSeconds", 10) * alive.get("failureThreshold", 3) <= 120:
            yield f"{pod.name}: one lost answer ends it, or none"
        if alive.get("timeoutSeconds", 1) != 5 or ready.get("timeoutSeconds", 1) != 5:
            yield f"{pod.name}: a busy process has {alive.get('timeoutSeconds', 1)} s to answer"
        if ready.get("periodSeconds", 10) > 10:
            yield f"{pod.name}: it is not ready for up to {ready.get('periodSeconds', 10)} s more"
    for pod in r.pods:
        if pod.kind in ("StatefulSet", "Deployment"):
            for container in pod.spec["containers"]:
                for probe in ("livenessProbe", "readinessProbe"):
                    asked = container.get(probe, {})
                    at = (asked.get("httpGet") or asked.get("tcpSocket") or {}).get("port")
                    if at not in pod.ports:
                        yield f"{pod.name}: {probe} asks at {at}, which is no port of it"


def environment(r: Rendered) -> Iterator[str]:
    """Every variable is a setting of its process, with a value that the process takes."""
    maps = r.named("ConfigMap")
    for pod in r.pods:
        for container in pod.containers:
            for source in container.get("envFrom", ()):
                name = source["configMapRef"]["name"]
                if name not in maps:
                    yield f"{pod.name}: there is no ConfigMap {name}"
            known = dict(values(r, pod, container))
            for missing in _undefined(container):
                yield f"{pod.name}: $({missing}) is not defined before its use"
            if pod.name in SETTINGS:
                yield from _settings(pod.name, known, _used(container))
            elif pod.name == "fleet" and (strange := known.keys() - _FLEET):
                yield f"fleet: nobody reads {sorted(strange)}"
    for name in SERVING:
        for pod in (pod for pod in r.pods if pod.name == name):
            (container,) = pod.spec["containers"]
            if container.get("args") != [name]:
                yield f"{name} runs {container.get('args')}"


def _used(container: Object) -> set[str]:
    text = " ".join(str(one.get("value", "")) for one in container.get("env", ()))
    return set(re.findall(r"\$\((\w+)\)", text + " ".join(container.get("args", ()))))


def _undefined(container: Object) -> set[str]:
    before: set[str] = set()
    missing: set[str] = set()
    for one in container.get("env", ()):
        missing |= set(re.findall(r"\$\((\w+)\)", one.get("value", ""))) - before
        before.add(one["name"])
    return missing | (set(re.findall(r"\$\((\w+)\)", " ".join(container.get("args", ())))) - before)


def _settings(process: str, known: dict[str, str | None], used: set[str]) -> Iterator[str]:
    fields = SETTINGS[process].model_fields
    # One ConfigMap is for all of them.
    for name, value in known.items():
        field = fields.get(name.lower())
        if field is None:
            if name not in used:
                yield f"{process}: {name} is no setting of it"
            continue
        if value is None or _PATHS.search(name) or "$(" in value:
            continue
        try:
            kind: Any = (
                Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
            )
            TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            yield f"{process}: {name}={value!r} is not accepted: {error.errors()[0]['msg']}"
    required = {
        "KAFKA_BOOTSTRAP",
        "KAFKA_SECURITY_PROTOCOL",
        "KAFKA_SSL_CA",
        "KAFKA_SSL_CERT",
        "KAFKA_SSL_KEY",
    }
    required |= {
        "uplink": {"MQTT_URLS", "MQTT_CA_FILE", "MQTT_CERT_FILE", "MQTT_KEY_FILE", "UPLINK_SHARDS"},
        "downlink": {"MQTT_URLS", "MQTT_CA_FILE", "MQTT_CERT_FILE", "MQTT_KEY_FILE"},
        "worker": {"REDIS_URL", "WORKER_ID", "STORE", "STORE_DIR"},
        "api": {"REDIS_URL"},
        "scorer": {"MODEL_STORE", "MODEL_CACHE", "SCORER_ID"},
        "trainer": {"MODEL_STORE", "TRAINER_CACHE"},
    }[process]
    for name in sorted(required - known.keys()):
        yield f"{process}: {name} is not set"
    if known.get("KAFKA_SECURITY_PROTOCOL") != "SSL":
        yield f"{process}: Kafka is not spoken to in TLS"


def files(r: Rendered) -> Iterator[str]:
    """Every mount has its volume, and every path in a setting lies in a mount."""
    for pod in r.pods:
        claims = [
            claim["metadata"]["name"]
            for one in r.kind("StatefulSet")
            if one["metadata"]["name"] == pod.name
            for claim in one["spec"].get("volumeClaimTemplates", ())
        ]
        volumes = {one["name"]: one for one in pod.spec.get("volumes", ())}
        known = {*volumes, *claims}
        used = {mount["name"] for c in pod.containers for mount in c.get("volumeMounts", ())}
        for name in sorted(used ^ known):
            yield f"{pod.name}: volume {name} is {'not there' if name in used else 'mounted nowhere'}"
        for container in pod.containers:
            mounts = {m["mountPath"]: m for m in container.get("volumeMounts", ())}
            for variable, value in values(r, pod, container):
                if _PATHS.search(variable) and value and value.startswith("/"):
                    yield from _path(pod, volumes, mounts, variable, value)
            if (
                container.get("securityContext", {}).get("readOnlyRootFilesystem")
                and pod.name in SETTINGS
            ) and "/tmp" not in mounts:
                yield f"{pod.name}: its root is read-only and it has no /tmp"


def _path(
    pod: Pod, volumes: dict[str, Object], mounts: dict[str, Object], variable: str, value: str
) -> Iterator[str]:
    place = next(
        (at for at in sorted(mounts, reverse=True) if f"{value}/".startswith(f"{at}/")), None
    )
    if place is None:
        yield f"{pod.name}: {variable}={value} lies in no volume"
        return
    mount = mounts[place]
    if not variable.endswith(("_DIR", "_CACHE")):
        there = _files_of(volumes.get(mount["name"], {}))
        if value.removeprefix(f"{place}/") not in there:
            yield f"{pod.name}: {variable}={value} is not among {sorted(there)}"
    elif mount.get("readOnly") and variable != "MQTT_CERT_DIR":
        yield f"{pod.name}: {variable}={value} cannot be written"


def _files_of(volume: Object) -> set[str]:
    sources = [
        *volume.get("projected", {}).get("sources", ()),
        *([{"secret": volume["secret"]}] if "secret" in volume else ()),
    ]
    return {
        item["path"]
        for source in sources
        for part in source.values()
        for item in part.get("items", ())
    }


def secrets(r: Rendered) -> Iterator[str]:
    """Every secret that is used is made by an operator or named in the guide; none is in git."""
    for one in r.kind("Secret"):
        yield f"Secret {one['metadata']['name']} is in git"
    made: dict[str, set[str]] = {"kafka-cluster-ca-cert": {"ca.crt"}, **BY_HAND}
    made |= {name: {"user.crt", "user.key", "ca.crt"} for name in r.named("KafkaUser")}
    for one in r.kind("Certificate"):
        made[one["spec"]["secretName"]] = {"tls.crt", "tls.key", "ca.crt"}
    for what, name, keys in _secrets_used(r):
        if name not in made:
            yield f"{what}: nobody makes the secret {name}"
        elif missing := keys - made[name]:
            yield f"{what}: secret {name} has no {sorted(missing)}"


def _secrets_used(r: Rendered) -> Iterator[tuple[str, str, set[str]]]:
    for pod in r.pods:
        for container in pod.containers:
            for one in container.get("env", ()):
                if reference := one.get("valueFrom", {}).get("secretKeyRef"):
                    yield pod.name, reference["name"], {reference["key"]}
        for volume in pod.spec.get("volumes", ()):
            if "secret" in volume:
                items = volume["secret"].get("items", ())
                yield pod.name, volume["secret"]["secretName"], {item["key"] for item in items}
            for source in volume.get("projected", {}).get("sources", ()):
                secret = source["secret"]
                yield pod.name, secret["name"], {item["key"] for item in secret.get("items", ())}
    for one in r.kind("TriggerAuthentication"):
        for reference in one["spec"]["secretTargetRef"]:
            yield one["metadata"]["name"], reference["name"], {reference["key"]}
    for one in r.kind("Issuer"):
        if "ca" in one["spec"]:
            yield (
                f"Issuer {one['metadata']['name']}",
                one["spec"]["ca"]["secretName"],
                {"tls.crt", "tls.key"},
            )


def own_identity(r: Rendered) -> Iterator[str]:
    """A process has its own Kafka user, MQTT certificate and service account, and no other's."""
    accounts = r.named("ServiceAccount")
    for pod in r.pods:
        account = pod.spec.get("serviceAccountName")
        if account != pod.name or account not in accounts:
            yield f"{pod.name} runs as service account {account}"
        if pod.spec.get("automountServiceAccountToken") is not False:
            yield f"{pod.name} is given a token of Kubernetes"
        for volume in pod.spec.get("volumes", ()):
            names = [s["secret"]["name"] for s in volume.get("projected", {}).get("sources", ())]
            if volume["name"] == "kafka" and names[:1] != [pod.name]:
                yield f"{pod.name} shows Kafka the certificate of {names[:1]}"
            if volume["name"] == "mqtt" and names[:1] != [f"{pod.name}-mqtt"]:
                yield f"{pod.name} shows brokers the certificate {names[:1]}"
    for one in accounts.values():
        if one.get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount {one['metadata']['name']} hands out tokens"


def confined(r: Rendered) -> Iterator[str]:
    """Pod Security `restricted`, a root that is never written, and bounds on all that grows."""
    for one in r.kind("Namespace"):
        if one["metadata"]["labels"].get("pod-security.kubernetes.io/enforce") != "restricted":
            yield f"Namespace {one['metadata']['name']} does not enforce Pod Security restricted"
    for one in r.objects:
        if one["kind"] != "Namespace" and one["metadata"].get("namespace") != "cartwin":
            yield f"{one['kind']} {one['metadata']['name']} is in {one['metadata'].get('namespace')}"
    for pod in r.pods:
        context = pod.spec.get("securityContext", {})
        if not (context.get("runAsNonRoot") and context.get("runAsUser", 0) > 0):
            yield f"{pod.name} may run as root"
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{pod.name} has no seccomp profile"
        if context.get("fsGroup") != context.get("runAsUser"):
            yield f"{pod.name}: its files belong to group {context.get('fsGroup')}"
        if pod.spec.get("enableServiceLinks") is not False:
            yield f"{pod.name} is told every service as a variable"
        if not GRACE_S.get(pod.name, 0) <= pod.spec.get("terminationGracePeriodSeconds", 30) <= 120:
            yield f"{pod.name} is killed before it can end in order, or never"
        for volume in pod.spec.get("volumes", ()):
            if (
                "emptyDir" in volume
                and not 0 < amount(volume["emptyDir"].get("sizeLimit", 0)) <= 2**35
            ):
                yield f"{pod.name}: volume {volume['name']} may fill the node"
            if "hostPath" in volume:
                yield f"{pod.name} writes to its node"
        for container in pod.containers:
            own = container.get("securityContext", {})
            wanted = {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            if own != wanted:
                yield f"{pod.name} is not confined: {own}"
            yield from resources(pod.name, container.get("resources", {}))


def resources(name: str, told: Object) -> Iterator[str]:
    """What a container requests and may use at most is said, in proportion."""
    for part in ("cpu", "memory"):
        least, most = (told.get(side, {}).get(part) for side in ("requests", "limits"))
        if least is None or most is None:
            yield f"{name}: no request or no limit of {part}"
        elif not amount(least) <= amount(most) <= 10 * amount(least):
            yield f"{name}: it requests {least} of {part} and may use {most}"
        elif amount(most) > (8 if part == "cpu" else 2**33):
            yield f"{name}: it may use {most} of {part}"


_UNITS: Final = {
    "m": 1e-3,
    "": 1.0,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
}


def amount(text: str | float) -> float:
    """Cores or bytes of a Kubernetes quantity."""
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text))
    assert found is not None, text
    return float(found[1]) * _UNITS[found[2]]


def images(r: Rendered) -> Iterator[str]:
    """Ours have this version; others have one that does not move."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    targets = {"uplink": "ingest", "downlink": "ingest", "scorer": "models", "trainer": "models"}
    for pod in r.pods:
        for container in pod.containers:
            name, _, tag = container["image"].rpartition(":")
            if "/" not in name:
                yield f"{pod.name}: image {container['image']} names no registry"
            elif name.startswith("ghcr.io/cartwin/"):
                if tag != version:
                    yield f"{pod.name}: image {tag}, this is version {version}"
                if name.rpartition("/")[2] != targets.get(pod.name, pod.name):
                    yield f"{pod.name} runs image {name}"
            elif not re.fullmatch(r"v?\d+\.\d+(\.\d+)?[-\w.]*", tag):
                yield f"{pod.name}: image {container['image']} may be another one tomorrow"


def disrupted(r: Rendered) -> Iterator[str]:
    """What serves has a budget that lets one pod go at a time, and lies on more than one node."""
    budgets = {one["metadata"]["name"]: one["spec"] for one in r.kind("PodDisruptionBudget")}
    for pod in r.pods:
        if pod.name not in SERVING:
            continue
        budget = budgets.get(pod.name)
        if budget is None or budget.get("maxUnavailable") != 1:
            yield f"{pod.name}: no budget of one pod at a time"
        if budget is not None and not matches(budget["selector"], pod.labels):
            yield f"the budget of {pod.name} is for others"
        if budget is not None and budget.get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield f"{pod.name}: pods that are not ready keep a node from being emptied"
        spread = [
            (one["topologyKey"], one["maxSkew"], one["whenUnsatisfiable"])
            for one in pod.spec.get("topologySpreadConstraints", ())
        ]
        places = ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
        if spread != [(place, 1, "ScheduleAnyway") for place in places]:
            yield f"{pod.name} is not spread over zones and nodes: {spread}"


EXPECTED: Final = {*SETTINGS, "redis", "mosquitto"}
_CORES, _BYTES, _DISK = 6.0, 12 * 2**30, 40 * 2**30
"""What the overlay `local` asks of its one node at most."""


def complete(r: Rendered) -> Iterator[str]:
    """Every process is there once, in every overlay, and belongs to cartwin."""
    names = sorted(pod.name for pod in r.pods)
    wanted = sorted(EXPECTED | (set() if r.name == "production" else {"fleet"}))
    if names != wanted:
        yield f"workloads are {names}, not {wanted}"
    for pod in r.pods:
        if pod.labels.get("app.kubernetes.io/part-of") != "cartwin":
            yield f"the pods of {pod.name} are not part of cartwin, so Kafka does not let them in"
    boards = r.named("ConfigMap").get("cartwin-dashboards", {})
    if r.name != "local":
        if sorted(boards.get("data", {})) != sorted(f"{board.uid}.json" for board in BOARDS):
            yield f"dashboards are {sorted(boards.get('data', {}))}"
        if boards.get("metadata", {}).get("labels", {}).get("grafana_dashboard") != "1":
            yield "Grafana does not find the dashboards"
        if not r.kind("PrometheusRule") or not r.kind("PodMonitor"):
            yield "nobody watches"


def of_its_own(r: Rendered) -> Iterator[str]:
    """What differs between overlays: the store of models and who may use it, and one node's means."""
    store = r.named("ConfigMap").get("models", {}).get("data", {}).get("MODEL_STORE")
    remote = f"gs://cartwin-{r.name}-models/engine"
    if store != ("/var/lib/cartwin/models" if r.name == "local" else remote):
        yield f"MODEL_STORE is {store}"
    account = {"iam.gke.io/gcp-service-account": f"models@cartwin-{r.name}.iam.gserviceaccount.com"}
    for name, one in r.named("ServiceAccount").items():
        may = name in ("scorer", "trainer") and r.name != "local"
        if one["metadata"].get("annotations", {}) != (account if may else {}):
            yield f"ServiceAccount {name} is {one['metadata'].get('annotations')} to Google"
    if r.name != "local":
        return
    if more := [pod.name for pod in r.pods if (pod.replicas or 1) != 1]:
        yield f"one node runs {more} more than once"
    asked = [
        (pod.replicas or 1, c["resources"]["requests"])
        for pod in r.pods
        for c in pod.spec["containers"]
    ]
    asked += [
        (one["spec"]["replicas"], one["spec"]["resources"]["requests"])
        for one in r.kind("KafkaNodePool")
    ]
    cores, memory = (sum(n * amount(one[part]) for n, one in asked) for part in ("cpu", "memory"))
    if cores > _CORES or memory > _BYTES:
        yield f"one node is asked for {cores:.1f} cores and {memory / 2**30:.1f} GiB"
    disks = [
        volume["size"]
        for one in r.kind("KafkaNodePool")
        for volume in one["spec"]["storage"]["volumes"]
    ]
    if sum(map(amount, disks)) > _DISK:
        yield f"one node is asked for disks of {disks}"


def jobs(r: Rendered) -> Iterator[str]:
    """What ends, ends in time and is not begun again by itself."""
    for one in r.kind("Job", "CronJob"):
        name, spec = one["metadata"]["name"], one["spec"]
        body = spec["jobTemplate"]["spec"] if one["kind"] == "CronJob" else spec
        if not 600 <= body.get("activeDeadlineSeconds", 0) <= 43_200:
            yield f"{name} may run for {body.get('activeDeadlineSeconds')} s"
        if body.get("backoffLimit", 6) > 1:
            yield f"{name} is tried {body.get('backoffLimit')} times"
        if body["template"]["spec"].get("restartPolicy") != "Never":
            yield f"{name} is started again in place"
        kept = (spec.get("successfulJobsHistoryLimit", 3), spec.get("failedJobsHistoryLimit", 1))
        if one["kind"] == "CronJob" and (
            spec.get("suspend") is not True
            or spec.get("concurrencyPolicy") != "Forbid"
            or max(kept) > 5
        ):
            yield f"{name} runs by itself, beside itself, or is kept {kept} times"
        if one["kind"] == "Job" and not 3600 <= spec.get("ttlSecondsAfterFinished", 0) <= 604_800:
            yield f"{name} is kept for {spec.get('ttlSecondsAfterFinished')} s"
    for pod in r.pods:
        if pod.name == "trainer" and pod.spec["containers"][0].get("args") != [
            "train", "--topic", "telemetry", "--acceleration", "1",
        ]:  # fmt: skip
            yield f"trainer runs {pod.spec['containers'][0].get('args')}"
        if pod.name == "fleet":
            told = [container.get("args", [""]) for container in pod.containers]
            if [one[0] for one in told] != ["certificates", "drive"] or told[0][1] != told[1][1]:
                yield f"fleet runs {told}"


def claims(r: Rendered) -> Iterator[str]:
    """Disks are there, of a size, and written by one pod."""
    known = r.named("PersistentVolumeClaim")
    used: set[str] = set()
    for pod in r.pods:
        for volume in pod.spec.get("volumes", ()):
            name = volume.get("persistentVolumeClaim", {}).get("claimName")
            if name is not None:
                used.add(name)
                if name not in known:
                    yield f"{pod.name}: there is no claim {name}"
            config = volume.get("configMap", {}).get("name")
            if config is not None and config not in r.named("ConfigMap"):
                yield f"{pod.name}: there is no ConfigMap {config}"
            for source in ("secret", "projected"):
                if source in volume and volume[source].get("defaultMode") != 0o440:
                    yield f"{pod.name}: volume {volume['name']} has mode {volume[source].get('defaultMode')}"
    for name in sorted(known.keys() - used):
        yield f"nobody uses the claim {name}"
    specs = [one["spec"] for one in known.values()]
    for one in r.kind("StatefulSet"):
        own = one["spec"].get("volumeClaimTemplates", ())
        specs += [claim["spec"] for claim in own]
        if one["metadata"]["name"] in ("worker", "mosquitto") and len(own) != 1:
            yield f"{one['metadata']['name']} keeps nothing"
        if (
            one["metadata"]["name"] in SERVING
            and one["spec"].get("podManagementPolicy") != "Parallel"
        ):
            yield f"{one['metadata']['name']}: its pods wait for each other"
    for spec in specs:
        size = amount(spec["resources"]["requests"]["storage"])
        if spec["accessModes"] != ["ReadWriteOnce"] or not 2**30 <= size <= 2**37:
            yield f"a disk of {spec['resources']['requests']['storage']} is {spec['accessModes']}"


CHECKS: Final = (
    complete, of_its_own, jobs, claims,
    selectors, own_selector, services, probes, environment, files, secrets, own_identity,
    confined, images, disrupted,
)  # fmt: skip
