# Models lie here, by version. Scorers and trainer use one account of Google's, models@PROJECT, which they are
# by workload identity: their Kubernetes service accounts carry its name (k8s/overlays).
resource "google_storage_bucket" "models" {
  name                        = var.name
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  versioning {
    enabled = true
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      num_newer_versions = 5
      with_state         = "ARCHIVED"
    }
  }
}

resource "google_service_account" "models" {
  account_id   = "models"
  project      = var.project
  display_name = "Scorers and trainer"
}

resource "google_storage_bucket_iam_member" "models" {
  bucket = google_storage_bucket.models.name
  role   = "roles/storage.objectUser"
  member = "serviceAccount:${google_service_account.models.email}"
}

resource "google_service_account_iam_member" "pods" {
  for_each = var.readers

  service_account_id = google_service_account.models.name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.workload_pool}[${each.value}]"
}
