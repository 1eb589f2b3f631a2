"""What can be known of a deployment without a cluster or a cloud: `python -m k8s.checks` (make deploy-check).

    kustomize -> rendered objects -> schemas (others' tools), cross-checks (ours): one with another, and all
                                     with what the code says of itself
    terraform -> fmt, init, validate, test          rules, dashboards -> promtool, and a live Prometheus

A cross-check is a function from rendered objects to sentences, one for each fault. `mutation` changes the
files in many small ways and counts what the static part notices.

* rendered   objects of an overlay, and what stands in them
* workloads  pods: selectors, ports, probes, environment, secrets, images, resources, rights, spread
* kafka      topics, users and listeners against the catalogue and what each process uses
* network    who may connect to whom, against who has to
* scaling    who scales what, against partitions
* brokers    MQTT shards: configuration, certificates, addresses
* observed   rules and dashboards against the list of metrics
* images     Dockerfile and compose.yaml
* tools      programs of others, and what to do when one is missing
"""
