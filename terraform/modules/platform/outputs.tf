output "next" {
  description = "What a person does next."
  value = {
    secrets = "docs/operations.md, Install, 3"
    deploy  = "kubectl apply -k k8s/overlays/production"
    api     = "kubectl -n ${var.namespace} port-forward svc/api 8080:80   # http://127.0.0.1:8080"
    grafana = "kubectl -n ${helm_release.prometheus.namespace} port-forward svc/prometheus-grafana 3000:80   # http://127.0.0.1:3000"
  }
}
