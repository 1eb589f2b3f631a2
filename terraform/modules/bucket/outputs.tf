output "model_store" {
  description = "What MODEL_STORE is."
  value       = "gs://${google_storage_bucket.models.name}/engine"
}

output "account" {
  description = "What the service accounts scorer and trainer carry as iam.gke.io/gcp-service-account."
  value       = google_service_account.models.email
}
