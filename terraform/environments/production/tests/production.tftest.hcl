mock_provider "google" {
  mock_resource "google_container_cluster" {
    defaults = {
      endpoint = "203.0.113.1"
    }
  }
  mock_resource "google_service_account" {
    defaults = {
      email = "models@cartwin-production.iam.gserviceaccount.com"
      name  = "projects/cartwin-production/serviceAccounts/models@cartwin-production.iam.gserviceaccount.com"
    }
  }
}
mock_provider "helm" {}

variables {
  project        = "cartwin-production"
  administrators = { office = "203.0.113.0/24" }
}

run "it_fits_the_overlay" {
  assert {
    condition     = module.bucket.model_store == "gs://cartwin-production-models/engine"
    error_message = "k8s/overlays/production names this store"
  }
  assert {
    condition     = module.bucket.account == "models@cartwin-production.iam.gserviceaccount.com"
    error_message = "k8s/overlays/production gives scorer and trainer this account"
  }
  assert {
    condition     = startswith(output.next["1 credentials"], "gcloud container clusters get-credentials cartwin-production ")
    error_message = "the first command is told"
  }
}
