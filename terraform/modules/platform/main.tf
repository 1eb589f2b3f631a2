# The operators that k8s/ is made of. Each in its namespace; Kubernetes makes cartwin's own with the manifests.
resource "helm_release" "cert_manager" {
  name             = "cert-manager"
  repository       = "https://charts.jetstack.io"
  chart            = "cert-manager"
  version          = var.versions.cert_manager
  namespace        = "cert-manager"
  create_namespace = true
  atomic           = true

  set = [
    { name = "crds.enabled", value = "true" },
  ]
}

resource "helm_release" "strimzi" {
  name             = "strimzi"
  repository       = "oci://quay.io/strimzi-helm"
  chart            = "strimzi-kafka-operator"
  version          = var.versions.strimzi
  namespace        = "strimzi"
  create_namespace = true
  atomic           = true

  set = [
    { name = "watchAnyNamespace", value = "true" },
    { name = "replicas", value = "2" },
  ]
}

resource "helm_release" "keda" {
  name             = "keda"
  repository       = "https://kedacore.github.io/charts"
  chart            = "keda"
  version          = var.versions.keda
  namespace        = "keda"
  create_namespace = true
  atomic           = true

  set = [
    { name = "watchNamespace", value = var.namespace },
  ]
}

resource "helm_release" "prometheus" {
  name             = "prometheus"
  repository       = "https://prometheus-community.github.io/helm-charts"
  chart            = "kube-prometheus-stack"
  version          = var.versions.prometheus
  namespace        = "monitoring"
  create_namespace = true
  atomic           = true

  # Monitors, rules and dashboards of every namespace, whatever their labels.
  values = [yamlencode({
    prometheus = {
      prometheusSpec = {
        retention                               = "${var.retention_days}d"
        podMonitorSelectorNilUsesHelmValues     = false
        serviceMonitorSelectorNilUsesHelmValues = false
        ruleSelectorNilUsesHelmValues           = false
        storageSpec = {
          volumeClaimTemplate = {
            spec = {
              accessModes = ["ReadWriteOnce"]
              resources   = { requests = { storage = "50Gi" } }
            }
          }
        }
      }
    }
    grafana = {
      sidecar = { dashboards = { enabled = true, label = "grafana_dashboard", searchNamespace = "ALL" } }
    }
  })]
}
