mock_provider "helm" {}

run "operators_are_those_that_the_manifests_are_for" {
  assert {
    condition     = startswith(helm_release.strimzi.version, "1.2.") && helm_release.strimzi.chart == "strimzi-kafka-operator"
    error_message = "Strimzi 1.2: kafka.strimzi.io/v1, Kafka 4.3.1"
  }
  assert {
    condition     = alltrue([for release in [helm_release.cert_manager, helm_release.strimzi, helm_release.keda, helm_release.prometheus] : release.atomic && release.create_namespace])
    error_message = "a release that fails leaves nothing behind"
  }
  assert {
    condition     = [helm_release.cert_manager.namespace, helm_release.strimzi.namespace, helm_release.keda.namespace, helm_release.prometheus.namespace] == ["cert-manager", "strimzi", "keda", "monitoring"]
    error_message = "NetworkPolicies name keda and monitoring"
  }
  assert {
    condition     = [helm_release.cert_manager.name, helm_release.strimzi.name, helm_release.keda.name, helm_release.prometheus.name] == ["cert-manager", "strimzi", "keda", "prometheus"]
    error_message = "services are named after their release: the output next names prometheus-grafana"
  }
  assert {
    condition     = [helm_release.cert_manager.chart, helm_release.keda.chart, helm_release.prometheus.chart] == ["cert-manager", "keda", "kube-prometheus-stack"]
    error_message = "each release is its chart"
  }
  assert {
    condition     = { for one in helm_release.cert_manager.set : one.name => one.value } == { "crds.enabled" = "true" }
    error_message = "certificates need their custom resources"
  }
  assert {
    condition     = { for one in helm_release.strimzi.set : one.name => one.value } == { watchAnyNamespace = "true", replicas = "2" }
    error_message = "Strimzi watches cartwin's namespace, and one operator may go"
  }
  assert {
    condition     = { for one in helm_release.keda.set : one.name => one.value } == { watchNamespace = "cartwin" }
    error_message = "KEDA watches cartwin's namespace"
  }
  assert {
    condition     = yamldecode(helm_release.prometheus.values[0]).prometheus.prometheusSpec.retention == "30d"
    error_message = "as long as objectives are"
  }
  assert {
    condition     = !yamldecode(helm_release.prometheus.values[0]).prometheus.prometheusSpec.podMonitorSelectorNilUsesHelmValues && !yamldecode(helm_release.prometheus.values[0]).prometheus.prometheusSpec.ruleSelectorNilUsesHelmValues && !yamldecode(helm_release.prometheus.values[0]).prometheus.prometheusSpec.serviceMonitorSelectorNilUsesHelmValues
    error_message = "monitors and rules of cartwin are taken"
  }
  assert {
    condition     = yamldecode(helm_release.prometheus.values[0]).grafana.sidecar.dashboards.enabled && yamldecode(helm_release.prometheus.values[0]).grafana.sidecar.dashboards.label == "grafana_dashboard" && yamldecode(helm_release.prometheus.values[0]).grafana.sidecar.dashboards.searchNamespace == "ALL"
    error_message = "dashboards are found by the label that k8s/components/metrics gives them"
  }
}

run "an_old_strimzi_is_refused" {
  command = plan
  variables {
    versions = { strimzi = "0.47.0", keda = "2.18.0", cert_manager = "v1.19.0", prometheus = "79.0.0" }
  }
  expect_failures = [var.versions]
}

run "a_month_cannot_be_judged_in_a_week" {
  command = plan
  variables {
    retention_days = 7
  }
  expect_failures = [var.retention_days]
}
