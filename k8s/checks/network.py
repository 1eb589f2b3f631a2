"""Who may connect to whom, from all NetworkPolicies together, against who has to. Both ends must allow it."""

from collections.abc import Iterator
from typing import Final

from k8s.checks.rendered import KAFKA_PODS, Object, Pod, Rendered, matches

NEEDED: Final = {
    *(
        (name, "kafka", 9093)
        for name in ("uplink", "downlink", "worker", "scorer", "api", "trainer")
    ),
    ("uplink", "mosquitto", 8884),
    ("downlink", "mosquitto", 8884),
    ("worker", "redis", 6379),
    ("api", "redis", 6379),
    ("fleet", "mosquitto", 8883),
}
FROM_OUTSIDE: Final = {
    ("mosquitto", 8883): "anybody",
    ("uplink", 9100): "monitoring",
    ("downlink", 9100): "monitoring",
    ("worker", 9100): "monitoring",
    ("scorer", 9100): "monitoring",
    ("api", 8080): "monitoring",
}
_PORTS: Final = (6379, 8080, 8883, 8884, 9093, 9100)
_ZONE: Final = "kubernetes.io/metadata.name"


def flows(r: Rendered) -> Iterator[str]:
    """What is needed is allowed at both ends, and nothing else between our pods."""
    policies = [one["spec"] for one in r.kind("NetworkPolicy")]
    if not policies:
        if r.name != "local":
            yield "everybody may connect to everybody"
        return
    names = {pod.name for pod in r.pods}
    kafka = Pod("Kafka", "kafka", None, KAFKA_PODS, {"containers": []})
    for source in r.pods:
        for target in [*r.pods, kafka]:
            for port in _PORTS:
                needed = (source.name, target.name, port) in NEEDED
                allowed = _leaves(policies, source, target, port) and _enters(
                    policies, source, target, port
                )
                if needed and not allowed:
                    yield f"{source.name} cannot reach {target.name} at {port}"
                elif allowed and not needed:
                    yield f"{source.name} may reach {target.name} at {port}"
    for (name, port), who in FROM_OUTSIDE.items():
        if name in names:
            yield from _outside(r, policies, name, port, who)
    for one in r.kind("NetworkPolicy"):
        for rule in (*one["spec"].get("ingress", ()), *one["spec"].get("egress", ())):
            for peer in (*rule.get("to", ()), *rule.get("from", ())):
                if "namespaceSelector" not in peer and matches(
                    peer.get("podSelector", {"x": "y"}), {}
                ):
                    yield f"policy {one['metadata']['name']} is about every pod"
            if not all(port.get("protocol") in ("TCP", "UDP") for port in rule.get("ports", ({},))):
                yield f"policy {one['metadata']['name']} is about every port"
        if not set(one["spec"]["policyTypes"]) >= {
            side
            for side, key in (("Ingress", "ingress"), ("Egress", "egress"))
            if key in one["spec"]
        }:
            yield f"policy {one['metadata']['name']} says more than it is for"
    for pod in r.pods:
        if not any(_resolves(policy) for policy in _of(policies, pod, "Egress")):
            yield f"{pod.name} cannot resolve names"
        if not _of(policies, pod, "Ingress"):
            yield f"{pod.name} may be reached by everybody"


def object_store(r: Rendered) -> Iterator[str]:
    """Who loads models reaches the store; nobody else leaves the cluster, and nobody its private nets."""
    policies = [one["spec"] for one in r.kind("NetworkPolicy")]
    for pod in r.pods if policies else ():
        blocks = [
            (peer["ipBlock"], {port["port"] for port in rule.get("ports", ())})
            for policy in _of(policies, pod, "Egress")
            for rule in policy.get("egress", ())
            for peer in rule.get("to", ())
            if "ipBlock" in peer
        ]
        if (pod.name in ("scorer", "trainer")) != bool(blocks):
            yield f"{pod.name} {'cannot leave' if not blocks else 'may leave'} the cluster"
        for block, ports in blocks:
            if block["cidr"] == "0.0.0.0/0":
                private = {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"}
                if ports != {443} or set(block.get("except", ())) != private:
                    yield f"{pod.name} reaches more than the store: {block} at {sorted(ports)}"
            elif (block["cidr"], ports) != ("169.254.169.252/32", {988}):
                yield f"{pod.name} reaches {block['cidr']} at {sorted(ports)}"


def _of(policies: list[Object], pod: Pod, direction: str) -> list[Object]:
    return [
        policy
        for policy in policies
        if direction in policy["policyTypes"] and matches(policy["podSelector"], pod.labels)
    ]


def _leaves(policies: list[Object], source: Pod, target: Pod, port: int) -> bool:
    return any(
        _takes(rule, "to", target, port)
        for policy in _of(policies, source, "Egress")
        for rule in policy.get("egress", ())
    )


def _enters(policies: list[Object], source: Pod, target: Pod, port: int) -> bool:
    if target.kind == "Kafka":  # Strimzi's own policies, from the listener's peers
        return port == 9093
    return any(
        _takes(rule, "from", source, port)
        for policy in _of(policies, target, "Ingress")
        for rule in policy.get("ingress", ())
    )


def _takes(rule: Object, side: str, pod: Pod, port: int) -> bool:
    if "ports" in rule and port not in [one["port"] for one in rule["ports"]]:
        return False
    if side not in rule:
        return True
    return any(
        "podSelector" in peer
        and "namespaceSelector" not in peer
        and matches(peer["podSelector"], pod.labels)
        for peer in rule[side]
    )


def _outside(r: Rendered, policies: list[Object], name: str, port: int, who: str) -> Iterator[str]:
    (pod,) = (pod for pod in r.pods if pod.name == name)
    for policy in _of(policies, pod, "Ingress"):
        for rule in policy.get("ingress", ()):
            if port not in [one["port"] for one in rule.get("ports", ())]:
                continue
            if who == "anybody" and "from" not in rule:
                return
            for peer in rule.get("from", ()):
                zone = peer.get("namespaceSelector", {}).get("matchLabels", {})
                if zone == {_ZONE: who}:
                    return
    yield f"{who} cannot reach {name} at {port}"


def _resolves(policy: Object) -> bool:
    for rule in policy.get("egress", ()):
        zones = [
            peer.get("namespaceSelector", {}).get("matchLabels", {}).get(_ZONE)
            for peer in rule.get("to", ())
        ]
        ports = {(one["port"], one["protocol"]) for one in rule.get("ports", ())}
        if zones == ["kube-system"] and ports == {(53, "UDP"), (53, "TCP")}:
            return True
    return False


CHECKS: Final = (flows, object_store)
