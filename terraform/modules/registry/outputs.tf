output "url" {
  description = "Prefix of images: docker push URL/worker:0.1.0."
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.this.repository_id}"
}
