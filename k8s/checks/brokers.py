"""MQTT brokers: their files are what the product writes, certificates fit names, uplinks fit shards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from k8s.checks.rendered import Rendered
from k8s.checks.tools import ROOT
from k8s.checks.workloads import amount
from twin.local.access import DOWNLINK, UPLINK
from twin.local.broker_config import BrokerSettings, Kind, Need, files

NEED: Final = Need(rate=5_000, outage_s=600)
"""What one shard keeps for its uplink (docs/operations.md)."""
_NAMES: Final = {"uplink-mqtt": UPLINK, "downlink-mqtt": DOWNLINK}


def configuration(_: Rendered) -> Iterator[str]:
    """Of both kinds of broker, as `cartwin broker config` writes it today."""
    kinds: tuple[Kind, ...] = ("mosquitto", "hivemq")
    for kind in kinds:
        settings = BrokerSettings(
            NEED,
            Path(f"/{kind}/data"),
            "tls",
            "0.0.0.0",
            8883,
            tls=Path(f"/{kind}/certs"),
        )
        for name, text in files(kind, settings).items():
            path = ROOT / "k8s" / "components" / kind / name
            if not path.exists() or path.read_text() != text:
                yield f"{path.relative_to(ROOT)} is not what `cartwin broker config` writes"


def mounted(r: Rendered) -> Iterator[str]:
    """A broker finds its files where its configuration says that they are."""
    for pod in r.pods:
        if pod.kind != "StatefulSet" or "services" not in pod.ports:
            continue
        name = pod.name
        maps = [one for key, one in r.named("ConfigMap").items() if key.startswith(f"{name}-")]
        main = "mosquitto.conf" if name == "mosquitto" else "config.xml"
        if [sorted(one["data"]) for one in maps] != [sorted((main, "acl"))]:
            yield f"{name} has no configuration: {[sorted(one['data']) for one in maps]}"
        if pod.ports != {"cars": 8883, "services": 8884}:
            yield f"{name} listens at {pod.ports}"
        (container,) = pod.spec["containers"]
        mounts = {m["mountPath"]: (m["name"], m.get("subPath")) for m in container["volumeMounts"]}
        wanted = {
            f"/{name}/data": ("data", None),
            f"/{name}/certs": ("certs", None),
            f"/{name}/data/acl": ("config", "acl"),
        }
        if any(mounts.get(path) != there for path, there in wanted.items()):
            yield f"{name} mounts {mounts}"
        if name == "mosquitto" and (
            mounts.get("/mosquitto/config") != ("config", None)
            or container.get("command") != ["mosquitto", "-c", "/mosquitto/config/mosquitto.conf"]
        ):
            yield f"{name} runs {container.get('command')}"
        parts = [
            (source["secret"]["name"], item["key"], item["path"])
            for volume in pod.spec["volumes"]
            if volume["name"] == "certs"
            for source in volume["projected"]["sources"]
            for item in source["secret"]["items"]
        ]
        if sorted(parts) != [
            ("mqtt-cars-ca", "ca.crt", "cars-ca.pem"),
            ("mqtt-server", "tls.crt", "server.pem"),
            ("mqtt-server", "tls.key", "server.key"),
            ("mqtt-services-ca", "ca.crt", "services-ca.pem"),
        ]:
            yield f"{name} is given {parts}"
        memory = amount(container["resources"]["limits"]["memory"])
        if memory < 1.5 * NEED.payload_bytes:
            yield f"{name} cannot keep what it is to: {NEED.payload_bytes} bytes in {memory:.0f}"
        user = pod.spec["securityContext"].get("runAsUser")
        if name == "mosquitto" and user != 1883:
            yield f"{name} runs as {user}, its image is made for 1883"


def shards(r: Rendered) -> Iterator[str]:
    """One address for each shard in the order of their numbers, one uplink for each address."""
    urls = r.named("ConfigMap").get("shards", {}).get("data", {}).get("MQTT_URLS", "").split(",")
    brokers = [pod for pod in r.pods if pod.kind == "StatefulSet" and "services" in pod.ports]
    if len(brokers) != 1:
        yield f"brokers are {[pod.name for pod in brokers]}"
        return
    (broker,) = brokers
    wanted = [
        f"mqtts://{broker.name}-{number}.{broker.name}:{broker.ports['services']}"
        for number in range(broker.replicas or 0)
    ]
    if urls != wanted:
        yield f"MQTT_URLS is {urls}, the shards are {wanted}"
    for pod in r.pods:
        if pod.name == "uplink":
            if pod.kind != "StatefulSet" or pod.replicas != len(urls):
                yield f"{pod.replicas} uplinks read {len(urls)} shards"
            told = [
                one
                for c in pod.containers
                for one in c.get("env", ())
                if one["name"] == "UPLINK_SHARDS"
            ]
            wanted_path = "metadata.labels['apps.kubernetes.io/pod-index']"
            if [one["valueFrom"]["fieldRef"]["fieldPath"] for one in told] != [wanted_path]:
                yield "an uplink does not read the shard of its number"


def certificates(r: Rendered) -> Iterator[str]:
    """Issuers exist, names are those that clients use, services have their own name."""
    issuers = r.named("Issuer")
    known = {one["metadata"]["name"]: one["spec"] for one in r.kind("Certificate")}
    for name, spec in known.items():
        reference = spec["issuerRef"]
        if reference["kind"] != "Issuer" or reference["name"] not in issuers:
            yield f"certificate {name}: there is no {reference['kind']} {reference['name']}"
        if spec["secretName"] != name:
            yield f"certificate {name} lies in secret {spec['secretName']}"
        if spec["privateKey"].get("algorithm") != "ECDSA":
            yield f"certificate {name} has a key of {spec['privateKey'].get('algorithm')}"
        hours = [int(spec[part].removesuffix("h")) for part in ("renewBefore", "duration")]
        if not 24 * 7 <= hours[0] < hours[1] <= (90_000 if spec.get("isCA") else 9_000):
            yield f"certificate {name} lives {spec['duration']}, renewed {spec['renewBefore']} before"
        if spec.get("isCA"):
            if reference["name"] != "selfsigned" or spec["privateKey"]["rotationPolicy"] != "Never":
                yield f"authority {name} does not sign itself, or changes its key"
        elif spec["privateKey"].get("encoding") != "PKCS8":
            yield f"certificate {name}: its key is no PKCS8"
    for name, common_name in _NAMES.items():
        spec = known.get(name, {})
        told = (spec.get("commonName"), spec.get("usages"), spec.get("issuerRef", {}).get("name"))
        if told != (common_name, ["digital signature", "client auth"], "mqtt-services-ca"):
            yield f"certificate {name} is {told}"
    server = known.get("mqtt-server", {})
    if (
        server.get("usages") != ["digital signature", "server auth"]
        or server.get("issuerRef", {}).get("name") != "mqtt-ca"
    ):
        yield f"the brokers' certificate is for {server.get('usages')}"
    for pod in r.pods:
        if pod.kind == "StatefulSet" and "services" in pod.ports:
            names = {f"*.{pod.name}", f"*.{pod.name}.cartwin.svc", "mqtt", "mqtt.cartwin.svc"}
            names |= {"mqtt.cartwin.example"} if r.name == "production" else set()
            if missing := names ^ set(server.get("dnsNames", ())):
                yield f"the brokers' certificate is not for {sorted(missing)}"
    for name, one in issuers.items():
        secret = one["spec"].get("ca", {}).get("secretName")
        if secret is not None and not known.get(secret, {}).get("isCA"):
            yield f"issuer {name} signs by {secret}, which is no authority"
    if r.name == "production" and "mqtt-cars-ca" in known:
        yield "the authority of simulated cars opens the door of production"


def doors(r: Rendered) -> Iterator[str]:
    """Cars come in by one service, at the cars' port alone."""
    spec = r.named("Service").get("mqtt", {}).get("spec", {})
    if [port.get("targetPort") for port in spec.get("ports", ())] != ["cars"]:
        yield f"service mqtt has ports {spec.get('ports')}"
    for one in r.kind("Service"):
        outside = one["spec"].get("type", "ClusterIP") != "ClusterIP"
        if outside and (one["metadata"]["name"] != "mqtt" or r.name != "production"):
            yield f"service {one['metadata']['name']} is reached from outside"
    if r.name == "production" and spec.get("externalTrafficPolicy") != "Local":
        yield "cars lose their address on the way in"
    if r.name == "production" and spec.get("type") != "LoadBalancer":
        yield "cars cannot reach production"


CHECKS: Final = (configuration, mounted, shards, certificates, doors)
