output "name" {
  description = "Name of the cluster, once its pools are there."
  value       = google_container_cluster.this.name
  depends_on  = [google_container_node_pool.this]
}

output "endpoint" {
  description = "Address of the control plane."
  value       = google_container_cluster.this.endpoint
}

output "ca_certificate" {
  description = "What the control plane is known by (base64)."
  value       = one(google_container_cluster.this.master_auth[*].cluster_ca_certificate)
  sensitive   = true
}

output "workload_pool" {
  description = "Pool of the pods' identities, for who gives them rights."
  value       = google_container_cluster.this.workload_identity_config[0].workload_pool
}

output "credentials" {
  description = "The command that kubectl needs first."
  value       = "gcloud container clusters get-credentials ${google_container_cluster.this.name} --region ${var.region} --project ${var.project}"
}
